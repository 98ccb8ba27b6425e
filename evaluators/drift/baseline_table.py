"""A data set outside our tables as the reference: a Delta table, a Parquet or a CSV file, such as a training set.

Columns are matched by name; those that only one side has are not compared. They are summed up piece by piece, once per
version (Delta) or state of the file (size and time of change), so a data set larger than memory is fine.

Invariant: what is compared is of one kind: a column of numbers is compared with numbers, everything else by its text.
A data set that cannot be read, or lacks every column, is an error, never a comparison with nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from collector.object_store import patient_options, polars_options
from evaluators.drift.rows import SlicePair
from evaluators.drift.sketches.sketch import SketchKinds
from evaluators.drift.slices import WHOLE
from evaluators.drift.sources import Kind, ObservedColumn
from evaluators.drift.window_sketches import ColumnSketch, SliceSketches, WindowSketches
from servelens.errors import Invalid, Unavailable

logger = logging.getLogger(__name__)

_ROWS_AT_ONCE: Final = 500_000


class BaselineTable:
    """The data set at ``uri``: a folder or address of a Delta table, or a path that ends in ``.parquet`` or ``.csv``."""

    def __init__(self, uri: str, *, storage_options: Mapping[str, str] | None = None) -> None:
        self.uri = uri
        self._storage_options = patient_options(uri, storage_options)
        self._state: object = None
        self._known: dict[str, ColumnSketch] = {}
        self._rows = 0

    def pairs(self, current: WindowSketches, kinds: SketchKinds) -> Sequence[SlicePair]:
        """All records of the window against the data set, in the columns that both have.

        Raises :class:`~servelens.errors.Unavailable` when it cannot be read, and
        :class:`~servelens.errors.Invalid` when it has none of the columns, or one cannot be read as numbers.
        """
        now = current.of_slice(WHOLE)
        if not now.rows:
            return []
        reference = self._sketched([one.column for one in now.columns.values()], kinds)
        shared = {name: one for name, one in now.columns.items() if name in reference.columns}
        return [SlicePair(WHOLE, SliceSketches(now.rows, shared), reference)]

    def _sketched(self, columns: Sequence[ObservedColumn], kinds: SketchKinds) -> SliceSketches:
        try:
            frame, state = self._opened()
            if state != self._state:
                self._state, self._known = state, {}
                self._rows = int(frame.select(pl.len()).collect().item())
            if not self._rows:
                raise Invalid(f"{self.uri} has no rows", field="baseline_table", fix="Name one with data.")
            present = frame.collect_schema().names()
            shared = [one for one in columns if one.name in present and one.kind is not Kind.VECTOR]
            if not shared:
                raise Invalid(
                    f"{self.uri} has none of the columns {', '.join(one.name for one in columns)}",
                    field="baseline_table",
                    fix="Name its columns like those of the profile table.",
                )
            for column in shared:
                known = self._known.get(column.name)
                if known is None or known.column.kind is not column.kind:
                    self._known[column.name] = self._summed_up(frame, column, kinds)
        except pl.exceptions.InvalidOperationError as error:
            raise Invalid(
                f"{self.uri} cannot be compared: {error}", field="baseline_table", fix="Correct that column."
            ) from error
        except (pl.exceptions.PolarsError, DeltaError, OSError) as error:
            raise Unavailable(f"{self.uri} cannot be read: {error}", field="baseline_table") from error
        return SliceSketches(self._rows, {one.name: self._known[one.name] for one in shared})

    def _summed_up(self, frame: pl.LazyFrame, column: ObservedColumn, kinds: SketchKinds) -> ColumnSketch:
        sketch: Any = kinds[column.kind].sketch
        kind = pl.Float64 if column.kind is Kind.NUMERIC else pl.String
        parts = [
            sketch.of(part[column.name]) for part in _batches(frame.select(pl.col(column.name).cast(kind)))
        ]
        logger.info("baseline column summed up: table=%s column=%s", self.uri, column.name)
        return ColumnSketch(column, sketch.merged(parts or [sketch.of_nulls(0)]))

    def _opened(self) -> tuple[pl.LazyFrame, object]:
        suffix = Path(self.uri).suffix.lower()
        if suffix in (".parquet", ".csv"):
            status = Path(self.uri).stat()
            scan = pl.scan_parquet if suffix == ".parquet" else pl.scan_csv
            return scan(self.uri), (status.st_size, status.st_mtime_ns)
        table = DeltaTable(self.uri, storage_options=self._storage_options)
        frame = pl.scan_delta(table, storage_options=polars_options(self._storage_options) or None)
        return frame, table.version()


def _batches(frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    yield from frame.collect_batches(chunk_size=_ROWS_AT_ONCE, maintain_order=True)
