"""A case in the side panel: what it is, what happened to it, what people say about it, and what somebody in charge can do.

It is for reading; labels are given at the desk. Of an unfinished case it shows no label but the reader's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from dashboard import formats, label_form
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import Element, badge, icon, plain, problem_slot
from dashboard.pages import relabel_case
from dashboard.pages.relabel_desk import named
from dashboard.pages.request_panel import transcript
from relabel.case import Case, CaseState, HistoryEntry
from relabel.label import ANSWER
from relabel.label_schema import FieldType, LabelSchema
from servelens.errors import Invalid

_ACTIONS = ("comment", "reassign", "reopen", "gold", "ungold")
_FINISHED = (CaseState.LABELED, CaseState.SKIPPED, CaseState.DISPUTED)


def layout() -> Element:
    """The panel before its case. Its forms stay where they are, so that what is typed survives every refresh."""
    return dmc.Drawer(
        id="relabel-drawer",
        position="right",
        size="min(760px, 100vw)",
        opened=False,
        title="Case",
        padding="lg",
        keepMounted=True,
        closeButtonProps={"aria-label": "Close"},
        children=html.Div(
            [
                dcc.Store(id="relabel-opened"),
                dcc.Store(id="relabel-gold-form"),
                dcc.Store(id="relabel-panel-command"),
                problem_slot("relabel-panel-problem"),
                html.Div(id="relabel-panel-content"),
                html.Section(
                    [
                        html.H3("Comments"),
                        html.Div(id="relabel-panel-comments"),
                        html.Div(
                            [
                                dmc.Textarea(
                                    id="relabel-remark",
                                    placeholder="Everybody sees it",
                                    autosize=True,
                                    minRows=1,
                                    value="",
                                    className="grow",
                                    **{"aria-label": "A comment"},
                                ),
                                _act("comment", "Add"),
                            ],
                            className="toolbar",
                        ),
                    ],
                    className="panel-section",
                ),
                html.Section(
                    [
                        html.H3("In charge"),
                        problem_slot("relabel-act-problem"),
                        html.Div(id="relabel-act-done", className="muted small", **{"aria-live": "polite"}),
                        _manage(
                            "reassign",
                            "Reassign",
                            "Hand the place of one annotator to another.",
                            [_entry("from", "From"), _entry("to", "To"), _act("reassign", "Reassign")],
                        ),
                        _manage(
                            "reopen",
                            "Open again",
                            "Its labels go into the history, and it is labeled anew.",
                            [_entry("why", "Why"), _act("reopen", "Open again")],
                        ),
                        _manage(
                            "gold",
                            "Gold case",
                            "Everybody gets it once without knowing, to measure how well they label. Give the known label.",
                            [
                                # What is inside belongs to assets/relabel_panel.js.
                                html.Div(id="relabel-gold-fields", className="fields"),
                                html.Div(
                                    [
                                        _act("gold", "Make it a gold case"),
                                        _act("ungold", "No gold case any more"),
                                    ],
                                    className="toolbar",
                                ),
                            ],
                        ),
                    ],
                    className="panel-section",
                ),
                html.Section([html.H3("History"), html.Div(id="relabel-history")], className="panel-section"),
            ],
            className="panel",
        ),
    )


def _manage(name: str, title: str, words: str, children: list[Element]) -> Element:
    return html.Details(
        [
            html.Summary(title),
            html.P(words, className="muted small"),
            html.Div(children, className="dialog-form"),
        ],
        id=f"relabel-manage-{name}",
        className="manage",
    )


def _entry(name: str, label: str) -> Element:
    return dmc.TextInput(id=f"relabel-{name}", label=label, value="")


def _act(name: str, words: str) -> Element:
    return html.Button(words, id=f"relabel-do-{name}", className="button button-small")


def register(callbacks: Callbacks, console: Console) -> None:
    """The callbacks of the panel."""
    queue = console.services.queue
    callbacks.browser(
        "caseShown",
        [Output("relabel-drawer", "opened"), Output("relabel-opened", "data")],
        [Input("url", "search")],
    )
    callbacks.browser(
        "closeCase",
        Output("url", "search", allow_duplicate=True),
        [Input("relabel-drawer", "opened")],
        [State("url", "search")],
        initial=False,
    )

    def show(
        case_id: int | None, _changed: int | None, data: Mapping[str, Any] | None, name: str | None
    ) -> Any:
        if case_id is None or data is None:
            raise PreventUpdate
        view = console.view(data)
        reader = (name or "").strip() or None
        case = queue.get(case_id, reader)
        schema = console.schema(case.endpoint, case.schema_version)
        known = console.schema(case.endpoint)
        return (
            f"Case {case.id}",
            _content(case, schema, view.zone),
            relabel_case.comments(case) if case.comments else html.P("None yet.", className="muted small"),
            _history(queue.history(case_id, reader), view.zone),
            _gold_form(case, known),
        )

    callbacks.server(
        show,
        [
            Output("relabel-drawer", "title"),
            Output("relabel-panel-content", "children"),
            Output("relabel-panel-comments", "children"),
            Output("relabel-history", "children"),
            Output("relabel-gold-form", "data"),
        ],
        [Input("relabel-opened", "data"), Input("relabel-changed", "data")],
        [State("view", "data"), State("relabel-name", "value")],
        problems=Output("relabel-panel-problem", "children"),
    )
    callbacks.browser(
        "goldForm",
        Output("relabel-gold-fields", "title"),
        [Input("relabel-gold-form", "data")],
        initial=False,
    )
    callbacks.browser(
        "panelCommand",
        Output("relabel-panel-command", "data"),
        [Input(f"relabel-do-{action}", "n_clicks") for action in _ACTIONS],
        [State("relabel-opened", "data")],
        initial=False,
    )

    def act(command: Mapping[str, Any] | None, changed: int) -> Any:
        if not command or command.get("case") is None:
            raise PreventUpdate
        case_id, actor = int(command["case"]), named(command.get("name"))
        match command.get("action"):
            case "comment":
                queue.comment(case_id, actor, _needed(command, "comment", "Write what others should know."))
                done = "The comment was added."
            case "reassign":
                giver = _needed(command, "from", "Name who has the case.")
                taker = _needed(command, "to", "Name who gets it.")
                queue.reassign(case_id, giver, taker, actor=actor)
                done = f"{taker} has the place of {giver} now."
            case "reopen":
                queue.reopen(case_id, actor, _needed(command, "why", "Say why, so that others know."))
                done = "The case is open again."
            case "gold":
                queue.set_gold(case_id, dict(command.get("values") or {}), actor=actor)
                done = "It is a gold case now."
            case _:
                queue.set_gold(case_id, None, actor=actor)
                done = "It is no gold case any more."
        return done, changed + 1, "", "", "", ""

    callbacks.server(
        act,
        [
            Output("relabel-act-done", "children"),
            Output("relabel-changed", "data", allow_duplicate=True),
            *(Output(f"relabel-{name}", "value") for name in ("remark", "from", "to", "why")),
        ],
        [Input("relabel-panel-command", "data")],
        [State("relabel-changed", "data")],
        problems=Output("relabel-act-problem", "children"),
        initial=False,
    )


def _needed(command: Mapping[str, Any], name: str, fix: str) -> str:
    words = str(command.get(name) or "").strip()
    if not words:
        raise Invalid("it is blank", field=name, fix=fix)
    return words


def _content(case: Case, schema: LabelSchema, zone: str) -> Element:
    resolution = f" by {case.resolution}" if case.resolution else ""
    return html.Div(
        [
            html.Div(
                [
                    badge(f"{case.state}{resolution}", relabel_case.STATE_TONES[case.state]),
                    badge(f"{case.labeled} of {formats.plural(case.wanted, 'label')}"),
                    badge(case.variant or case.served_entity or "no entity", "accent"),
                    html.Span(formats.moment(case.request_time, zone), className="muted small"),
                    dcc.Link(
                        "Open the request",
                        href=f"/requests?endpoint={case.endpoint}&request={case.databricks_request_id}",
                        className="small case-link",
                    ),
                ],
                className="badges",
            ),
            relabel_case.reasons(case.reasons),
            relabel_case.scores(case),
            _labels(case, schema),
            html.Section(
                [html.H3("Conversation"), transcript(relabel_case.turns_of(case))], className="panel-section"
            ),
            relabel_case.others(case),
        ],
        className="panel",
    )


def _labels(case: Case, schema: LabelSchema) -> Element | None:
    if case.skip_reason and not case.labels:
        return html.Div([icon("skip"), plain(f"Skipped: {case.skip_reason}")], className="hint")
    if not case.labels:
        return None
    return html.Section(
        [
            html.H3("Labels" if case.state in _FINISHED else "Your label"),
            *[
                html.Div(
                    [
                        html.Div(
                            [
                                html.Strong(given.annotator),
                                badge("decided", "accent") if given.is_adjudication else None,
                                badge(given.source) if given.source != "servelens" else None,
                            ],
                            className="badges",
                        ),
                        html.Dl(
                            _given(schema.answers(given.label), given.label.comment, schema),
                            className="facts",
                        ),
                    ],
                    className="score",
                )
                for given in case.labels
            ],
        ],
        className="panel-section",
    )


def _given(answers: Mapping[str, Any], comment: str | None, schema: LabelSchema) -> list[Element]:
    cells: list[Element] = []
    for field in schema.fields:
        if field.name in answers:
            words = label_form.value_words(answers[field.name], field)
            cells += [html.Dt(label_form.title(field)), html.Dd(plain(words))]
    if comment:
        cells += [html.Dt("Comment"), html.Dd(plain(comment))]
    return cells


def _history(entries: Sequence[HistoryEntry], zone: str) -> Element:
    return html.Ol(
        [
            html.Li(
                [
                    html.Span(formats.moment(each.at, zone), className="muted small"),
                    html.Span(
                        [html.Strong(each.event or str(each.to_state)), f" by {each.actor}"],
                    ),
                    plain(each.detail, "muted small") if each.detail else None,
                ]
            )
            for each in entries
        ],
        className="case-history",
    )


def _gold_form(case: Case, schema: LabelSchema) -> Mapping[str, Any]:
    """The form of the known label. Spans are left to the desk and the API: the text is only read here."""
    names = (ANSWER, *(each.id for each in case.alternatives))
    fields = [
        label_form.field_of(field, case, names)
        for field in schema.fields
        if field.type is not FieldType.SPANS
    ]
    # Nobody is blind here, and other answers are shown by where they are from.
    titles = ["Recorded answer", *(each.source.capitalize() for each in case.alternatives)]
    for field in fields:
        if field["type"] == FieldType.PREFERENCE:
            for option, title in zip(field["options"], titles, strict=False):
                option["title"] = title
    return {"id": case.id, "answer": relabel_case.recorded_answer(case), "fields": fields}
