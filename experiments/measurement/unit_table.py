"""The rows of units on disk (:mod:`experiments.measurement.units`), of which a look reads only those that it needs.

A table is a base and a few deltas, each a file of rows in the order of the units, which is mapped into memory and searched.
Invariant: the newest file that has a unit has all rows of it. Files are never changed; those that the caller's list no
longer names can go.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

_MOST_DELTAS: Final = 8
# Times the base: as many rows of deltas as that are worth writing the base anew.
_LARGEST_DELTAS: Final = 1.0


class Damaged(Exception):
    """A file of units is not what was written. Caught where units can be read anew from the tables."""


class Segment(NamedTuple):
    """A file: its name, how many rows it has, and its bytes, by which a file that is not whole is known."""

    file: str
    rows: int
    size: int


class UnitTable:
    """The rows that ``segments`` (the base first, the newest last) in ``folder`` hold."""

    def __init__(self, folder: Path, segments: Sequence[Segment]) -> None:
        self._folder = folder
        self.segments = tuple(segments)

    def rows_of(self, units: pl.Series) -> pl.DataFrame:
        """The rows of ``units`` (sorted, each once). Raises :class:`Damaged`."""
        wanted = units.to_numpy()
        found = []
        for segment in reversed(self.segments):
            batch = self._mapped(segment)
            places, has = _places(batch.column("unit").to_numpy(), wanted)
            found.append(_frame(batch.take(places)))
            wanted = wanted[~has]
        return pl.concat(found).sort("unit")

    def everything(self) -> pl.DataFrame:
        """All rows, in the order of the units."""
        return _newest([_frame(self._mapped(segment)) for segment in self.segments])

    def with_rows(self, rows: pl.DataFrame) -> UnitTable:
        """The table in which ``rows`` replace what it had of their units; deltas are put together now and then."""
        base, *deltas = [*self.segments, write_segment(self._folder, rows)]
        changed = sum(segment.rows for segment in deltas)
        if changed > base.rows * _LARGEST_DELTAS:
            return UnitTable(self._folder, [self._joined([base, *deltas])])
        if len(deltas) > _MOST_DELTAS:
            return UnitTable(self._folder, [base, self._joined(deltas)])
        return UnitTable(self._folder, [base, *deltas])

    def _joined(self, segments: Sequence[Segment]) -> Segment:
        return write_segment(self._folder, _newest([_frame(self._mapped(segment)) for segment in segments]))

    def _mapped(self, segment: Segment) -> pa.RecordBatch:
        path = self._folder / segment.file
        try:
            if path.stat().st_size != segment.size:
                raise Damaged(f"{path} is not whole")
            with pa.memory_map(str(path)) as source:
                batch = pa.ipc.open_file(source).get_batch(0)
        except (OSError, pa.ArrowException) as error:
            raise Damaged(f"{path} cannot be read: {error}") from error
        if batch.num_rows != segment.rows:
            raise Damaged(f"{path} has {batch.num_rows} rows, not {segment.rows}")
        return batch


def write_segment(folder: Path, rows: pl.DataFrame) -> Segment:
    """Write a file of its own for ``rows`` (in the order of the units), to stay when the machine stops."""
    (batch,) = rows.rechunk().to_arrow().combine_chunks().to_batches() or [
        pa.RecordBatch.from_pylist([], schema=rows.to_arrow().schema)
    ]
    path = folder / f"units-{uuid.uuid4().hex}.arrow"
    with path.open("wb") as file:
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())
    return Segment(path.name, batch.num_rows, path.stat().st_size)


def _places(
    units: NDArray[np.uint64], wanted: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where the rows of ``wanted`` are among ``units`` (both sorted), and which of them are."""
    first = np.searchsorted(units, wanted, side="left")
    count = np.searchsorted(units, wanted, side="right") - first
    ends = np.cumsum(count)
    places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - (ends - count), count)
    return places.astype(np.int64), count > 0


def _newest(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The rows of all units, each from the last frame that has it."""
    rows = pl.concat(frames)
    units, ages = rows["unit"].to_numpy(), np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
    order = np.argsort(units, kind="stable")  # the frames are sorted, so this merges them
    units, ages = units[order], ages[order]
    ends = np.flatnonzero(np.append(units[1:] != units[:-1], True)) if len(units) else order
    newest = np.repeat(ages[ends], np.diff(ends, prepend=-1))
    found: pl.DataFrame = rows[order[ages == newest]]
    return found


def _frame(batch: pa.RecordBatch) -> pl.DataFrame:
    frame = pl.from_arrow(pa.Table.from_batches([batch]))
    assert isinstance(frame, pl.DataFrame)
    return frame
