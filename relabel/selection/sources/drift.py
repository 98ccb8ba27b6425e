"""Records of the windows and slices that drifted: so many of each, drawn by their id.

Whether a column drifted is told from the p-values in the drift table, corrected by Holm's step-down procedure (1979,
Scand. J. Statist. 6(2)) over all columns and slices of a window pair, and an effect between 0 and 1 beside it: the largest
difference of the distribution functions, the total variation distance, or 2·AUC − 1. A pair without a test says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from collector.profile_tables import WHOLE_TABLE
from collector.table import Table
from relabel.selection.rule import CaseRule, DriftRule
from relabel.selection.sources.source import ID, MATCH_SCHEMA, Found, all_matches, collected, matches

_PAIR: Final = ("window", "window_cmp", "granularity", "drift_type", "reference")
_TESTS: Final = ("ks_test", "chi_squared_test", "embedding_test")
_TAG: Final = "tags."


class DriftSource:
    """Follows the drift table; the records are found in the inference table."""

    name: Final = "drift"
    columns: Final = (
        *_PAIR,
        "slice_key",
        "slice_value",
        "column_name",
        *_TESTS,
        "tv_distance",
        "domain_classifier_auc",
    )
    reads_past: Final = False
    look_back: Final[timedelta | None] = timedelta(days=7)

    def __init__(self, drift: Table, payload: Table, numbered: Mapping[int, DriftRule]) -> None:
        self.table = drift
        self._payload = payload
        self._rules = numbered

    @property
    def numbered(self) -> Mapping[int, CaseRule]:
        return self._rules

    def find(self, rows: pl.DataFrame, state: Mapping[str, Any]) -> Found:
        tested = _tested(rows)
        found = [
            self._drawn(place, number, rule)
            for number, rule in self._rules.items()
            for place in _drifted(tested, rule)
        ]
        everything = all_matches(found).sort("extreme", ID, descending=[True, False])
        return Found(everything.unique([ID, "rule"], keep="first", maintain_order=True))

    def _drawn(self, place: Mapping[str, Any], number: int, rule: DriftRule) -> pl.DataFrame:
        window, key, value = place["window"], place["slice_key"], place["slice_value"]
        records = self._payload.scan(since=window["start"], until=window["end"]).filter(
            pl.col("is_shadow").fill_null(False).not_()
        )
        if key is not None:
            sliced = _sliced(key, self._payload)
            if sliced is None:
                return MATCH_SCHEMA.to_frame()
            records = records.filter(sliced == value)
        # The end of an id is random (a UUIDv7), its beginning is the time.
        by_chance = records.select(ID, "request_time", chance=pl.col(ID).str.tail(12))
        taken = collected(by_chance.sort("chance", ID).head(rule.per_window))
        of_slice = "" if key is None else f" of {key} {value}"
        at = f"{window['start']:%Y-%m-%d %H:%M}"
        said = f"{place['columns']} drifted{of_slice} in the {place['granularity']} from {at} UTC"
        return matches(taken, number, extreme=pl.lit(place["effect"]), detail=pl.lit(said))


def _tested(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows about columns that were tested, with ``adjusted`` p-values and the ``effect``."""
    p_value = pl.coalesce(pl.col(test).struct.field("pvalue") for test in _TESTS)
    effect = pl.coalesce(
        pl.col("ks_test").struct.field("statistic"),
        pl.col("tv_distance"),
        (2 * pl.col("domain_classifier_auc") - 1).clip(lower_bound=0),
        pl.lit(0.0),
    )
    found = rows.filter(pl.col("column_name") != WHOLE_TABLE).with_columns(p_value=p_value, effect=effect)
    found = found.filter(pl.col("p_value").is_not_nan())
    return found.with_columns(
        adjusted=pl.col("p_value").map_batches(_holm, return_dtype=pl.Float64).over(*_PAIR)
    )


def _drifted(tested: pl.DataFrame, rule: DriftRule) -> list[dict[str, Any]]:
    """The windows and slices with a column that drifted, its name and the largest effect."""
    wanted = [pl.col("adjusted") <= rule.alpha, pl.col("effect") >= rule.min_effect]
    for column, given in (
        ("column_name", rule.column),
        ("granularity", rule.granularity),
        ("slice_key", rule.slice_key),
    ):
        if given is not None:
            wanted.append(pl.col(column) == given)
    ordered = tested.filter(wanted).sort("effect", "column_name", descending=[True, False])
    named = pl.col("column_name").unique(maintain_order=True).head(5).str.join(", ")
    return (
        ordered.group_by("window", "granularity", "slice_key", "slice_value", maintain_order=True)
        .agg(named.alias("columns"), pl.col("effect").max())
        .to_dicts()
    )


def _sliced(key: str, payload: Table) -> pl.Expr | None:
    """The value that records are divided by under ``key``, as text; ``None`` for a column that there is not."""
    if key.startswith(_TAG):
        return pl.col("tags").map.get(key.removeprefix(_TAG))
    return pl.col(key).cast(pl.String) if key in payload.schema.names else None


def _holm(p_values: pl.Series) -> pl.Series:
    values = p_values.to_numpy()
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return pl.Series(p_values.name, adjusted)
