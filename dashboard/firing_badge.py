"""How many alerts fire, beside Quality in the navigation of every page."""

from __future__ import annotations

from typing import Any

from dash import Input, Output, dcc, html

from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import Element, problem_slot

PATH = "/quality"
_TICK_MS = 30_000


def badge_slot() -> Element:
    """Where the number goes; nothing is shown while none fires."""
    return html.Span(id="nav-firing", className="nav-count", hidden=True)


def layout() -> Element:
    """The clock, and where it is said that the number is not known."""
    return html.Div(
        [dcc.Interval(id="nav-firing-tick", interval=_TICK_MS), problem_slot("nav-firing-problem")],
        className="nav-firing",
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """Count over all endpoints: whoever looks at one should hear of the others."""

    def count(_tick: int | None) -> Any:
        rules = {rule.name for rule in console.services.alert_rules}
        firing = sum(number for rule, _, _, number in console.alerts.firing() if rule in rules)
        return str(firing), not firing, f"{firing} firing alerts" if firing != 1 else "1 firing alert"

    callbacks.server(
        count,
        [
            Output("nav-firing", "children"),
            Output("nav-firing", "hidden"),
            Output("nav-firing", "title"),
        ],
        [Input("nav-firing-tick", "n_intervals")],
        problems=Output("nav-firing-problem", "children"),
    )
