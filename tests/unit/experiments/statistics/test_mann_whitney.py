"""Against scipy's Mann-Whitney and Brunner-Munzel tests, scipy's documented example, and coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import brunnermunzel, mannwhitneyu, norm

from experiments.statistics.mann_whitney import mann_whitney, mann_whitney_of_values


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_both_tests_against_scipy(seed: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    treatment, control = rng.normal(0.4, 2, 60).round(decimals), rng.normal(0, 1, 45).round(decimals)
    found = mann_whitney_of_values(treatment, control, 0.05)
    reference = mannwhitneyu(treatment, control, method="asymptotic")
    assert found.u == pytest.approx(float(reference.statistic))
    assert found.p_value == pytest.approx(float(reference.pvalue))
    assert found.unequal_p_value == pytest.approx(float(brunnermunzel(treatment, control).pvalue))


def test_the_example_of_brunner_and_munzel() -> None:
    """Pain scores (Brunner & Munzel 2000): W = 3.1375, ν = 17.683, p = 0.005786, P(X<Y)+½P(X=Y) = 0.788961,
    95 % interval 0.595217 to 0.982705, as printed by R's lawstat::brunner.munzel.test.
    """
    treatment = [3, 3, 4, 3, 1, 2, 3, 1, 1, 5, 4]
    control = [1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 1, 1]
    found = mann_whitney_of_values(treatment, control, 0.05)
    assert found.unequal_p_value == pytest.approx(0.005786, abs=5e-7)
    assert found.probability == pytest.approx(0.788961, abs=5e-7)
    assert (found.low, found.high) == (pytest.approx(0.595217, abs=5e-7), pytest.approx(0.982705, abs=5e-7))


def test_counts_on_bins_are_values_with_ties() -> None:
    treatment, control = np.array([0, 3, 0, 7, 20, 4]), np.array([2, 9, 0, 11, 5, 0])
    bins = np.arange(6.0)
    assert mann_whitney(treatment, control, 0.01) == mann_whitney_of_values(
        np.repeat(bins, treatment), np.repeat(bins, control), 0.01
    )


def test_the_interval_holds_one_half_exactly_when_brunner_munzel_does_not_reject() -> None:
    rng = np.random.default_rng(5)
    seen = set()
    for _ in range(200):
        found = mann_whitney_of_values(rng.normal(0.5, 3, 40), rng.normal(0, 1, 30), 0.2)
        rejects = found.unequal_p_value < 0.2
        assert rejects == (not found.low <= 0.5 <= found.high)
        seen.add(rejects)
    assert seen == {True, False}


def test_the_interval_keeps_its_level_when_shapes_differ() -> None:
    rng = np.random.default_rng(6)
    true = float(norm.cdf(0.5 / math.sqrt(1 + 9)))
    runs = 1500
    hits = 0
    for _ in range(runs):
        found = mann_whitney_of_values(rng.normal(0.5, 3, 30), rng.normal(0, 1, 80), 0.05)
        hits += found.low <= true <= found.high
    assert abs(hits / runs - 0.95) < 4 * math.sqrt(0.05 * 0.95 / runs)


def test_variants_that_do_not_overlap_are_tested_but_not_bounded() -> None:
    found = mann_whitney([0, 0, 8], [5, 4, 0], 0.05)
    assert found.probability == 1.0
    assert found.p_value == pytest.approx(
        float(mannwhitneyu([3] * 8, [1] * 5 + [2] * 4, method="asymptotic").pvalue)
    )
    assert math.isnan(found.low)
    assert math.isnan(found.unequal_p_value)


def test_equal_values_say_nothing() -> None:
    found = mann_whitney([10], [12], 0.05)
    assert found.probability == 0.5
    assert math.isnan(found.p_value)
    assert math.isnan(found.low)


def test_one_draw_has_a_u_but_no_interval() -> None:
    found = mann_whitney([0, 1], [4, 5], 0.05)
    assert found.u == pytest.approx(4 + 2.5)
    assert math.isnan(found.high)


@pytest.mark.parametrize(
    ("treatment", "control"),
    [
        ([], []),
        ([0, 0], [1, 2]),
        ([1, 2], [1, 2, 3]),
        ([1, -1], [1, 2]),
        ([1, math.nan], [1, 2]),
        ([1, math.inf], [1, 2]),
    ],
)
def test_what_are_no_counts_gives_no_numbers(treatment: list[float], control: list[float]) -> None:
    found = mann_whitney(treatment, control, 0.05)
    assert math.isnan(found.u)
    assert math.isnan(found.p_value)


def test_values_that_are_nan_are_not_dropped_in_silence() -> None:
    assert math.isnan(mann_whitney_of_values([1.0, math.nan], [2.0, 3.0], 0.05).u)
    assert mann_whitney_of_values([1.0, math.inf], [2.0, 3.0], 0.05).u == 2.0
