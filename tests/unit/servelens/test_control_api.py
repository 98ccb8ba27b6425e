"""The control plane over a real socket: Databricks' paths, shapes and errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, HTTPException, Request

from experiments.experiment import Experiment, Variant
from servelens.assembly.endpoints import build_endpoint
from servelens.clock import SystemClock
from servelens.control.api import ControlPlane, not_offered, router
from servelens.control.open_metrics import LastMinute
from servelens.control.proxy_workers import ProxyWorkers, WorkerState
from servelens.control.store import EndpointStore
from servelens.database import Database
from servelens.secret_references import MASK, Secrets
from serving_proxy.app import listen
from serving_proxy.authentication import Requester
from serving_proxy.publication import Published
from serving_proxy.routing import Snapshot
from tests.new_database import new_database
from tests.unit.servelens.control_settings import REFERENCE, backend, openai_model, routes

BASE = "/api/2.0/serving-endpoints"


@dataclass
class Api:
    """The routes on a server, and what they are made of."""

    database: Database
    keys: dict[str, Requester] = field(default_factory=dict)
    experiments: list[Experiment] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    client: httpx.Client = field(default_factory=httpx.Client)

    def __post_init__(self) -> None:
        clock = SystemClock()
        self.store = EndpointStore(self.database, clock)
        self.workers = ProxyWorkers(self.database, clock)
        control = ControlPlane(
            self.store, self.workers, Secrets(self.secrets), build_endpoint, lambda: self.experiments
        )
        self.app = FastAPI()
        minute = LastMinute(lambda: [], clock)
        self.app.include_router(router(control, minute, self._admin, lambda: Snapshot({}), self._published))
        self.app.include_router(not_offered(self._admin))

    async def _admin(self, request: Request) -> Requester | None:
        if not self.keys:
            return None
        caller = self.keys.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if caller is None:
            raise HTTPException(401, "This needs an API key.", {"www-authenticate": "Bearer"})
        if "admin" not in caller.scopes:
            raise HTTPException(403, f"The API key '{caller.name}' has no scope 'admin'.")
        return caller

    async def _published(self) -> list[Published]:
        return []

    def live(self, *, worker: str = "w", failing: dict[str, str] | None = None) -> None:
        """A worker serves everything that there is now."""
        self.workers.report(WorkerState(worker, self.store.generation(), failing or {}))

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return self.client.request(method, path, json=body, headers=headers)

    def refused(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str, str]:
        answer = self.call(method, path, body, **headers)
        assert set(answer.json()) == {"error_code", "message"}
        return answer.status_code, answer.json()["error_code"], answer.json()["message"]

    def create(self, name: str = "chat", *entities: dict[str, Any], **more: Any) -> dict[str, Any]:
        config = {"served_entities": list(entities) or [backend()], **more.pop("config", {})}
        answer = self.call("POST", BASE, {"name": name, "config": config, **more})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    database = new_database(tmp_path / "servelens.db")
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=url) as client:
        api = Api(database, client=client)
        server = uvicorn.Server(uvicorn.Config(api.app, log_config=None, lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        deadline = time.monotonic() + 10
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        yield api
        server.should_exit = True
        thread.join(10)
    listener.close()
    database.dispose()


def test_a_new_endpoint_is_under_way_until_every_worker_serves_it(api: Api) -> None:
    api.live()
    created = api.create(description="d", tags=[{"key": "team", "value": "a"}])
    assert created["state"] == {"ready": "NOT_READY", "config_update": "IN_PROGRESS"}
    assert created["pending_config"]["config_version"] == 1
    assert created["pending_config"]["start_time"] == created["last_updated_timestamp"]
    assert created["creator"] == "anonymous"
    api.live()
    ready = api.call("GET", f"{BASE}/chat").json()
    assert ready["state"] == {"ready": "READY", "config_update": "NOT_UPDATING"}
    assert "pending_config" not in ready
    assert ready["id"] == created["id"]
    assert ready["description"] == "d"
    assert ready["tags"] == [{"key": "team", "value": "a"}]
    assert ready["config"]["traffic_config"]["routes"] == [
        {"served_entity_name": "champion", "served_model_name": "champion", "traffic_percentage": 100}
    ]
    (entity,) = ready["config"]["served_entities"]
    assert entity["state"]["deployment"] == "DEPLOYMENT_READY"
    assert entity["entity_version"] == "1"


def test_an_update_shows_the_served_and_the_pending_configuration(api: Api) -> None:
    api.create()
    api.live()
    api.live(worker="slow")
    updated = api.call("PUT", f"{BASE}/chat/config", {"served_entities": [backend("new")]}).json()
    assert updated["state"] == {"ready": "READY", "config_update": "IN_PROGRESS"}
    assert updated["config"]["config_version"] == 1
    assert updated["config"]["served_entities"][0]["name"] == "champion"
    assert updated["pending_config"]["config_version"] == 2
    assert updated["pending_config"]["served_entities"][0]["name"] == "new"
    api.live()
    assert api.call("GET", f"{BASE}/chat").json()["state"]["config_update"] == "IN_PROGRESS"
    api.live(worker="slow")
    through = api.call("GET", f"{BASE}/chat").json()
    assert through["state"]["config_update"] == "NOT_UPDATING"
    assert through["config"]["config_version"] == 2


def test_a_dead_worker_and_one_that_left_hold_nothing_up(api: Api) -> None:
    api.live(worker="left")
    api.create()
    api.live()
    assert api.call("GET", f"{BASE}/chat").json()["state"]["config_update"] == "IN_PROGRESS"
    api.workers.leave("left")
    assert api.call("GET", f"{BASE}/chat").json()["state"]["config_update"] == "NOT_UPDATING"


def test_a_worker_that_cannot_build_the_endpoint_has_failed_the_update(api: Api) -> None:
    api.create()
    api.live(failing={"chat": "endpoint 'chat': no secret"})
    failed = api.call("GET", f"{BASE}/chat").json()
    assert failed["state"] == {"ready": "NOT_READY", "config_update": "UPDATE_FAILED"}
    assert failed["config"]["served_entities"][0]["state"] == {
        "deployment": "DEPLOYMENT_FAILED",
        "deployment_state_message": "endpoint 'chat': no secret",
    }


def test_tags_change_while_nothing_is_updated(api: Api) -> None:
    api.create()
    api.live()
    answer = api.call("PATCH", f"{BASE}/chat/tags", {"add_tags": [{"key": "a", "value": "b"}]})
    assert answer.json() == {"tags": [{"key": "a", "value": "b"}]}
    shown = api.call("GET", f"{BASE}/chat").json()
    assert shown["state"]["config_update"] == "NOT_UPDATING"
    assert shown["config"]["config_version"] == 1


def test_gateway_and_rate_limits(api: Api) -> None:
    api.create()
    gateway = {"usage_tracking_config": {"enabled": True}, "fallback_config": {"enabled": True}}
    assert api.call("PUT", f"{BASE}/chat/ai-gateway", gateway).json() == gateway
    limits = {"rate_limits": [{"calls": 7, "key": "user", "renewal_period": "minute"}]}
    assert api.call("PUT", f"{BASE}/chat/rate-limits", limits).json() == limits
    shown = api.call("GET", f"{BASE}/chat").json()
    assert shown["ai_gateway"] == {**gateway, **limits}
    assert shown["pending_config"]["config_version"] == 3


def test_the_list_also_under_the_path_that_mlflow_calls(api: Api) -> None:
    api.create("a")
    api.create("b", openai_model(openai_api_key_plaintext="sk-1"))
    for path in (BASE, f"{BASE}/"):
        answer = api.client.get(path, follow_redirects=False)
        assert [endpoint["name"] for endpoint in answer.json()["endpoints"]] == ["a", "b"]
        assert answer.json()["endpoints"][1]["task"] == "llm/v1/chat"
        assert "sk-1" not in answer.text


def test_secrets_are_never_shown_and_references_are(api: Api) -> None:
    api.secrets["SERVELENS_SECRET_LLM_OPENAI"] = "sk-behind"
    api.create("chat", openai_model(openai_api_key=REFERENCE))
    api.create("own", backend(api_key="sk-own"))
    shown = api.call("GET", f"{BASE}/chat").json()["config"]["served_entities"][0]["external_model"]
    assert shown["openai_config"] == {"openai_api_key": REFERENCE}
    entity = api.call("GET", f"{BASE}/own").json()["config"]["served_entities"][0]
    assert entity["backend"]["api_key"] == MASK
    for name in ("chat", "own"):
        text = api.call("GET", f"{BASE}/{name}").text
        assert "sk-" not in text
    same = api.call("PUT", f"{BASE}/own/config", {"served_entities": [entity]})
    assert same.status_code == 200, same.text
    assert api.store.get("own").settings["config"]["served_entities"][0]["backend"]["api_key"] == "sk-own"


def test_a_reference_that_nobody_can_resolve_is_refused(api: Api) -> None:
    config = {"served_entities": [openai_model(openai_api_key=REFERENCE)]}
    status, code, message = api.refused("POST", BASE, {"name": "chat", "config": config})
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "SERVELENS_SECRET_LLM_OPENAI" in message


def test_mistakes_have_databricks_codes(api: Api) -> None:
    api.create()
    new = {"name": "chat", "config": {"served_entities": [backend()]}}
    assert api.refused("POST", BASE, new)[:2] == (409, "RESOURCE_ALREADY_EXISTS")
    for method, path, body in (
        ("GET", "", None),
        ("DELETE", "", None),
        ("PUT", "/config", {"served_entities": [backend()]}),
        ("PUT", "/ai-gateway", {}),
        ("PATCH", "/tags", {}),
        ("GET", "/openapi", None),
        ("GET", "/metrics", None),
    ):
        status, code, message = api.refused(method, f"{BASE}/nope{path}", body)
        assert (status, code) == (404, "RESOURCE_DOES_NOT_EXIST")
        assert "'nope'" in message
    status, code, message = api.refused("PUT", f"{BASE}/chat/config", {"traffic_config": routes(champion=60)})
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert message.startswith("traffic_config.routes: traffic_percentage adds up to 60")
    broken = api.client.post(BASE, content=b"{", headers={"content-type": "application/json"})
    assert broken.json()["error_code"] == "MALFORMED_REQUEST"
    assert api.refused("POST", BASE, [1])[:2] == (400, "MALFORMED_REQUEST")
    assert api.refused("PUT", f"{BASE}/chat/config")[:2] == (400, "MALFORMED_REQUEST")


def test_what_no_worker_could_serve_is_not_stored(api: Api) -> None:
    entity = {**backend(), "overrides": {"body": {"stream": True}}}
    status, code, message = api.refused(
        "POST", BASE, {"name": "chat", "config": {"served_entities": [entity]}}
    )
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "stream" in message
    assert api.store.all() == []


def test_what_databricks_has_and_servelens_has_not_says_why(api: Api) -> None:
    for method, path, word in (
        ("GET", "/api/2.0/permissions/serving-endpoints/x", "scopes of API keys"),
        ("POST", f"{BASE}/pt", "provisioned throughput"),
        ("PUT", f"{BASE}/pt/chat/config", "provisioned throughput"),
        ("GET", f"{BASE}/chat/served-models/a/logs", "logs are where they run"),
        ("GET", f"{BASE}/chat/served-models/a/build-logs", "logs are where they run"),
        ("PATCH", f"{BASE}/chat/notifications", "no notifications"),
        ("GET", "/api/2.0/clusters/list", "No API found for 'GET /api/2.0/clusters/list'"),
    ):
        status, code, message = api.refused(method, path, {} if method != "GET" else None)
        assert (status, code) == (404, "ENDPOINT_NOT_FOUND")
        assert word in message


def test_a_change_made_against_an_older_version_is_a_conflict(api: Api) -> None:
    api.create()
    body = {"served_entities": [backend("new")]}
    assert api.call("PUT", f"{BASE}/chat/config", body, **{"if-match": '"1"'}).status_code == 200
    refused = api.refused("PUT", f"{BASE}/chat/config", body, **{"if-match": "1"})
    assert refused[:2] == (409, "RESOURCE_CONFLICT")
    assert api.refused("PUT", f"{BASE}/chat/config", body, **{"if-match": "x"})[0] == 400


def test_what_a_running_experiment_needs_cannot_go(api: Api) -> None:
    api.create("chat", backend("a"), backend("b"), config={"traffic_config": routes(a=50, b=50)})
    api.experiments = [
        Experiment(
            name="ab",
            endpoint="chat",
            control=Variant("a", "a", 50),
            treatments=(Variant("b", "b", 50),),
            primary_metric="success_rate",
            salt="ab",
        )
    ]
    for method, path, body in (
        ("PUT", "/config", {"served_entities": [backend("a")]}),
        ("DELETE", "", None),
    ):
        status, code, message = api.refused(method, f"{BASE}/chat{path}", body)
        assert (status, code) == (409, "RESOURCE_CONFLICT")
        assert "'ab'" in message
    more = {"served_entities": [backend("a"), backend("b"), backend("c")]}
    assert api.call("PUT", f"{BASE}/chat/config", more).status_code == 200
    api.experiments = []
    assert api.call("DELETE", f"{BASE}/chat").json() == {}
    assert api.refused("GET", f"{BASE}/chat")[0] == 404


def test_what_a_shadow_experiment_watches_stays_a_shadow(api: Api) -> None:
    mirrored = {"shadows": [{"served_entity_name": "b"}]}
    api.create("chat", backend("a"), backend("b"), config=mirrored)
    api.experiments = [
        Experiment("silent", "chat", Variant("a", "a"), (Variant("b", "b"),), "success_rate", kind="shadow")
    ]
    entities = [backend("a"), backend("b")]
    for body, what in (
        ({"served_entities": [backend("a")], "shadows": []}, "served entity 'b'"),
        ({"served_entities": entities, "shadows": [], "traffic_config": routes(a=100)}, "'b' as a shadow"),
    ):
        status, code, message = api.refused("PUT", f"{BASE}/chat/config", body)
        assert (status, code) == (409, "RESOURCE_CONFLICT")
        assert f"'silent', which has not ended, needs {what}" in message
        assert "servelens experiment stop silent" in message
    more = {"served_entities": [*entities, backend("c")], "traffic_config": routes(a=50, c=50)}
    assert api.call("PUT", f"{BASE}/chat/config", more).status_code == 200


def test_with_keys_in_use_only_an_admin_is_let_in(api: Api) -> None:
    api.keys = {
        "sl-admin": Requester("ann", frozenset({"admin"}), "1"),
        "sl-invoke": Requester("bob", frozenset({"invoke"}), "2"),
    }
    for method, path in (
        ("GET", BASE),
        ("POST", BASE),
        ("GET", f"{BASE}/chat"),
        ("DELETE", f"{BASE}/chat"),
        ("PUT", f"{BASE}/chat/config"),
        ("PUT", f"{BASE}/chat/ai-gateway"),
        ("PUT", f"{BASE}/chat/rate-limits"),
        ("PATCH", f"{BASE}/chat/tags"),
        ("GET", f"{BASE}/chat/metrics"),
        ("GET", f"{BASE}/chat/openapi"),
        ("GET", "/api/2.0/clusters/list"),
    ):
        answer = api.call(method, path, {})
        assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHENTICATED")
        assert answer.headers["www-authenticate"] == "Bearer"
        refused = api.refused(method, path, {}, authorization="Bearer sl-invoke")
        assert refused[:2] == (403, "PERMISSION_DENIED")
    body = {"name": "chat", "config": {"served_entities": [backend()]}}
    assert api.call("POST", BASE, body, authorization="Bearer sl-admin").json()["creator"] == "ann"
    assert api.call("GET", "/.well-known/databricks-config").json() == {}


def test_the_database_being_away_is_said(api: Api, tmp_path: Path) -> None:
    api.database.dispose()
    for path in tmp_path.glob("servelens.db*"):
        path.unlink()
    (tmp_path / "servelens.db").mkdir()
    assert api.refused("GET", BASE)[:2] == (503, "TEMPORARILY_UNAVAILABLE")


def test_openapi_tells_the_calls_of_this_endpoint(api: Api) -> None:
    api.create(
        "chat",
        backend("a"),
        openai_model(openai_api_key_plaintext="k"),
        config={"traffic_config": routes(a=100)},
    )
    api.create("score", backend(api="mlflow"))
    api.create("infer", backend(api="kserve"))
    chat = api.call("GET", f"{BASE}/chat/openapi").json()
    assert chat["openapi"] == "3.1.0"
    assert chat["servers"] == [{"url": str(api.client.base_url).rstrip("/")}]
    assert set(chat["paths"]) == {"/serving-endpoints/chat/invocations", "/v1/chat/completions"}
    body = chat["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["properties"]["model"] == {"const": "chat"}
    assert body["schema"]["required"] == ["model", "messages"]
    score = api.call("GET", f"{BASE}/score/openapi").json()
    assert set(score["paths"]) == {"/serving-endpoints/score/invocations"}
    infer = api.call("GET", f"{BASE}/infer/openapi").json()
    assert "/v2/models/infer/infer" in infer["paths"]
