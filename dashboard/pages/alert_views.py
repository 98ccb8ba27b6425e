"""What the Quality page shows of alerts: incidents, rules, silences, and how to make a rule when there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from dash import dcc, html

from dashboard import formats
from dashboard.elements import Element, badge, code_block, table
from dashboard.view import View
from evaluators.alerts.silences import Silence

STATUSES = {
    "firing": ("Firing", "bad", "alert"),
    "pending": ("Pending", "warning", "clock"),
    "no_data": ("No data", "neutral", None),
    "not_looked_at": ("Not looked at yet", "neutral", None),
    "ok": ("OK", "good", "check"),
}
_SEVERITIES = {"critical": "bad", "error": "bad", "warning": "warning", "info": "accent"}
_RECENT = 10
_RULE = """alerts:
  - name: toxic-answers
    endpoint: {endpoint}
    score: toxicity
    aggregate: share_above
    limit: 0.5
    above: 0.02
    window: 10m
    for: 5m"""


def alerts_view(
    alerts: Sequence[Mapping[str, Any]],
    incidents: Sequence[Mapping[str, Any]],
    silences: Sequence[Silence],
    view: View,
    now: datetime,
) -> Element:
    """Open incidents first, then the rules and the silences. ``alerts`` and ``incidents`` are those of
    :class:`~evaluators.alerts.overview.AlertOverview`."""
    opened = [one for one in incidents if one["state"] == "firing"]
    # An incident that began in a silence holds its number; later silences are with the slices.
    silenced = {
        (alert["rule"], each["slice"]): each["silenced_by"]
        for alert in alerts
        for each in alert["slices"]
        if each["silenced_by"] is not None
    }
    return html.Div(
        [
            *(_incident(one, silenced.get((one["rule"], one["slice"])), view.zone, now) for one in opened),
            _rules(alerts, view.zone, now) if alerts else _no_rule(view.endpoint),
            _silences(silences, view.zone) if silences else None,
        ],
        className="stack",
    )


def _incident(incident: Mapping[str, Any], silence: int | None, zone: str, now: datetime) -> Element:
    fired = datetime.fromisoformat(incident["fired_at"])
    named = _named(incident["rule"], incident["slice"])
    examples = incident["examples"]
    return html.Div(
        [
            html.Div(
                [
                    html.Strong(named),
                    badge(incident["severity"], _SEVERITIES.get(incident["severity"], "neutral")),
                    badge("Silenced", "neutral") if silence is not None else None,
                    html.Span(
                        f"since {formats.ago(fired, now)}",
                        className="muted small",
                        title=formats.full_moment(fired, zone),
                    ),
                    None
                    if silence is not None
                    else silence_button(
                        incident["rule"], incident["endpoint"], incident["slice"], place="incident"
                    ),
                ],
                className="badges",
            ),
            html.P(_sentence(incident["reason"])),
            _measured(incident),
            html.P(incident["description"], className="muted small") if incident["description"] else None,
            html.Div(
                [
                    "Examples: ",
                    *(_example(incident["endpoint"], one, place) for place, one in enumerate(examples, 1)),
                ],
                className="small examples",
            )
            if examples
            else None,
        ],
        className=f"incident incident-{_SEVERITIES.get(incident['severity'], 'neutral')}",
    )


def _measured(incident: Mapping[str, Any]) -> Element | None:
    if incident["value"] is None:
        return None
    limit = incident["evidence"].get("condition") in ("above", "below")
    against = "threshold" if limit else "reference"
    return html.Div(
        [
            html.Span(["value ", html.Strong(formats.significant(incident["value"]))]),
            html.Span([f"{against} ", html.Strong(formats.significant(incident["reference"]))])
            if incident["reference"] is not None
            else None,
        ],
        className="measured small",
    )


def _example(endpoint: str, request_id: str, place: int) -> Element:
    address = urlencode({"endpoint": endpoint, "request": request_id})
    return dcc.Link(f"record {place}", href=f"/requests?{address}", title=request_id)


def _rules(alerts: Sequence[Mapping[str, Any]], zone: str, now: datetime) -> Element:
    rows = []
    for alert in alerts:
        for each in alert["slices"] or [None]:
            rows.append(_rule(alert, each, zone, now))
    return table(["Rule", "State", "Value", ""], rows, numeric_from=9, caption="Alert rules")


def _rule(
    alert: Mapping[str, Any], part: Mapping[str, Any] | None, zone: str, now: datetime
) -> Sequence[Element]:
    status = "not_looked_at" if part is None else part["status"]
    name = None if part is None else part["slice"]
    words, tone, icon_name = STATUSES[status]
    since = None if part is None else datetime.fromisoformat(part["since"])
    looked = None if part is None else datetime.fromisoformat(part["evaluated_at"])
    silenced = part is not None and part["silenced_by"] is not None
    return [
        html.Span(
            [
                html.Div(_named(alert["rule"], name), className="strong"),
                html.Div(alert["measure"], className="muted small"),
            ]
        ),
        html.Span(
            [
                badge(words, tone, icon_name=icon_name),
                badge("Silenced", "neutral") if silenced else None,
                html.Div(f"last looked {formats.ago(looked, now)}", className="cell-bad small")
                if alert["stale"] and looked is not None
                else None,
            ],
            className="badges slim",
            title=part["reason"] if part else None,
        ),
        html.Span(
            [
                html.Div(formats.significant(part["value"]) if part else formats.MISSING),
                html.Div(
                    f"since {formats.ago(since, now)}",
                    className="muted small",
                    title=formats.full_moment(since, zone),
                )
                if since
                else None,
            ]
        ),
        None if silenced else silence_button(alert["rule"], alert["endpoint"], name, place="rule"),
    ]


def silence_button(rule: str, endpoint: str, part: str | None, *, place: str) -> Element:
    """Opens the dialog for a rule, or for one slice of it; ``place`` tells the buttons of one alert apart."""
    return html.Button(
        "Silence",
        id={
            "type": "quality-silence",
            "rule": rule,
            "endpoint": endpoint,
            "slice": part or "",
            "place": place,
        },
        className="button button-small",
        **{"aria-label": f"Silence {_named(rule, part)}"},
    )


def _silences(silences: Sequence[Silence], zone: str) -> Element:
    rows = [
        [
            html.Span(
                [
                    html.Div(_matched(one), className="strong"),
                    html.Div(f"{one.reason} ({one.author})", className="muted small"),
                ],
                className="slim",
            ),
            f"{formats.moment(one.starts_at, zone, seconds=False)} to "
            f"{formats.moment(one.ends_at, zone, seconds=False)}",
            html.Button(
                "End",
                id={"type": "quality-unsilence", "id": one.id},
                className="button button-small",
                **{"aria-label": f"End the silence of {_matched(one)}"},
            ),
        ]
        for one in silences
    ]
    return html.Div(
        [
            html.H3("Silences"),
            table(["What", "Time", ""], rows, numeric_from=9, caption="Silences that hold or will hold"),
        ]
    )


def ended_view(
    incidents: Sequence[Mapping[str, Any]], view: View, now: datetime
) -> tuple[str, Element] | None:
    """How many of ``incidents`` have ended, and the newest of them; ``None`` when none has."""
    ended = [one for one in incidents if one["state"] != "firing"]
    if not ended:
        return None
    rows = []
    for one in ended[:_RECENT]:
        fired, resolved = (datetime.fromisoformat(one[name]) for name in ("fired_at", "resolved_at"))
        examples = one["examples"][:1]
        rows.append(
            [
                html.Span(
                    [
                        html.Div(_named(one["rule"], one["slice"]), className="strong"),
                        html.Div(one["reason"], className="muted small"),
                    ],
                    className="slim",
                ),
                html.Span(formats.ago(fired, now), title=formats.full_moment(fired, view.zone)),
                formats.milliseconds((resolved - fired).total_seconds() * 1000),
                "nobody was told"
                if one["announced_at"] is None
                else ", ".join(one["channels"]) or "only shown",
                html.Span([_example(one["endpoint"], each, place) for place, each in enumerate(examples, 1)]),
            ]
        )
    head = ["Alert", "Began", "Lasted", "Told", "Example"]
    return (
        f"{formats.plural(len(ended), 'incident')} that ended in the last 7 days",
        table(head, rows, numeric_from=9, caption="Ended incidents"),
    )


def _no_rule(endpoint: str) -> Element:
    return html.Div(
        [
            html.P(
                "No rule watches this endpoint. A rule looks at scores, traffic, drift, feedback or lag, and tells Slack, "
                "e-mail, PagerDuty or a webhook once.",
                className="muted",
            ),
            html.Details(
                [
                    html.Summary("How to make one"),
                    html.P(
                        ["In ", html.Code("servelens.yaml"), ", then restart the scheduler and the console:"],
                        className="small",
                    ),
                    code_block(_RULE.format(endpoint=endpoint or "chat")),
                ]
            ),
        ],
        className="stack",
    )


def _named(rule: str, part: str | None) -> str:
    return f"{rule} ({part})" if part else rule


def _matched(silence: Silence) -> str:
    parts = [silence.rule or "every rule", silence.slice and f"({silence.slice})"]
    return " ".join(each for each in parts if each)


def _sentence(text: str) -> str:
    words = text[:1].upper() + text[1:]
    return words if words.endswith((".", "!", "?")) else f"{words}."
