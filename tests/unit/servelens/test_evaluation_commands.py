"""``servelens evaluation …`` as a user runs it, and the same by HTTP."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from fastapi import FastAPI
from fastapi.testclient import TestClient

from dashboard import problems
from evaluators.runs.api import router
from evaluators.runs.evaluation_store import EvaluationStore
from evaluators.runs.run_history import RunHistory, Trigger
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.evaluation_jobs import scoring_lease
from servelens.assembly.evaluations import open_evaluations
from servelens.assembly.requested_evaluation import requested_evaluation
from servelens.assembly.tables import build_catalog
from servelens.cli import cli
from servelens.clock import SystemClock
from servelens.errors import Conflict, Invalid, InvalidSettings, Missing, ServelensError
from servelens.settings_file import load_settings
from tests.unit.evaluators.inference_rows import payload_rows
from tests.unit.evaluators.workers import misbehaving
from tests.unit.servelens.control_settings import backend

BLOCK = {"endpoint": "chat", "evaluator": "misbehaving", "options": {"target": "request"}}


class Installation:
    """A settings file with one endpoint and one evaluation, its database and tables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "servelens.yaml"
        self.write([{"endpoint": "chat", "evaluator": "misbehaving", "every_s": 5}])
        self.settings = load_settings(self.config)
        self.clock = SystemClock()
        self.database = build_database(self.settings)
        store = open_endpoint_store(self.settings, self.database, self.clock)
        self.catalog = build_catalog(self.settings, store)
        open_evaluations(self.settings, self.catalog, self.database, self.clock)
        self.tables = self.catalog.tables("chat")

    def write(self, evaluations: list[dict[str, Any]]) -> None:
        file = {
            "data_dir": str(self.folder / "data"),
            "endpoints": [{"name": "chat", "config": {"served_entities": [backend()]}}],
            "evaluations": evaluations,
        }
        self.config.write_text(yaml.safe_dump(file))

    @property
    def store(self) -> EvaluationStore:
        return EvaluationStore(self.database, self.clock)

    def run(self, *arguments: str) -> Result:
        command, *rest = arguments
        return CliRunner().invoke(cli, ["evaluation", command, "--config", str(self.config), *rest])

    def json(self, *arguments: str) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def error(self, *arguments: str) -> ServelensError:
        result = self.run(*arguments)
        assert isinstance(result.exception, ServelensError), result.output
        return result.exception

    def block(self, **changes: Any) -> str:
        file = self.folder / "block.yaml"
        file.write_text(yaml.safe_dump({**BLOCK, **changes}))
        return str(file)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    misbehaving.install(tmp_path / "site")
    made = Installation(tmp_path)
    yield made
    made.database.dispose()


def test_evaluations_are_listed_made_held_asked_for_and_removed(here: Installation) -> None:
    made = here.json("create", here.block(cron="0 7 * * mon-fri", sampling={"fraction": 0.5}))
    assert (made["name"], made["cron"], made["every_s"]) == (
        "chat-misbehaving-request",
        "0 7 * * mon-fri",
        None,
    )
    assert (made["source"], made["sampling"]["fraction"]) == ("api", 0.5)
    assert here.json("pause", "chat-misbehaving")["state"] == "paused"
    listed = {each["name"]: each["state"] for each in here.json("list")["evaluations"]}
    assert listed == {"chat-misbehaving": "paused", "chat-misbehaving-request": "scheduled"}
    assert here.json("resume", "chat-misbehaving")["state"] == "scheduled"
    here.json("run", "chat-misbehaving")
    assert here.store.get("chat-misbehaving").runs_requested == 1
    text = here.run("list").stdout
    assert "every 5 s" in text
    assert "0 7 * * mon-fri" in text
    assert here.run("delete", "chat-misbehaving-request").exit_code == 0
    assert "settings file" in str(here.error("delete", "chat-misbehaving"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endpoint": "chatt"}, "endpoint: there is no endpoint 'chatt'. Use one of: chat."),
        ({"evaluator": "toxicty"}, "evaluator: there is no evaluator 'toxicty'. Use one of: "),
        ({"every_s": 5, "cron": "* * * * *"}, "every_s: there is 'cron' as well. Leave one of them out."),
        ({"cron": "61 * * * *"}, "cron: '61' is not within 0 to 59."),
        ({"sampling": {"quota": 0}}, "sampling.quota: "),
        ({"sampling": {"per": "1 moon"}}, "sampling.per: "),
        ({"devices": ["cpu"], "options": {"device": "cpu"}}, "devices: "),
        ({"max_rows_per_run": 0}, "max_rows_per_run: "),
        ({"schedule": 3}, "schedule: "),
        ({"name": "runs"}, "name: "),
        ({"scores_as": "toxicity"}, "scores_as: 'toxicity' is the name of another evaluator."),
        ({"scores_as": "a b"}, "scores_as: is not a name."),
        ({"options": {"api_key": "**********"}}, "options: '**********' stands for a secret"),
    ],
)
def test_a_mistake_is_one_clear_error_when_it_is_made(
    here: Installation, changes: dict[str, Any], message: str
) -> None:
    error = here.error("create", here.block(**changes))
    assert isinstance(error, Invalid)
    assert str(error).startswith(message)


def test_a_secret_is_kept_and_never_shown(here: Installation) -> None:
    options = {"url": "http://judge/v1", "api_key": "sk-swordfish"}
    made = here.json("create", here.block(name="judged", options=options))
    assert made["options"] == {"url": "http://judge/v1", "api_key": "**********"}
    history = RunHistory(here.database, here.clock)
    app = FastAPI()
    app.include_router(router(here.store, history, lambda body: requested_evaluation(body, here.catalog)))
    problems.install(app)
    with TestClient(app) as client:
        told = [client.get("/api/evaluations").text, client.get("/api/evaluations/judged").text]
        read = client.get("/api/evaluations/judged").json()["options"]
        changed = client.patch("/api/evaluations/judged", json={"options": {**read, "model": "m"}})
        told.append(changed.text)
        stolen = client.patch(
            "/api/evaluations/judged", json={"options": {**read, "url": "http://elsewhere/v1"}}
        )
        assert (changed.status_code, stolen.status_code) == (200, 422)
    told += [here.run("list").output, here.run("list", "--json").output, stolen.text]
    assert "swordfish" not in "".join(told)
    assert here.store.get("judged").evaluation.spec.options == {**options, "model": "m"}


def test_a_backfill_finds_an_evaluation_by_the_name_of_its_scores(here: Installation) -> None:
    here.json("create", here.block(scores_as="shouting", options={}))
    here.tables.payload.append(payload_rows(3, datetime.now(UTC) - timedelta(minutes=1)))
    assert here.store.get("chat-shouting").evaluation.score_name == "shouting"
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    done = here.json("backfill", "--endpoint", "chat", "--evaluator", "shouting", "--since", since)
    assert done["scored"] == 3
    assert here.tables.scores.scan().collect()["evaluator"].unique().to_list() == ["shouting"]


def test_a_mistake_in_the_settings_file_ends_the_scheduler_with_its_place(here: Installation) -> None:
    here.write(
        [{"endpoint": "chat", "evaluator": "misbehaving"}, {"endpoint": "chatt", "evaluator": "misbehaving"}]
    )
    settings = load_settings(here.config)
    with pytest.raises(InvalidSettings, match=r"^evaluations\[1\]\.endpoint: there is no endpoint 'chatt'"):
        open_evaluations(settings, here.catalog, here.database, here.clock)
    here.write([{"endpoint": "chat", "evaluator": "misbehaving"}] * 2)
    with pytest.raises(InvalidSettings, match="two of the evaluation 'chat-misbehaving'"):
        load_settings(here.config)


def test_a_period_is_filled_and_the_runs_are_listed(here: Installation) -> None:
    long_ago = datetime(2026, 3, 4, 10, tzinfo=UTC)
    here.tables.payload.append(payload_rows(30, long_ago, response_text=["fine"] * 29 + ["raise"]))
    here.tables.payload.append(payload_rows(5, long_ago + timedelta(days=2)))
    arguments = [
        "--endpoint",
        "chat",
        "--evaluator",
        "misbehaving",
        "--since",
        "2026-03-04",
        "--until",
        "2026-03-05",
    ]
    assert here.json("backfill", *arguments) == {"scored": 29, "unscored": {"model_error": 1}, "left": 0}
    assert here.json("backfill", *arguments)["scored"] == 0
    assert here.json("backfill", *arguments, "--rescore")["scored"] == 29
    scores = here.tables.scores.scan().collect()
    assert scores["databricks_request_id"].n_unique() == scores.height == 30
    runs = here.json("runs", "--name", "chat-misbehaving")["runs"]
    assert [(run["trigger"], run["rows"], run["tokens"]) for run in runs] == [("backfill", 30, 58)] * 2
    assert "model_error 1" in here.run("runs").stdout


def test_a_backfill_needs_a_period_a_name_and_to_be_alone(here: Installation) -> None:
    here.tables.payload.append(payload_rows(1, datetime(2026, 3, 4, tzinfo=UTC)))

    def backfill(
        name: str = "misbehaving", endpoint: str = "chat", since: str = "2026-03-01"
    ) -> ServelensError:
        return here.error("backfill", "--endpoint", endpoint, "--evaluator", name, "--since", since)

    assert isinstance(backfill(endpoint="chatt"), Missing)
    assert "--evaluator: there is no evaluation or evaluator 'toxicty'" in str(backfill("toxicty"))
    assert "--since" in str(backfill(since="2999-01-01"))
    with scoring_lease(here.database, "chat", "misbehaving@response").held():
        assert isinstance(backfill(), Conflict)
    result = here.run("backfill", "--endpoint", "chat", "--evaluator", "misbehaving", "--since", "yesterday")
    assert result.exit_code == 2


@pytest.fixture
def client(here: Installation) -> Iterator[TestClient]:
    app = FastAPI()
    problems.install(app)
    history = RunHistory(here.database, here.clock)
    app.include_router(router(here.store, history, partial(requested_evaluation, catalog=here.catalog)))
    with TestClient(app) as opened:
        yield opened


def test_the_api_makes_changes_and_removes(client: TestClient) -> None:
    made = client.post("/api/evaluations", json=BLOCK)
    assert made.status_code == 201
    assert (made.json()["every_s"], made.json()["changed_by"], made.json()["last_run"]) == (
        30.0,
        "console",
        None,
    )
    address = "/api/evaluations/chat-misbehaving-request"
    changed = client.patch(address, json={"cron": "*/5 * * * *", "max_rows_per_run": 10}).json()
    assert (changed["cron"], changed["every_s"], changed["max_rows_per_run"]) == ("*/5 * * * *", None, 10)
    changed = client.patch(address, json={"every_s": 7, "max_rows_per_run": None}).json()
    assert (changed["cron"], changed["every_s"], changed["max_rows_per_run"]) == (None, 7.0, None)
    assert changed["options"] == {"target": "request"}
    stale = client.patch(address, json={"every_s": 8}, headers={"if-match": "1"})
    assert stale.status_code == 409
    assert client.patch(address, json={"endpoint": "other"}).status_code == 422
    assert client.post(f"{address}/pause").json()["state"] == "paused"
    assert client.post(f"{address}/resume").json()["state"] == "scheduled"
    assert client.post(f"{address}/run").status_code == 202
    assert client.delete(address).status_code == 204
    assert client.get(address).status_code == 404
    assert [each["name"] for each in client.get("/api/evaluations").json()["evaluations"]] == [
        "chat-misbehaving"
    ]


def test_the_api_lists_runs_and_says_what_is_wrong(client: TestClient, here: Installation) -> None:
    history = RunHistory(here.database, here.clock)
    with history.recorded(
        endpoint="chat",
        evaluator="misbehaving",
        target="response",
        device="cpu",
        from_version=None,
        evaluation="chat-misbehaving",
        trigger=Trigger.MANUAL,
    ) as progress:
        progress.update(to_version=3, scored=5, unscored_reasons={"no_text": 1}, skipped=4, lag_p99_s=1.5)
    (run,) = client.get("/api/evaluations/chat-misbehaving/runs").json()["runs"]
    assert (run["rows"], run["skipped"], run["lag_p99_s"], run["trigger"]) == (6, 4, 1.5, "manual")
    assert client.get("/api/evaluations/runs", params={"endpoint": "chat"}).json()["runs"] == [run]
    assert client.get("/api/evaluations/chat-misbehaving").json()["last_run"] == run
    refused = client.post("/api/evaluations", json={**BLOCK, "endpoint": "chatt"})
    assert refused.status_code == 422
    assert "'chatt'" in refused.text
    assert client.post("/api/evaluations", json={**BLOCK, "name": "chat-misbehaving"}).status_code == 409
    assert client.post("/api/evaluations/chatt/run").status_code == 404
