"""Against statsmodels and scipy: which method fixed-horizon results come from."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import hypergeom, ttest_ind
from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest

from experiments.metrics import Metric, metric_for
from experiments.statistics.effect import Effect, Stratum, effect
from experiments.statistics.significance import fixed_horizon
from experiments.statistics.statistic import Moments
from tests.unit.experiments.statistics.test_effect import binary
from tests.unit.experiments.statistics.test_statistic import moments

ERRORS, LATENCY = metric_for("error_rate"), metric_for("latency_ms")


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
