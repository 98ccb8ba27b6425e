"""Profile rows: what each column of one window looks like, unsliced and per variant.

The columns are those of Databricks' profile metrics table
(https://docs.databricks.com/aws/en/data-quality-monitoring/data-profiling/monitor-output): ``count`` counts
values that are not null, percentages are in percent, ``:table`` stands for all columns together.
``quantiles`` holds the 101 percentiles 0, 1, …, 100, interpolated linearly.

Invariant: what no value determines (the mean of an empty column) is null, never zero; counts are always
there.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from collector.profile_tables import PROFILE_SCHEMA, WHOLE_TABLE
from evaluators.drift.distances import Values
from evaluators.drift.window_data import Kind, ObservedColumn, observed_columns, slices, with_columns
from evaluators.drift.windows import Window

MONITOR_VERSION: Final = 1
"""Grows when the meaning of a profile's or drift row's column changes."""
QUANTILES: Final = 101
_FREQUENT_ITEMS: Final = 100


def profile_rows(
    frame: pl.DataFrame, *, window: Window, granularity: str, payload_version: int | None
) -> pl.DataFrame:
    """Rows with exactly the columns of ``PROFILE_SCHEMA`` for a frame of
    :func:`~evaluators.window_data.read_window`.

    An empty window has one row, ``:table`` with a count of 0.
    """
    rows: list[dict[str, Any]] = []
    columns = observed_columns(frame)
    for part in slices(frame):
        sliced = with_columns(part.of(frame), columns)
        where = {
            "window": {"start": window.start, "end": window.end},
            "log_type": "INPUT",
            "logging_table_commit_version": payload_version,
            "monitor_version": MONITOR_VERSION,
            "granularity": granularity,
            "slice_key": part.key,
            "slice_value": part.value,
        }
        rows.append(where | {"column_name": WHOLE_TABLE} | table_profile(sliced, columns))
        if sliced.height:
            rows.extend(
                where
                | {"column_name": column.name, "data_type": column.data_type}
                | column_profile(sliced[column.name], column.kind)
                for column in columns
            )
    return conforming(rows, PROFILE_SCHEMA)


def table_profile(frame: pl.DataFrame, columns: list[ObservedColumn]) -> dict[str, Any]:
    """``count`` of rows, and the names of the columns that have a value at all."""
    filled = [column.name for column in columns if frame[column.name].count()]
    return {"count": frame.height, "non_null_columns": filled}


def column_profile(series: pl.Series, kind: Kind) -> dict[str, Any]:
    """The statistics of one column; those that it does not determine are absent."""
    count, rows = series.count(), series.len()
    distinct = series.drop_nulls().n_unique()
    profile: dict[str, Any] = {
        "count": count,
        "num_nulls": rows - count,
        "distinct_count": distinct,
        "percent_null": _percent(rows - count, rows),
        "percent_distinct": _percent(distinct, count),
    }
    if kind is Kind.NUMERIC:
        return profile | _numeric_profile(series, count)
    return profile | _categorical_profile(series)


def finite_values(series: pl.Series) -> Values:
    """The finite values of a numeric column as an array."""
    values: Values = series.drop_nulls().cast(pl.Float64).to_numpy()
    return values[np.isfinite(values)]


def conforming(rows: list[dict[str, Any]], schema: pa.Schema) -> pl.DataFrame:
    """``rows`` as a frame with exactly the columns and types of ``schema``; what a row lacks is null."""
    empty = pl.DataFrame(schema.empty_table())
    unknown = {name for row in rows for name in row} - set(schema.names)
    if unknown:
        raise KeyError(f"the schema has no column {sorted(unknown)}")
    return pl.DataFrame([{name: row.get(name) for name in schema.names} for row in rows], schema=empty.schema)


def _numeric_profile(series: pl.Series, count: int) -> dict[str, Any]:
    values = finite_values(series)
    zeros = int(np.count_nonzero(values == 0))
    profile: dict[str, Any] = {
        "num_zeros": zeros,
        "num_nan": count - values.size,
        "percent_zeros": _percent(zeros, count),
        "percent_nan": _percent(count - values.size, count),
    }
    if values.size == 0:
        return profile
    quantiles = np.quantile(values, np.linspace(0, 1, QUANTILES))
    return profile | {
        "avg": float(values.mean()),
        "min": float(values.min()),
        "max": float(values.max()),
        "stddev": float(values.std(ddof=1)) if values.size > 1 else None,
        "median": float(quantiles[QUANTILES // 2]),
        "quantiles": quantiles.tolist(),
    }


def _categorical_profile(series: pl.Series) -> dict[str, Any]:
    items = series.drop_nulls().cast(pl.String)
    if items.is_empty():
        return {"frequent_items": []}
    lengths = items.str.len_chars().to_numpy()
    frequent = (
        items.alias("item")
        .value_counts(name="count")
        .sort(["count", "item"], descending=[True, False])
        .head(_FREQUENT_ITEMS)
    )
    profile: dict[str, Any] = {"frequent_items": frequent.to_dicts()}
    if series.dtype == pl.String:
        profile |= {
            "min_length": float(lengths.min()),
            "max_length": float(lengths.max()),
            "avg_length": float(lengths.mean()),
        }
    return profile


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
