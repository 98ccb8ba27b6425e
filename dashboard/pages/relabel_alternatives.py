"""Other answers to the case on the desk: one that the annotator asks for, and the shadow's when it was late.

Both take their time, so neither holds anything up: the annotator may go on meanwhile, also to the next case. When an answer has
come, the browser asks for the case anew (``assets/relabel_alternatives.js``), at a moment when nothing else is under way, and
what was entered stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dash import Input, Output, dcc, html
from dash.exceptions import PreventUpdate

from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import Element, icon, key, problem_slot
from dashboard.page_caller import page_key
from relabel.alternatives import Added
from servelens.errors import Conflict, Invalid, Missing, ServelensError

EVENT = "compare"
"""The desk's action that shows a case anew."""


def layout() -> Element:
    """The button, what it is doing, and what went wrong. ``assets/relabel_alternatives.js`` shows them where they apply."""
    return html.Div(
        [
            dcc.Store(id="relabel-wanted"),
            dcc.Store(id="relabel-answered"),
            html.Div(
                [
                    html.Button(
                        [icon("refresh"), html.Span("Another answer"), key("A")],
                        id="relabel-another",
                        className="button button-small",
                        title="Ask the endpoint again, and compare",
                        **{"aria-keyshortcuts": "A"},
                    ),
                    # What is inside belongs to assets/relabel_alternatives.js.
                    html.Span(id="relabel-asking", className="muted small", role="status"),
                ],
                id="relabel-another-place",
                className="toolbar another-answer",
                hidden=True,
            ),
            problem_slot("relabel-another-problem"),
            problem_slot("relabel-shadow-problem"),
        ]
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """The callbacks of this part."""
    alternatives, queue = console.alternatives, console.services.queue
    callbacks.browser(
        "anotherAnswer",
        Output("relabel-wanted", "data"),
        [Input("relabel-another", "n_clicks")],
        initial=False,
    )

    def ask(wanted: Mapping[str, Any] | None) -> Any:
        if not wanted:
            raise PreventUpdate
        case_id, annotator = int(wanted["id"]), str(wanted["annotator"])
        try:
            question = alternatives.question(case_id, annotator)
            answer = console.regeneration.ask(question, None, page_key())
            added = alternatives.add(case_id, [answer], actor=annotator, annotator=annotator)
        except ServelensError as error:
            # Another case may be on the screen by now.
            error.message = f"no other answer for case {case_id}: {error.message}"
            raise
        return _answered(case_id, annotator, added, asked=True)

    callbacks.server(
        ask,
        [Output("relabel-answered", "data")],
        [Input("relabel-wanted", "data")],
        problems=Output("relabel-another-problem", "children"),
        initial=False,
    )

    def late_shadow(held: Mapping[str, Any] | None) -> Any:
        if not held or not held["compares"] or held["adjudication"]:
            raise PreventUpdate
        case_id, annotator = int(held["id"]), str(held["annotator"])
        if any(each.source == "shadow" for each in queue.get(case_id, annotator).alternatives):
            raise PreventUpdate
        try:
            question = alternatives.question(case_id, annotator)
            tables = console.services.catalog.tables(question.endpoint)
            added = alternatives.add_shadow_answers(case_id, tables, actor=annotator, annotator=annotator)
        except (Conflict, Invalid, Missing):
            # The answers of the case stand, or there is no question or table to find one by.
            raise PreventUpdate from None
        if not added.added:
            raise PreventUpdate
        return _answered(case_id, annotator, added, asked=False)

    callbacks.server(
        late_shadow,
        [Output("relabel-answered", "data", allow_duplicate=True)],
        [Input("relabel-held", "data")],
        problems=Output("relabel-shadow-problem", "children"),
        initial=False,
    )
    callbacks.browser(
        "answered",
        Output("relabel-asking", "title"),
        [Input("relabel-answered", "data"), Input("relabel-another-problem", "children")],
        initial=False,
    )


def _answered(case_id: int, annotator: str, added: Added, *, asked: bool) -> Mapping[str, Any]:
    return {"id": case_id, "annotator": annotator, "added": added.added, "asked": asked}
