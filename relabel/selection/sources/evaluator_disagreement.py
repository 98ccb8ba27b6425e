"""Records that one evaluator flags and another does not.

Their scores may come in different commits, in any order: whichever comes last finds the other in the table. Where a
record was scored several times, the newest score of each counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import polars as pl

from collector.table import Table
from relabel.selection.bound import Bound
from relabel.selection.rule import CaseRule, EvaluatorDisagreementRule
from relabel.selection.sources.newest_scores import newest_scores
from relabel.selection.sources.scores import of
from relabel.selection.sources.source import ID, Found, all_matches, matches


class EvaluatorDisagreementSource:
    """Follows the scores table."""

    name: Final = "evaluator_disagreement"
    columns: Final = (ID, "request_time", "evaluator", "target")
    reads_past: Final = False
    look_back: Final[timedelta | None] = timedelta(days=1)

    def __init__(self, scores: Table, numbered: Mapping[int, EvaluatorDisagreementRule]) -> None:
        self.table = scores
        self._rules = numbered

    @property
    def numbered(self) -> Mapping[int, CaseRule]:
        return self._rules

    def find(self, rows: pl.DataFrame, state: Mapping[str, Any]) -> Found:
        found = []
        for number, rule in self._rules.items():
            first, second = rule.first, rule.second
            new = rows.filter(of(first.evaluator, first.target) | of(second.evaluator, second.target))
            if new.height:
                found.append(self._disagreeing(new, number, rule))
        return Found(all_matches(found))

    def _disagreeing(self, new: pl.DataFrame, number: int, rule: EvaluatorDisagreementRule) -> pl.DataFrame:
        first = newest_scores(self.table, new, rule.first.evaluator, rule.first.target)
        second = newest_scores(self.table, new, rule.second.evaluator, rule.second.target)
        both = first.join(second.select(ID, other="score"), on=ID)
        judged = both.with_columns(
            flagged=_flags(rule.first, "score"), other_flagged=_flags(rule.second, "other")
        )
        said = pl.format(
            "{} gave {}, {} gave {}: {} flags it, {} does not",
            pl.lit(rule.first.evaluator),
            pl.col("score").round_sig_figs(4),
            pl.lit(rule.second.evaluator),
            pl.col("other").round_sig_figs(4),
            _named("flagged", rule.first, rule.second),
            _named("flagged", rule.second, rule.first),
        )
        # How far each is from its own threshold cannot be compared; the first evaluator's distance orders them.
        away = (pl.col("score") - rule.first.threshold).abs()
        return matches(
            judged.filter(pl.col("flagged") != pl.col("other_flagged")), number, extreme=away, detail=said
        )


def _flags(bound: Bound, column: str) -> pl.Expr:
    score = pl.col(column)
    return score > bound.threshold if bound.direction == "above" else score < bound.threshold


def _named(flagged: str, then: Bound, otherwise: Bound) -> pl.Expr:
    names = (pl.lit(bound.evaluator) for bound in (then, otherwise))
    return pl.when(pl.col(flagged)).then(next(names)).otherwise(next(names))
