"""The rules of the relabeling queue, checked against the evaluators that are installed.

This is for the process that applies them: a proxy reads the same settings without any evaluator installed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from relabel.selection.rule import CaseRule
from relabel.selection.suppression import Suppression
from servelens.errors import InvalidSettings
from servelens.settings import Settings


def rules_of(settings: Settings) -> Mapping[str, Sequence[CaseRule]]:
    """The rules of each endpoint that has some, in the order of the file."""
    rules: dict[str, list[CaseRule]] = {}
    for rule in settings.relabel.rules:
        rules.setdefault(rule.endpoint, []).append(rule.build())
    return rules


def selection_rules(settings: Settings, known: Collection[str]) -> Mapping[str, Sequence[CaseRule]]:
    """The same. ``known`` are the names that scores can have; ``InvalidSettings`` when a rule has another: no score would
    ever meet it."""
    for index, rule in enumerate(settings.relabel.rules):
        for place, evaluator in enumerate(rule.build().evaluators):
            if evaluator not in known:
                key = f"evaluators[{place}].evaluator" if rule.evaluators else "evaluator"
                raise InvalidSettings(
                    f"there is no evaluator {evaluator!r}.",
                    field=f"relabel.rules[{index}].{key}",
                    fix=f"Known are: {', '.join(sorted(known))}.",
                )
    return rules_of(settings)


def suppression_of(settings: Settings, endpoint: str) -> Suppression:
    """How alike the cases of ``endpoint`` may be."""
    return Suppression(**settings.relabel.suppression.of(endpoint))
