"""Profile rows: what each column of one window looks like, over all records and per slice.

The columns are those of Databricks' profile metrics table
(https://docs.databricks.com/aws/en/data-quality-monitoring/data-profiling/monitor-output): ``count`` counts
values that are not null, percentages are in percent, ``:table`` stands for all columns together.
``quantiles`` holds the 101 percentiles 0, 1, …, 100, interpolated linearly.

Invariant: what no value determines (the mean of an empty column) is null, never zero; counts are always
there.
"""

from __future__ import annotations

from typing import Any, Final

import polars as pl
import pyarrow as pa

from collector.profile_tables import PROFILE_SCHEMA, WHOLE_TABLE
from evaluators.drift.sketches.kinds import STANDARD_KINDS, percent
from evaluators.drift.sketches.sketch import SketchKind, SketchKinds
from evaluators.drift.window_sketches import SliceSketches, WindowSketches, columns_of, sketch_of, slices_of
from evaluators.drift.windows import Window

MONITOR_VERSION: Final = 2
"""Grows when the meaning of a profile's or drift row's column changes. 2: of large windows, distributions and numbers
of different values are those of sketches."""


def profile_rows(
    sketches: WindowSketches,
    *,
    window: Window,
    granularity: str,
    payload_version: int | None,
    kinds: SketchKinds = STANDARD_KINDS,
) -> pl.DataFrame:
    """Rows with exactly the columns of ``PROFILE_SCHEMA``.

    An empty window has one row, ``:table`` with a count of 0.
    """
    rows: list[dict[str, Any]] = []
    columns = columns_of(sketches.slices.values())
    for one in slices_of(sketches):
        part = sketches.of_slice(one)
        where = {
            "window": {"start": window.start, "end": window.end},
            "log_type": "INPUT",
            "logging_table_commit_version": payload_version,
            "monitor_version": MONITOR_VERSION,
            "granularity": granularity,
            "slice_key": one.key,
            "slice_value": one.value,
        }
        rows.append(where | {"column_name": WHOLE_TABLE} | table_profile(part))
        if part.rows:
            rows.extend(
                where
                | {"column_name": column.name, "data_type": column.data_type}
                | column_profile(sketch_of(part, column, kinds), kinds[column.kind])
                for column in columns
            )
    return conforming(rows, PROFILE_SCHEMA)


def table_profile(part: SliceSketches) -> dict[str, Any]:
    """``count`` of rows, and the names of the columns that have a value at all."""
    filled = [name for name, one in part.columns.items() if one.sketch.nulls < one.sketch.rows]
    return {"count": part.rows, "non_null_columns": filled}


def column_profile(sketch: Any, kind: SketchKind) -> dict[str, Any]:
    """The statistics of one column; those that it does not determine are absent."""
    count = sketch.rows - sketch.nulls
    profile: dict[str, Any] = {
        "count": count,
        "num_nulls": sketch.nulls,
        "percent_null": percent(sketch.nulls, sketch.rows),
        **kind.profile(sketch),
    }
    distinct = profile.get("distinct_count")
    if distinct is not None:
        profile["percent_distinct"] = percent(distinct, count)
    return profile


def conforming(rows: list[dict[str, Any]], schema: pa.Schema) -> pl.DataFrame:
    """``rows`` as a frame with exactly the columns and types of ``schema``; what a row lacks is null."""
    empty = pl.DataFrame(schema.empty_table())
    unknown = {name for row in rows for name in row} - set(schema.names)
    if unknown:
        raise KeyError(f"the schema has no column {sorted(unknown)}")
    return pl.DataFrame([{name: row.get(name) for name in schema.names} for row in rows], schema=empty.schema)
