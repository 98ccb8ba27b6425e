"""What is shown at an address that has no page."""

from __future__ import annotations

from dash import dcc, html

from dashboard.console import Console
from dashboard.elements import Element, empty


def layout(_console: Console) -> Element:
    """The page."""
    return empty(
        "search",
        "There is no such page",
        html.P("The address may be mistyped, or the page has moved."),
        [dcc.Link("Go to the overview", href="/", className="button button-primary")],
    )
