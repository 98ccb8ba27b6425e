"""Evidently reports: those that were asked for and are not ready yet, and the files that are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from dash import Input, Output, dcc, html
from dash.exceptions import PreventUpdate

from dashboard import formats
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import Element, badge, card, icon, problem_slot
from dashboard.reports import ReportFile

_TICK_MS = 2_000
_SHOWN = 8
_JOBS = 4
_STATES = {
    "waiting": ("Waiting", "neutral"),
    "running": ("Being made, about half a minute", "accent"),
    "failed": ("Failed", "bad"),
}


def layout() -> Element:
    """The card before it is filled. Its clock ticks only while something is being made."""
    return html.Div(
        [
            dcc.Interval(id="quality-report-tick", interval=_TICK_MS, disabled=True),
            problem_slot("quality-reports-problem"),
            card(
                "Evidently reports",
                html.Div(id="quality-reports", **{"aria-live": "polite"}),
                note="open in a new tab",
            ),
        ]
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """List what is made and what is ready."""

    def show(data: Mapping[str, Any] | None, _tick: int | None, _fast: int | None, _acted: Any) -> Any:
        if data is None:
            raise PreventUpdate
        view = console.view(data)
        queue = console.services.drift_reports
        jobs = [] if queue is None else queue.list(view.endpoint)
        unready = [job for job in jobs if job["state"] != "ready"][:_JOBS]
        made = all(job["state"] == "failed" for job in unready)
        return report_list(console.reports.list(view.endpoint), unready, console, view.zone), made

    callbacks.server(
        show,
        [Output("quality-reports", "children"), Output("quality-report-tick", "disabled")],
        [
            Input("view", "data"),
            Input("quality-tick", "n_intervals"),
            Input("quality-report-tick", "n_intervals"),
            Input("quality-acted", "data"),
        ],
        problems=Output("quality-reports-problem", "children"),
    )


def report_list(
    files: Sequence[ReportFile], jobs: Sequence[Mapping[str, Any]], console: Console, zone: str
) -> Element:
    """Jobs that are not ready, then the newest files."""
    if not files and not jobs:
        return html.P(
            "A report compares two windows column by column. Choose a window and make one.", className="muted"
        )
    now = console.services.clock.now()
    items: list[Element] = [_job(job, zone) for job in jobs]
    items += [
        html.A(
            [
                icon("report"),
                html.Span(one.name, className="report-name"),
                html.Span(formats.ago(one.written_at, now), className="muted small"),
            ],
            href=one.address,
            target="_blank",
            rel="noopener",
            className="report-link",
        )
        for one in files[:_SHOWN]
    ]
    return html.Div(items, className="report-list")


def _job(job: Mapping[str, Any], zone: str) -> Element:
    words, tone = _STATES[str(job["state"])]
    start = datetime.fromisoformat(job["window"]["start"])
    named = f"Window of {formats.moment(start, zone, seconds=False)}"
    return html.Div(
        [
            html.Div(
                [named if job["slice"] is None else f"{named}, {job['slice']}", badge(words, tone)],
                className="badges",
            ),
            html.Div(job["error"], className="muted small wrap") if job["error"] else None,
        ],
        className="report-job",
    )
