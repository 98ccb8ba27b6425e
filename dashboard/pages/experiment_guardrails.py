"""An experiment's guardrails, where its rollout stands, and the decisions about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from dash import html

from dashboard import experiment_figures, formats
from dashboard.elements import Element, badge, card, table
from experiments.experiment import Experiment

_STATES = {
    "breached": ("Broken", "bad", "alert"),
    "cleared": ("Within its margin", "good", "check"),
    "open": ("Open", "neutral", None),
    "unknown": ("Not measured", "neutral", None),
}
_DECISIONS = {
    "advance": ("advance", "good"),
    "promote": ("promote", "good"),
    "roll_back": ("roll back", "bad"),
    "abort": ("abort", "bad"),
    "inconclusive": ("inconclusive", "accent"),
    "insufficient_data": ("not enough data", "neutral"),
    "hold": ("hold", "neutral"),
}


def guardrails_card(report: Mapping[str, Any]) -> Element | None:
    """One row for each guardrail and treatment; ``None`` without guardrails."""
    guardrails = report.get("guardrails") or []
    if not guardrails:
        return None
    several = len({each["treatment"] for each in guardrails}) > 1
    rows = [_row(each, several=several) for each in guardrails]
    head = ["Guardrail", "State", "Harm so far", "At most", "Allowed", "Evidence of harm"]
    return card(
        "Guardrails",
        table(head, rows, numeric_from=2, caption="Guardrails"),
        note="a guardrail can only stop: broken when the evidence of harm passes its limit, cleared when the harm is "
        "surely under what is allowed",
    )


def _row(guardrail: Mapping[str, Any], *, several: bool) -> list[Any]:
    words, tone, icon_name = _STATES[guardrail["state"]]
    name = f"{guardrail['label']} ({guardrail['treatment']})" if several else guardrail["label"]
    return [
        html.Span(
            [html.Div(name[:1].upper() + name[1:]), html.Div(guardrail["reason"], className="muted small")]
        ),
        badge(words, tone, icon_name=icon_name),
        experiment_figures.change(guardrail, guardrail["harm"]),
        experiment_figures.change(guardrail, guardrail["upper"]),
        experiment_figures.change(guardrail, guardrail["margin"]),
        _evidence(guardrail),
    ]


def _evidence(guardrail: Mapping[str, Any]) -> Element:
    limit = _odds(guardrail["threshold"])
    if guardrail["running_log_e"] is None:
        return html.Span(formats.MISSING, title=f"Broken at {limit}")
    return html.Span(f"{_odds(guardrail['running_log_e'])}", title=f"Largest so far; broken at {limit}")


def _odds(log_e: float) -> str:
    if log_e > math.log(1e6):
        return "over 1M : 1"
    return f"{formats.significant(math.exp(log_e))} : 1"


def rollout_card(
    experiment: Experiment, standing: Mapping[str, Any], decisions: Sequence[Mapping[str, Any]], zone: str
) -> Element | None:
    """A canary's steps with where it stands, and the newest decisions; ``None`` when there is neither."""
    steps = experiment.rollout.steps if experiment.rollout else ()
    if not steps and not decisions:
        return None
    parts: list[Element] = []
    if steps:
        parts.append(
            html.Ol(
                [
                    html.Li(
                        [
                            html.Strong(f"{step.weight:g} %"),
                            html.Span(
                                f"{step.duration_s / 60:g} min, {formats.plural(step.events, 'record')}",
                                className="muted small",
                            ),
                        ],
                        className=_step_class(place, standing),
                        **({"aria-current": "step"} if place == standing["step"] else {}),
                    )
                    for place, step in enumerate(steps)
                ],
                className="rollout-steps",
            )
        )
    if decisions:
        parts.append(
            table(
                ["When", "Decision", "Why", "By"],
                [_decision(each, zone) for each in decisions],
                numeric_from=9,
                caption="Decisions",
            )
        )
    else:
        parts.append(html.P("No decision has been taken yet.", className="note"))
    return card("Rollout" if steps else "Decisions", parts)


def _step_class(place: int, standing: Mapping[str, Any]) -> str:
    if standing.get("outcome") == "promoted" or place < standing["step"]:
        return "done"
    return "current" if place == standing["step"] and standing["state"] in ("running", "paused") else ""


def _decision(decision: Mapping[str, Any], zone: str) -> list[Any]:
    words, tone = _DECISIONS.get(decision["decision"], (decision["decision"], "neutral"))
    moment = datetime.fromisoformat(str(decision["decided_at"]))
    return [
        html.Span(formats.moment(moment, zone, seconds=False), title=formats.full_moment(moment, zone)),
        html.Span([badge(words, tone), badge("dry run", "neutral") if decision["dry_run"] else None]),
        html.Span(decision["reason"], className="decision-reason"),
        html.Span(decision["by"], className="muted"),
    ]
