"""One case on the screen: why it was flagged, its scores, the conversation, other answers, and the labels of a dispute.

Text in which spans are marked is put into its place by ``assets/relabel_spans.js``, which owns what is inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html

from dashboard import conversation, formats, label_form, reason_text
from dashboard.conversation import Turn
from dashboard.elements import Element, badge, code_block, icon, plain
from dashboard.label_form import Surface
from dashboard.pages.request_panel import said, transcript
from relabel.alternatives import presented
from relabel.case import Alternative, Case, CaseState, Reason
from relabel.label import ANSWER
from relabel.label_schema import FieldType, LabelSchema

_LONG = 8
_LAST = 4
_SOURCES = {"shadow": "shadow answer", "regenerated": "regenerated answer", "uploaded": "uploaded answer"}
STATE_TONES = {
    CaseState.OPEN: "accent",
    CaseState.CLAIMED: "warning",
    CaseState.DISPUTED: "bad",
    CaseState.ADJUDICATING: "warning",
    CaseState.LABELED: "good",
    CaseState.SKIPPED: "neutral",
    CaseState.GOLD: "accent",
}


def turns_of(case: Case) -> list[Turn]:
    """The messages of a case; the last one is the recorded answer where there is one."""
    last = len(case.messages) - 1
    return [
        conversation.turn(message, is_answer=case.answered and place == last)
        for place, message in enumerate(case.messages)
    ]


def recorded_answer(case: Case) -> str:
    """The recorded answer as text; empty when there is none."""
    if not case.answered or not case.messages:
        return ""
    return case.response_text or conversation.turn(case.messages[-1]).text


def case_view(
    case: Case,
    schema: LabelSchema,
    zone: str,
    *,
    annotator: str,
    shown: Sequence[Surface],
    serial: int,
    is_adjudication: bool,
) -> Element:
    """A case that somebody labels. ``shown`` are the texts that spans are marked in, ``serial`` is that of the form."""
    turns = turns_of(case)
    compares = schema.of_type(FieldType.PREFERENCE) is not None and bool(case.alternatives)
    seen = f"seen {case.occurrences} times" if case.occurrences > 1 else None
    places = {surface.turn: (place, surface) for place, surface in enumerate(shown)}
    return html.Section(
        [
            html.Div(
                [
                    html.H2(f"Case {case.id}", id="relabel-case-title", tabIndex=-1),
                    badge("Dispute", "bad") if is_adjudication else None,
                    # Who served the recorded answer would tell which of several it is.
                    None if compares else badge(case.variant or case.served_entity or "no entity", "accent"),
                    badge(seen) if seen else None,
                    html.Span(formats.moment(case.request_time, zone), className="muted small"),
                    _request_link(case),
                ],
                className="badges",
            ),
            reasons(case.reasons),
            scores(case),
            comments(case) if case.comments else None,
            labels_compared(case, schema, annotator) if is_adjudication else None,
            _loose_surface(places[None]) if None in places else None,
            *_conversation(
                [turn for turn in turns if not (compares and turn.is_answer)],
                {place: _surface(number) for place, (number, _) in places.items() if place is not None},
            ),
            *(_answers(case, schema, turns, annotator, places) if compares else (others(case),)),
            _tools(case.tools) if case.tools else None,
        ],
        className="card case",
        # Another element for each showing: scripts have changed what was inside the last one.
        key=f"case-{serial}",
        **{"data-serial": str(serial)},
    )


def _conversation(turns: Sequence[Turn], texts: Mapping[int, Element]) -> list[Element]:
    """The messages; of a long conversation the beginning is folded, so that the answer is on the screen. It stays unfolded
    where parts of it are to be marked.
    """
    if len(turns) <= _LONG:
        return [transcript(turns, texts)]
    cut = len(turns) - _LAST
    earlier, later = (
        {place: text for place, text in texts.items() if (place < cut) is side} for side in (True, False)
    )
    return [
        html.Details(
            [html.Summary(f"{cut} earlier messages"), transcript(turns[:cut], earlier)],
            open=bool(earlier),
            className="earlier",
        ),
        transcript(turns[cut:], {place - cut: text for place, text in later.items()}),
    ]


def _request_link(case: Case) -> Element:
    return dcc.Link(
        "Open the request",
        href=f"/requests?endpoint={case.endpoint}&request={case.databricks_request_id}",
        className="small case-link",
    )


def reasons(found: Sequence[Reason]) -> Element:
    """Why the case was flagged, a sentence each."""
    return html.Ul(
        [
            html.Li(
                [icon("alert"), html.Span([html.Strong(lead), rest])],
                className="reason",
                title=f"rule {reason.rule}",
            )
            for reason in found
            for lead, rest in (reason_text.sentence(reason),)
        ],
        className="reasons",
        **{"aria-label": "Why it was flagged"},
    )


def scores(case: Case) -> Element | None:
    """What the evaluators said when the record became a case."""
    if not case.scores:
        return None
    return html.Ul(
        [
            html.Li(
                [
                    html.Span(
                        score.evaluator + ("" if score.target == "response" else f" of the {score.target}"),
                        className="muted",
                    ),
                    html.Strong(formats.significant(score.score) if score.score is not None else "no number"),
                    html.Span(score.label) if score.label else None,
                ]
            )
            for score in case.scores
        ],
        className="case-scores small",
        **{"aria-label": "Scores"},
    )


def comments(case: Case) -> Element:
    """What people remarked."""
    return html.Div(
        [
            html.Div(
                [html.Strong(each.author), plain(each.text)],
                className="case-comment",
            )
            for each in case.comments
        ],
        className="case-comments",
        role="group",
        **{"aria-label": "Comments"},
    )


def _surface(place: int) -> Element:
    return html.Div(className="plain turn-text surface", **{"data-surface": str(place)})


def _loose_surface(surface: tuple[int, Surface]) -> Element:
    name = "Request" if surface[1].side == "request" else "Answer"
    return html.Div(
        [html.Div([name, html.Span("as one text")], className="turn-role"), _surface(surface[0])],
        className="turn turn-user",
    )


def _answers(
    case: Case,
    schema: LabelSchema,
    turns: Sequence[Turn],
    annotator: str,
    places: Mapping[int | None, tuple[int, Surface]],
) -> tuple[Element, Element | None]:
    """The recorded answer and the others side by side. Which is which shows once one has been preferred."""
    sources = {each.id: _SOURCES.get(each.source, each.source) for each in case.alternatives}
    cells = []
    for place, each in enumerate(presented(case, annotator), start=1):
        is_recorded = each.id == ANSWER
        surface = places.get(len(turns) - 1) if is_recorded else None
        source = "recorded answer" if is_recorded else sources[each.id]
        cells.append(
            html.Div(
                [
                    html.Div(
                        [f"Answer {place}", html.Span(source, className="answer-source")],
                        className="turn-role",
                    ),
                    *said(conversation.turn(each.message), None if surface is None else _surface(surface[0])),
                ],
                className="turn turn-assistant answer",
                role="group",
                **{"aria-label": f"Answer {place}"},
            )
        )
    asks_more = any(
        field.type in (FieldType.RATING, FieldType.CORRECTED_ANSWER)
        or (field.type is FieldType.SPANS and field.of == "response")
        for field in schema.fields
    )
    note = "Which one is the recorded answer, that the other questions are about, shows once you have chosen."
    return (
        html.Div(cells, id="relabel-answers", className="answers", **{"data-blind": "true"}),
        html.P(note, className="note blind-note") if asks_more else None,
    )


def others(case: Case) -> Element | None:
    """The other answers to the request, with their sources."""
    if not case.alternatives:
        return None
    return html.Details(
        [
            html.Summary(f"Other answers ({len(case.alternatives)})"),
            html.Div(
                [
                    html.Div(
                        [
                            html.Div(
                                [
                                    _SOURCES.get(each.source, each.source).capitalize(),
                                    html.Span(each.served_entity or each.model or ""),
                                ],
                                className="turn-role",
                            ),
                            *said(_other_turn(each)),
                        ],
                        className="turn turn-assistant",
                    )
                    for each in case.alternatives
                ],
                className="transcript",
            ),
        ]
    )


def _other_turn(other: Alternative) -> Turn:
    turn = conversation.turn(other.message)
    return turn if turn.text or turn.calls else Turn("assistant", other.text)


def _tools(tools: Sequence[Mapping[str, Any]]) -> Element:
    return html.Details(
        [
            html.Summary(f"{formats.plural(len(tools), 'tool')} offered"),
            html.Div([_tool(tool) for tool in tools], className="stack"),
        ]
    )


def _tool(tool: Mapping[str, Any]) -> Element:
    function = tool.get("function")
    described = function if isinstance(function, Mapping) else tool
    return html.Div(
        [
            html.Div(
                [
                    html.Strong(str(described.get("name") or "tool")),
                    plain(str(described.get("description") or ""), "muted"),
                ]
            ),
            code_block(conversation.pretty_value(described.get("parameters")))
            if described.get("parameters")
            else None,
        ],
        className="tool-call",
    )


def labels_compared(case: Case, schema: LabelSchema, annotator: str) -> Element:
    """The labels of a dispute side by side, with what differs marked; each can be taken as a start."""
    differ = label_form.differing(case.labels, schema)
    compares = schema.of_type(FieldType.PREFERENCE) is not None and bool(case.alternatives)
    order = presented(case, annotator) if compares else ()
    answers = [schema.answers(given.label) for given in case.labels]
    rows = [
        html.Tr(
            [
                html.Th(
                    [
                        label_form.title(field),
                        badge("differs", "warning") if field.name in differ else None,
                    ],
                    scope="row",
                ),
                *(
                    html.Td(plain(label_form.value_words(each.get(field.name), field, order)))
                    for each in answers
                ),
            ],
            className="differs" if field.name in differ else "",
        )
        for field in schema.fields
        if any(field.name in each for each in answers)
    ]
    said = [given.label.comment for given in case.labels]
    if any(said):
        rows.append(html.Tr([html.Th("Comment", scope="row"), *(html.Td(plain(each)) for each in said)]))
    take = html.Tr(
        [
            html.Th(
                html.Button(
                    "Start from the majority", className="button button-small", **{"data-take": "majority"}
                )
                if label_form.majority(case, schema)
                else html.Span("Take as a start", className="visually-hidden"),
                scope="row",
            ),
            *(
                html.Td(
                    html.Button(
                        f"Start from {given.annotator}'s",
                        className="button button-small",
                        **{"data-take": str(place)},
                    )
                )
                for place, given in enumerate(case.labels)
            ),
        ]
    )
    return html.Div(
        html.Table(
            [
                html.Caption("The labels that disagree", className="visually-hidden"),
                html.Thead(
                    html.Tr(
                        [
                            html.Td(""),
                            *(html.Th(given.annotator, scope="col") for given in case.labels),
                        ]
                    )
                ),
                html.Tbody([*rows, take]),
            ],
            className="table compared",
        ),
        className="table-frame",
        tabIndex=0,
        role="region",
        **{"aria-label": "The labels that disagree"},
    )
