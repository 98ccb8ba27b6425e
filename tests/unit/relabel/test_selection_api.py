"""relabel.api.selection over HTTP: a record is sent to the queue, and what the rules found is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from collector.catalog import Catalog, EndpointTables, TableName
from relabel.api.selection import router
from relabel.selection.manual import ManualSelection
from relabel.selection.rule import RandomRule, Rule
from relabel.selection.rule_days import RuleDays
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import ServelensError
from tests.new_database import new_database
from tests.relabel_cases import START, append_rows, payload_row


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = new_database(tmp_path / "servelens.db")
    yield opened
    opened.dispose()


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(str(tmp_path / "tables"), {"chat": TableName("main", "default", "chat")})


@pytest.fixture
def tables(catalog: Catalog) -> EndpointTables:
    return catalog.tables("chat")


@pytest.fixture
async def client(database: Database, catalog: Catalog) -> Any:
    app, clock = FastAPI(), ManualClock(START)
    rules = {"chat": [Rule("toxicity", above=0.5, daily_budget=9, priority=2), RandomRule(0.1)]}
    app.include_router(
        router(ManualSelection(catalog.tables, database, clock), RuleDays(database, clock, rules))
    )

    @app.middleware("http")
    async def known(request: Request, call_next: Any) -> Any:
        request.state.requester = request.headers.get("x-name")
        return await call_next(request)

    @app.exception_handler(ServelensError)
    async def problem(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ServelensError)
        return JSONResponse({"detail": error.message, "field": error.field}, status_code=error.status)

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://console/api/relabel") as opened:
        yield opened


async def test_a_record_is_queued_once(client: httpx.AsyncClient, tables: EndpointTables) -> None:
    append_rows(tables, [payload_row(1)], [])
    body = {
        "endpoint": "chat",
        "databricks_request_id": "request-000001",
        "reason": "<b>odd</b>",
        "priority": 3,
    }
    first = await client.post("/cases", json=body, headers={"x-name": "ada"})
    assert (first.status_code, first.json()) == (201, {"case_id": 1, "created": True})
    again = await client.post("/cases", json=body)
    assert (again.status_code, again.json()) == (200, {"case_id": 1, "created": False})
    found = (await client.get("/rules", params={"endpoint": "chat"})).json()["rules"]
    assert [(rule["rule"], rule["kind"], rule["today"]["cases"]) for rule in found] == [
        ("toxicity response above", "score", 0),
        ("random", "random", 0),
        ("manual", "manual", 1),
    ]
    assert (found[0]["daily_budget"], found[0]["priority"]) == (9, 2)
    assert found[2]["last_7_days"] == {
        "cases": 1,
        "over_budget": 0,
        "repeated": 0,
        "over_cluster": 0,
        "without_text": 0,
    }
    assert (await client.get("/rules", params={"endpoint": "other"})).json() == {"rules": []}


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"databricks_request_id": "request-000009"}, 404, "databricks_request_id"),
        ({"databricks_request_id": "0199f0c2-6c1e-7a31-9d0f-3f6f0f5f9b1a"}, 404, "databricks_request_id"),
        ({"databricks_request_id": "ffffffff-ffff-7fff-bfff-ffffffffffff"}, 404, "databricks_request_id"),
        ({"endpoint": "nobody"}, 404, None),
        ({"reason": " "}, 422, "reason"),
        ({"reason": "\x00"}, 422, "reason"),
    ],
)
async def test_what_cannot_be_queued_is_named(
    client: httpx.AsyncClient, tables: EndpointTables, change: dict[str, str], status: int, field: str | None
) -> None:
    append_rows(tables, [payload_row(1)], [])
    body = {"endpoint": "chat", "databricks_request_id": "request-000001", "reason": "odd", **change}
    answer = await client.post("/cases", json=body)
    assert (answer.status_code, answer.json().get("field")) == (status, field)


async def test_a_priority_out_of_range_is_refused(client: httpx.AsyncClient) -> None:
    body = {"endpoint": "chat", "databricks_request_id": "r", "reason": "odd", "priority": 101}
    assert (await client.post("/cases", json=body)).status_code == 422
