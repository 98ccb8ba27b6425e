"""The desk: one case after the other is claimed, labeled, skipped, given back or taken back, each in one round trip that
brings the next case along. On the tab of disputes the cases are those whose labels disagree.

What was entered is lost only when a case is done: a refusal leaves the form as it is and says which field it is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dash import Input, Output, State, html
from dash.exceptions import PreventUpdate

from dashboard import label_form
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import Element, icon, key, problem_slot
from dashboard.pages import relabel_alternatives, relabel_case, relabel_feedback, relabel_idle
from relabel.case import Case, CaseState
from relabel.label import Value
from relabel.label_schema import FieldType, LabelSchema
from servelens.errors import Conflict, Invalid

_ACTIONS = ("claim", "submit", "skip", "release", "undo")
_SKIP_REASON = "skipped by the annotator"
_MOST_UNDO = 50
DISPUTES = "disputes"


def layout() -> Element:
    """The place of the case, and the desk beside it."""
    return html.Div(
        [
            html.Div(
                [
                    html.Div(id="relabel-case", children=None, className="relabel-case"),
                    relabel_alternatives.layout(),
                    relabel_feedback.layout(),
                ]
            ),
            html.Section(
                [
                    _button("relabel-claim", "Claim next", "N", "play", "button-primary wide-button"),
                    html.Div(
                        [
                            html.Div(id="relabel-done", className="muted small", **{"aria-live": "polite"}),
                            html.Div(
                                _button("relabel-undo", "Undo", "U", "undo", "button-quiet button-small"),
                                id="relabel-undo-place",
                                hidden=True,
                            ),
                        ],
                        className="label-row",
                    ),
                    html.Div(
                        [
                            # What is inside belongs to assets/relabel_form.js.
                            html.Div(id="relabel-form", className="fields"),
                            html.Div(
                                [
                                    problem_slot("relabel-problem"),
                                    _button(
                                        "relabel-submit",
                                        "Submit",
                                        "Ctrl ↵",
                                        "arrow",
                                        "button-primary wide-button",
                                    ),
                                    html.Div(
                                        [
                                            _button("relabel-skip", "Skip", "S", "skip", ""),
                                            _button("relabel-release", "Give back", "R", "inbox", ""),
                                        ],
                                        className="rating",
                                    ),
                                ],
                                className="desk-actions",
                            ),
                        ],
                        className="desk-form",
                    ),
                    html.Div(id="relabel-guidelines"),
                    _keys(),
                ],
                className="card desk",
                **{"aria-label": "Label"},
            ),
        ],
        id="relabel-bench",
        className="bench idle",
    )


def _keys() -> Element:
    pairs = (
        ("1–9", "an option of the marked field"),
        ("J K", "next field, field before"),
        ("E", "edit the recorded answer"),
        ("W", "use what the user wrote"),
        ("A", "ask for another answer to compare"),
        ("C", "comment"),
        ("Esc", "leave a text field, so that the keys work again"),
    )
    return html.Details(
        [
            html.Summary(["Keys ", key("?")]),
            html.Ul([html.Li([key(name), " ", words]) for name, words in pairs], className="key-list"),
        ],
        id="relabel-keys",
        className="small desk-hint",
    )


def _button(identifier: str, title: str, shortcut: str, icon_name: str, class_name: str) -> Element:
    return html.Button(
        [icon(icon_name), html.Span(title), key(shortcut)],
        id=identifier,
        className=f"button {class_name}".strip(),
        **{"aria-keyshortcuts": shortcut.replace("Ctrl ↵", "Control+Enter")},
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """The callbacks of the desk."""
    queue = console.services.queue

    def act(
        command: Mapping[str, Any] | None,
        data: Mapping[str, Any] | None,
        held: Mapping[str, Any] | None,
        changed: int,
        undo: Sequence[int] | None,
    ) -> Any:
        if data is None or not command:
            raise PreventUpdate
        view = console.view(data)
        annotator = named(command.get("name"))
        action, done, labeled = str(command.get("action")), "", list(undo or ())
        disputes = command.get("tab") == DISPUTES
        case: Case | None = None
        taken_back: tuple[Mapping[str, Value], str | None] | None = None
        if action == "undo":
            case, taken_back, done = _undo(console, annotator, labeled)
        elif action != "claim":
            if held is None:
                raise Invalid("no case is claimed", fix="Press N to claim the next one.")
            if action == relabel_alternatives.EVENT:
                case = queue.renew(int(held["id"]), str(held["annotator"]))
                done = f"Case {case.id} has another answer. What you entered is kept."
            else:
                done = _finish(console, action, annotator, held, command)
            disputes = bool(held.get("adjudication"))
            if action in ("submit", "skip"):
                labeled = [*labeled, int(held["id"])][-_MOST_UNDO:]
        if case is None and action != "release":
            claim = queue.claim_dispute if disputes else queue.claim
            case = claim(annotator, view.endpoint or None)
        common = (done, changed + 1, labeled, not labeled, None, None)
        if case is None:
            idle = relabel_idle.idle_view(console, view, disputes=disputes, finished=action != "release")
            return idle, None, "bench idle", None, *common
        schema = console.schema(case.endpoint, case.schema_version)
        return (
            *_shown(case, schema, annotator, view.zone, changed + 1, taken_back),
            "bench",
            _guidelines(schema),
            *common,
        )

    callbacks.server(
        act,
        [
            Output("relabel-case", "children"),
            Output("relabel-held", "data"),
            Output("relabel-bench", "className"),
            Output("relabel-guidelines", "children"),
            Output("relabel-done", "children"),
            Output("relabel-changed", "data"),
            Output("relabel-labeled", "data"),
            Output("relabel-undo-place", "hidden"),
            Output("relabel-feedback", "children", allow_duplicate=True),
            Output("relabel-another-problem", "children", allow_duplicate=True),
        ],
        [Input("relabel-command", "data")],
        [
            State("view", "data"),
            State("relabel-held", "data"),
            State("relabel-changed", "data"),
            State("relabel-labeled", "data"),
        ],
        problems=Output("relabel-problem", "children"),
        initial=False,
    )
    callbacks.browser(
        "command",
        Output("relabel-command", "data"),
        [Input(f"relabel-{action}", "n_clicks") for action in _ACTIONS],
        [State("relabel-tab", "data")],
        initial=False,
    )
    callbacks.browser("form", Output("relabel-form", "title"), [Input("relabel-held", "data")], initial=False)
    callbacks.browser(
        "settled",
        Output("relabel-page", "title"),
        [Input("relabel-changed", "data"), Input("relabel-problem", "children")],
        initial=False,
    )

    def renew(_tick: int | None, held: Mapping[str, Any] | None) -> Any:
        if not held:
            raise PreventUpdate
        case = queue.renew(int(held["id"]), str(held["annotator"]))
        return {**held, "version": case.version}

    callbacks.server(
        renew,
        [Output("relabel-held", "data", allow_duplicate=True)],
        [Input("relabel-renew", "n_intervals")],
        [State("relabel-held", "data")],
        problems=Output("relabel-renew-problem", "children"),
        initial=False,
    )


def named(name: object) -> str:
    """Who sits here. Raises :class:`~servelens.errors.Invalid` when no name is given."""
    words = str(name or "").strip()
    if not words:
        raise Invalid(
            "your name is missing", fix="Enter it at the top of the page; others see who labeled what."
        )
    return words


def _shown(
    case: Case,
    schema: LabelSchema,
    annotator: str,
    zone: str,
    serial: int,
    taken_back: tuple[Mapping[str, Value], str | None] | None,
) -> tuple[Element, Mapping[str, Any]]:
    is_adjudication = case.state is CaseState.ADJUDICATING
    shown = label_form.surfaces(case, schema, relabel_case.turns_of(case))
    view = relabel_case.case_view(
        case,
        schema,
        zone,
        annotator=annotator,
        shown=shown,
        serial=serial,
        is_adjudication=is_adjudication,
    )
    prefill, comment = taken_back or (None, None)
    form = label_form.form(
        case,
        schema,
        annotator,
        answer=relabel_case.recorded_answer(case),
        shown=shown,
        serial=serial,
        prefill=prefill,
        comment=comment,
        is_adjudication=is_adjudication,
    )
    return view, form


def _undo(
    console: Console, annotator: str, labeled: list[int]
) -> tuple[Case, tuple[Mapping[str, Value], str | None], str]:
    """Take the last label back; what it said is in the form again."""
    queue = console.services.queue
    if not labeled:
        raise Invalid("nothing has been labeled on this page that could be taken back")
    case_id = labeled.pop()
    before = queue.get(case_id, annotator)
    own = next((given for given in before.labels if given.annotator == annotator), None)
    case = queue.withdraw(case_id, annotator)
    if own is None:
        return case, ({}, None), f"Case {case_id} is yours again."
    schema = console.schema(case.endpoint, own.schema_version)
    return (
        case,
        (schema.answers(own.label), own.label.comment),
        f"The label of case {case_id} was taken back.",
    )


def _finish(
    console: Console,
    action: str,
    annotator: str,
    held: Mapping[str, Any],
    command: Mapping[str, Any],
) -> str:
    """Do what the annotator asked for with the held case, and say so."""
    queue = console.services.queue
    case_id, version = int(held["id"]), int(held["version"])
    comment = str(command.get("comment") or "").strip()
    if action == "release":
        queue.release(case_id, annotator)
        return f"Case {case_id} is open for others again."
    if action == "skip":
        queue.skip(case_id, annotator, comment or _SKIP_REASON, version=version)
        return f"Case {case_id} skipped."
    values = command.get("values")
    if not isinstance(values, Mapping):
        raise Invalid("there are no answers", field="values")
    try:
        answers = dict(values)
        if any(field["type"] == FieldType.PREFERENCE for field in held["fields"]):
            case = queue.get(case_id, annotator)
            schema = console.schema(case.endpoint, case.schema_version)
            answers = label_form.from_browser(values, schema, case, annotator)
        queue.answer(case_id, annotator, answers, comment or None, version=version)
    except Invalid as error:
        raise _about(error, held) from error
    except Conflict as error:
        raise Conflict(
            error.message, field=error.field, fix="Press N to claim another case; what you entered is kept."
        ) from error
    return f"Case {case_id} {'decided' if held.get('adjudication') else 'labeled'}{_summary(values, held)}."


def _summary(values: Mapping[str, Any], held: Mapping[str, Any]) -> str:
    words = ""
    for field in held["fields"]:
        value = values.get(field["name"])
        if value is None:
            continue
        if field["type"] == FieldType.RATING:
            words = f", rated {value} of {field['scale']}" if field["scale"] else f" {value}"
        elif field["type"] == FieldType.CORRECTED_ANSWER:
            words += " with a corrected answer"
    return words


def _about(error: Invalid, held: Mapping[str, Any]) -> Invalid:
    """The error with the field's name as it is on the screen, and the keys that answer it."""
    name = (error.field or "").removeprefix("values.").partition("[")[0].partition(".")[0]
    field = next((each for each in held["fields"] if each["name"] == name), None)
    if field is None:
        return error
    message, fix = f"{error.message} ({field['title']})", error.fix
    if error.message == "it is not answered":
        good_or_bad = field["type"] == FieldType.RATING and field["scale"] is None
        message = f"“{field['title']}” is not answered"
        fix = "Press G for good or B for bad, or skip." if good_or_bad else "Answer it, or skip."
    return Invalid(message, field=error.field, fix=fix)


def _guidelines(schema: LabelSchema) -> Element | None:
    if not schema.guidelines:
        return None
    return html.Details(
        [html.Summary("Guidelines"), html.Div(schema.guidelines, className="plain")],
        className="small",
        open=True,
    )
