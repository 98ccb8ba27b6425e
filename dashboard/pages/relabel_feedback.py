"""What users said of the answer, below the case; an answer that a user wrote can be taken over into the form.

It is read when the case is on the screen: reading the table must not hold up the next case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from dash import Input, Output, dcc, html
from dash.exceptions import PreventUpdate

from dashboard import formats
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import Element, card, plain
from relabel.feedback import GivenFeedback, suggested_answer
from servelens.errors import Missing

_MOST: Final = 20
_WORDS: Final = {"corrected_answer": "what it should have been", "ground_truth": "what is right"}


def layout() -> Element:
    """The place of what users said."""
    return html.Div([html.Div(id="relabel-feedback"), dcc.Store(id="relabel-user-answer")])


def register(callbacks: Callbacks, console: Console) -> None:
    """The callbacks of this part."""
    queue = console.services.queue

    def feedback(held: Mapping[str, Any] | None) -> Any:
        if not held:
            raise PreventUpdate
        case = queue.get(int(held["id"]), str(held["annotator"]))
        try:
            given = console.feedback.given(case.endpoint, case.databricks_request_id)
        except Missing:
            # A record of another system has no id of ours, and no feedback here.
            given = []
        return said(given), {"id": case.id, "answer": suggested_answer(given)}

    callbacks.server(
        feedback,
        [Output("relabel-feedback", "children"), Output("relabel-user-answer", "data")],
        [Input("relabel-held", "data")],
        problems=Output("relabel-feedback-problem", "children"),
        initial=False,
    )
    callbacks.browser(
        "userAnswer",
        Output("relabel-feedback", "title"),
        [Input("relabel-user-answer", "data")],
        initial=False,
    )


def said(given: Sequence[GivenFeedback]) -> Element | None:
    """What users said of the answer, newest first; nothing where nobody said anything."""
    if not given:
        return None
    lines = [html.Li(_line(each)) for each in given[:_MOST]]
    if len(given) > _MOST:
        lines.append(html.Li(f"and {len(given) - _MOST:,} more", className="muted"))
    return card("What users said", html.Ul(lines, className="case-scores"), class_name="spaced")


def _line(each: GivenFeedback) -> list[Element | None]:
    name = _WORDS.get(each.name, each.name)
    return [
        html.Span(f"{each.source or 'somebody'}: {name}", className="muted"),
        html.Strong(formats.significant(each.value)) if each.value is not None else None,
        html.Strong(each.label) if each.label else None,
        plain(each.comment) if each.comment else None,
    ]
