"""Alert rules from the settings. Imports nothing that sends: the console shows rules and tells nobody."""

from __future__ import annotations

from evaluators.alerts.rule import AlertRule
from servelens.settings import Settings


def build_rules(settings: Settings) -> tuple[AlertRule, ...]:
    """The rules, in the order of the file."""
    return tuple(alert.build() for alert in settings.alerts)
