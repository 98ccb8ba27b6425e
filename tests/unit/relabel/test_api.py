"""relabel.api over HTTP: every way in and out of the queue, and its errors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from relabel.api.router import router
from relabel.case import CaseState
from relabel.queue.case_queue import CaseQueue
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import ServelensError
from tests.new_database import new_database
from tests.openai_chat_rules import read_chat_file
from tests.relabel_cases import START, add_cases, flagged, score_reason


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = new_database(tmp_path / "servelens.db")
    yield opened
    opened.dispose()


@pytest.fixture
async def client(database: Database) -> Any:
    app = FastAPI()
    app.include_router(router(CaseQueue(database, ManualClock(START)), database))

    @app.exception_handler(ServelensError)
    async def problem(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ServelensError)
        return JSONResponse({"detail": error.message, "field": error.field}, status_code=error.status)

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://console/api/relabel") as opened:
        yield opened


async def _post(client: httpx.AsyncClient, path: str, **body: Any) -> httpx.Response:
    return await client.post(path, json={"annotator": "ann", **body})


async def test_a_case_is_claimed_labeled_and_exported(client: httpx.AsyncClient, database: Database) -> None:
    add_cases(database, [flagged(1)])
    claimed = await _post(client, "/claim")
    assert claimed.status_code == 200
    case = claimed.json()
    assert case["state"] == "claimed"
    assert case["annotator"] == "ann"
    assert case["messages"][-1] == {"role": "assistant", "content": "answer 1"}
    assert case["request_time"] == "2026-03-01T12:00:01Z"
    assert case["reasons"] == [asdict(score_reason("toxicity", 0.9))]
    label = {"rating": "bad", "corrected_answer": "better 😀", "tags": ["rude"], "comment": "!", "version": 2}
    labeled = await _post(client, f"/cases/{case['id']}/label", **label)
    assert labeled.status_code == 200
    assert labeled.json()["labels"][0]["label"] == {
        "rating": "bad",
        "corrected_answer": "better 😀",
        "tags": ["rude"],
        "comment": "!",
        "preferred": None,
        "values": {},
    }
    exported = await client.get("/export")
    assert exported.headers["content-type"] == "application/jsonl"
    assert "openai-chat.jsonl" in exported.headers["content-disposition"]
    [example] = read_chat_file(exported.content)
    assert example["messages"][-1]["content"] == "better 😀"
    summary = (await client.get("/export/summary")).json()
    assert (summary["written"], summary["cases"], summary["left_out"]) == (1, 1, {})
    assert (await client.get("/export", params={"endpoint": "other"})).content == b""
    history = (await client.get(f"/cases/{case['id']}/history")).json()
    assert [entry["to_state"] for entry in history] == ["open", "claimed", "labeled"]


async def test_an_empty_queue_answers_without_content(client: httpx.AsyncClient) -> None:
    response = await _post(client, "/claim", endpoint="chat")
    assert (response.status_code, response.content) == (204, b"")
    assert (await client.get("/export")).content == b""


async def test_a_case_is_skipped_released_and_renewed(client: httpx.AsyncClient, database: Database) -> None:
    add_cases(database, [flagged(1)])
    await _post(client, "/claim")
    assert (await _post(client, "/cases/1/renew")).json()["state"] == "claimed"
    assert (await _post(client, "/cases/1/release")).json()["state"] == "open"
    await _post(client, "/claim")
    skipped = (await _post(client, "/cases/1/skip", reason="not mine")).json()
    assert (skipped["state"], skipped["skip_reason"]) == ("skipped", "not mine")


async def test_cases_are_listed_and_counted(client: httpx.AsyncClient, database: Database) -> None:
    add_cases(database, [flagged(number) for number in range(5)])
    await _post(client, "/claim")
    page = (await client.get("/cases", params={"limit": 2, "state": "open"})).json()
    assert [case["id"] for case in page["cases"]] == [2, 3]
    rest = (await client.get("/cases", params={"state": "open", "cursor": page["next_cursor"]})).json()
    assert [case["id"] for case in rest["cases"]] == [4, 5]
    assert rest["next_cursor"] is None
    since = (await client.get("/cases", params={"since": "2026-03-01T13:00:03+01:00"})).json()
    assert [case["id"] for case in since["cases"]] == [4, 5]
    assert (await client.get("/cases/3")).json()["databricks_request_id"] == "request-000002"
    assert (await client.get("/counts")).json() == {
        "total": dict.fromkeys(CaseState, 0) | {"open": 4, "claimed": 1},
        "endpoints": {"chat": dict.fromkeys(CaseState, 0) | {"open": 4, "claimed": 1}},
    }


async def test_a_score_that_json_cannot_hold_is_null(client: httpx.AsyncClient, database: Database) -> None:
    record = flagged(1)
    add_cases(database, [replace(record, reasons=(replace(record.reasons[0], score=math.inf),))])
    response = await client.get("/cases/1")
    assert response.status_code == 200
    assert response.json()["reasons"][0]["score"] is None


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/claim", {"annotator": " "}, 422, "annotator"),
        ("/cases/1/label", {"rating": "fine"}, 422, "rating"),
        ("/cases/1/label", {"rating": "bad", "corrected_answer": " "}, 422, "corrected_answer"),
        ("/cases/1/label", {"rating": "good", "version": 1}, 409, "version"),
        ("/cases/1/label", {"annotator": "bob", "rating": "good"}, 409, "annotator"),
        ("/cases/1/skip", {"reason": ""}, 422, "reason"),
        ("/cases/9/label", {"rating": "good"}, 404, "case_id"),
        ("/cases/9/release", {}, 404, "case_id"),
    ],
)
async def test_errors_say_which_field(
    client: httpx.AsyncClient,
    database: Database,
    path: str,
    body: dict[str, Any],
    status: int,
    field: str,
) -> None:
    add_cases(database, [flagged(1)])
    await _post(client, "/claim")
    response = await _post(client, path, **body)
    assert (response.status_code, response.json()["field"]) == (status, field)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/claim", {}),
        ("POST", "/claim", {"annotator": "ann", "unknown": 1}),
        ("POST", "/claim", {"annotator": 7}),
        ("POST", "/cases/x/label", {"annotator": "ann", "rating": "good"}),
        ("POST", f"/cases/{2**80}/release", {"annotator": "ann"}),
        ("GET", "/cases?state=nonsense", None),
        ("GET", "/cases?since=2026-03-01T00:00:00", None),
        ("GET", "/cases?limit=1000", None),
        ("GET", f"/cases?cursor=1.{2**80}", None),
        ("GET", "/export?until=yesterday", None),
    ],
)
async def test_a_malformed_request_is_refused(
    client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None
) -> None:
    assert (await client.request(method, path, json=body)).status_code == 422
