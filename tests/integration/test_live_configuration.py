"""A change by the API is live on every worker within a second, and no call notices: none fails, none is misrouted."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.integration.backend_process import backend_process, endpoint
from tests.integration.system import System, post_json, wait_until

LIVE_WITHIN_S = 1.0
BASE = "/api/2.0/serving-endpoints"
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}


@dataclass(frozen=True, slots=True)
class Call:
    """One call: when it was sent and answered, and who answered; ``entity`` is ``None`` for a failure."""

    sent: float
    answered: float
    entity: str | None


class Load:
    """Callers that go on until they are told to stop; half of them open a connection for each call."""

    def __init__(self, port: int, callers: int = 6) -> None:
        self.calls: list[Call] = []
        self._port = port
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(callers)
        self._running = [self._pool.submit(self._go, keep=number % 2 == 0) for number in range(callers)]

    def stop(self) -> list[Call]:
        """End the load; every call that was made."""
        self._stop.set()
        for caller in self._running:
            caller.result(60)
        self._pool.shutdown()
        return self.calls

    def _go(self, *, keep: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._stop.is_set():
            sent = time.monotonic()
            self.calls.append(Call(sent, *self._call(connection)))
            if not keep:
                connection.close()
            time.sleep(0.005)
        connection.close()

    def _call(self, connection: http.client.HTTPConnection) -> tuple[float, str | None]:
        try:
            connection.request(
                "POST",
                "/v1/chat/completions",
                httpx.Request("POST", "http://x", json=CHAT).read(),
                {"content-type": "application/json"},
            )
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return time.monotonic(), None
        entity = answer.getheader("x-servelens-served-entity") if answer.status == 200 else None
        return time.monotonic(), entity


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    with backend_process() as url:
        yield url


def config(url: str, name: str) -> dict[str, Any]:
    return {"served_entities": [{"name": name, "backend": {"urls": [url]}}]}


def test_under_load_every_answer_is_of_the_configuration_before_or_after(
    backend: str, tmp_path: Path
) -> None:
    first = [endpoint("chat", backend, {"v0": 100.0})]
    with System(tmp_path, first, {"proxy": {"workers": 2}}) as system, httpx.Client() as client:
        load = Load(system.proxy_port)
        began = {"v0": 0.0}
        through: dict[str, float] = {"v0": 0.0}
        for number in range(1, 6):
            time.sleep(LIVE_WITHIN_S + 0.3)
            name = f"v{number}"
            began[name] = time.monotonic()
            answer = client.put(
                f"{system.proxy_url}{BASE}/chat/config",
                json={**config(backend, name), "traffic_config": None},
            )
            through[name] = time.monotonic()
            assert answer.status_code == 200, answer.text
        time.sleep(LIVE_WITHIN_S + 0.3)
        calls = load.stop()
    assert len(calls) > 500
    assert [call for call in calls if call.entity is None] == []
    for call in calls:
        may = {
            f"v{number}"
            for number in range(6)
            if began[f"v{number}"] <= call.answered
            and (number == 5 or call.sent <= through[f"v{number + 1}"] + LIVE_WITHIN_S)
        }
        assert call.entity in may
    assert {call.entity for call in calls} == {f"v{number}" for number in range(6)}
    seen = {each.name for each in (tmp_path / "data" / "spool").iterdir() if any(each.glob("*.seg"))}
    assert seen == {"proxy-0", "proxy-1"}


def test_created_called_recorded_and_deleted_without_a_restart(backend: str, tmp_path: Path) -> None:
    kept = [endpoint("kept", backend)]
    with System(tmp_path, kept, {"proxy": {"workers": 2}}) as system, httpx.Client() as client:
        base = f"{system.proxy_url}{BASE}"
        body = {"name": "made", "config": config(backend, "a")}
        assert client.post(base, json=body).status_code == 200
        wait_until(
            lambda: (
                client.get(f"{base}/made").json()["state"]
                == {"ready": "READY", "config_update": "NOT_UPDATING"}
            ),
            3 * LIVE_WITHIN_S,
            "both workers have said that they serve the endpoint",
        )
        connection = http.client.HTTPConnection("127.0.0.1", system.proxy_port, timeout=30)
        ids = [post_json(connection, "/v1/chat/completions", {**CHAT, "model": "made"})[1] for _ in range(5)]
        assert None not in ids
        wait_until(lambda: "made" in client.get(f"{system.console_url}/_dash-layout").text, 10, "console")
        assert client.delete(f"{base}/made").json() == {}
        wait_until(
            lambda: post_json(connection, "/v1/chat/completions", {**CHAT, "model": "made"})[0] == 404,
            LIVE_WITHIN_S,
            "a deleted endpoint is gone",
        )
        connection.close()

        def recorded() -> set[str]:
            table = tmp_path / "data" / "tables" / "servelens" / "default" / "made_payload"
            if not (table / "_delta_log").exists():
                return set()
            import polars as pl

            return set(pl.read_delta(str(table))["databricks_request_id"])

        wait_until(lambda: set(ids) <= recorded(), 30, "its records are in its own table")


def test_the_file_and_the_api_change_the_same_endpoints(backend: str, tmp_path: Path) -> None:
    with System(tmp_path, [endpoint("chat", backend, {"v0": 100.0})]) as system, httpx.Client() as client:
        url = f"{system.proxy_url}{BASE}/chat"

        def served() -> str:
            return str(client.get(url).json()["config"]["served_entities"][0]["name"])

        assert client.put(f"{url}/config", json=config(backend, "by-api")).status_code == 200
        written = yaml.safe_load(system.config.read_text())
        written["proxy"]["canonical_log"] = True  # a change, but none of the endpoint's block
        system.config.write_text(yaml.safe_dump(written))
        time.sleep(LIVE_WITHIN_S)
        assert served() == "by-api"
        written["endpoints"] = [endpoint("chat", backend, {"by-file": 100.0})]
        system.config.write_text(yaml.safe_dump(written))
        wait_until(lambda: served() == "by-file", LIVE_WITHIN_S + 1, "the changed block is applied")
        written["endpoints"][0]["config"]["traffic_config"]["routes"][0]["traffic_percentage"] = 7
        system.config.write_text(yaml.safe_dump(written))
        ready = f"{system.proxy_url}/health/ready"
        wait_until(
            lambda: "adds up to 7" in str(client.get(ready).json()["snapshot"]["failure"]),
            LIVE_WITHIN_S + 1,
            "the wrong file is said",
        )
        assert client.get(ready).status_code == 200
        assert client.post(f"{system.proxy_url}/v1/chat/completions", json=CHAT).status_code == 200
