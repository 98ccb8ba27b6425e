"""The HTTP API over a real database and real tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from experiments.api import ExperimentControl, router
from experiments.experiment import Experiment, Variant, experiment_from_dict
from experiments.guardrail import Guardrail
from experiments.lifecycle import Lifecycle
from servelens.errors import Conflict, Invalid, ServelensError
from tests.unit.experiments.analysis.test_analyzer import Scene
from tests.unit.experiments.records import experiment


class Api(Scene):
    """The scene, its lifecycle, and what the API was asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.lifecycle = Lifecycle(self.database, self.clock)
        self.asked: list[tuple[str, str, str, str]] = []
        self.requester: str | None = None
        self.control = ExperimentControl(
            lifecycle=self.lifecycle,
            parse=self._parse,
            promote=lambda name, by, reason: self._decide("promoted", name, by, reason),
            abort=lambda name, by, reason: self._decide("aborted", name, by, reason),
            decisions=lambda name, limit: [{"decision": "hold", "of": name}] * limit,
        )

    def _parse(self, body: Mapping[str, Any]) -> Experiment:
        try:
            return experiment_from_dict(dict(body))
        except (KeyError, TypeError) as error:
            raise Invalid(str(error), field="body", fix="Send an experiment.") from error

    def _decide(self, decision: str, name: str, by: str, reason: str) -> None:
        self.asked.append((decision, name, by, reason))
        if reason == "held":
            raise Conflict("held by webhook", field="rollout.webhooks", fix="Ask again.")


@pytest.fixture
def scene(tmp_path: Path) -> Api:
    return Api(tmp_path)


@pytest.fixture
async def client(scene: Api) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(router(scene.store, lambda _experiment: scene.analyzer, scene.control))

    @app.exception_handler(ServelensError)
    async def problem(_request: Request, error: ServelensError) -> JSONResponse:
        return JSONResponse({"detail": str(error), "field": error.field}, status_code=error.status)

    @app.middleware("http")
    async def who(request: Request, call_next: Any) -> Any:
        request.state.requester = scene.requester
        return await call_next(request)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://console") as found:
        yield found
    scene.database.dispose()


async def test_list_look_and_history(client: httpx.AsyncClient, scene: Api) -> None:
    assert (await client.get("/api/experiments")).json() == {"experiments": []}
    scene.lifecycle.create(experiment(), by="ann")
    (listed,) = (await client.get("/api/experiments")).json()["experiments"]
    assert (listed["name"], listed["state"], listed["verdict"]) == ("tone", "running", None)
    assert experiment_from_dict(listed["definition"]) == experiment()

    scene.write(scene.traffic(experiment(), range(100)))
    looked = (await client.post("/api/experiments/tone/analysis")).json()
    assert looked["units"] == 100
    assert (await client.get("/api/experiments/tone")).json()["report"] == looked
    history = (await client.get("/api/experiments/tone/history", params={"limit": 5})).json()
    assert history == {"experiment": "tone", "reports": [looked]}
    (listed,) = (await client.get("/api/experiments")).json()["experiments"]
    assert listed["verdict"] == looked["verdict"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/history"),
        ("GET", "/decisions"),
        ("POST", "/analysis"),
        ("POST", "/start"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/stop"),
        ("POST", "/promote"),
        ("POST", "/abort"),
        ("PATCH", ""),
    ],
)
async def test_an_unknown_experiment_is_missing(
    client: httpx.AsyncClient, scene: Api, method: str, path: str
) -> None:
    scene.lifecycle.create(experiment(), by="ann")
    body = {"share": 5} if method == "PATCH" else None
    answer = await client.request(method, f"/api/experiments/nobody{path}", json=body)
    assert answer.status_code == 404
    assert "nobody" in answer.json()["detail"]
    assert "Use one of: tone" in answer.json()["detail"]


async def post(client: httpx.AsyncClient, path: str, body: Any = None, **headers: str) -> httpx.Response:
    return await client.post(f"/api/experiments{path}", json=body, headers=headers)


async def test_created_paused_resumed_and_stopped(client: httpx.AsyncClient, scene: Api) -> None:
    created = await post(client, "", experiment().to_dict())
    assert created.status_code == 201
    assert (created.json()["state"], created.json()["changed_by"]) == ("running", "console")
    scene.requester = "ann"
    for path, state in (("pause", "paused"), ("resume", "running"), ("stop", "stopped")):
        answer = await post(client, f"/tone/{path}")
        assert (answer.status_code, answer.json()["state"]) == (200, state)
        assert answer.json()["changed_by"] == "ann"
    shown = (await client.get("/api/experiments/tone")).json()
    assert (shown["outcome"], shown["reason"], shown["report"]) == ("stopped", None, None)
    assert experiment_from_dict(shown["definition"]) == experiment()


async def test_a_draft_is_started_later(client: httpx.AsyncClient, scene: Api) -> None:
    draft = await post(client, "", {**experiment().to_dict(), "start": False})
    assert (draft.json()["state"], draft.json()["started_at"]) == ("draft", None)
    look = await post(client, "/tone/analysis")
    assert (look.status_code, look.json()["field"]) == (409, "state")
    started = await post(client, "/tone/start")
    assert (started.json()["state"], started.json()["revision"]) == ("running", 2)
    reason = await post(client, "/tone/stop", {"reason": "enough"})
    assert reason.json()["reason"] == "enough"


@pytest.mark.parametrize(
    ("body", "field"),
    [({"start": "yes"}, "start"), ({}, "body"), ({"share": 0}, "share")],
)
async def test_what_cannot_be_created_is_refused_by_field(
    client: httpx.AsyncClient, scene: Api, body: dict[str, Any], field: str
) -> None:
    answer = await post(client, "", {**experiment().to_dict(), **body} if body else {})
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert scene.lifecycle.standings() == []


async def test_a_name_that_is_taken_and_units_that_are_taken_are_conflicts(
    client: httpx.AsyncClient, scene: Api
) -> None:
    await post(client, "", experiment().to_dict())
    again = await post(client, "", experiment().to_dict())
    assert (again.status_code, again.json()["field"]) == (409, "name")
    other = await post(client, "", experiment(name="other").to_dict())
    assert (other.status_code, other.json()["field"]) == (409, "experiments[other].share_from")


async def test_share_and_weights_change(client: httpx.AsyncClient, scene: Api) -> None:
    scene.lifecycle.create(experiment(share=10), by="ann")

    async def change(body: Any, **headers: str) -> tuple[int, Any]:
        answer = await client.patch("/api/experiments/tone", json=body, headers=headers)
        return answer.status_code, answer.json()

    status, changed = await change({"share": 20})
    assert (status, changed["definition"]["share"], changed["definition"]["phase"]) == (200, 20, 0)
    weights = {"champion": 30, "challenger": 70}
    status, changed = await change({"weights": weights, "share": 40}, **{"if-match": '"2"'})
    assert (status, changed["definition"]["share"], changed["definition"]["phase"]) == (200, 40, 1)
    assert scene.store.weights("tone")[1] == weights
    for body, headers, refused in (
        ({"share": 50}, {"if-match": "2"}, (409, "revision")),
        ({"share": 50}, {"if-match": "x"}, (422, "If-Match")),
        ({"share": 0}, {}, (422, "share")),
        ({}, {}, (422, "share")),
        ({"weights": {"champion": 30, "challenger": 60}}, {}, (422, "weights")),
        ({"weights": {"nobody": 100}}, {}, (422, "weights.nobody")),
    ):
        status, answer = await change(body, **headers)
        assert (status, answer["field"]) == refused
    assert (await change({"alpha": 0.1}))[0] == 422
    assert scene.lifecycle.standing("tone").revision == 3


async def test_only_an_ab_experiments_weights_are_peoples(client: httpx.AsyncClient, scene: Api) -> None:
    arms = {"control": Variant("a", "a", 95), "treatments": (Variant("b", "b", 5),)}
    guarded = {"guardrails": (Guardrail("error_rate", 0.01),)}
    scene.lifecycle.create(experiment(kind="canary", **arms, **guarded), by="ann")
    answer = await client.patch("/api/experiments/tone", json={"weights": {"a": 50, "b": 50}})
    assert (answer.status_code, answer.json()["field"]) == (422, "weights")
    assert (await client.patch("/api/experiments/tone", json={"share": 50})).status_code == 200


async def test_promote_and_abort_ask_for_a_reason_and_go_where_they_are_decided(
    client: httpx.AsyncClient, scene: Api
) -> None:
    scene.lifecycle.create(experiment(), by="ann")
    scene.requester = "bob"
    for path in ("promote", "abort"):
        for body in (None, {"reason": "  "}):
            answer = await post(client, f"/tone/{path}", body)
            assert (answer.status_code, answer.json()["field"]) == (422, "reason")
    assert scene.asked == []
    promoted = await post(client, "/tone/promote", {"reason": "better "})
    assert (promoted.status_code, promoted.json()["name"]) == (200, "tone")
    held = await post(client, "/tone/abort", {"reason": "held"})
    assert (held.status_code, held.json()["field"]) == (409, "rollout.webhooks")
    assert scene.asked == [("promoted", "tone", "bob", "better"), ("aborted", "tone", "bob", "held")]


async def test_decisions_are_listed(client: httpx.AsyncClient, scene: Api) -> None:
    scene.lifecycle.create(experiment(), by="ann")
    answer = await client.get("/api/experiments/tone/decisions", params={"limit": 2})
    assert answer.json() == {"experiment": "tone", "decisions": [{"decision": "hold", "of": "tone"}] * 2}
