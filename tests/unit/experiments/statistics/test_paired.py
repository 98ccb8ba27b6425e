"""Against scipy's t-tests with one pair per unit, and statsmodels' cluster-robust OLS on a constant with several."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import ttest_1samp, ttest_rel

from experiments.statistics.paired import paired_difference
from experiments.statistics.statistic import Moments
from tests.unit.experiments.statistics.test_statistic import moments


@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_one_pair_per_unit_is_the_paired_t_test_of_scipy(alpha: float) -> None:
    rng = np.random.default_rng(1)
    control = rng.lognormal(size=23)
    treatment = control * 1.1 + rng.normal(0, 0.2, 23)
    found = paired_difference(moments(np.ones(23), treatment - control), alpha)
    reference = ttest_rel(treatment, control)
    interval = reference.confidence_interval(1 - alpha)
    assert found.p_value == pytest.approx(float(reference.pvalue))
    assert found.p_value == pytest.approx(float(ttest_1samp(treatment - control, 0).pvalue))
    assert (found.low, found.high) == (
        pytest.approx(float(interval.low)),
        pytest.approx(float(interval.high)),
    )


@pytest.mark.parametrize("units", [6, 80])
def test_several_pairs_per_unit_are_the_cluster_robust_ols_of_statsmodels(units: int) -> None:
    """Its small-sample factor G/(G-1)·(N-1)/(N-K) is G/(G-1) for a constant alone, and its t has G-1 degrees."""
    rng = np.random.default_rng(2)
    sizes = rng.integers(1, 9, size=units)
    users = np.repeat(np.arange(units), sizes)
    differences = rng.normal(0.3, 1, size=units)[users] + rng.normal(size=len(users))
    fit = sm.OLS(differences, np.ones(len(users))).fit(
        cov_type="cluster", cov_kwds={"groups": users}, use_t=True
    )
    found = paired_difference(moments(sizes, np.bincount(users, weights=differences)), 0.05)
    low, high = np.asarray(fit.conf_int())[0]
    assert found.degrees == units - 1
    assert found.difference == pytest.approx(float(fit.params[0]))
    assert found.se == pytest.approx(float(fit.bse[0]))
    assert found.p_value == pytest.approx(float(fit.pvalues[0]))
    assert (found.low, found.high) == (pytest.approx(float(low)), pytest.approx(float(high)))


def test_pairs_of_one_unit_are_not_many_draws() -> None:
    """Twenty units whose fifty pairs are all alike say no more than twenty pairs."""
    values = np.random.default_rng(3).normal(0.2, 1, 20)
    once = paired_difference(moments(np.ones(20), values), 0.05)
    often = paired_difference(moments(np.full(20, 50), 50 * values), 0.05)
    assert often.p_value == pytest.approx(once.p_value)


def test_the_sign_is_treatment_minus_control() -> None:
    found = paired_difference(moments(np.ones(4), np.array([1.0, 2.0, 3.0, 2.0])), 0.05)
    assert found.low > 0


@pytest.mark.parametrize(
    "sums",
    [
        moments(np.array([3.0]), np.array([1.5])),
        moments(np.full(9, 2.0), np.full(9, 1.0)),
    ],
)
def test_without_variance_there_is_an_estimate_and_no_judgement(sums: Moments) -> None:
    found = paired_difference(sums, 0.05)
    assert found.difference == 0.5
    assert math.isnan(found.p_value)
    assert math.isnan(found.low)


@pytest.mark.parametrize(
    "sums", [Moments(), Moments(3, 3, math.nan, 3, math.nan, math.nan), Moments(3, 3, math.inf, 3, 1, 1)]
)
def test_without_differences_there_are_no_numbers(sums: Moments) -> None:
    found = paired_difference(sums, 0.05)
    assert math.isnan(found.difference)
    assert math.isnan(found.p_value)


def test_squares_beyond_floats_leave_the_estimate() -> None:
    found = paired_difference(Moments(5, 5, 5e200, 5, 5e200, math.inf), 0.05)
    assert found.difference == 1e200
    assert math.isnan(found.p_value)
