"""Drift as a measure: the newest rows of the drift table, a statistic of one column or the largest of them all.

Invariant: rows of a window that is too old are no data, so drift that nobody computes any more does not look like none.
``drifted_columns`` and ``effect`` are those of :mod:`evaluators.drift.verdict`: significance corrected for the number of
columns, and the effect beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from collector.catalog import EndpointTables
from collector.profile_tables import WHOLE_TABLE
from evaluators.alerts.rule import WHOLE, DriftMeasure
from evaluators.alerts.samples import Plain, Sample
from evaluators.alerts.slicing import MOST_SLICES, Slicing, collected
from evaluators.drift.verdict import drifted
from evaluators.drift.windows import Granularity, Window

_COLUMNS: Final = {"psi": "population_stability_index"}
_SLICE_KEY: Final = "variant"


class DriftReader:
    """Reads the newest comparison that ended in the window."""

    def __init__(self, tables: EndpointTables, measure: DriftMeasure, slicing: Slicing) -> None:
        self._table = tables.drift
        self._measure = measure
        self._slicing = slicing
        self._granularity = Granularity.parse(measure.granularity)

    def read(self, window: Window) -> Mapping[str, Sample]:
        found: dict[str, Sample] = {}
        newest = self._newest(window)
        for (name,), rows in newest.group_by(["slice_value"], maintain_order=True):
            sample = self._sample(rows)
            if sample is not None:
                found[WHOLE if name is None else str(name)] = sample
        return dict(list(found.items())[:MOST_SLICES])

    def examples(self, window: Window, slice_: str, *, highest: bool) -> list[str]:
        return []  # a window drifts, not a record

    def nothing(self) -> str:
        what = "any column" if self._measure.column is None else f"column {self._measure.column}"
        return (
            f"there is no {self._measure.granularity} drift of {what} that is new enough and could be tested"
        )

    def _newest(self, window: Window) -> pl.DataFrame:
        # The table is filtered by the start of its windows, and the measure asks when they ended.
        longest = self._granularity.containing(window.start).length
        sliced = self._slicing.each or self._slicing.variant is not None
        key = pl.col("slice_key")
        rows = self._table.scan(since=window.start - longest, until=window.end).filter(
            pl.col("granularity") == str(self._granularity),
            pl.col("drift_type") == self._measure.drift_type,
            (key == _SLICE_KEY) if sliced else key.is_null(),
            pl.col("window").struct.field("end") > window.start,
            pl.col("window").struct.field("end") <= window.end,
        )
        if self._slicing.variant is not None:
            rows = rows.filter(pl.col("slice_value") == self._slicing.variant)
        frame = collected(rows)
        start = pl.col("window").struct.field("start")
        # Written again (another version of the monitor) is newer by its place in the table.
        where = ["slice_value", "column_name"]
        newest = frame.filter(start == start.max().over("slice_value"))
        return newest.unique(where, keep="last", maintain_order=True).sort(where)

    def _sample(self, rows: pl.DataFrame) -> Sample | None:
        """The value of the rows of one slice and window; ``None`` when no column could be tested."""
        statistic = self._measure.statistic
        if statistic in ("drifted_columns", "effect"):
            judged = self._of_column(drifted(rows, self._measure.alpha))
            known = judged["drifted" if statistic == "drifted_columns" else "effect"].drop_nulls()
            if known.is_empty():
                return None
            value = known.sum() if statistic == "drifted_columns" else known.max()
            return Plain(float(str(value)), known.len())
        known = self._of_column(rows)[_COLUMNS.get(statistic, statistic)].drop_nulls().drop_nans()
        return None if known.is_empty() else Plain(float(str(known.max())), known.len())

    def _of_column(self, rows: pl.DataFrame) -> pl.DataFrame:
        name = pl.col("column_name")
        return rows.filter(
            name != WHOLE_TABLE if self._measure.column is None else name == self._measure.column
        )
