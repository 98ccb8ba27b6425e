"""Two machines share one PostgreSQL: what is changed on one is live on the other; without it both serve on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from tests.integration.backend_process import backend_process, endpoint
from tests.integration.system import System, wait_until
from tests.postgresql import MISSING, PostgresqlServer, postgresql_binaries, postgresql_server

BASE = "/api/2.0/serving-endpoints"


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgresqlServer]:
    binaries = postgresql_binaries()
    if binaries is None:
        pytest.skip(MISSING)
    with postgresql_server(binaries) as server:
        yield server


def served(client: httpx.Client, system: System, model: str) -> str | None:
    """Who answers on this machine; ``None`` when nobody does."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    answer = client.post(f"{system.proxy_url}/v1/chat/completions", json=body)
    return answer.headers.get("x-servelens-served-entity") if answer.status_code == 200 else None


def entities(url: str, name: str) -> dict[str, Any]:
    return {"served_entities": [{"name": name, "backend": {"urls": [url]}}]}


def test_two_machines_and_then_no_database(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(backend_process())
        client = stack.enter_context(httpx.Client())
        database = contextlib.ExitStack()
        stack.callback(database.close)
        url = database.enter_context(postgresql.database_url())
        settings = {"database": {"url": url}}
        blocks = [endpoint("chat", backend, {"filed": 100.0})]
        one = stack.enter_context(System(tmp_path / "one", blocks, settings, wait_for=("proxy",)))
        two = stack.enter_context(System(tmp_path / "two", blocks, settings, wait_for=("proxy",)))
        created = client.post(
            f"{one.proxy_url}{BASE}", json={"name": "made", "config": entities(backend, "a")}
        )
        assert created.status_code == 200, created.text
        changed = client.put(f"{two.proxy_url}{BASE}/chat/config", json=entities(backend, "by-api"))
        assert changed.status_code == 200, changed.text
        for system in (one, two):
            wait_until(lambda on=system: served(client, on, "made") == "a", 2, "a new endpoint is live")  # type: ignore[misc]
            wait_until(lambda on=system: served(client, on, "chat") == "by-api", 2, "a change is live")  # type: ignore[misc]
        state = f"{one.proxy_url}{BASE}/made"
        wait_until(
            lambda: client.get(state).json()["state"]["config_update"] == "NOT_UPDATING",
            5,
            "both machines say that they serve it",
        )

        database.close()
        ready = f"{one.proxy_url}/health/ready"
        wait_until(lambda: client.get(ready).json()["status"] == "degraded", 15, "the loss is said")
        assert client.get(ready).status_code == 200
        for system in (one, two):
            assert served(client, system, "made") == "a"
            assert served(client, system, "chat") == "by-api"
        refused = client.delete(state)
        assert (refused.status_code, refused.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
        table = tmp_path / "one" / "data" / "tables" / "servelens" / "default" / "made_payload"

        def recorded() -> int:
            if not (table / "_delta_log").exists():
                return 0
            return pl.read_delta(str(table)).height

        wait_until(lambda: recorded() >= 2, 30, "records are collected without the database")
