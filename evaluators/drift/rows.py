"""Drift rows: how far a window is from its reference window, per column, unsliced and per variant.

The columns are those of Databricks' drift metrics table
(https://docs.databricks.com/aws/en/data-quality-monitoring/data-profiling/monitor-output); every delta is
the current window minus the reference window, percentages in points. Numbers get the Kolmogorov–Smirnov
test, Wasserstein distance, PSI and Jensen–Shannon distance; categories get the chi-squared test, total
variation, L-infinity, PSI and Jensen–Shannon. A null is a category of its own (no ``error_type`` is the
usual one), but no number. The formulas are in :mod:`evaluators.drift.distances`.

Invariant: with fewer than ``min_rows`` values on either side a statistic is null, never zero.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict
from enum import StrEnum
from typing import Any, Final

import polars as pl

from collector.profile_tables import DRIFT_SCHEMA, WHOLE_TABLE
from evaluators.drift.distances import categorical_distances, numeric_distances
from evaluators.drift.profile import MONITOR_VERSION, column_profile, conforming, finite_values, table_profile
from evaluators.drift.window_data import Kind, ObservedColumn, observed_columns, slices, with_columns
from evaluators.drift.windows import Window

MIN_ROWS: Final = 20


class DriftType(StrEnum):
    """What a window is compared with: the one before it, or a fixed one."""

    CONSECUTIVE = "CONSECUTIVE"
    BASELINE = "BASELINE"


def drift_rows(
    current: pl.DataFrame,
    reference: pl.DataFrame,
    *,
    window: Window,
    window_cmp: Window,
    granularity: str,
    drift_type: DriftType,
    min_rows: int = MIN_ROWS,
) -> pl.DataFrame:
    """Rows with exactly the columns of ``DRIFT_SCHEMA`` for two frames of ``read_window``; none if both are
    empty.

    When one of the two has no row in a slice, that slice has only its ``:table`` row.
    """
    rows: list[dict[str, Any]] = []
    columns = observed_columns(current, reference)
    for part in slices(current, reference):
        now, then = (with_columns(part.of(frame), columns) for frame in (current, reference))
        if now.is_empty() and then.is_empty():
            continue
        where = {
            "window": {"start": window.start, "end": window.end},
            "window_cmp": {"start": window_cmp.start, "end": window_cmp.end},
            "granularity": granularity,
            "monitor_version": MONITOR_VERSION,
            "drift_type": drift_type.value,
            "slice_key": part.key,
            "slice_value": part.value,
        }
        rows.append(where | {"column_name": WHOLE_TABLE} | _table_drift(now, then, columns))
        if now.is_empty() or then.is_empty():
            continue
        rows.extend(
            where
            | {"column_name": column.name, "data_type": column.data_type}
            | column_drift(now[column.name], then[column.name], column.kind, min_rows=min_rows)
            for column in columns
        )
    return conforming(rows, DRIFT_SCHEMA)


def column_drift(
    current: pl.Series, reference: pl.Series, kind: Kind, *, min_rows: int = MIN_ROWS
) -> dict[str, Any]:
    """Deltas and distances between two series of one column; what the data do not determine is absent or
    null."""
    now, then = column_profile(current, kind), column_profile(reference, kind)
    drift: dict[str, Any] = {
        f"{name}_delta": _delta(now.get(name), then.get(name))
        for name in ("count", "avg", "percent_null", "percent_zeros", "percent_distinct")
    }
    if kind is Kind.NUMERIC:
        return drift | _numeric_drift(current, reference, min_rows)
    return drift | _categorical_drift(current, reference, min_rows)


def _table_drift(
    current: pl.DataFrame, reference: pl.DataFrame, columns: list[ObservedColumn]
) -> dict[str, Any]:
    now, then = table_profile(current, columns), table_profile(reference, columns)
    filled_now, filled_then = set(now["non_null_columns"]), set(then["non_null_columns"])
    return {
        "count_delta": now["count"] - then["count"],
        "non_null_columns_delta": {
            "added": len(filled_now - filled_then),
            "missing": len(filled_then - filled_now),
        },
    }


def _numeric_drift(current: pl.Series, reference: pl.Series, min_rows: int) -> dict[str, Any]:
    now, then = finite_values(current), finite_values(reference)
    if min(now.size, then.size) < max(min_rows, 1):
        return {}
    distances = numeric_distances(now, then)
    return {
        "ks_test": asdict(distances.ks_test),
        "wasserstein_distance": distances.wasserstein,
        "js_distance": distances.js,
        "population_stability_index": distances.psi,
    }


def _categorical_drift(current: pl.Series, reference: pl.Series, min_rows: int) -> dict[str, Any]:
    if min(current.len(), reference.len()) < max(min_rows, 1) or current.count() + reference.count() == 0:
        return {}
    distances = categorical_distances(_tally(current), _tally(reference))
    test = distances.chi_squared_test
    return {
        "chi_squared_test": None if test is None else asdict(test),
        "tv_distance": distances.tv,
        "l_infinity_distance": distances.l_infinity,
        "js_distance": distances.js,
        "population_stability_index": distances.psi,
    }


def _tally(series: pl.Series) -> dict[Hashable, int]:
    counts = series.alias("item").value_counts(name="count").sort("item")
    return dict(zip(counts["item"].to_list(), counts["count"].to_list(), strict=True))


def _delta(current: float | None, reference: float | None) -> float | None:
    return None if current is None or reference is None else current - reference
