from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from dash import Dash, Input, Output, html
from fastapi import FastAPI

from dashboard.app import create_console
from dashboard.callbacks import Callbacks
from dashboard.reports import Reports
from dashboard.services import ConsoleServices
from evaluators.drift.api import ReportQueue
from evaluators.drift.pair_report import PairReports
from evaluators.drift.report import ReportWriter
from servelens.errors import Conflict, Missing


@pytest.fixture
async def client(services: ConsoleServices) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=create_console(services))
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as opened:
        yield opened


async def test_page_is_strict_and_self_contained(client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in policy["script-src"]
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    for address in re.findall(r'(?:src|href)="([^"]+)"', answer.text):
        assert address.startswith("/")
        assert not address.startswith("//")
        found = await client.get(address)
        assert found.status_code == 200, address


@pytest.mark.parametrize("address", ["/requests", "/experiments/", "/quality?range=7d", "/relabel"])
async def test_first_visit_may_be_a_deep_link(services: ConsoleServices, address: str) -> None:
    first, _second = create_console(services), create_console(services)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=first), base_url="http://console"
    ) as client:
        answer = await client.get(address)
    assert answer.status_code == 200
    assert "/assets/console.css" in answer.text
    assert "/assets/view.js" in answer.text


async def test_health_and_metrics(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health/live")).json() == {"status": "ok"}
    assert (await client.get("/health/ready")).json()["status"] == "ok"
    metrics = (await client.get("/metrics")).text
    assert 'servelens_relabel_cases{state="open"}' in metrics
    assert "servelens_console_reads_total" in metrics


async def test_a_report_of_two_windows_can_be_asked_for(services: ConsoleServices, tmp_path: Path) -> None:
    made = ReportQueue(PairReports(services.catalog, ReportWriter(tmp_path)), services.clock)
    transport = httpx.ASGITransport(app=create_console(replace(services, drift_reports=made)))
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
        assert (await client.get("/api/drift/reports")).json() == {"reports": []}
        day = {"start": "2026-03-04T00:00Z", "end": "2026-03-05T00:00Z"}
        refused = await client.post(
            "/api/drift/reports", json={"endpoint": "nobody", "window": day, "against": day}
        )
        assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")


async def test_unready_when_the_database_is_gone(empty_services: ConsoleServices, tmp_path: Path) -> None:
    empty_services.database.dispose()
    for file in (tmp_path / "empty").glob("servelens.db*"):
        file.unlink()
    (tmp_path / "empty" / "servelens.db").mkdir()
    transport = httpx.ASGITransport(app=create_console(empty_services))
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
        answer = await client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["status"] == "unavailable"


@pytest.mark.parametrize(
    ("method", "address", "status"),
    [
        ("GET", "/api/experiments/nope", 404),
        ("GET", "/api/relabel/cases/999999", 404),
        ("GET", "/api/relabel/cases?limit=0", 422),
        ("GET", "/api/relabel/cases?since=yesterday", 422),
        ("GET", "/api/nothing/here", 404),
        ("POST", "/api/relabel/claim", 422),
        ("GET", "/reports/nope.html", 404),
    ],
)
async def test_errors_are_problem_details(
    client: httpx.AsyncClient, method: str, address: str, status: int
) -> None:
    answer = await client.request(method, address)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["detail"]
    assert body["title"]


async def test_api_serves_experiments_and_exports(client: httpx.AsyncClient) -> None:
    looked = await client.post("/api/experiments/cooler-answers/analysis")
    assert looked.json()["experiment"] == "cooler-answers"
    export = await client.get("/api/relabel/export?endpoint=support-chat")
    assert export.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), (None, 200)]
)
async def test_another_site_cannot_write(client: httpx.AsyncClient, site: str | None, status: int) -> None:
    headers = {"sec-fetch-site": site} if site else {}
    answer = await client.post("/api/experiments/cooler-answers/analysis", headers=headers)
    assert answer.status_code == status


async def test_report_is_served_in_a_sandbox(client: httpx.AsyncClient, services: ConsoleServices) -> None:
    report = Reports(services.reports_dir).list("support-chat")[0]
    answer = await client.get(report.address)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert "allow-same-origin" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "address",
    [
        "../secret.html",
        "a/../../secret.html",
        "/etc/passwd",
        "link.html",
        "support/report.txt",
        "support",
        "",
        "\0.html",
        "x" * 5000 + ".html",
    ],
)
def test_nothing_outside_the_reports_folder_is_read(tmp_path: Path, address: str) -> None:
    folder = tmp_path / "reports"
    (folder / "support").mkdir(parents=True)
    (tmp_path / "secret.html").write_text("secret")
    (folder / "link.html").symlink_to(tmp_path / "secret.html")
    (folder / "support" / "report.txt").write_text("no report")
    (folder / "support" / "good.html").write_text("fine")
    reports = Reports(folder)
    assert reports.find("support/good.html").read_text() == "fine"
    assert [one.address for one in reports.list("support")] == ["/reports/support/good.html"]
    with pytest.raises(Missing):
        reports.find(address)


def _app(function: Any) -> FastAPI:
    app = FastAPI()
    dash = Dash(
        __name__, server=app, backend="fastapi", use_pages=False, pages_folder="", add_log_handler=False
    )
    dash.layout = html.Div([html.Div(id="out"), html.Div(id="in"), html.Div(id="problem")])
    Callbacks(dash).server(
        function,
        [Output("out", "children")],
        [Input("in", "children")],
        problems=Output("problem", "children"),
    )
    return app


async def _call(app: FastAPI) -> httpx.Response:
    body = {
        "output": "..out.children...problem.children..",
        "outputs": [{"id": "out", "property": "children"}, {"id": "problem", "property": "children"}],
        "inputs": [{"id": "in", "property": "children", "value": 1}],
        "changedPropIds": ["in.children"],
    }
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://console") as client:
        return await client.post("/_dash-update-component", json=body)


async def test_callback_does_not_hold_the_event_loop() -> None:
    started, release = threading.Event(), threading.Event()

    def slow(_value: int) -> str:
        started.set()
        assert release.wait(10)
        return "done"

    call = asyncio.ensure_future(_call(_app(slow)))
    await asyncio.to_thread(started.wait, 10)
    assert not call.done()
    release.set()
    assert (await call).json()["response"]["out"] == {"children": "done"}


async def test_failing_callback_says_so_and_leaves_the_page(caplog: pytest.LogCaptureFixture) -> None:
    def conflict(_value: int) -> str:
        raise Conflict("somebody else has the case", fix="Claim another case.")

    def broken(_value: int) -> str:
        raise ZeroDivisionError("secret detail")

    answer = (await _call(_app(conflict))).json()["response"]
    assert "out" not in answer
    assert "Somebody else has the case." in str(answer["problem"])
    assert "Claim another case." in str(answer["problem"])
    answer = (await _call(_app(broken))).json()["response"]
    assert "Something went wrong" in str(answer["problem"])
    assert "secret detail" not in str(answer["problem"])
    assert "secret detail" in caplog.text
