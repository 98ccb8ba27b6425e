"""What the Relabel page shows of cases: one case, the queue, the export, and what to do when there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dash import dcc, html

from dashboard import conversation, formats
from dashboard.console import Console
from dashboard.elements import Element, badge, empty, icon, key, plain, table
from dashboard.pages.request_panel import transcript
from dashboard.view import View
from relabel.case import Case, CaseState, CaseSummary, Reason


def recorded_answer(case: Case) -> str:
    """The recorded answer as text; empty when there is none."""
    return conversation.turn(case.messages[-1]).text if case.answered and case.messages else ""


def case_view(case: Case, zone: str) -> Element:
    """One case: why it was flagged, and the conversation."""
    last = len(case.messages) - 1
    turns = [
        conversation.turn(message, is_answer=case.answered and place == last)
        for place, message in enumerate(case.messages)
    ]
    seen = f"seen {case.occurrences} times" if case.occurrences > 1 else None
    return html.Section(
        [
            html.Div(
                [
                    html.H2(f"Case {case.id}"),
                    badge(case.variant or case.served_entity or "no entity", "accent"),
                    badge(seen) if seen else None,
                    html.Span(formats.moment(case.request_time, zone), className="muted small"),
                    dcc.Link(
                        "Open the request",
                        href=f"/requests?endpoint={case.endpoint}&request={case.databricks_request_id}",
                        className="small case-link",
                    ),
                ],
                className="badges",
            ),
            html.Div([_reason(reason) for reason in case.reasons], className="reasons"),
            transcript(turns),
        ],
        className="card case",
    )


def _reason(reason: Reason) -> Element:
    side = "over" if reason.direction == "above" else "under"
    return html.Div(
        [
            icon("alert"),
            html.Span(
                [
                    html.Strong(f"{reason.evaluator} {formats.significant(reason.score)}"),
                    f" of the {reason.target}, {side} {formats.significant(reason.threshold)}",
                ]
            ),
        ],
        className="reason",
    )


def idle_view(console: Console, view: View, *, finished: bool) -> Element:
    """What to do next while no case is claimed; ``finished``: the annotator has just done the last one."""
    counts = console.services.queue.counts(view.endpoint).get(view.endpoint, {}) if view.endpoint else {}
    waiting = counts.get(CaseState.OPEN, 0)
    total = sum(int(number) for number in counts.values())
    if waiting:
        return empty(
            "relabel",
            f"{formats.plural(waiting, 'case')} {'waits' if waiting == 1 else 'wait'} for a judgement",
            html.P(
                [
                    key("N"),
                    " claims the next one. It is yours for 15 minutes at a time while this page is open.",
                ]
            ),
        )
    if finished and total:
        return empty(
            "check",
            "The queue is empty",
            html.P(
                "Every flagged case of this endpoint has been handled. Export the labels, or come back later."
            ),
        )
    if total:
        return empty(
            "check", "Nothing is waiting", html.P("New cases show here when a score passes a threshold.")
        )
    return empty(
        "inbox",
        "No case has been flagged",
        html.P(
            [
                "A score past a threshold makes a case. Thresholds are under ",
                html.Code("relabel"),
                " in servelens.yaml; scores come from the evaluators.",
            ]
        ),
        [dcc.Link("See the scores", href="/quality", className="button")],
    )


def queue_view(
    cases: Sequence[CaseSummary], state: str, counts: Mapping[CaseState, int], console: Console, view: View
) -> Element:
    """The cases in one state, in the order in which they are handed out."""
    if not cases:
        return html.P(f"No {state} case.", className="muted")
    now = console.services.clock.now()
    rows = [
        [
            str(case.id),
            html.Span(
                "; ".join(f"{one.evaluator} {formats.significant(one.score)}" for one in case.reasons),
                className="strong",
            ),
            case.variant or case.served_entity or formats.MISSING,
            plain(case.response_preview or case.prompt_preview, "wrap clamp muted"),
            formats.ago(case.request_time, now),
            case.annotator or formats.MISSING,
        ]
        for case in cases
    ]
    total = counts.get(CaseState(state), len(cases))
    more = html.P(f"{len(cases)} of {total:,}", className="note") if total > len(cases) else None
    return html.Div(
        [
            table(
                ["Case", "Flagged by", "Variant", "Answer", "Recorded", "Annotator"],
                rows,
                numeric_from=99,
                caption="Queue",
            ),
            more,
        ]
    )


def export_view(written: int, left_out: Mapping[str, int], endpoint: str) -> Element:
    """What the export holds, what it leaves out and why, and the download."""
    reasons = [
        html.Li(f"{number:,}: {reason.replace('_', ' ')}") for reason, number in sorted(left_out.items())
    ]
    address = f"/api/relabel/export?endpoint={endpoint}" if endpoint else "/api/relabel/export"
    return html.Div(
        [
            html.P(
                [
                    html.Strong(formats.plural(written, "example")),
                    " as OpenAI chat fine-tuning JSONL: answers rated good, and corrected answers.",
                ]
            ),
            html.Div([html.P("Left out:"), html.Ul(reasons)]) if reasons else None,
            html.A(
                [icon("download"), "Download openai-chat.jsonl"],
                href=address,
                download="openai-chat.jsonl",
                className="button button-primary",
                id="relabel-download",
            )
            if written
            else html.P("Label a case first, then there is something to export.", className="muted"),
        ],
        className="stack",
    )
