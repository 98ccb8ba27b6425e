"""evaluators.alerts.api over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from evaluators.alerts.api import router
from evaluators.alerts.overview import AlertOverview, worst
from evaluators.alerts.silences import Silences
from evaluators.alerts.store import AlertStore
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import ServelensError
from tests.new_database import new_database
from tests.unit.evaluators.alerts.rules import START, breached, clear, rule

RULES = (rule(name="quiet", endpoint="other"), rule(sliced=True, severity="critical"))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = new_database(tmp_path / "servelens.db")
    yield opened
    opened.dispose()


@pytest.fixture
def store(database: Database, clock: ManualClock) -> AlertStore:
    return AlertStore(database, clock)


@pytest.fixture
async def client(database: Database, clock: ManualClock) -> Any:
    app = FastAPI()
    app.include_router(router(AlertOverview(database, clock), Silences(database, clock), RULES, clock))

    @app.exception_handler(ServelensError)
    async def problem(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ServelensError)
        return JSONResponse({"detail": error.message, "field": error.field}, status_code=error.status)

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as opened:
        yield opened


async def test_every_rule_is_shown_the_worst_first(
    client: httpx.AsyncClient, store: AlertStore, clock: ManualClock
) -> None:
    store.record(RULES[1], "a", clear(), list)
    store.record(RULES[1], "b", breached(), lambda: ["r1"])
    found = (await client.get("/api/alerts")).json()["alerts"]
    assert [(each["rule"], each["status"]) for each in found] == [
        ("toxic", "firing"),
        ("quiet", "not_looked_at"),
    ]
    assert [(each["slice"], each["status"]) for each in found[0]["slices"]] == [("a", "ok"), ("b", "firing")]
    assert (found[0]["stale"], found[0]["measure"]) == (False, "share of toxicity above 0.5")
    assert worst(found) == "firing"
    assert (await client.get("/api/alerts", params={"endpoint": "other"})).json()["alerts"] == found[1:]
    clock.advance(3600)
    assert (await client.get("/api/alerts")).json()["alerts"][0]["stale"] is True


async def test_incidents_and_their_deliveries(client: httpx.AsyncClient, store: AlertStore) -> None:
    for finding in (breached(), clear(), breached()):
        store.record(RULES[1], "b", finding, lambda: ["r1"])
    found = (await client.get("/api/alerts/incidents")).json()["incidents"]
    assert [each["state"] for each in found] == ["firing", "resolved"]
    assert (await client.get("/api/alerts/incidents", params={"open": True})).json()["incidents"] == found[:1]
    assert (await client.get("/api/alerts/incidents", params={"rule": "quiet"})).json()["incidents"] == []
    later = (START + timedelta(minutes=1)).isoformat()
    assert (await client.get("/api/alerts/incidents", params={"since": later})).json()["incidents"] == found[
        :1
    ]
    one = (await client.get(f"/api/alerts/incidents/{found[1]['incident']}")).json()
    assert [(each["channel"], each["kind"]) for each in one["deliveries"]] == [
        ("hook", "firing"),
        ("hook", "resolved"),
    ]
    assert (await client.get("/api/alerts/incidents/none")).status_code == 404


async def test_silences_come_and_go(client: httpx.AsyncClient, store: AlertStore) -> None:
    made = await client.post(
        "/api/alerts/silences", json={"rule": "toxic", "minutes": 30, "reason": "a load test"}
    )
    assert made.status_code == 201
    assert made.json()["author"] == "console"
    assert made.json()["ends_at"] == (START + timedelta(minutes=30)).isoformat()
    store.record(RULES[1], "b", breached(), list)
    shown = (await client.get("/api/alerts")).json()["alerts"][0]["slices"][0]
    assert shown["silenced_by"] == made.json()["id"]
    assert len((await client.get("/api/alerts/silences")).json()["silences"]) == 1
    ended = await client.delete(f"/api/alerts/silences/{made.json()['id']}")
    assert (ended.status_code, ended.json()["ended_by"]) == (200, "console")
    assert (await client.get("/api/alerts/silences")).json()["silences"] == []
    assert len((await client.get("/api/alerts/silences", params={"ended": True})).json()["silences"]) == 1
    assert (await client.delete(f"/api/alerts/silences/{made.json()['id']}")).status_code == 409
    assert (await client.delete("/api/alerts/silences/99")).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"rule": "x", "reason": "r"}, "ends_at"),
        ({"rule": "x", "reason": "r", "minutes": 5, "ends_at": "2026-03-02T13:00:00Z"}, "ends_at"),
        ({"rule": "x", "reason": "r", "ends_at": "2026-03-02T11:00:00Z"}, "ends_at"),
        ({"rule": "x", "reason": "r", "minutes": 527_040}, "ends_at"),
        ({"reason": "r", "minutes": 5}, "rule"),
        ({"rule": "", "reason": "r", "minutes": 5}, "rule"),
        ({"rule": "x", "reason": " ", "minutes": 5}, "reason"),
    ],
)
async def test_a_silence_that_makes_no_sense_is_refused(
    client: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    answer = await client.post("/api/alerts/silences", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
