from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from collector.catalog import Catalog, TableName
from evaluators.drift.api import ReportQueue, router
from evaluators.drift.pair_report import PairReports, PairRequest, chosen_slice, chosen_window
from evaluators.drift.report import ReportWriter
from evaluators.drift.slices import Slice
from evaluators.drift.windows import Window
from servelens.clock import ManualClock
from servelens.errors import Backpressure, Invalid, Missing, ServelensError, Unavailable
from tests.unit.evaluators.inference_rows import ENDPOINT, payload_rows

DAY = datetime(2026, 3, 4, tzinfo=UTC)
CURRENT = Window(DAY + timedelta(hours=10), DAY + timedelta(hours=14))
REFERENCE = Window(DAY, DAY + timedelta(hours=4))


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Calls of two variants in both windows, one in ten of the challenger, whose models differ; and tabular calls."""
    found = Catalog(str(tmp_path / "lake"), {ENDPOINT: TableName("main", "serving", "chat")})
    for window in (CURRENT, REFERENCE):
        request = json.dumps({"inputs": {"size": [1, 2, 3]}})
        rows = payload_rows(
            400,
            window.start,
            every=timedelta(seconds=36),
            variant=["challenger" if number % 10 == 0 else "control" for number in range(400)],
            model=["hot-model" if number % 10 == 0 else "calm-model" for number in range(400)],
            execution_duration_ms=list(range(400)),
            api=["invocations" if number % 20 == 0 else "chat" for number in range(400)],
            request=request,
        )
        found.tables(ENDPOINT).payload.append(rows)
    return found


@pytest.fixture
def reports(catalog: Catalog, tmp_path: Path) -> PairReports:
    return PairReports(catalog, ReportWriter(tmp_path / "reports", max_rows=30), at_most=100)


def test_another_file_can_be_named(reports: PairReports, tmp_path: Path) -> None:
    output = tmp_path / "mine" / "drift.html"
    assert reports.write(PairRequest(ENDPOINT, CURRENT, REFERENCE), output) == output
    assert "calm-model" in output.read_text()
    assert not (tmp_path / "reports").exists()


def test_a_long_window_is_read_at_times_that_are_spread_over_it(
    reports: PairReports, catalog: Catalog
) -> None:
    frame = reports._sample(catalog.tables(ENDPOINT), CURRENT, Slice(), None)
    durations = frame["execution_duration_ms"].sort()
    assert 60 <= frame.height <= 140
    assert durations[0] < 20
    assert durations[-1] > 370
    rare = reports._sample(catalog.tables(ENDPOINT), CURRENT, Slice("variant", "challenger"), None)
    assert rare.height == 40, "a slice that is small enough is read whole"


def test_what_cannot_be_reported_is_refused(reports: PairReports) -> None:
    with pytest.raises(Missing, match="there is no endpoint"):
        reports.write(PairRequest("chatt", CURRENT, REFERENCE))
    with pytest.raises(Missing, match="variant=nobody"):
        reports.write(PairRequest(ENDPOINT, CURRENT, REFERENCE, Slice("variant", "nobody")))
    with pytest.raises(Invalid, match="divided by 'prompt'"):
        reports.write(PairRequest(ENDPOINT, CURRENT, REFERENCE, Slice("prompt", "x")))
    with pytest.raises(Invalid, match="against"):
        reports.write(PairRequest(ENDPOINT, CURRENT, CURRENT))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2026-03-04T10:00Z", "there is no /"),
        ("2026-03-04T10:00/2026-03-04T11:00", "has no zone"),
        ("2026-03-04T11:00Z/2026-03-04T10:00Z", "ends before it starts"),
        ("yesterday/today", "is no window"),
    ],
)
def test_a_window_that_is_none_names_the_option_and_the_fix(text: str, why: str) -> None:
    with pytest.raises(Invalid, match=why) as refused:
        chosen_window(text, "--window")
    assert refused.value.field == "--window"
    assert "2026-03-04T10:00Z" in str(refused.value)


def test_windows_and_slices_as_people_write_them() -> None:
    assert chosen_window("2026-03-04T11:00+01:00/2026-03-04T14:00Z", "--window") == CURRENT
    assert chosen_slice("tags.team = a=b") == Slice("tags.team", "a=b")
    for text in ("variant", "=x", "variant="):
        with pytest.raises(Invalid, match="slice"):
            chosen_slice(text)


@pytest.fixture
async def client(reports: PairReports) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(router(ReportQueue(reports, ManualClock(DAY))))

    @app.exception_handler(ServelensError)
    async def problem(_request: Request, error: ServelensError) -> JSONResponse:
        return JSONResponse({"detail": str(error), "field": error.field}, status_code=error.status)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://console") as found:
        yield found


def body(**changes: Any) -> dict[str, Any]:
    def span(window: Window) -> dict[str, str]:
        return {"start": window.start.isoformat(), "end": window.end.isoformat()}

    return {"endpoint": ENDPOINT, "window": span(CURRENT), "against": span(REFERENCE), **changes}


async def finished(client: httpx.AsyncClient, number: int) -> dict[str, Any]:
    for _ in range(1_200):
        listed = (await client.get("/api/drift/reports", params={"endpoint": ENDPOINT})).json()["reports"]
        (one,) = (each for each in listed if each["id"] == number)
        if one["state"] in ("ready", "failed"):
            return dict(one)
        await asyncio.sleep(0.05)
    raise AssertionError("the report is not made")


async def test_a_report_is_asked_for_and_is_then_where_the_list_says(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    asked = await client.post("/api/drift/reports", json=body(slice="variant=challenger"))
    assert asked.status_code == 202
    assert asked.json()["state"] in ("waiting", "running")
    nobody = await client.post("/api/drift/reports", json=body(slice="variant=nobody"))
    ready = await finished(client, asked.json()["id"])
    assert (ready["state"], ready["slice"]) == ("ready", "variant=challenger")
    folder, name = ready["address"].removeprefix("/reports/").split("/")
    html = (tmp_path / "reports" / folder / unquote(name)).read_text()
    assert "hot-model" in html
    assert "calm-model" not in html
    assert "feature:size" in html
    assert "<title>chat, variant=challenger against 20260304T000000" in html
    assert '["number of rows", "30", "30"]' in html, "a sample, of examples where calls have several"
    failed = await finished(client, nobody.json()["id"])
    assert failed["state"] == "failed"
    assert "variant=nobody" in failed["error"]
    assert (await client.get("/api/drift/reports", params={"endpoint": "other"})).json() == {"reports": []}


async def test_requests_that_make_no_sense_are_refused_at_once(client: httpx.AsyncClient) -> None:
    for wrong, status in (
        (body(endpoint="chatt"), 404),
        (body(slice="variant"), 422),
        (body(slice="prompt=x"), 422),
        (body(window=body()["against"]), 422),
        (body(window={"start": "2026-03-04T10:00", "end": "2026-03-04T11:00"}), 422),
        (body(other=1), 422),
    ):
        assert (await client.post("/api/drift/reports", json=wrong)).status_code == status
    assert (await client.get("/api/drift/reports")).json() == {"reports": []}


class Held(PairReports):
    """Reports that are made when the test lets them."""

    let = threading.Event()

    def write(self, request: PairRequest, output: Path | None = None) -> Path:
        assert self.let.wait(60)
        raise Unavailable("no report here")


def test_only_so_many_reports_wait(catalog: Catalog, tmp_path: Path) -> None:
    held = Held(catalog, ReportWriter(tmp_path / "reports"))
    waiting = ReportQueue(held, ManualClock(DAY), waiting=2)
    request = PairRequest(ENDPOINT, CURRENT, REFERENCE)

    def taken(count: int) -> int:
        for number in range(count):
            try:
                waiting.ask(request, "ann")
            except Backpressure:
                return number
        return count

    asked = taken(10)
    assert asked in (2, 3), "one may be in hand"
    held.let.set()
    bound = time.monotonic() + 60
    while any(each["state"] != "failed" for each in waiting.list(ENDPOINT)):
        assert time.monotonic() < bound
        time.sleep(0.01)
    assert [each["id"] for each in waiting.list()] == list(range(asked, 0, -1))
    assert {each["error"] for each in waiting.list()} == {"no report here"}
    waiting.ask(request, None)
