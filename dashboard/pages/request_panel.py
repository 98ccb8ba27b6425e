"""The side panel of one request: the conversation as people read it, timings, scores, identifiers, raw bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import Input, Output, html
from dash.exceptions import PreventUpdate

from dashboard import conversation, formats
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.conversation import Turn
from dashboard.elements import Element, badge, code_block, facts, icon, plain
from dashboard.evaluator_notes import reason_words

_ROLES = {"system": "System", "developer": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
_OVER_LIMIT = {
    "MAX_REQUEST_SIZE_EXCEEDED": "The request was over the payload limit, so its body was not kept.",
    "MAX_RESPONSE_SIZE_EXCEEDED": "The answer was over the payload limit, so its body was not kept.",
}


def register(callbacks: Callbacks, console: Console) -> None:
    """Fill the panel for the request that the address names."""

    def fill(request_id: str | None, data: Mapping[str, Any] | None) -> Any:
        if not request_id or data is None:
            raise PreventUpdate
        view = console.view(data)
        row = console.requests.request(view.endpoint, request_id)
        scores = console.requests.scores(view.endpoint, request_id)
        return content(row, scores, view.zone)

    callbacks.server(
        fill,
        [Output("request-content", "children")],
        [Input("request-id", "data"), Input("view", "data")],
        problems=Output("request-problem", "children"),
    )
    callbacks.browser("requestId", Output("request-id", "data"), [Input("url", "search")])


def content(row: Mapping[str, Any], scores: Sequence[Mapping[str, Any]], zone: str) -> Element:
    """The panel's content."""
    turns = conversation.turns(row["request"], row["response"], row["prompt_text"], row["response_text"])
    failed = bool(row["failed"])
    return html.Div(
        [
            html.Div(
                [
                    badge(str(row["status_code"]), "bad" if failed else "good"),
                    badge(row["arm"], "accent"),
                    badge("stream") if row["is_stream"] else None,
                    badge(str(row["error_type"]).replace("_", " "), "bad") if row["error_type"] else None,
                    badge("client left", "warning") if row["client_disconnected"] else None,
                    badge("shadow") if row["is_shadow"] else None,
                    html.Span(formats.full_moment(row["request_time"], zone), className="muted small"),
                ],
                className="badges",
            ),
            *[_note(_OVER_LIMIT.get(code, code)) for code in row["logging_error_codes"] or ()],
            html.Div(_timings(row), className="timings"),
            _failure(row) if failed else None,
            html.Section([html.H3("Conversation"), transcript(turns)], className="panel-section"),
            html.Section([html.H3("Scores"), _scores(scores)], className="panel-section"),
            html.Section([html.H3("Details"), facts(_details(row))], className="panel-section"),
            dmc.Accordion(
                [
                    _raw("Request body", row["request"]),
                    _raw("Response body", row["response"]),
                ],
                multiple=True,
                variant="separated",
                radius="md",
                className="raw",
            ),
        ],
        className="panel",
    )


def transcript(turns: Sequence[Turn], texts: Mapping[int, Element] | None = None) -> Element:
    """Messages one after the other; the recorded answer is set apart. ``texts`` stand in for the text of messages, by place."""
    if not turns:
        return html.P("The bodies were not kept, or hold no conversation.", className="muted")
    return html.Div(
        [
            html.Div(
                [
                    html.Div(
                        [
                            _ROLES.get(turn.role, turn.role),
                            html.Span("recorded answer") if turn.is_answer else None,
                        ],
                        className="turn-role",
                    ),
                    *said(turn, (texts or {}).get(place)),
                ],
                className=f"turn turn-{turn.role if turn.role in _ROLES else 'other'}"
                + (" turn-answer" if turn.is_answer else ""),
            )
            for place, turn in enumerate(turns)
        ],
        className="transcript",
    )


def said(turn: Turn, text: Element | None = None) -> list[Element]:
    """The text of a message, or ``text`` in its place, and the tools that it called."""
    if text is None and (turn.text or not turn.calls):
        text = plain(turn.text, "turn-text")
    return [
        text,
        *[
            html.Div(
                [
                    html.Div(["calls ", html.Strong(name)]),
                    plain(conversation.pretty(arguments), "mono"),
                ],
                className="tool-call",
            )
            for name, arguments in turn.calls
        ],
    ]


def score_line(name: str, value: float | None, label: str | None) -> str:
    """A score in words."""
    words = formats.significant(value)
    return f"{name} {words}" + (f" ({label})" if label else "")


def _note(words: str) -> Element:
    return html.Div([icon("info"), html.Span(words)], className="hint")


def _failure(row: Mapping[str, Any]) -> Element | None:
    message = conversation.error_message(row["response"])
    if not message:
        return None
    return html.Div([icon("alert"), plain(message)], className="problem")


def _timings(row: Mapping[str, Any]) -> list[Element]:
    total, first = row["execution_duration_ms"], row["time_to_first_token_ms"]
    rate = None
    if row["output_tokens"] and total:
        streaming = total - first if first is not None and total > first else total
        rate = row["output_tokens"] / (streaming / 1000) if streaming > 0 else None
    bar = None
    if first is not None and total:
        share = min(100.0, 100 * first / total)
        bar = html.Div(
            [
                html.Div(className="timing-wait", style={"width": f"{share:.1f}%"}),
                html.Div(className="timing-stream", style={"width": f"{100 - share:.1f}%"}),
            ],
            className="timing-bar",
            role="img",
            **{
                "aria-label": f"{formats.milliseconds(first)} to the first token, {formats.milliseconds(total)} in all"
            },
        )
    pairs = [
        ("Duration", formats.milliseconds(total)),
        ("First token", formats.milliseconds(first)),
        ("Tokens in", formats.count(row["input_tokens"])),
        ("Tokens out", formats.count(row["output_tokens"])),
        ("Tokens / s", formats.significant(rate)),
        ("Attempts", formats.count(row["attempts"])),
    ]
    return [
        html.Div(
            [
                html.Div([html.Div(name, className="tile-label"), html.Div(value, className="timing-value")])
                for name, value in pairs
            ],
            className="timing-grid",
        ),
        bar,
    ]


def _scores(scores: Sequence[Mapping[str, Any]]) -> Element:
    if not scores:
        return html.P("Not scored yet. Evaluators run on a schedule.", className="muted")
    return html.Div([_score(score) for score in scores], className="score-list")


def _score(score: Mapping[str, Any]) -> Element:
    unscored = score["unscored_reason"]
    details = conversation.parse(score["details"])
    more = (
        [
            html.Span(f"{name} {formats.significant(value) if isinstance(value, (int, float)) else value}")
            for name, value in details.items()
        ]
        if isinstance(details, dict)
        else []
    )
    if unscored:
        value = html.Span(["unscored: ", reason_words(unscored)], className="muted")
    else:
        value = html.Span(formats.significant(score["score"]), className="score-value")
    return html.Div(
        [
            html.Div(
                [html.Strong(score["evaluator"]), html.Span(f" of the {score['target']}", className="muted")]
            ),
            html.Div([value, badge(score["label"]) if score["label"] else None], className="score-result"),
            html.Div(more, className="score-details") if more else None,
            html.Div(
                f"{score['model'] or ''} · version {score['evaluator_version'] or '?'}",
                className="muted small",
            ),
        ],
        className="score",
    )


def _details(row: Mapping[str, Any]) -> list[tuple[str, Any]]:
    names = (
        ("Request id", "databricks_request_id"),
        ("Client's id", "client_request_id"),
        ("Trace", "trace_id"),
        ("Session", "session_id"),
        ("Unit", "unit"),
        ("Requester", "requester"),
        ("Served entity", "served_entity"),
        ("Entity version", "entity_version"),
        ("Model", "model"),
        ("API", "api"),
        ("Experiment", "experiment"),
        ("Propensity", "propensity"),
        ("Finish reason", "finish_reason"),
        ("Shadow of", "shadow_of"),
        ("Worker", "worker_id"),
        ("Spool offset", "spool_offset"),
    )
    pairs: list[tuple[str, Any]] = [
        (label, html.Span(str(row[name]), className="mono")) for label, name in names if row[name] is not None
    ]
    tags = row["tags"]
    if tags:
        items = tags.items() if isinstance(tags, dict) else [(one["key"], one["value"]) for one in tags]
        pairs.append(
            (
                "Tags",
                html.Div(
                    [badge(f"{name}: {value}") for name, value in items], className="badges wrap-badges"
                ),
            )
        )
    return pairs


def _raw(title: str, body: str | None) -> Element:
    size = f" · {len(body.encode()):,} bytes" if body else ""
    return dmc.AccordionItem(
        [
            dmc.AccordionControl(html.Span([title, html.Span(size, className="muted")])),
            dmc.AccordionPanel(
                code_block(conversation.pretty(body)) if body else html.P("Not kept.", className="muted")
            ),
        ],
        value=title,
    )
