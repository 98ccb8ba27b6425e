"""Rules and findings that the tests of alerts share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from evaluators.alerts.findings import Finding
from evaluators.alerts.rule import Aggregate, AlertRule, ScoreMeasure, Threshold

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def rule(**changes: Any) -> AlertRule:
    values: dict[str, Any] = {
        "name": "toxic",
        "endpoint": "chat",
        "measure": ScoreMeasure("toxicity", aggregate=Aggregate("share_above", 0.5)),
        "condition": Threshold(above=0.1),
        "window": timedelta(minutes=10),
        "delay": timedelta(0),
        "channels": ("hook",),
    }
    return AlertRule(**{**values, **changes})


def breached(value: float = 0.4, reason: str = "the share is 0.4, above 0.1") -> Finding:
    return Finding("breached", reason, value, 0.1, 100)


def clear(value: float = 0.0) -> Finding:
    return Finding("clear", "the share is 0, not above 0.1", value, 0.1, 100)


def no_data() -> Finding:
    return Finding("no_data", "there is no score in the window")


def insufficient() -> Finding:
    return Finding("insufficient", "insufficient data: 3 values, and 30 are needed", samples=3)


def document(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "version": 1,
        "id": "0b7c-firing-0",
        "incident": "0b7c",
        "kind": "firing",
        "rule": "toxic",
        "description": "Look at the newest variant first.",
        "endpoint": "chat",
        "variant": "b",
        "severity": "critical",
        "reason": "share of toxicity above 0.5 is 0.4, above 0.1",
        "resolution": None,
        "value": 0.4,
        "reference": 0.1,
        "breached_at": "2026-03-02T11:50:00+00:00",
        "fired_at": "2026-03-02T12:00:00+00:00",
        "resolved_at": None,
        "examples": ["r1", "r2"],
        "evidence": {"limit": 0.1},
    }
    return {**values, **changes}
