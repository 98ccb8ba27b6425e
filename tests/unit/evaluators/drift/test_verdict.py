from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.catalog import DRIFT_SCHEMA
from evaluators.drift.distances import Values
from evaluators.drift.profile import conforming
from evaluators.drift.rows import column_drift
from evaluators.drift.verdict import drifted, holm
from evaluators.drift.window_data import Kind
from evaluators.drift.windows import Granularity
from servelens.errors import Invalid

HOUR = Granularity.parse("1 hour")
LATER = HOUR.containing(datetime(2026, 3, 4, 12, tzinfo=UTC))


def rows_of(columns: dict[str, dict[str, Any]], *, hours_earlier: int = 0) -> list[dict[str, Any]]:
    window = LATER
    for _ in range(hours_earlier):
        window = HOUR.before(window)
    reference = HOUR.before(window)
    where = {
        "window": {"start": window.start, "end": window.end},
        "window_cmp": {"start": reference.start, "end": reference.end},
        "granularity": "1 hour",
        "drift_type": "CONSECUTIVE",
    }
    return [where | {"column_name": name} | statistics for name, statistics in columns.items()]


def ks(pvalue: float, statistic: float = 0.2) -> dict[str, Any]:
    return {"ks_test": {"statistic": statistic, "pvalue": pvalue}}


def chi_squared(pvalue: float, tv: float) -> dict[str, Any]:
    return {"chi_squared_test": {"statistic": 9.0, "pvalue": pvalue}, "tv_distance": tv}


def stepped_down(p_values: list[float], alpha: float) -> list[bool]:
    """Holm's procedure as he states it: reject the smallest p-values as long as each is at most α over what
    is left."""
    rejected = [False] * len(p_values)
    for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > alpha / (len(p_values) - step):
            break
        rejected[index] = True
    return rejected


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20), st.integers(1, 999))
def test_adjusted_p_values_reject_what_holms_procedure_rejects(thousandths: list[int], alpha: int) -> None:
    p_values = [number / 1000 for number in thousandths]
    threshold = (alpha + 0.5) / 1000  # no multiple of a p-value, so that rounding decides nothing
    adjusted = holm(np.array(p_values))
    assert (adjusted <= threshold).tolist() == stepped_down(p_values, threshold)
    assert np.all(adjusted >= p_values)
    assert np.all(adjusted <= 1)


def test_a_p_value_is_judged_among_all_columns_of_its_window_pair() -> None:
    rows = conforming(
        rows_of({"a": ks(0.001), "b": ks(0.02), "c": chi_squared(0.04, 0.3), "d": ks(0.9)}), DRIFT_SCHEMA
    )
    verdict = drifted(rows, alpha=0.05)
    assert verdict["p_adjusted"].to_list() == pytest.approx([0.004, 0.06, 0.08, 0.9])
    assert verdict["drifted"].to_list() == [True, False, False, False]
    assert verdict["test"].to_list() == ["ks", "ks", "chi_squared", "ks"]
    assert verdict["effect"].to_list() == pytest.approx([0.2, 0.2, 0.3, 0.2])
    assert verdict["effect_name"].to_list() == ["ks_distance", "ks_distance", "tv_distance", "ks_distance"]


def test_each_window_pair_is_corrected_by_itself() -> None:
    rows = conforming(
        rows_of({"a": ks(0.03), "b": ks(0.5)}) + rows_of({"a": ks(0.03)}, hours_earlier=1), DRIFT_SCHEMA
    )
    verdict = drifted(rows)
    assert verdict["p_adjusted"].to_list() == pytest.approx([0.06, 0.5, 0.03])
    assert verdict["drifted"].to_list() == [False, False, True]


def test_a_column_without_a_test_has_no_verdict_and_does_not_count() -> None:
    rows = conforming(
        rows_of({":table": {"count_delta": 5}, "a": ks(0.04), "b": {"tv_distance": 0.1}, "c": {}}),
        DRIFT_SCHEMA,
    )
    verdict = drifted(rows)
    assert verdict["column_name"].to_list() == ["a", "b", "c"]
    assert verdict["drifted"].to_list() == [True, None, None]
    assert verdict["p_adjusted"].to_list() == [0.04, None, None]
    assert verdict["effect"].to_list() == [0.2, 0.1, None]


def test_no_rows_no_verdicts() -> None:
    verdict = drifted(pl.DataFrame(DRIFT_SCHEMA.empty_table()))
    assert verdict.is_empty()
    assert {"drifted", "p_adjusted", "effect", "column_name"} <= set(verdict.columns)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, float("nan")])
def test_alpha_is_a_probability(alpha: float) -> None:
    with pytest.raises(Invalid, match="alpha"):
        drifted(pl.DataFrame(DRIFT_SCHEMA.empty_table()), alpha=alpha)


def pair(generator: np.random.Generator, *, rows: int, shifted: int = 0, shift: float = 0.0) -> pl.DataFrame:
    """Twelve columns in two windows: nine of numbers, three of categories."""
    columns = {}
    for index in range(9):
        now: Values = generator.normal(size=rows) + (shift if index < shifted else 0)
        then: Values = generator.normal(size=rows)
        columns[f"n{index}"] = column_drift(pl.Series(now), pl.Series(then), Kind.NUMERIC)
    for index in range(3):
        now_c, then_c = generator.choice(["stop", "length", "error"], p=[0.8, 0.15, 0.05], size=(2, rows))
        columns[f"c{index}"] = column_drift(
            pl.Series(now_c.tolist()), pl.Series(then_c.tolist()), Kind.CATEGORICAL
        )
    return conforming(rows_of(columns), DRIFT_SCHEMA)


def test_windows_of_one_distribution_seldom_raise_an_alarm() -> None:
    generator = np.random.default_rng(7)
    alarms = sum(bool(drifted(pair(generator, rows=200))["drifted"].any()) for _ in range(200))
    assert alarms / 200 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def test_a_small_shift_in_two_of_twelve_columns_is_found_in_large_windows() -> None:
    generator = np.random.default_rng(8)
    found = 0
    for _ in range(20):
        verdict = drifted(pair(generator, rows=5000, shifted=2, shift=0.2))
        flagged = verdict.filter("drifted")["column_name"].to_list()
        found += {"n0", "n1"} <= set(flagged)
    assert found >= 19
