"""The sketches of windows in ``<prefix>_sketches``, so that no record is read twice for a longer window.

A window is stored under its granularity and the layout of its sketches: sources, slices, and format and capacity of
each kind. With another layout nothing is found, and the window is summed up anew.

Invariant: a window is there as a whole or not at all. Where it was written twice (by two schedulers at once), the one
from the newer version of the inference table counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import polars as pl

from collector.catalog import SKETCH_SCHEMA
from collector.profile_tables import WHOLE_TABLE
from collector.table import Table
from evaluators.drift.profile import conforming
from evaluators.drift.sketches.sketch import SketchKinds
from evaluators.drift.slices import Slice, Slicing
from evaluators.drift.sources import Kind, ObservedColumn, WindowSource
from evaluators.drift.window_sketches import ColumnSketch, SliceSketches, WindowSketches
from evaluators.drift.windows import Granularity, Window
from servelens.errors import Unavailable

_LAYOUT: Final = 1
_LEFT_OUT: Final = ":left_out"
"""The ``column_name`` of a row that counts the records in slices of a key that were too many."""


class SketchStore:
    """Reads and writes the sketches of one endpoint's windows."""

    def __init__(
        self, table: Table, sources: Sequence[WindowSource], slicing: Slicing, kinds: SketchKinds
    ) -> None:
        self._table = table
        self._kinds = kinds
        self.layout = _layout(sources, slicing, kinds)

    def read(self, windows: Sequence[Window], granularity: Granularity) -> Mapping[Window, WindowSketches]:
        """Those of ``windows`` that are stored. Raises :class:`~servelens.errors.Unavailable`."""
        if not windows:
            return {}
        starts = [window.start for window in windows]
        first, last = min(starts), max(starts)
        found = self._table.scan(since=first).filter(
            pl.col("request_date").is_between(first.date(), last.date()),
            pl.col("window").struct.field("start").is_in(starts),
            pl.col("granularity") == str(granularity),
            pl.col("layout") == self.layout,
        )
        rows = self._collected(found)
        stored = dict(_by_start(rows))
        return {window: self._window(stored[window.start]) for window in windows if window.start in stored}

    def has_records(self, window: Window) -> bool:
        """Whether a stored window of this layout that begins in ``window`` has a record."""
        found = self._table.scan(since=window.start, until=window.end).filter(
            pl.col("request_date").is_between(window.start.date(), window.end.date()),
            pl.col("layout") == self.layout,
            pl.col("rows") > 0,
        )
        return not self._collected(found.select("rows").head(1)).is_empty()

    def _collected(self, found: pl.LazyFrame) -> pl.DataFrame:
        try:
            return found.collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise Unavailable(f"the table cannot be read: {error}", field=self._table.uri) from error

    def write(
        self,
        windows: Mapping[tuple[Granularity, Window], WindowSketches],
        payload_version: int,
        transaction: tuple[str, int] | None = None,
    ) -> None:
        """Add ``windows`` in one commit, under ``transaction`` (application id, version) unless that is in the table:
        then these are windows that the earlier commit did not need.
        """
        rows = [
            row
            for (granularity, window), sketches in windows.items()
            for row in self._rows(granularity, window, sketches, payload_version)
        ]
        if not rows:
            return
        transactions = None
        if transaction is not None:
            application_id, version = transaction
            committed = self._table.transaction_version(application_id)
            if committed is None or committed < version:
                transactions = {application_id: version}
        self._table.append(conforming(rows, SKETCH_SCHEMA), transactions=transactions)

    def _rows(
        self, granularity: Granularity, window: Window, sketches: WindowSketches, payload_version: int
    ) -> Iterable[dict[str, Any]]:
        where = {
            "request_date": window.start.date(),
            "window": {"start": window.start, "end": window.end},
            "granularity": str(granularity),
            "layout": self.layout,
            "payload_version": payload_version,
        }
        for one, part in sketches.slices.items():
            of_slice = where | {"slice_key": one.key, "slice_value": one.value}
            yield of_slice | {"column_name": WHOLE_TABLE, "rows": part.rows}
            for name, known in part.columns.items():
                yield of_slice | {
                    "column_name": name,
                    "kind": known.column.kind.value,
                    "data_type": known.column.data_type,
                    "rows": part.rows,
                    "sketch": known.sketch.to_bytes(),
                }
        for key, rows in sketches.left_out.items():
            yield where | {"slice_key": key, "column_name": _LEFT_OUT, "rows": rows}

    def _window(self, rows: pl.DataFrame) -> WindowSketches:
        newest = rows.filter(pl.col("payload_version") == pl.col("payload_version").max())
        newest = newest.unique(["slice_key", "slice_value", "column_name"], keep="any", maintain_order=True)
        counts: dict[Slice, int] = {}
        columns: dict[Slice, dict[str, ColumnSketch]] = {}
        left_out: dict[str, int] = {}
        for row in newest.iter_rows(named=True):
            one = Slice(row["slice_key"], row["slice_value"])
            if row["column_name"] == _LEFT_OUT:
                left_out[row["slice_key"]] = row["rows"]
            elif row["column_name"] == WHOLE_TABLE:
                counts[one] = row["rows"]
            else:
                kind = Kind(row["kind"])
                column = ObservedColumn(row["column_name"], kind, row["data_type"])
                sketch = self._kinds[kind].sketch.from_bytes(row["sketch"])
                columns.setdefault(one, {})[column.name] = ColumnSketch(column, sketch)
        return WindowSketches(
            {one: SliceSketches(rows_of, columns.get(one, {})) for one, rows_of in counts.items()}, left_out
        )


def _layout(sources: Sequence[WindowSource], slicing: Slicing, kinds: SketchKinds) -> str:
    formats = sorted(kind.sketch.FORMAT for kind in kinds.values())
    observed = [f"{source.name}-{source.version}" for source in sources]
    return ";".join(
        (f"{_LAYOUT}", ",".join(formats), ",".join(observed), ",".join(slicing.keys), f"{slicing.limit}")
    )


def _by_start(rows: pl.DataFrame) -> Iterable[tuple[Any, pl.DataFrame]]:
    start = rows["window"].struct.field("start").alias("_start")
    for (key,), part in rows.with_columns(start).partition_by("_start", as_dict=True).items():
        yield key, part
