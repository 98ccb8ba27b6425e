"""What each rule of selection found: new cases, and records that made none, by why. A section of the Relabel page."""

from __future__ import annotations

from collections.abc import Sequence

from dash import html

from dashboard import formats, reason_text
from dashboard.console import Console
from dashboard.elements import Element, badge, card, empty, table
from dashboard.view import View
from relabel.case import ReasonKind
from relabel.selection.rule_days import Counts, RuleCounts


def section(console: Console, view: View, _scheme: str | None = None) -> Element:
    """Counts of today and of seven days, for the endpoint of ``view``."""
    found = console.rule_days.read(view.endpoint)
    if not found:
        return empty(
            "inbox",
            "No rule makes cases of this endpoint's records",
            html.P(
                [
                    "Rules are under ",
                    html.Code("relabel.rules"),
                    " in servelens.yaml: a score past a threshold, bad feedback, a random sample and more.",
                ]
            ),
        )
    return html.Div(
        [
            card(
                "Rules today",
                _counts(found, [rule.today for rule in found], "Found today"),
                note="Since midnight UTC. A record that several rules find counts for the one that made the case.",
            ),
            card(
                "In seven days",
                _counts(found, [rule.last_7_days for rule in found], "Found in seven days"),
                class_name="spaced",
            ),
        ]
    )


def _counts(rules: Sequence[RuleCounts], counts: Sequence[Counts], caption: str) -> Element:
    rows = [
        [
            html.Span(rule.rule, className="strong slim"),
            reason_text.TITLES[ReasonKind(rule.kind)] if rule.kind else badge("no rule any more"),
            formats.MISSING if rule.priority is None else str(rule.priority),
            _cases(found, rule.daily_budget if found is rule.today else None),
            formats.count(found.over_budget),
            formats.count(found.repeated),
            formats.count(found.over_cluster),
            formats.count(found.without_text),
        ]
        for rule, found in zip(rules, counts, strict=True)
    ]
    head = ["Rule", "Kind", "Priority", "New cases", "Over budget", "Repeated", "Too alike", "Without text"]
    return table(head, rows, numeric_from=2, caption=caption)


def _cases(found: Counts, budget: int | None) -> str:
    return formats.count(found.cases) + (f" of {budget:,}" if budget is not None else "")
