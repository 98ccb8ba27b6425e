"""Scores that make cases by themselves: past a threshold, in an unsure range, of a label, or none at all."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import polars as pl

from collector.table import Table
from relabel.selection.bound import Bound
from relabel.selection.rule import CaseRule, LabelRule, LowConfidenceRule, Rule, UnscoredRule
from relabel.selection.sources.source import ID, Found, all_matches, matches


class ScoreSource:
    """Follows the scores table. The first run looks at all scores."""

    name: Final = "scores"
    columns: Final = (
        ID,
        "request_time",
        "evaluator",
        "evaluator_version",
        "target",
        "score",
        "label",
        "unscored_reason",
    )
    reads_past: Final = True
    look_back: Final[timedelta | None] = None

    def __init__(self, scores: Table, numbered: Mapping[int, CaseRule]) -> None:
        self.table = scores
        self.numbered = numbered

    def find(self, rows: pl.DataFrame, state: Mapping[str, Any]) -> Found:
        return Found(all_matches([_matching(rows, number, rule) for number, rule in self.numbered.items()]))


def past(bound: Bound) -> pl.Expr:
    """Whether a row of the scores table is past ``bound``; to polars NaN is greater than any number, and no threshold is
    meant to catch what is not a number."""
    score = pl.col("score")
    beyond = score > bound.threshold if bound.direction == "above" else score < bound.threshold
    return of(bound.evaluator, bound.target) & score.is_not_nan() & beyond


def of(evaluator: str, target: str) -> pl.Expr:
    """Whether a row of the scores table is of this evaluator and side."""
    return (pl.col("evaluator") == evaluator) & (pl.col("target") == target)


def _matching(rows: pl.DataFrame, number: int, rule: CaseRule) -> pl.DataFrame:
    score = pl.col("score")
    match rule:
        case Rule():
            sign = 1.0 if rule.direction == "above" else -1.0
            return matches(rows.filter(past(rule.bound)), number, extreme=sign * score)
        case LabelRule():
            found = rows.filter(of(rule.evaluator, rule.target), pl.col("label").is_in(rule.labels))
            return matches(found, number, extreme=score.fill_nan(None))
        case UnscoredRule():
            why = pl.col("unscored_reason")
            wanted = why.is_in(rule.reasons) if rule.reasons else score.is_null()
            found = rows.filter(of(rule.evaluator, rule.target), score.is_null(), wanted)
            said = pl.format("{} could not score it: {}", pl.lit(rule.evaluator), why.fill_null("no reason"))
            return matches(found, number, detail=said)
        case LowConfidenceRule():
            unsure = score.is_between(rule.low, rule.high)
            found = rows.filter(of(rule.evaluator, rule.target), score.is_not_nan(), unsure)
            middle = (rule.low + rule.high) / 2
            said = pl.lit(f"between {rule.low:g} and {rule.high:g}")
            return matches(found, number, extreme=-(score - middle).abs(), detail=said)
        case _:
            raise AssertionError(f"{rule.kind} is not read from single scores")
