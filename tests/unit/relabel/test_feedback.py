"""What users said of records, as annotators and operators read it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from collector.catalog import UNROUTED
from collector.feedback_record import Part
from relabel.api.feedback import router
from relabel.feedback import feedback_of, suggested_answer, unmatched_feedback
from servelens.clock import ManualClock
from servelens.errors import ServelensError
from servelens.identifiers import id_at
from tests.unit.collector.test_feedback import feedback
from tests.unit.collector.test_ingest import NOON_US, Place, record

NOON = datetime.fromtimestamp(NOON_US / 1e6, UTC)
KNOWN, OTHER, UNKNOWN = (id_at(NOON_US, name) for name in (b"known", b"other", b"unknown"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Two records, of which users spoke; one of them changed her mind, and one app sent twice."""
    made = Place(tmp_path)
    repeated = feedback(5, Part("thumbs", 1.0, "up"), request_id=OTHER, user=None)
    made.spool(
        [
            record(KNOWN, request_time_us=NOON_US),
            record(OTHER, request_time_us=NOON_US),
            feedback(1, Part("thumbs", 1.0, "up"), request_id=KNOWN),
            feedback(2, Part("corrected_answer", comment="Rome"), request_id=KNOWN, user="bob"),
            feedback(3, Part("thumbs", 0.0, "down"), Part("comment", comment="<script>"), request_id=KNOWN),
            feedback(4, Part("corrected_answer", comment="Paris"), request_id=KNOWN),
            repeated,
            repeated,
            feedback(6, Part("thumbs", 0.0), Part("comment", comment="who?"), request_id=UNKNOWN),
            feedback(7, endpoint=UNROUTED, request_id=None, client_request_id="c-1"),
        ]
    )
    made.drain()
    return made


def test_the_last_word_of_each_person_under_each_name(place: Place) -> None:
    tables = place.catalog().tables("chat")
    found = feedback_of(tables, [KNOWN, OTHER, "not there"], NOON, NOON)
    assert [(each.name, each.source_id, each.value, each.comment) for each in found[KNOWN]] == [
        ("corrected_answer", "ada", None, "Paris"),
        ("thumbs", "ada", 0.0, None),
        ("comment", "ada", None, "<script>"),
        ("corrected_answer", "bob", None, "Rome"),
    ]
    assert len(found[OTHER]) == 1
    assert set(found) == {KNOWN, OTHER}
    assert suggested_answer(found[KNOWN]) == "Paris"
    assert suggested_answer(found[OTHER]) is None
    assert feedback_of(tables, [KNOWN], NOON + timedelta(days=2), NOON + timedelta(days=3)) == {}


def test_feedback_without_a_record(place: Place) -> None:
    catalog = place.catalog()
    end = NOON + timedelta(hours=1)
    found = unmatched_feedback(catalog.tables("chat"), "chat", NOON, end)
    assert found.count == 1
    assert [(each.databricks_request_id, each.name) for each in found.newest] == [
        (UNKNOWN, "thumbs"),
        (UNKNOWN, "comment"),
    ]
    assert unmatched_feedback(catalog.tables("chat"), "chat", end, end + timedelta(hours=1)).count == 0
    assert unmatched_feedback(catalog.tables("code"), "code", NOON, end).count == 0
    nowhere = unmatched_feedback(catalog.tables(UNROUTED), UNROUTED, NOON, end)
    assert [each.client_request_id for each in nowhere.newest] == ["c-1"]


@pytest.fixture
async def client(place: Place) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(router(place.catalog(), ManualClock(NOON + timedelta(hours=1))))

    @app.exception_handler(ServelensError)
    async def problem(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ServelensError)
        return JSONResponse({"detail": str(error), "field": error.field}, error.status)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://console") as running:
        yield running


async def test_over_http(client: httpx.AsyncClient) -> None:
    told = (await client.get("/api/relabel/feedback/unmatched")).json()
    assert told["endpoints"] == {"chat": 1, "code": 0}
    assert told["without_endpoint"] == 1
    assert [each["feedback_id"] for each in told["newest"]] == ["f-7", "f-6", "f-6"]
    one = await client.get("/api/relabel/feedback/unmatched", params={"endpoint": "code", "limit": 1})
    assert one.json()["endpoints"] == {"code": 0}
    assert (await client.get("/api/relabel/feedback/unmatched", params={"endpoint": "x"})).status_code == 404
    late = {"since": "2027-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}
    assert (await client.get("/api/relabel/feedback/unmatched", params=late)).status_code == 422
    for name, moment in (("until", "0001-01-01T00:00:00Z"), ("since", "0001-01-01T00:00:00+14:00")):
        answer = await client.get("/api/relabel/feedback/unmatched", params={name: moment})
        assert (answer.status_code, answer.json()["field"]) == (422, name)
    said = (await client.get(f"/api/relabel/feedback/chat/{KNOWN}")).json()
    assert {each["name"] for each in said} == {"thumbs", "comment", "corrected_answer"}
    assert (await client.get(f"/api/relabel/feedback/chat/{UNKNOWN}")).status_code == 200
    assert (await client.get("/api/relabel/feedback/chat/nothing")).status_code == 422
    assert (await client.get(f"/api/relabel/feedback/nobody/{KNOWN}")).status_code == 404
