"""Where an experiment's rollout stands, where a bandit's traffic goes, what shadows answer, and the decisions about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from dash import html

from dashboard import formats
from dashboard.elements import Element, badge, card, table
from experiments.standing import Standing

_DECISIONS = {
    "advance": ("advance", "good"),
    "promote": ("promote", "good"),
    "roll_back": ("roll back", "bad"),
    "abort": ("abort", "bad"),
    "inconclusive": ("inconclusive", "accent"),
    "insufficient_data": ("not enough data", "neutral"),
    "hold": ("hold", "neutral"),
    "reweight": ("new weights", "accent"),
}


def rollout_card(standing: Standing, decisions: Sequence[Mapping[str, Any]], zone: str) -> Element | None:
    """A canary's steps with where it stands, and the newest decisions; ``None`` when there is neither."""
    rollout = standing.experiment.rollout
    steps = rollout.steps if rollout else ()
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
                        **({"aria-current": "step"} if place == standing.step else {}),
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


def _step_class(place: int, standing: Standing) -> str:
    if standing.outcome == "promoted" or place < standing.step:
        return "done"
    return "current" if place == standing.step and standing.is_live else ""


def _decision(decision: Mapping[str, Any], zone: str) -> list[Any]:
    words, tone = _DECISIONS.get(decision["decision"], (decision["decision"], "neutral"))
    moment = datetime.fromisoformat(str(decision["decided_at"]))
    return [
        html.Span(formats.moment(moment, zone, seconds=False), title=formats.full_moment(moment, zone)),
        html.Span([badge(words, tone), badge("dry run", "neutral") if decision["dry_run"] else None]),
        html.Span(decision["reason"], className="decision-reason"),
        html.Span(decision["by"], className="muted"),
    ]


def allocation_card(report: Mapping[str, Any]) -> Element | None:
    """A bandit's weights, now and next; ``None`` for other experiments."""
    allocation = report.get("allocation") or []
    if not allocation:
        return None
    rows = [
        [
            each["variant"],
            formats.percent(each["probability_best"], 1),
            f"{each['weight']:.1f} %",
            f"{each['next_weight']:.1f} %",
        ]
        for each in allocation
    ]
    return card(
        "Allocation",
        table(
            ["Variant", "Best with", "Weight now", "Weight next"], rows, caption="Allocation of the traffic"
        ),
        note="top-two Thompson sampling on the primary metric; results are weighted by the logged probabilities",
    )


def shadows_card(report: Mapping[str, Any]) -> Element | None:
    """How many answers each shadow gave to the control's requests, and how alike they are."""
    shadows = report.get("shadows") or []
    if not shadows:
        return None
    rows = [
        [
            each["treatment"],
            formats.count(each["pairs"]),
            formats.count(each["unpaired"]),
            formats.percent(each["identical"], 1),
            formats.percent(each["word_overlap"], 1),
        ]
        for each in shadows
    ]
    head = ["Shadow", "Pairs", "Without a shadow answer", "Same answer", "Words in common"]
    return card("Answers side by side", table(head, rows, caption="Shadow answers"))
