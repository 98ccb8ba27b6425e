"""Chooses the records of a batch that are scored, by the rules of :mod:`evaluators.runs.sampling`.

The cost is bounded: without a quota no table is read; with one the scores of the batch's windows are counted, and a
variant whose quota the table says is used up in a window is not counted again.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import polars as pl

from collector.table import Table
from evaluators.runs.sampling import Sampling, in_fraction
from servelens.errors import Unavailable

_ID: Final = "databricks_request_id"
_ARM: Final = pl.coalesce("variant", "served_entity").fill_null("")
_FULL_REMEMBERED: Final = 10_000


class Sampler:
    """Chooses among the records of a batch for one evaluator and target of an endpoint."""

    def __init__(self, sampling: Sampling, scores: Table, evaluator: str, target: str) -> None:
        self._sampling = sampling
        self._scores = scores
        self._mine = (pl.col("evaluator") == evaluator) & (pl.col("target") == target)
        self._full: set[tuple[datetime, str]] = set()

    def chosen(self, records: pl.DataFrame) -> pl.DataFrame:
        """The rows of ``records`` that are to be scored, in their order. Raises :class:`~servelens.errors.Unavailable`."""
        sampling = self._sampling
        if sampling.fraction < 1.0:
            inside = [in_fraction(each, sampling.fraction) for each in records[_ID]]
            records = records.filter(pl.Series(inside, dtype=pl.Boolean))
        if sampling.quota is None or records.is_empty():
            return records
        return self._within_quota(records, sampling.quota)

    def _within_quota(self, records: pl.DataFrame, quota: int) -> pl.DataFrame:
        window = pl.col("request_time").dt.truncate(f"{int(self._sampling.window.total_seconds())}s")
        keyed = records.with_row_index("_row").with_columns(window.alias("_window"), _ARM.alias("_arm"))
        open_keys = [
            (start, arm)
            for start, arm in keyed.select("_window", "_arm").unique().iter_rows()
            if (start, arm) not in self._full
        ]
        left = {key: quota - count for key, count in self._counts(open_keys, window).items()}
        room = pl.DataFrame(
            [(start, arm, left.get((start, arm), quota)) for start, arm in open_keys],
            schema={"_window": keyed.schema["_window"], "_arm": pl.String, "_room": pl.Int64},
            orient="row",
        )
        place = pl.int_range(pl.len()).over("_window", "_arm", order_by=["request_time", _ID])
        taken = keyed.join(room, on=["_window", "_arm"]).filter(place < pl.col("_room")).sort("_row")
        for key in open_keys:
            # By what is in the table: what is chosen here may not get there.
            if left.get(key, quota) <= 0:
                self._note_full(key)
        return taken.select(records.columns)

    def _counts(self, keys: list[tuple[datetime, str]], window: pl.Expr) -> dict[tuple[datetime, str], int]:
        """How many rows the scores table has of each window and arm."""
        if not keys:
            return {}
        starts = [start for start, _ in keys]
        found = self._scores.scan(since=min(starts), until=max(starts) + self._sampling.window).filter(
            self._mine
        )
        grouped = found.group_by(window.alias("_window"), _ARM.alias("_arm")).len()
        try:
            return {(start, arm): count for start, arm, count in grouped.collect().iter_rows()}
        except (pl.exceptions.PolarsError, OSError) as error:
            raise Unavailable(f"the scores cannot be counted: {error}", field=self._scores.uri) from error

    def _note_full(self, key: tuple[datetime, str]) -> None:
        if len(self._full) >= _FULL_REMEMBERED:
            self._full.clear()
        self._full.add(key)
