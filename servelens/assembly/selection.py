"""The rules of the relabeling queue, checked against the evaluators that are installed.

This is for the process that applies them: a proxy reads the same settings without any evaluator installed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from relabel.selection.rule import Rule
from servelens.errors import InvalidSettings
from servelens.settings import Settings


def selection_rules(settings: Settings, known: Collection[str]) -> Mapping[str, Sequence[Rule]]:
    """The rules of each endpoint that has some. ``known`` are the names that scores can have; ``InvalidSettings`` when a
    rule has another: no score would ever meet it."""
    rules: dict[str, list[Rule]] = {}
    for index, rule in enumerate(settings.relabel.rules):
        if rule.evaluator not in known:
            raise InvalidSettings(
                f"there is no evaluator {rule.evaluator!r}.",
                field=f"relabel.rules[{index}].evaluator",
                fix=f"Known are: {', '.join(sorted(known))}.",
            )
        rules.setdefault(rule.endpoint, []).append(
            Rule(rule.evaluator, rule.target, rule.above, rule.below, rule.priority)
        )
    return rules
