"""Answers that an evaluator scores otherwise than their shadow. Whichever of the two is scored last finds the other."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import polars as pl

from collector.table import Table
from relabel.selection.rule import CaseRule, ShadowScoreRule
from relabel.selection.sources.newest_scores import newest_scores
from relabel.selection.sources.scores import of
from relabel.selection.sources.shadow_pairs import CLOSE, SHADOW, shadow_pairs
from relabel.selection.sources.source import ID, Found, all_matches, matches


class ShadowScoreSource:
    """Follows the scores table; the pairs are found in the inference table."""

    name: Final = "shadow_scores"
    columns: Final = (ID, "request_time", "evaluator", "target")
    reads_past: Final = False
    look_back: Final[timedelta | None] = timedelta(days=1)

    def __init__(self, scores: Table, payload: Table, numbered: Mapping[int, ShadowScoreRule]) -> None:
        self.table = scores
        self._payload = payload
        self._rules = numbered

    @property
    def numbered(self) -> Mapping[int, CaseRule]:
        return self._rules

    def find(self, rows: pl.DataFrame, state: Mapping[str, Any]) -> Found:
        found = []
        for number, rule in self._rules.items():
            pairs = shadow_pairs(self._payload, rows.filter(of(rule.evaluator, rule.target)), "served_entity")
            if pairs.height:
                found.append(self._disagreeing(pairs, number, rule))
        return Found(all_matches(found))

    def _disagreeing(self, pairs: pl.DataFrame, number: int, rule: ShadowScoreRule) -> pl.DataFrame:
        # A shadow is recorded close to its answer, and its scores carry its own time.
        wanted = pl.concat(
            [
                pairs.select(ID, "request_time"),
                pairs.select(pl.col(SHADOW).alias(ID), pl.col("request_time")),
            ]
        )
        scores = newest_scores(self.table, wanted, rule.evaluator, rule.target, slack=CLOSE)
        other = scores.select(pl.col(ID).alias(SHADOW), other="score")
        both = pairs.drop("request_time").join(scores, on=ID).join(other, on=SHADOW)
        apart = (pl.col("score") - pl.col("other")).abs()
        # Two infinities of one sign are the same score, though their difference is not a number.
        far = both.filter((apart > rule.differs_by) & apart.is_not_nan()).with_columns(apart=apart)
        furthest = far.sort("apart", SHADOW, descending=[True, False]).unique(
            ID, keep="first", maintain_order=True
        )
        said = pl.format(
            "{} gave the answer {}, that of {} {}",
            pl.lit(rule.evaluator),
            pl.col("score").round_sig_figs(4),
            pl.col("shadow_served_entity").fill_null("the shadow"),
            pl.col("other").round_sig_figs(4),
        )
        return matches(furthest, number, extreme=pl.col("apart"), detail=said)
