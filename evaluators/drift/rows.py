"""Drift rows: how far a window is from its reference, per column, over all records and per slice.

The columns are those of Databricks' drift metrics table
(https://docs.databricks.com/aws/en/data-quality-monitoring/data-profiling/monitor-output); every delta is
the current window minus the reference, percentages in points. ``reference`` names what was compared with. Which
statistics a column gets is its kind's matter: :mod:`evaluators.drift.sketches.kinds`.

Invariant: with fewer than ``min_rows`` values on either side a statistic is null, never zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import polars as pl

from collector.profile_tables import DRIFT_SCHEMA, WHOLE_TABLE
from evaluators.drift.profile import MONITOR_VERSION, column_profile, conforming, table_profile
from evaluators.drift.sketches.kinds import STANDARD_KINDS
from evaluators.drift.sketches.sketch import SketchKind, SketchKinds
from evaluators.drift.slices import Slice
from evaluators.drift.window_sketches import SliceSketches, WindowSketches, columns_of, sketch_of, slices_of
from evaluators.drift.windows import Window

MIN_ROWS: Final = 20


class DriftType(StrEnum):
    """Whether the reference moves with the window, or is the same for every one."""

    CONSECUTIVE = "CONSECUTIVE"
    BASELINE = "BASELINE"


@dataclass(frozen=True, slots=True)
class Compared:
    """What goes into the columns that say which two things a row compares; ``window_cmp`` is ``None`` where the
    reference is no window."""

    window: Window
    window_cmp: Window | None
    granularity: str
    drift_type: DriftType
    reference: str


@dataclass(frozen=True, slots=True)
class SlicePair:
    """A slice's two sides, and the slice under which their rows go."""

    slice: Slice
    current: SliceSketches
    reference: SliceSketches


def same_slices(current: WindowSketches, reference: WindowSketches) -> list[SlicePair]:
    """Every slice with itself."""
    return [
        SlicePair(one, current.of_slice(one), reference.of_slice(one))
        for one in slices_of(current, reference)
    ]


def against_slice(current: WindowSketches, reference: Slice) -> list[SlicePair]:
    """Every other slice of the same key with ``reference``, all in one window; none when nobody else is there."""
    return [
        SlicePair(one, current.of_slice(one), current.of_slice(reference))
        for one in slices_of(current)
        if one.key == reference.key and one != reference
    ]


def drift_rows(
    pairs: Sequence[SlicePair],
    compared: Compared,
    *,
    kinds: SketchKinds = STANDARD_KINDS,
    min_rows: int = MIN_ROWS,
) -> pl.DataFrame:
    """Rows with exactly the columns of ``DRIFT_SCHEMA``; none for a slice that both sides lack.

    When one of the two has no record in a slice, that slice has only its ``:table`` row.
    """
    rows: list[dict[str, Any]] = []
    # A slice has every column that its window has, with or without a value in the slice.
    columns = columns_of(side for pair in pairs for side in (pair.reference, pair.current))
    for pair in pairs:
        now, then = pair.current, pair.reference
        if not now.rows and not then.rows:
            continue
        where = _where(compared) | {"slice_key": pair.slice.key, "slice_value": pair.slice.value}
        rows.append(where | {"column_name": WHOLE_TABLE} | _table_drift(now, then))
        if not now.rows or not then.rows:
            continue
        rows.extend(
            where
            | {"column_name": column.name, "data_type": column.data_type}
            | column_drift(
                sketch_of(now, column, kinds),
                sketch_of(then, column, kinds),
                kinds[column.kind],
                min_rows=min_rows,
            )
            for column in columns
        )
    return conforming(rows, DRIFT_SCHEMA)


def column_drift(
    current: Any, reference: Any, kind: SketchKind, *, min_rows: int = MIN_ROWS
) -> dict[str, Any]:
    """Deltas and distances between two sketches of one column; what the data do not determine is absent or
    null."""
    now, then = column_profile(current, kind), column_profile(reference, kind)
    deltas = {
        f"{name}_delta": _delta(now.get(name), then.get(name))
        for name in ("count", "avg", "percent_null", "percent_zeros", "percent_distinct")
    }
    return {**deltas, **kind.drift(current, reference, min_rows)}


def _where(compared: Compared) -> dict[str, Any]:
    then = compared.window_cmp
    return {
        "window": {"start": compared.window.start, "end": compared.window.end},
        "window_cmp": None if then is None else {"start": then.start, "end": then.end},
        "granularity": compared.granularity,
        "monitor_version": MONITOR_VERSION,
        "drift_type": compared.drift_type.value,
        "reference": compared.reference,
    }


def _table_drift(current: SliceSketches, reference: SliceSketches) -> dict[str, Any]:
    now, then = table_profile(current), table_profile(reference)
    filled_now, filled_then = set(now["non_null_columns"]), set(then["non_null_columns"])
    return {
        "count_delta": now["count"] - then["count"],
        "non_null_columns_delta": {
            "added": len(filled_now - filled_then),
            "missing": len(filled_then - filled_now),
        },
    }


def _delta(current: float | None, reference: float | None) -> float | None:
    return None if current is None or reference is None else current - reference
