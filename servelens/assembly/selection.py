"""The rules of the relabeling queue, checked against the evaluators that are installed.

This is for the process that applies them: a proxy reads the same settings without any evaluator installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relabel.selection import Rule
from servelens.errors import InvalidSettings
from servelens.settings import Settings


def selection_rules(settings: Settings) -> Mapping[str, Sequence[Rule]]:
    """The rules of each endpoint that has some. ``InvalidSettings`` when one names an evaluator that nobody brings: no
    score would ever meet it."""
    if not settings.relabel.rules:
        return {}
    from evaluators.registry import known_evaluators  # looks through all installed packages

    known = known_evaluators()
    rules: dict[str, list[Rule]] = {}
    for index, rule in enumerate(settings.relabel.rules):
        if rule.evaluator not in known:
            raise InvalidSettings(
                f"there is no evaluator {rule.evaluator!r}.",
                field=f"relabel.rules[{index}].evaluator",
                fix=f"Known are: {', '.join(known)}.",
            )
        rules.setdefault(rule.endpoint, []).append(
            Rule(rule.evaluator, rule.target, rule.above, rule.below, rule.priority)
        )
    return rules
