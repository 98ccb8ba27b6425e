"""An experiment's guardrails: what each says of each treatment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dash import html

from dashboard import experiment_figures, formats
from dashboard.elements import Element, badge, card, table

_STATES = {
    "breached": ("Broken", "bad", "alert"),
    "cleared": ("Within its margin", "good", "check"),
    "open": ("Open", "neutral", None),
    "unknown": ("Not measured", "neutral", None),
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
            [
                html.Div(name[:1].upper() + name[1:]),
                html.Div(guardrail["reason"], className="muted small decision-reason"),
            ]
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
