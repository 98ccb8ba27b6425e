"""Feedback that makes cases: a thumb down, a low rating. It may come long after the record, or before it is in the table.

Of what one person said of a record under one name the last counts, as everywhere (:mod:`relabel.feedback`), as far as it was
read at once: a case stays when somebody thinks better of it later. Invariant: the reason of a case holds no free text of the
feedback, for it stays when the feedback is deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import polars as pl

from collector.table import Table
from relabel.selection.rule import CaseRule, FeedbackRule
from relabel.selection.sources.source import ID, Found, all_matches, matches


class FeedbackSource:
    """Follows the feedback table."""

    name: Final = "feedback"
    columns: Final = (
        ID,
        "request_time",
        "feedback_time",
        "feedback_id",
        "name",
        "value",
        "label",
        "source_id",
    )
    reads_past: Final = False
    look_back: Final[timedelta | None] = timedelta(days=1)

    def __init__(self, feedback: Table, numbered: Mapping[int, FeedbackRule]) -> None:
        self.table = feedback
        self._rules = numbered

    @property
    def numbered(self) -> Mapping[int, CaseRule]:
        return self._rules

    def find(self, rows: pl.DataFrame, state: Mapping[str, Any]) -> Found:
        usable = rows.filter(pl.col(ID).is_not_null()).with_columns(
            pl.coalesce("request_time", "feedback_time").alias("request_time")
        )
        usable = usable.sort("feedback_time", "feedback_id").unique(
            [ID, "name", "source_id"], keep="last", maintain_order=True
        )
        found = [_matching(usable, number, rule) for number, rule in self._rules.items()]
        return Found(all_matches(found).unique([ID, "rule"], keep="first", maintain_order=True))


def _matching(rows: pl.DataFrame, number: int, rule: FeedbackRule) -> pl.DataFrame:
    value = pl.col("value")
    if rule.labels:
        wanted, extreme = pl.col("label").is_in(rule.labels), pl.lit(0.0)
    elif rule.direction == "above":
        wanted, extreme = value.is_not_nan() & (value > rule.threshold), value
    else:
        wanted, extreme = value.is_not_nan() & (value < rule.threshold), -value
    said = pl.format("{}: {}", pl.col("name"), pl.col("label") if rule.labels else value)
    found = rows.filter(pl.col("name") == rule.feedback, wanted).with_columns(extreme=extreme, score=value)
    # Said by several people of one record, the worst counts.
    worst = found.sort("extreme", ID, descending=[True, False], maintain_order=True)
    label = pl.col("label") if rule.labels else pl.lit(None, pl.String)
    return matches(worst, number, label=label, detail=said)
