"""The control sample: a known share of the answered records, whatever any evaluator says of them.

It is what evaluators' precision and recall can be estimated from: every answered record has a known probability of being
in it, kept with the record as ``sampled``, and weighting by its inverse (Horvitz and Thompson, 1952, J. Am. Stat. Assoc.
47) makes sums over the sample unbiased for the traffic. So nothing that depends on the record may take it out again: not
its likeness to other cases, and no cap that is reached in the course of a day. With a daily budget B the fraction of a day
is the lower of the rule's and B divided by the answered records of the newest earlier day that was seen; it is fixed when the
first record of the day is read. So B holds on average and for traffic like that of the day before, not to the case.

Invariant: records of one day (UTC, of the request) are drawn with one fraction.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, TypeVar

import polars as pl

from collector.table import Table
from relabel.selection.draws import CONTROL, drawn
from relabel.selection.rule import CaseRule, RandomRule
from relabel.selection.sources.source import ID, Found, all_matches, matches

_DAYS_KEPT: Final = 40

_Value = TypeVar("_Value")


class ControlSampleSource:
    """Follows the inference table. Shadows and failed calls are not in the sample: nobody was answered."""

    name: Final = "control_sample"
    columns: Final = (ID, "request_time", "request_date", "status_code", "is_shadow", "error_type")
    reads_past: Final = False
    look_back: Final[timedelta | None] = timedelta(days=1)

    def __init__(self, payload: Table, numbered: Mapping[int, RandomRule]) -> None:
        self.table = payload
        self._rules = numbered

    @property
    def numbered(self) -> Mapping[int, CaseRule]:
        return self._rules

    def find(self, rows: pl.DataFrame, state: Mapping[str, Any]) -> Found:
        """``state`` has answered records by day (``seen``) and the fractions of each rule by day (``fractions``)."""
        answered = rows.filter(
            pl.col("is_shadow").fill_null(False).not_(),
            pl.col("error_type").is_null(),
            pl.col("status_code").fill_null(200) < 400,
        )
        seen: dict[str, int] = dict(state.get("seen", {}))
        fractions: dict[str, dict[str, float]] = {
            name: dict(by_day) for name, by_day in state.get("fractions", {}).items()
        }
        found = []
        by_day = answered.with_columns(day=pl.col("request_time").dt.date().cast(pl.String)).sort("day")
        for (day,), of_day in by_day.group_by("day", maintain_order=True):
            ids = of_day[ID].to_list()
            for number, rule in self._rules.items():
                of_rule = fractions.setdefault(rule.name, {})
                fraction = of_rule.setdefault(str(day), _fraction(rule, str(day), seen))
                taken = of_day.filter(pl.Series(drawn(ids, fraction, CONTROL)))
                said = pl.lit(f"drawn with probability {fraction:.4g}")
                found.append(matches(taken, number, sampled=pl.lit(fraction), detail=said))
            seen[str(day)] = seen.get(str(day), 0) + of_day.height
        kept = {name: _newest(by_day) for name, by_day in fractions.items()}
        return Found(all_matches(found), {"seen": _newest(seen), "fractions": kept})


def _fraction(rule: RandomRule, day: str, seen: Mapping[str, int]) -> float:
    earlier = [other for other in seen if other < day and seen[other]]
    if rule.daily_budget is None or not earlier:
        return rule.fraction
    return min(rule.fraction, rule.daily_budget / seen[max(earlier)])


def _newest(by_day: Mapping[str, _Value]) -> dict[str, _Value]:
    return {day: by_day[day] for day in sorted(by_day)[-_DAYS_KEPT:]}
