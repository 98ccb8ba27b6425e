"""What is known of one window: the sketch of every column, over all records and per slice.

Invariant: the sketches of a window's parts merge into those of the window. A column or slice that a part does not have
counts there as rows without a value, or as no rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Self

import polars as pl

from evaluators.drift.sketches.sketch import SketchKinds
from evaluators.drift.slices import WHOLE, Slice, Slicing
from evaluators.drift.sources import Kind, Observation, ObservedColumn
from servelens.errors import Invalid

_THREADS: Final = 2
_WORTH_THREADS: Final = 50_000


@dataclass(frozen=True, slots=True)
class ColumnSketch:
    """A column and the sketch of its kind."""

    column: ObservedColumn
    sketch: Any


@dataclass(frozen=True, slots=True)
class SliceSketches:
    """The columns of a slice by name, and how many records it has."""

    rows: int = 0
    columns: Mapping[str, ColumnSketch] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WindowSketches:
    """A window's slices, all of its records among them. ``left_out``: by key, how many records are in slices that it had
    too many of."""

    slices: Mapping[Slice, SliceSketches]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, observation: Observation, slicing: Slicing, kinds: SketchKinds) -> Self:
        """Of a frame of :func:`evaluators.drift.window_data.observe` with the same ``slicing``."""
        frame, columns = observation.frame, observation.columns
        for column in columns:
            if column.kind not in kinds:
                raise Invalid(
                    f"nothing sums up a column of kind {column.kind}",
                    field=column.name,
                    fix="Hand a sketch of this kind to the runner.",
                )
        if frame.is_empty():
            return cls({WHOLE: SliceSketches()})
        slices: dict[Slice, SliceSketches] = {}
        left_out: dict[str, int] = {}
        parts: list[tuple[Slice, Any]] = [(WHOLE, frame)]
        for key in slicing.keys:
            divided, rows = slicing.divided(frame, key)
            parts.extend(divided.items())
            if rows:
                left_out[key] = rows
        for part, rows_of in parts:
            slices[part] = SliceSketches(rows_of.height, _sketched(rows_of, columns, kinds))
        return cls(slices, left_out)

    @classmethod
    def merged(cls, parts: Sequence[Self], slicing: Slicing, kinds: SketchKinds) -> Self:
        """Of the windows that ``parts`` (in the order of time) tile."""
        whole = _merged_slice([part.slices.get(WHOLE, SliceSketches()) for part in parts], kinds)
        slices = {WHOLE: whole}
        left_out: dict[str, int] = {}
        for key in slicing.keys:
            found = {one for part in parts for one in part.slices if one.key == key}
            complete = {
                one
                for one in found
                if all(one in part.slices or not part.left_out.get(key) for part in parts)
            }
            rows = {one: sum(part.slices[one].rows for part in parts if one in part.slices) for one in found}
            kept = sorted(complete, key=lambda one: (-rows[one], one.value or ""))[: slicing.limit]
            lost = sum(part.left_out.get(key, 0) for part in parts)
            lost += sum(rows[one] for one in found - set(kept))
            if lost:
                left_out[key] = lost
            for one in kept:
                slices[one] = _merged_slice([part.slices.get(one, SliceSketches()) for part in parts], kinds)
        return cls(slices, left_out)

    @property
    def rows(self) -> int:
        """Records in the window."""
        return self.slices[WHOLE].rows

    @property
    def is_empty(self) -> bool:
        return self.rows == 0

    def of_slice(self, part: Slice) -> SliceSketches:
        """A slice that the window does not have is empty."""
        return self.slices.get(part, SliceSketches())


def slices_of(*windows: WindowSketches) -> list[Slice]:
    """All of the traffic, then every slice that one of ``windows`` has, by key and value.

    A slice that another of them left out is no slice to compare.
    """
    found = {one for window in windows for one in window.slices if one != WHOLE}
    return [
        WHOLE,
        *sorted(
            one
            for one in found
            if all(one in window.slices or not window.left_out.get(one.key or "") for window in windows)
        ),
    ]


def columns_of(parts: Iterable[SliceSketches]) -> list[ObservedColumn]:
    """The columns of ``parts``, in the order in which they are first met; of one name, the last one's kind."""
    found: dict[str, ObservedColumn] = {}
    for part in parts:
        found.update({name: one.column for name, one in part.columns.items()})
    return list(found.values())


def sketch_of(part: SliceSketches, column: ObservedColumn, kinds: SketchKinds) -> Any:
    """The sketch of ``column`` in ``part``: of rows without a value where there is none of its kind."""
    known = part.columns.get(column.name)
    if known is not None and known.column.kind is column.kind:
        return known.sketch
    return kinds[column.kind].sketch.of_nulls(part.rows)


def _sketched(
    frame: pl.DataFrame, columns: Sequence[ObservedColumn], kinds: SketchKinds
) -> dict[str, ColumnSketch]:
    def one(column: ObservedColumn) -> ColumnSketch:
        values = _values(frame[column.name], column.kind)
        return ColumnSketch(column, kinds[column.kind].sketch.of(values))

    if frame.height < _WORTH_THREADS:
        return {column.name: one(column) for column in columns}
    # Sorting and counting let go of the interpreter's lock.
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="sketches") as pool:
        return {made.column.name: made for made in pool.map(one, columns)}


def _values(column: pl.Series, kind: Kind) -> pl.Series:
    """One by one where a record has several, such as the examples of a tabular call; none of them is a null."""
    several = isinstance(column.dtype, pl.List) and kind is not Kind.VECTOR
    return column.explode() if several else column


def _merged_slice(parts: Sequence[SliceSketches], kinds: SketchKinds) -> SliceSketches:
    filled = [part for part in parts if part.rows]
    columns = {
        column.name: ColumnSketch(
            column,
            kinds[column.kind].sketch.merged([sketch_of(part, column, kinds) for part in filled]),
        )
        for column in columns_of(filled)
    }
    return SliceSketches(sum(part.rows for part in filled), columns)
