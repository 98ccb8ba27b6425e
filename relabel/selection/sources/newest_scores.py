"""The newest score of each record by one evaluator, of records whose ids and times are known."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, cast

import polars as pl

from collector.table import Table
from relabel.selection.sources.source import ID, collected

_SLACK: Final = timedelta(seconds=1)  # request ids hold the time, and feedback has it from them, rounded


def newest_scores(
    scores: Table, records: pl.DataFrame, evaluator: str, target: str, *, slack: timedelta = _SLACK
) -> pl.DataFrame:
    """One row for each of ``records`` (id and time, known to ``slack``) that has a usable score; columns as in the table."""
    since, until = span(records, slack)
    rows = scores.scan(since=since, until=until).filter(
        pl.col("evaluator") == evaluator,
        pl.col("target") == target,
        pl.col("score").is_not_nan(),
        pl.col(ID).is_in(records[ID].unique().to_list()),
    )
    wanted = rows.select(ID, "request_time", "evaluator", "evaluator_version", "target", "score", "scored_at")
    return collected(wanted).sort("scored_at", ID).unique(ID, keep="last", maintain_order=True)


def span(records: pl.DataFrame, slack: timedelta = _SLACK) -> tuple[datetime, datetime]:
    """From the first to behind the last of ``records``, which are not none, by their time."""
    times = records["request_time"]
    return cast("datetime", times.min()) - slack, cast("datetime", times.max()) + slack
