"""Against statsmodels, scipy and Newcombe's published examples."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import hypergeom, ttest_ind
from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest

from experiments.metrics import Metric, metric_for
from experiments.statistics.effect import Effect, Spread, Stratum, effect
from experiments.statistics.significance import fieller, fixed_horizon, lift, newcombe_interval
from experiments.statistics.statistic import Moments
from tests.unit.experiments.statistics.test_effect import binary
from tests.unit.experiments.statistics.test_statistic import moments

ERRORS, LATENCY, TOXICITY = metric_for("error_rate"), metric_for("latency_ms"), metric_for("score:toxicity")


def _effect(metric: Metric, control: Moments, treatment: Moments) -> Effect:
    found = effect(metric, [Stratum(control, treatment)])
    assert isinstance(found, Effect)
    return found


@pytest.mark.parametrize(
    ("x1", "n1", "x0", "n0"), [(56, 70, 48, 80), (25, 500, 40, 520), (300, 301, 250, 280)]
)
def test_pooled_z_and_newcombe_against_statsmodels(x1: int, n1: int, x0: int, n0: int) -> None:
    found = fixed_horizon(ERRORS, _effect(ERRORS, binary(x0, n0), binary(x1, n1)), 0.05)
    assert found.method == "pooled z"
    assert found.p_value == pytest.approx(float(proportions_ztest([x1, x0], [n1, n0])[1]))
    low, high = confint_proportions_2indep(x1, n1, x0, n0, method="newcomb")
    assert (found.low, found.high) == (pytest.approx(float(low)), pytest.approx(float(high)))


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


def test_small_counts_use_fisher_as_summed_by_hand() -> None:
    x1, n1, x0, n0 = 1, 40, 7, 45
    found = fixed_horizon(ERRORS, _effect(ERRORS, binary(x0, n0), binary(x1, n1)), 0.05)
    law = hypergeom(n0 + n1, x0 + x1, n1)
    by_hand = sum(law.pmf(k) for k in range(x0 + x1 + 1) if law.pmf(k) <= law.pmf(x1) * (1 + 1e-7))
    assert found.method == "Fisher"
    assert found.p_value == pytest.approx(by_hand)


def test_welch_against_scipy() -> None:
    rng = np.random.default_rng(1)
    control, treatment = rng.normal(0, 1, 40), rng.normal(0.5, 3, 25)
    found = fixed_horizon(
        LATENCY, _effect(LATENCY, moments(np.ones(40), control), moments(np.ones(25), treatment)), 0.05
    )
    reference = ttest_ind(treatment, control, equal_var=False)
    interval = reference.confidence_interval(0.95)
    assert found.method == "Welch"
    assert found.p_value == pytest.approx(float(reference.pvalue))
    assert (found.low, found.high) == (
        pytest.approx(float(interval.low)),
        pytest.approx(float(interval.high)),
    )


def test_clustered_rates_use_the_delta_method() -> None:
    rng = np.random.default_rng(2)
    sizes = rng.integers(1, 6, 200)
    fails = rng.binomial(sizes, 0.2).astype(float)
    found = fixed_horizon(
        ERRORS, _effect(ERRORS, moments(sizes[:90], fails[:90]), moments(sizes[90:], fails[90:])), 0.05
    )
    assert found.method == "delta method"
    assert 0 < found.p_value <= 1


def test_clustered_rates_that_never_vary_within_a_variant_have_no_fixed_result() -> None:
    found = fixed_horizon(
        ERRORS,
        _effect(ERRORS, moments(np.full(20, 2), np.zeros(20)), moments(np.full(20, 2), np.full(20, 2))),
        0.05,
    )
    assert math.isnan(found.p_value)


def test_fieller_bounds_are_where_the_test_of_that_ratio_just_rejects() -> None:
    spread = Spread(control=0.04, treatment=0.09, covariance=0.01, degrees=math.inf)
    for ratio in fieller(3.0, 2.0, spread, 1.96):
        variance = spread.treatment - 2 * ratio * spread.covariance + ratio**2 * spread.control
        assert (3.0 - ratio * 2.0) ** 2 == pytest.approx(1.96**2 * variance)


def test_fieller_covers_the_true_ratio_at_its_level() -> None:
    rng = np.random.default_rng(3)
    spread = Spread(control=0.25, treatment=0.36, covariance=0.0, degrees=math.inf)
    hits = 0
    for control, treatment in zip(rng.normal(2.0, 0.5, 4000), rng.normal(3.0, 0.6, 4000), strict=True):
        low, high = fieller(float(treatment), float(control), spread, 1.96)
        # Unbounded sets are no miss: they hold every ratio but some far away.
        hits += math.isnan(low) or low <= 1.5 <= high
    assert hits / 4000 >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 4000)


def test_a_control_near_zero_has_no_bounded_lift() -> None:
    found = _effect(
        TOXICITY, moments(np.ones(20), np.r_[np.zeros(19), 0.1]), moments(np.ones(20), np.full(20, 0.3))
    )
    relative = lift(TOXICITY, found, found.sequential, 3.0)
    assert relative.estimate > 0
    assert math.isnan(relative.low)
    assert math.isnan(relative.high)


def test_a_control_of_zero_has_no_lift() -> None:
    found = _effect(ERRORS, binary(0, 200), binary(30, 200))
    assert math.isnan(lift(ERRORS, found, found.sequential, 2.0).estimate)


def test_the_lift_of_a_log_metric_is_the_ratio_of_geometric_means() -> None:
    rng = np.random.default_rng(4)
    control, treatment = rng.lognormal(5, 1, 300), rng.lognormal(5.2, 1, 300)
    found = _effect(LATENCY, moments(np.ones(300), np.log(control)), moments(np.ones(300), np.log(treatment)))
    relative = lift(LATENCY, found, found.sequential, 1.96)
    ratio = math.exp(np.log(treatment).mean() - np.log(control).mean())
    assert relative.estimate == pytest.approx(ratio - 1)
    assert relative.low < relative.estimate < relative.high


def test_lift_and_difference_agree_on_whether_zero_is_inside() -> None:
    """Both rest on the same variances, so a verdict never contradicts the interval beside it."""
    for events, later in pairwise(range(20, 60)):
        found = _effect(ERRORS, binary(20, 500), binary(later, 500))
        for critical in (1.96, 3.0):
            relative = lift(ERRORS, found, found.sequential, critical)
            excluded = abs(found.difference) > critical * found.sequential.se
            if math.isfinite(relative.low):
                assert excluded == (not relative.low <= 0 <= relative.high), events
