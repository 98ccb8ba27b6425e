"""Against statsmodels, scipy, published tables, and exact enumeration of coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import xlogy
from scipy.stats import binom, chi2_contingency, hypergeom
from statsmodels.stats.proportion import (
    confint_proportions_2indep,
    proportion_confint,
    proportions_ztest,
)
from statsmodels.stats.proportion import (
    test_proportions_2indep as score_test_of_statsmodels,
)

from experiments.statistics.proportions import (
    fisher_p_value,
    miettinen_nurminen_interval,
    newcombe_interval,
    pooled_z_p_value,
    score_z,
    two_proportions,
    wilson_interval,
)

COUNTS = [(56, 70, 48, 80), (25, 500, 40, 520), (300, 301, 250, 280), (1, 900, 12, 1100)]


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_pooled_z_wilson_and_newcombe_against_statsmodels(
    counts: tuple[int, int, int, int], alpha: float
) -> None:
    x1, n1, x0, n0 = counts
    assert pooled_z_p_value(*counts) == pytest.approx(float(proportions_ztest([x1, x0], [n1, n0])[1]))
    assert wilson_interval(x1, n1, alpha) == pytest.approx(proportion_confint(x1, n1, alpha, method="wilson"))
    assert newcombe_interval(*counts, alpha) == pytest.approx(
        confint_proportions_2indep(*counts, method="newcomb", alpha=alpha)
    )


@pytest.mark.parametrize("counts", [*COUNTS, (0, 16, 15, 72)])
@pytest.mark.parametrize("delta", [-0.9, -0.3, -0.01, 0.02, 0.4])
def test_the_score_test_against_a_likelihood_maximised_by_scipy(
    counts: tuple[int, int, int, int], delta: float
) -> None:
    """Not against statsmodels, whose cubic (0.15.0) has an event count where Miettinen & Nurminen have a sample size;
    the published tables below tell the two apart.
    """
    x1, n1, x0, n0 = counts

    def minus_log_likelihood(p0: float) -> float:
        p1 = p0 + delta
        return -float(xlogy(x1, p1) + xlogy(n1 - x1, 1 - p1) + xlogy(x0, p0) + xlogy(n0 - x0, 1 - p0))

    bounds = (max(0.0, -delta) + 1e-12, min(1.0, 1.0 - delta) - 1e-12)
    p0 = float(
        minimize_scalar(minus_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    )
    p1 = p0 + delta
    n = n1 + n0
    variance = (p1 * (1 - p1) / n1 + p0 * (1 - p0) / n0) * n / (n - 1)
    expected = (x1 / n1 - x0 / n0 - delta) / math.sqrt(variance)
    assert score_z(x1, n1, x0, n0, delta) == pytest.approx(expected, rel=1e-5)


def test_the_score_test_of_no_difference_against_statsmodels() -> None:
    reference = score_test_of_statsmodels(56, 70, 48, 80, value=0.0, method="score")
    assert score_z(56, 70, 48, 80) == pytest.approx(float(reference.statistic))


def test_pooled_z_is_the_chi_squared_test_without_correction() -> None:
    table = np.array([[25, 475], [40, 480]])
    assert pooled_z_p_value(25, 500, 40, 520) == pytest.approx(
        float(chi2_contingency(table, correction=False).pvalue)
    )


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((5, 56, 0, 29), -0.0381, 0.1926),
        ((10, 10, 0, 10), 0.6075, 1.0000),
    ],
)
def test_newcombe_against_his_table_2_method_10(
    counts: tuple[int, int, int, int], low: float, high: float
) -> None:
    """Newcombe 1998, Statistics in Medicine 17, 873-890, contrasts (a), (b), (e) and (h)."""
    found = newcombe_interval(*counts, 0.05)
    assert found == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [((56, 70, 48, 80), 0.0528, 0.3382), ((9, 10, 3, 10), 0.1700, 0.8406), ((10, 10, 0, 20), 0.7156, 1.0)],
)
def test_miettinen_nurminen_against_newcombes_table_2_method_6(
    counts: tuple[int, int, int, int], low: float, high: float
) -> None:
    """Newcombe 1998, Statistics in Medicine 17, 873-890, contrasts (a), (b) and (g)."""
    assert miettinen_nurminen_interval(*counts, 0.05) == pytest.approx((low, high), abs=5e-5)


def test_miettinen_nurminen_against_fagerland_lydersen_and_laake() -> None:
    """Statistical Analysis of Contingency Tables (2017), chapter 4: CHRNA4 genotype and XFS (Ritland et al. 2007)."""
    assert miettinen_nurminen_interval(0, 16, 15, 72, 0.05) == pytest.approx((-0.3164, -0.0056), abs=5e-5)


@pytest.mark.parametrize(
    "counts", [(0, 10, 0, 20), (10, 10, 20, 20), (0, 10, 20, 20), (20, 20, 0, 10), (0, 1, 1, 1)]
)
def test_each_score_bound_is_where_the_test_just_rejects_even_without_events(
    counts: tuple[int, int, int, int],
) -> None:
    low, high = miettinen_nurminen_interval(*counts, 0.05)
    estimate = counts[0] / counts[1] - counts[2] / counts[3]
    assert -1.0 <= low <= estimate <= high <= 1.0
    assert high - low > 0.1
    for bound, side in ((low, 1), (high, -1)):
        if abs(bound) < 1.0:
            assert score_z(*counts, bound) == pytest.approx(side * 1.959964, abs=1e-5)


def test_fisher_as_summed_by_hand() -> None:
    x1, n1, x0, n0 = 1, 40, 7, 45
    law = hypergeom(n0 + n1, x0 + x1, n1)
    by_hand = sum(law.pmf(k) for k in range(x0 + x1 + 1) if law.pmf(k) <= law.pmf(x1) * (1 + 1e-7))
    assert fisher_p_value(x1, n1, x0, n0) == pytest.approx(by_hand)


def test_small_expected_counts_go_to_fisher() -> None:
    assert two_proportions(1, 40, 7, 45, 0.05).method == "Fisher"
    assert two_proportions(5, 50, 5, 50, 0.05).method == "pooled z"
    assert two_proportions(1, 40, 7, 45, 0.05).p_value == fisher_p_value(1, 40, 7, 45)


@pytest.mark.parametrize(("x1", "x0"), [(0, 0), (50, 60)])
def test_without_any_event_there_is_no_p_but_an_interval(x1: int, x0: int) -> None:
    found = two_proportions(x1, 50, x0, 60, 0.05)
    assert math.isnan(found.p_value)
    assert math.isnan(pooled_z_p_value(x1, 50, x0, 60))
    assert found.low < 0 < found.high


@pytest.mark.parametrize(
    "counts", [(0, 0, 3, 10), (3, 10, 0, 0), (4, 3, 1, 5), (-1, 3, 1, 5), (math.nan, 10, 3, 10)]
)
def test_counts_that_are_none_give_no_numbers(counts: tuple[int, int, int, int]) -> None:
    found = two_proportions(*counts, 0.05)
    numbers = [
        found.p_value,
        found.low,
        found.high,
        *miettinen_nurminen_interval(*counts, 0.05),
        score_z(*counts),
    ]
    assert all(math.isnan(number) for number in numbers)


def test_a_level_that_is_none_gives_no_numbers() -> None:
    assert all(math.isnan(bound) for bound in miettinen_nurminen_interval(3, 9, 4, 9, math.nan))
    assert all(math.isnan(bound) for bound in miettinen_nurminen_interval(3, 9, 4, 9, 2.0))


def test_newcombes_interval_keeps_its_level_for_a_small_arm_with_rare_events() -> None:
    """Exact coverage by enumeration; where Miettinen-Nurminen's falls short is why Newcombe's is shown."""
    coverage = {newcombe_interval: 0.0, miettinen_nurminen_interval: 0.0}
    p1, p0 = 0.12, 0.02
    for x1 in range(9):
        for x0 in range(17):
            weight = float(binom.pmf(x1, 20, p1) * binom.pmf(x0, 200, p0))
            for interval in coverage:
                low, high = interval(x1, 20, x0, 200, 0.05)
                coverage[interval] += weight * (low <= p1 - p0 <= high)
    assert coverage[newcombe_interval] >= 0.948
    assert coverage[miettinen_nurminen_interval] < coverage[newcombe_interval]
