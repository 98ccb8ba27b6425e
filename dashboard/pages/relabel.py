"""Relabel: a person judges one flagged case after the other, with the keyboard, and exports what was labeled.

Everything that an annotator needs is on one screen. Keys are handled in ``assets/relabel.js``: each presses the button
that shows it, so that mouse, keyboard and screen reader do the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import Input, Output, State, dcc, html, no_update
from dash.exceptions import PreventUpdate

from dashboard import formats
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import (
    Element,
    badge,
    card,
    icon,
    key,
    page_head,
    problem_slot,
)
from dashboard.pages import relabel_views
from relabel.case import CaseState
from relabel.export.export import Export
from relabel.export.query import ExportQuery
from relabel.label import Label, Rating
from relabel.queue.case_queue import CaseQueue
from servelens.errors import Invalid

_TICK_MS = 10_000
_RENEW_MS = 120_000
_ROWS = 25
_SKIP_REASON = "skipped by the annotator"
_STATES = {"open": "Open", "claimed": "Claimed", "labeled": "Labeled", "skipped": "Skipped"}
_TONES = {"open": "accent", "claimed": "warning", "labeled": "good", "skipped": "neutral"}


def layout(_console: Console) -> Element:
    """The page before its case."""
    return html.Div(
        [
            dcc.Interval(id="relabel-tick", interval=_TICK_MS),
            dcc.Interval(id="relabel-renew", interval=_RENEW_MS),
            dcc.Store(id="relabel-held"),
            dcc.Store(id="relabel-command"),
            dcc.Store(id="relabel-changed", data=0),
            page_head(
                "Relabel",
                "Judge what the evaluators flagged. Good answers and corrected ones become fine-tuning data.",
                [
                    html.Div(id="relabel-counts", className="badges"),
                    html.Button([icon("download"), "Export"], id="relabel-export", className="button"),
                ],
            ),
            *(
                problem_slot(f"relabel-{part}")
                for part in ("problem", "queue-problem", "renew-problem", "export-problem")
            ),
            html.Div(
                [
                    html.Div(id="relabel-case", children=None, className="relabel-case"),
                    _desk(),
                ],
                id="relabel-bench",
                className="bench idle",
            ),
            html.Div(
                card(
                    "Queue",
                    html.Div(id="relabel-queue"),
                    note="in the order in which cases are handed out",
                    actions=[
                        dmc.SegmentedControl(
                            id="relabel-state",
                            data=[{"value": value, "label": label} for value, label in _STATES.items()],
                            value="open",
                            size="xs",
                        )
                    ],
                ),
                className="spaced",
            ),
            dmc.Modal(
                id="relabel-dialog",
                title="Export fine-tuning data",
                opened=False,
                size="lg",
                children=html.Div(id="relabel-export-summary"),
                closeButtonProps={"aria-label": "Close"},
            ),
        ],
        id="relabel-page",
    )


def _desk() -> Element:
    return html.Section(
        [
            dmc.TextInput(
                id="relabel-name",
                label="Your name",
                placeholder="So that others see who labeled",
                leftSection=icon("user"),
                debounce=False,
                value="",
                persistence=True,
                persistence_type="local",
            ),
            _button("relabel-claim", "Claim next", "N", "play", "button-primary wide-button"),
            html.Div(
                [
                    html.Div(
                        [
                            _button("relabel-good", "Good", "G", "check", "button-good"),
                            _button("relabel-bad", "Bad", "B", "cross", "button-bad"),
                        ],
                        className="rating",
                        role="group",
                        **{"aria-label": "Rating"},
                    ),
                    html.Div(
                        [
                            html.Div(
                                [
                                    html.Label(
                                        "Corrected answer",
                                        htmlFor="relabel-corrected",
                                        className="strong small",
                                    ),
                                    _button("relabel-edit", "Edit", "E", "edit", "button-quiet"),
                                ],
                                className="label-row",
                            ),
                            dmc.Textarea(
                                id="relabel-corrected",
                                autosize=True,
                                minRows=4,
                                maxRows=16,
                                debounce=False,
                                placeholder="What the model should have answered",
                            ),
                        ]
                    ),
                    dmc.TextInput(
                        id="relabel-comment", label="Comment", placeholder="Optional", debounce=False
                    ),
                    _button("relabel-submit", "Submit", "Ctrl ↵", "arrow", "button-primary wide-button"),
                    html.Div(
                        [
                            _button("relabel-skip", "Skip", "S", "skip", ""),
                            _button("relabel-release", "Give back", "R", "inbox", ""),
                        ],
                        className="rating",
                    ),
                ],
                className="desk-form",
            ),
            html.Div(id="relabel-done", className="muted small", **{"aria-live": "polite"}),
            html.P(
                [key("Esc"), " leaves a text field, so that the keys work again."],
                className="muted small desk-hint",
            ),
        ],
        className="card desk",
        **{"aria-label": "Label"},
    )


def _button(identifier: str, title: str, shortcut: str, icon_name: str, class_name: str) -> Element:
    return html.Button(
        [icon(icon_name), html.Span(title), key(shortcut)],
        id=identifier,
        className=f"button {class_name}".strip(),
        **{"aria-keyshortcuts": shortcut.replace("Ctrl ↵", "Control+Enter")},
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """The callbacks of the page."""
    queue = console.services.queue

    def act(
        command: Mapping[str, Any] | None,
        data: Mapping[str, Any] | None,
        held: Mapping[str, Any] | None,
        changed: int,
    ) -> Any:
        if data is None or not command:
            raise PreventUpdate
        view = console.view(data)
        annotator = str(command.get("name") or "").strip()
        if not annotator:
            raise Invalid(
                "your name is missing", fix="Enter it above the button; others see who labeled what."
            )
        action = command.get("action")
        done = ""
        if action != "claim":
            if held is None:
                raise Invalid("no case is claimed", fix="Press N to claim the next one.")
            done = _finish(queue, str(action), annotator, held, command)
        case = None if action == "release" else queue.claim(annotator, view.endpoint or None)
        if case is None:
            finished = action != "release"
            return (
                relabel_views.idle_view(console, view, finished=finished),
                None,
                "",
                "",
                done,
                "bench idle",
                changed + 1,
            )
        kept = {
            "id": case.id,
            "version": case.version,
            "answer": case.response_text or relabel_views.recorded_answer(case),
        }
        return relabel_views.case_view(case, view.zone), kept, "", "", done, "bench", changed + 1

    callbacks.server(
        act,
        [
            Output("relabel-case", "children"),
            Output("relabel-held", "data"),
            Output("relabel-corrected", "value"),
            Output("relabel-comment", "value"),
            Output("relabel-done", "children"),
            Output("relabel-bench", "className"),
            Output("relabel-changed", "data"),
        ],
        [Input("relabel-command", "data")],
        [
            State("view", "data"),
            State("relabel-held", "data"),
            State("relabel-changed", "data"),
        ],
        problems=Output("relabel-problem", "children"),
        initial=False,
    )

    callbacks.browser(
        "command",
        Output("relabel-command", "data"),
        [Input(f"relabel-{action}", "n_clicks") for action in ("claim", "submit", "skip", "release")],
        initial=False,
    )

    def look(
        data: Mapping[str, Any] | None,
        _tick: int | None,
        _changed: int | None,
        state: str,
        held: Mapping[str, Any] | None,
    ) -> Any:
        if data is None:
            raise PreventUpdate
        view = console.view(data)
        counts = queue.counts(view.endpoint).get(view.endpoint, {})
        cases = queue.list(state=CaseState(state), endpoint=view.endpoint, limit=_ROWS).cases
        badges = [
            badge(f"{formats.count(counts.get(CaseState(name), 0))} {name}", _TONES[name]) for name in _STATES
        ]
        idle = relabel_views.idle_view(console, view, finished=False) if held is None else no_update
        return badges, relabel_views.queue_view(cases, state, counts, console, view), idle

    callbacks.server(
        look,
        [
            Output("relabel-counts", "children"),
            Output("relabel-queue", "children"),
            Output("relabel-case", "children", allow_duplicate=True),
        ],
        [
            Input("view", "data"),
            Input("relabel-tick", "n_intervals"),
            Input("relabel-changed", "data"),
            Input("relabel-state", "value"),
        ],
        [State("relabel-held", "data")],
        problems=Output("relabel-queue-problem", "children"),
        initial="initial_duplicate",
    )

    def renew(_tick: int | None, held: Mapping[str, Any] | None, name: str | None) -> Any:
        if not held or not name:
            raise PreventUpdate
        case = queue.renew(int(held["id"]), name)
        return {**held, "version": case.version}

    callbacks.server(
        renew,
        [Output("relabel-held", "data", allow_duplicate=True)],
        [Input("relabel-renew", "n_intervals")],
        [State("relabel-held", "data"), State("relabel-name", "value")],
        problems=Output("relabel-renew-problem", "children"),
        initial=False,
    )

    def summarise(clicks: int | None, data: Mapping[str, Any] | None) -> Any:
        if not clicks or data is None:
            raise PreventUpdate
        view = console.view(data)
        endpoints = (view.endpoint,) if view.endpoint else ()
        export = Export(console.services.database, ExportQuery(endpoints=endpoints))
        for _chunk in export:
            pass
        return relabel_views.export_view(export.summary.written, export.summary.left_out, view.endpoint), True

    callbacks.server(
        summarise,
        [Output("relabel-export-summary", "children"), Output("relabel-dialog", "opened")],
        [Input("relabel-export", "n_clicks")],
        [State("view", "data")],
        problems=Output("relabel-export-problem", "children"),
        initial=False,
    )
    callbacks.browser(
        "settled",
        Output("relabel-page", "title"),
        [Input("relabel-changed", "data"), Input("relabel-problem", "children")],
        initial=False,
    )


def _finish(
    queue: CaseQueue,
    action: str,
    annotator: str,
    held: Mapping[str, Any],
    command: Mapping[str, Any],
) -> str:
    """Do what the annotator asked for with the held case, and say so."""
    case_id, version = int(held["id"]), int(held["version"])
    corrected, comment = (str(command.get(name) or "") for name in ("corrected", "comment"))
    if action == "release":
        queue.release(case_id, annotator)
        return f"Case {case_id} is open for others again."
    if action == "skip":
        queue.skip(case_id, annotator, comment.strip() or _SKIP_REASON, version=version)
        return f"Case {case_id} skipped."
    rating = command.get("rating")
    if rating is None:
        raise Invalid("no rating is chosen", fix="Press G for good or B for bad, then submit again.")
    changed = bool(corrected.strip()) and corrected.strip() != (held.get("answer") or "").strip()
    label = Label(_rating(rating), corrected if changed else None, (), comment or None)
    queue.submit(case_id, annotator, label, version=version)
    return f"Case {case_id} labeled {rating}{' with a corrected answer' if changed else ''}."


def _rating(word: object) -> Rating:
    try:
        return Rating(str(word))
    except ValueError as error:
        raise Invalid(
            f"{word!r} is not a rating", field="rating", fix="Press G for good or B for bad."
        ) from error
