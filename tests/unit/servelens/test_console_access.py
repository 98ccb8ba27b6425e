"""The console's door tells what is behind it who has come in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from servelens.clock import ManualClock
from servelens.keys.console_access import ConsoleAccess, needed
from servelens.keys.store import KeyStore
from tests.new_database import new_database


async def test_the_name_of_the_key_goes_with_the_request(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 5, 1, tzinfo=UTC))
    database = new_database(tmp_path / "servelens.db")
    store = KeyStore(database, clock)
    app = FastAPI()

    @app.get("/who")
    async def who(request: Request) -> Any:
        return request.state.requester

    door = ConsoleAccess(app, store.load, clock)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://console") as client:
        assert (await client.get("/who")).json() is None
        _, secret = store.create("ann", ["admin"])
        clock.advance(1)
        assert (await client.get("/who")).status_code == 401
        assert (await client.get("/who", headers={"authorization": f"Bearer {secret}"})).json() == "ann"
    database.dispose()


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/api/experiments", "annotate"),
        ("POST", "/api/experiments", "admin"),
        ("POST", "/_dash-update-component", "annotate"),
        ("POST", "/api/relabel/claim", "annotate"),
        ("POST", "/api/relabel/cases/1/regenerate", "annotate"),
        ("GET", "/api/relabel/schemas/chat", "annotate"),
        ("PUT", "/api/relabel/schemas/chat", "admin"),
        ("PUT", "/api/relabel/schemas/check", "admin"),
        ("DELETE", "/api/relabel/schemas/chat/check", "admin"),
        ("POST", "/api/relabel/schemas/chat/check", "annotate"),
        ("POST", "/api/relabel/interchange/argilla/annotations", "admin"),
        ("GET", "/api/relabel/interchange/argilla/tasks", "annotate"),
    ],
)
def test_what_annotators_are_asked_is_the_administrators(method: str, path: str, scope: str) -> None:
    assert needed(method, path) == scope
