from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from collector.catalog import DRIFT_SCHEMA
from evaluators.drift.distances import Values
from evaluators.drift.profile import conforming
from evaluators.drift.rows import column_drift
from evaluators.drift.sketches.categorical import CategoricalSketch
from evaluators.drift.sketches.kinds import STANDARD_KINDS
from evaluators.drift.sketches.numeric import NumericSketch
from evaluators.drift.sources import Kind
from evaluators.drift.verdict import drifted, holm, selected
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


def test_windows_that_are_looked_at_together_are_corrected_together() -> None:
    """Two of three pairs are selected (0.002 and 0.03 against 0.05·2/3), and in these Holm is held to that."""
    rows = conforming(
        rows_of({"a": ks(0.001), "b": ks(0.02)})
        + rows_of({"a": ks(0.03)}, hours_earlier=1)
        + rows_of({"a": ks(0.4), "b": ks(0.06)}, hours_earlier=2),
        DRIFT_SCHEMA,
    )
    verdict = drifted(rows)
    assert verdict["p_adjusted"].to_list() == pytest.approx([0.003, 0.03, 0.045, 0.6, 0.18])
    assert verdict["drifted"].to_list() == [True, True, True, False, False]
    alone = drifted(rows.head(2))
    assert alone["p_adjusted"].to_list() == pytest.approx([0.002, 0.02])


def test_one_column_of_many_windows_is_found_less_easily_than_that_of_one() -> None:
    quiet = [row for hour in range(1, 20) for row in rows_of({"a": ks(0.5)}, hours_earlier=hour)]
    rows = conforming(rows_of({"a": ks(0.01)}) + quiet, DRIFT_SCHEMA)
    assert drifted(rows.head(1))["drifted"].to_list() == [True]
    assert not drifted(rows)["drifted"].any()
    found = conforming(rows_of({"a": ks(0.0001)}) + quiet, DRIFT_SCHEMA)
    assert drifted(found)["drifted"].to_list() == [True] + [False] * 19


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20), st.integers(1, 999))
def test_selection_is_benjamini_and_hochbergs(thousandths: list[int], alpha: int) -> None:
    p_values = np.array(thousandths) / 1000
    level = (alpha + 0.5) / 1000
    expected = int(np.sum(stats.false_discovery_control(p_values) <= level))
    assert selected(p_values, level) == expected


def test_an_effect_that_is_too_small_to_matter_is_no_drift() -> None:
    rows = conforming(rows_of({"a": ks(1e-9, 0.01), "b": ks(1e-9, 0.2), "c": {}}), DRIFT_SCHEMA)
    assert drifted(rows)["drifted"].to_list() == [True, True, None]
    assert drifted(rows, min_effect=0.05)["drifted"].to_list() == [False, True, None]
    with pytest.raises(Invalid, match="min_effect"):
        drifted(rows, min_effect=-0.1)


def test_vectors_are_judged_by_their_test() -> None:
    vectors = {"embedding_test": {"statistic": 0.3, "pvalue": 0.001}, "domain_classifier_auc": 0.8}
    verdict = drifted(conforming(rows_of({"a": vectors}), DRIFT_SCHEMA)).to_dicts()[0]
    assert (verdict["test"], verdict["effect_name"], verdict["drifted"]) == (
        "embedding",
        "separability",
        True,
    )
    assert verdict["effect"] == pytest.approx(0.6)


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


def pair(
    generator: np.random.Generator, *, rows: int, shifted: int = 0, shift: float = 0.0, hours_earlier: int = 0
) -> pl.DataFrame:
    """Twelve columns in two windows: nine of numbers, three of categories."""
    columns = {}
    for index in range(9):
        now: Values = generator.normal(size=rows) + (shift if index < shifted else 0)
        then: Values = generator.normal(size=rows)
        numbers = [NumericSketch.of(pl.Series(values)) for values in (now, then)]
        columns[f"n{index}"] = column_drift(*numbers, STANDARD_KINDS[Kind.NUMERIC])
    for index in range(3):
        choices = generator.choice(["stop", "length", "error"], p=[0.8, 0.15, 0.05], size=(2, rows))
        tallies = [CategoricalSketch.of(pl.Series(values.tolist())) for values in choices]
        columns[f"c{index}"] = column_drift(*tallies, STANDARD_KINDS[Kind.CATEGORICAL])
    return conforming(rows_of(columns, hours_earlier=hours_earlier), DRIFT_SCHEMA)


def test_windows_of_one_distribution_seldom_raise_an_alarm() -> None:
    """Looked at one by one, each of 200 window pairs has its chance of an alarm; looked at together, all of them have
    one."""
    generator = np.random.default_rng(7)
    pairs = [pair(generator, rows=200, hours_earlier=hour) for hour in range(200)]
    alarms = sum(bool(drifted(one)["drifted"].any()) for one in pairs)
    assert alarms / 200 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)
    together = drifted(pl.concat(pairs))
    flagged = together.filter("drifted")["window"].n_unique()
    assert flagged / 200 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)
    assert flagged <= alarms


def test_a_small_shift_in_two_of_twelve_columns_is_found_in_large_windows() -> None:
    generator = np.random.default_rng(8)
    pairs = [pair(generator, rows=5000, shifted=2, shift=0.2, hours_earlier=hour) for hour in range(20)]
    for verdicts in (pl.concat(drifted(one) for one in pairs), drifted(pl.concat(pairs))):
        found = verdicts.filter(pl.col("drifted") & pl.col("column_name").is_in(["n0", "n1"]))
        both = found.group_by("window").len().filter(pl.col("len") == 2)
        assert both.height >= 19
