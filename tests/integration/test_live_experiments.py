"""An experiment made, changed and ended by API, file or command line is live on every worker within a second."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.integration.backend_process import backend_process, endpoint
from tests.integration.system import System, wait_until

LIVE_WITHIN_S = 1.0
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
BLOCK = {
    "name": "ab",
    "endpoint": "chat",
    "control": {"served_entity": "champion", "weight": 0},
    "treatments": [{"served_entity": "challenger", "weight": 100}],
}


class Caller:
    """Connections to both workers, each call on all of them."""

    def __init__(self, port: int, connections: int = 12) -> None:
        self._connections = [
            http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(connections)
        ]

    def entities(self) -> set[str]:
        """Who answers now, on any connection."""
        return {self._call(connection, number) for number, connection in enumerate(self._connections)}

    def _call(self, connection: http.client.HTTPConnection, number: int) -> str:
        body = json.dumps({**CHAT, "user": f"user-{number}"}).encode()
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        return answer.getheader("x-servelens-served-entity") or ""

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    with backend_process() as url:
        yield url


@pytest.fixture
def system(backend: str, tmp_path: Path) -> Iterator[System]:
    endpoints = [endpoint("chat", backend, {"champion": 100.0, "challenger": 0.0})]
    with System(tmp_path, endpoints, {"proxy": {"workers": 2}}) as running:
        yield running


@pytest.fixture
def caller(system: System) -> Iterator[Caller]:
    made = Caller(system.proxy_port)
    yield made
    made.close()


def becomes(caller: Caller, entity: str) -> float:
    """How long until every worker answers with ``entity`` only, in seconds."""
    began = time.monotonic()
    wait_until(lambda: caller.entities() == {entity}, LIVE_WITHIN_S, f"{entity} answers on every worker")
    return time.monotonic() - began


def command(system: System, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "servelens", "experiment", *arguments, "--config", str(system.config)],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_by_api_by_command_and_by_file(system: System, caller: Caller, tmp_path: Path) -> None:
    assert caller.entities() == {"champion"}
    with httpx.Client(base_url=f"{system.console_url}/api", timeout=30) as api:

        def post(path: str, body: Any = None) -> Any:
            answer = api.post(f"/experiments{path}", json=body)
            assert answer.is_success, answer.text
            return answer.json()

        assert post("", BLOCK)["state"] == "running"
        becomes(caller, "challenger")
        refused = api.post("/experiments", json={**BLOCK, "name": "other"})
        assert refused.status_code == 409
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["field"] == "experiments[other].share_from"
        assert refused.json()["fix"]
        wrong = api.post(
            "/experiments",
            json={**BLOCK, "name": "other", "control": {"served_entity": "nobody", "weight": 0}},
        )
        assert (wrong.status_code, wrong.json()["field"]) == (422, "control.served_entity")

        entities = [{"name": "champion", "backend": {"urls": ["http://127.0.0.1:9"]}}]
        base = f"{system.proxy_url}/api/2.0/serving-endpoints/chat"
        needed = httpx.put(f"{base}/config", json={"served_entities": entities})
        assert needed.status_code == 409
        assert "'challenger'" in needed.json()["message"]

        changed = api.patch("/experiments/ab", json={"weights": {"champion": 100, "challenger": 0}})
        assert changed.json()["definition"]["phase"] == 1
        becomes(caller, "champion")
        api.patch("/experiments/ab", json={"weights": {"champion": 0, "challenger": 100}})
        becomes(caller, "challenger")
        assert post("/ab/pause")["state"] == "paused"
        time.sleep(LIVE_WITHIN_S)
        assert caller.entities() == {"challenger"}
        assert post("/ab/stop", {"reason": "enough"})["outcome"] == "stopped"
        becomes(caller, "champion")

        block = tmp_path / "block.yaml"
        block.write_text(yaml.safe_dump({**BLOCK, "name": "next"}))
        assert "is draft" in command(system, "create", str(block), "--draft")
        assert caller.entities() == {"champion"}
        command(system, "start", "next")
        becomes(caller, "challenger")
        command(system, "stop", "next")
        becomes(caller, "champion")

        written = yaml.safe_load(system.config.read_text())
        system.config.write_text(yaml.safe_dump({**written, "experiments": [{**BLOCK, "name": "filed"}]}))
        wait_until(lambda: caller.entities() == {"challenger"}, LIVE_WITHIN_S + 1, "the file's experiment")
        by_file = api.get("/experiments/filed").json()
        assert (by_file["source"], by_file["changed_by"]) == ("file", "servelens.yaml")
        assert post("/filed/promote", {"reason": "better"})["outcome"] == "promoted"
        system.config.write_text(yaml.safe_dump(written))
        time.sleep(LIVE_WITHIN_S)
        assert caller.entities() == {"challenger"}
        routes = httpx.get(base).json()["config"]["traffic_config"]["routes"]
        assert [(route["served_entity_name"], route["traffic_percentage"]) for route in routes] == [
            ("challenger", 100)
        ]
        names = [(each["name"], each["outcome"]) for each in api.get("/experiments").json()["experiments"]]
        assert names == [("filed", "promoted"), ("next", "stopped"), ("ab", "stopped")]
    ready = httpx.get(f"{system.proxy_url}/health/ready").json()
    assert ready["snapshot"]["failure"] is None
    served = {each.name for each in (tmp_path / "data" / "spool").iterdir() if any(each.glob("*.seg"))}
    assert served == {"proxy-0", "proxy-1"}


def test_a_worker_that_is_killed_comes_back_with_the_experiment(system: System, caller: Caller) -> None:
    with httpx.Client(base_url=f"{system.console_url}/api", timeout=30) as api:
        assert api.post("/experiments", json=BLOCK).status_code == 201
        becomes(caller, "challenger")
        killed = system.child("proxy", "proxy-0")
        assert killed is not None
        killed.kill()
        killed.wait(10)

        def is_back() -> bool:
            child = system.child("proxy", "proxy-0")
            return child is not None and child.pid != killed.pid

        wait_until(is_back, 20, "the worker is started again")
        caller.close()
        until = time.monotonic() + 4 * LIVE_WITHIN_S
        seen: set[str] = set()
        while time.monotonic() < until:
            fresh = Caller(system.proxy_port)
            with contextlib.suppress(OSError, http.client.HTTPException):  # the killed one's connections
                seen |= fresh.entities()
            fresh.close()
        assert seen == {"challenger"}
