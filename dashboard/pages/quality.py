"""Quality: what needs somebody, how good the answers are, whether the traffic has drifted, and how far the evaluators are."""

from __future__ import annotations

from dash import dcc, html

from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import Element, page_head
from dashboard.pages import (
    quality_alerts,
    quality_drift,
    quality_reports,
    quality_runs,
    quality_scores,
    quality_truth,
)

_TICK_MS = 15_000
_PARTS = (quality_alerts, quality_scores, quality_truth, quality_drift, quality_reports, quality_runs)


def layout(_console: Console) -> Element:
    """The page before its numbers."""
    return html.Div(
        [
            dcc.Interval(id="quality-tick", interval=_TICK_MS),
            # The time of the last change that was made here: what shows it is read again at once.
            dcc.Store(id="quality-acted"),
            page_head(
                "Quality",
                "What the evaluators say about the recorded traffic, and whether it has drifted.",
            ),
            html.Div([quality_alerts.layout(), quality_runs.standings_layout()], className="grid-2 standing"),
            quality_scores.layout(),
            quality_truth.layout(),
            quality_drift.layout(),
            quality_runs.layout(),
        ]
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """The callbacks of the page's parts."""
    for part in _PARTS:
        part.register(callbacks, console)
