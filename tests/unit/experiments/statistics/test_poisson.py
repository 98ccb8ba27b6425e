"""Against statsmodels, Fay's published example, and exact enumeration of coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, poisson
from statsmodels.stats.rates import confint_poisson_2indep
from statsmodels.stats.rates import test_poisson_2indep as rate_test_of_statsmodels

from experiments.statistics.poisson import poisson_rates

DATA = [(41, 28010.0, 15, 19017.0), (2, 17877.0, 9, 16660.0), (0, 50.0, 7, 60.0), (8, 1.0, 0, 2.5)]


@pytest.mark.parametrize("data", DATA)
def test_p_is_twice_the_smaller_one_sided_exact_p_of_statsmodels(data: tuple[int, float, int, float]) -> None:
    tails = [
        float(rate_test_of_statsmodels(*data, method="exact-cond", alternative=side).pvalue)
        for side in ("larger", "smaller")
        if data[2]  # its ratio divides by the control's rate
    ] or [binomtest(8, 8, 1 / 3.5, alternative=side).pvalue for side in ("greater", "less")]
    assert poisson_rates(*data, 0.05).p_value == pytest.approx(min(1.0, 2 * min(tails)))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("alpha", [0.05, 0.002])
def test_the_difference_against_statsmodels(data: tuple[int, float, int, float], alpha: float) -> None:
    found = poisson_rates(*data, alpha).difference
    low, high = confint_poisson_2indep(
        *data, method="mover", compare="diff", alpha=alpha, method_mover="score"
    )
    assert (found.low, found.high) == (pytest.approx(float(low)), pytest.approx(float(high)))
    assert found.estimate == pytest.approx(data[0] / data[1] - data[2] / data[3])


def test_fays_published_example() -> None:
    """Vignette of R's rateratio.test: 2 events in 17877 against 9 in 16660."""
    found = poisson_rates(2, 17877, 9, 16660, 0.05)
    assert found.p_value == pytest.approx(0.05011, abs=5e-6)
    assert found.ratio.estimate == pytest.approx(0.2070941557)
    assert found.ratio.low == pytest.approx(0.02177406, abs=5e-9)
    assert found.ratio.high == pytest.approx(1.00054910, abs=5e-9)


@pytest.mark.parametrize("x1", range(0, 30, 3))
def test_p_and_the_interval_of_the_ratio_agree(x1: int) -> None:
    found = poisson_rates(x1, 10.0, 12, 13.0, 0.05)
    assert (found.p_value < 0.05) == (not found.ratio.low <= 1.0 <= found.ratio.high)


def test_bounds_are_where_the_tail_is_half_of_alpha() -> None:
    found = poisson_rates(5, 2.0, 11, 3.0, 0.1).ratio
    for bound, side in ((found.low, "greater"), (found.high, "less")):
        odds = bound * 2.0 / 3.0
        assert binomtest(5, 16, odds / (1 + odds), alternative=side).pvalue == pytest.approx(0.05)


def test_coverage_by_enumeration() -> None:
    rates, exposures = (0.4, 0.2), (10.0, 40.0)
    ratio = between = total = 0.0
    for x1 in range(16):
        for x0 in range(25):
            weight = float(
                poisson.pmf(x1, rates[0] * exposures[0]) * poisson.pmf(x0, rates[1] * exposures[1])
            )
            found = poisson_rates(x1, exposures[0], x0, exposures[1], 0.05)
            total += weight
            ratio += weight * (math.isnan(found.ratio.low) or found.ratio.low <= 2.0 <= found.ratio.high)
            between += weight * (found.difference.low <= 0.2 <= found.difference.high)
    assert total > 0.9999
    assert ratio >= 0.95
    assert between == pytest.approx(0.95, abs=0.02)


def test_no_events_at_all_bound_the_difference_only() -> None:
    found = poisson_rates(0, 100.0, 0, 50.0, 0.05)
    assert math.isnan(found.p_value)
    assert math.isnan(found.ratio.low)
    assert found.difference.low < 0 < found.difference.high


def test_a_control_without_events_leaves_the_ratio_open_above() -> None:
    ratio = poisson_rates(8, 1.0, 0, 2.5, 0.05).ratio
    assert math.isinf(ratio.estimate)
    assert math.isinf(ratio.high)
    assert ratio.low > 1


def test_millions_of_events() -> None:
    found = poisson_rates(1_000_000, 1e9, 1_003_000, 1e9, 0.05)
    z = 3000 / np.sqrt(2_003_000)
    assert found.p_value == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.01)
    assert found.ratio.low < 1_000_000 / 1_003_000 < found.ratio.high < 1


@pytest.mark.parametrize(
    "data",
    [(1, 0.0, 2, 3.0), (-1, 1.0, 2, 3.0), (1, 1.0, 2, math.inf), (1, math.nan, 2, 3.0), (math.nan, 1, 2, 3)],
)
def test_what_is_no_rate_gives_no_numbers(data: tuple[int, float, int, float]) -> None:
    found = poisson_rates(*data, 0.05)
    assert math.isnan(found.p_value)
    assert math.isnan(found.ratio.estimate)
    assert math.isnan(found.difference.low)
