"""Against numpy's inverted-CDF quantile and scipy's quantile test, and by coverage in seeded simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm, quantile_test

from experiments.statistics.mover import Bounded, difference
from experiments.statistics.quantiles import (
    Ordered,
    clustered_quantile_interval,
    of_bins,
    of_values,
    quantile,
    quantile_interval,
)
from tests.unit.experiments.statistics.test_statistic import moments


def _same(found: float, reference: float) -> bool:
    return found == reference or (math.isnan(found) and math.isnan(reference))


@pytest.mark.parametrize("p", [0.01, 0.5, 0.7, 0.95, 0.99])
@pytest.mark.parametrize("records", [1, 7, 100, 1000])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_estimate_and_interval_against_numpy_and_scipy(p: float, records: int, alpha: float) -> None:
    values = np.random.default_rng(records).lognormal(size=records).round(1)
    found = quantile_interval(of_values(values), p, alpha)
    assert found.estimate == np.quantile(values, p, method="inverted_cdf")
    reference = quantile_test(values, p=p).confidence_interval(1 - alpha)
    assert _same(found.low, float(reference.low))
    assert _same(found.high, float(reference.high))


def test_a_whole_rank_is_not_lost_to_rounding() -> None:
    """0.55·100 is 55.00000000000001 in floats."""
    assert quantile(of_values(np.arange(1.0, 101.0)), 0.55) == 55.0


def test_too_few_records_for_a_bound_leave_that_side_open() -> None:
    found = quantile_interval(of_values(np.arange(100.0)), 0.99, 0.05)
    assert math.isfinite(found.low)
    assert math.isnan(found.high)


def test_a_histogram_answers_within_half_a_bin() -> None:
    values = np.random.default_rng(1).lognormal(5, 1, 5000)
    index = np.ceil(np.log(values) / math.log(1.005)).astype(int)
    bins, counts = np.unique(index, return_counts=True)
    exact, binned = of_values(values), of_bins(1.005**bins, counts)
    assert binned.records == 5000
    for p in (0.5, 0.95, 0.99):
        one, other = quantile_interval(exact, p, 0.05), quantile_interval(binned, p, 0.05)
        for name in ("estimate", "low", "high"):
            assert getattr(other, name) == pytest.approx(getattr(one, name), rel=0.0025)


def test_a_bin_of_zeros_answers_zero() -> None:
    found = of_bins([0.0, 100.0], [9, 1])
    assert quantile(found, 0.5) == 0.0
    assert quantile(found, 0.95) == pytest.approx(200 / 2.005)


def _clustered(rng: np.random.Generator, units: int) -> tuple[np.ndarray, np.ndarray]:
    """Lognormal values whose logarithm is standard normal, half of its variance being the unit's."""
    sizes = rng.geometric(0.2, units)
    users = np.repeat(np.arange(units), sizes)
    return users, np.exp(
        rng.normal(size=units)[users] * math.sqrt(0.5) + rng.normal(0, math.sqrt(0.5), len(users))
    )


def _interval(users: np.ndarray, values: np.ndarray, p: float) -> Bounded:
    ordered = of_values(values)
    below = values <= quantile(ordered, p)
    sums = moments(np.bincount(users), np.bincount(users, weights=below))
    return clustered_quantile_interval(ordered, p, sums.variance_of_mean(), 0.05)


@pytest.mark.parametrize(("p", "units"), [(0.5, 60), (0.95, 200), (0.99, 500)])
def test_the_clustered_interval_keeps_its_level_where_the_independent_one_does_not(
    p: float, units: int
) -> None:
    rng = np.random.default_rng(2)
    runs, clustered, independent = 500, 0, 0
    true = math.exp(float(norm.ppf(p)))
    for _ in range(runs):
        users, values = _clustered(rng, units)
        found, naive = _interval(users, values, p), quantile_interval(of_values(values), p, 0.05)
        clustered += not (found.low > true or found.high < true)
        independent += not (naive.low > true or naive.high < true)
    assert clustered / runs == pytest.approx(0.955, abs=4 * math.sqrt(0.05 * 0.95 / runs))
    assert independent / runs < 0.9


def test_the_clustered_interval_of_independent_records_is_the_exact_one() -> None:
    values = np.random.default_rng(3).normal(size=400)
    # With exactly the variance of independent records there are as many effective ones.
    found = clustered_quantile_interval(of_values(values), 0.9, 0.9 * 0.1 / 400 * (1 - 1e-9), 0.05)
    assert found == quantile_interval(of_values(values), 0.9, 0.05)


def test_copies_of_a_record_do_not_narrow_the_interval() -> None:
    values = np.random.default_rng(4).normal(size=150)
    users = np.repeat(np.arange(150), 20)
    often = _interval(users, values[users], 0.8)
    once = quantile_interval(of_values(values), 0.8, 0.05)
    ranks = np.sort(values)
    # The delta method has N-1 where binomial ranks have N, so a bound may be the neighbouring one.
    for one, other in ((often.low, once.low), (often.high, once.high)):
        assert abs(np.searchsorted(ranks, one) - np.searchsorted(ranks, other)) <= 1


def test_the_difference_of_two_quantiles_keeps_its_level() -> None:
    rng = np.random.default_rng(5)
    runs, hits = 600, 0
    true = (math.exp(0.2) - 1) * math.exp(float(norm.ppf(0.9)))
    for _ in range(runs):
        treatment, control = (
            quantile_interval(of_values(rng.lognormal(mu, 1, 300)), 0.9, 0.05) for mu in (0.2, 0.0)
        )
        found = difference(treatment, control)
        hits += found.low <= true <= found.high
    assert hits / runs == pytest.approx(0.955, abs=4 * math.sqrt(0.05 * 0.95 / runs))


def test_equal_values_bound_themselves_when_independent_and_nothing_when_clustered() -> None:
    ordered = of_values(np.full(50, 3.0))
    assert quantile_interval(ordered, 0.5, 0.05) == Bounded(3.0, 3.0, 3.0)
    found = clustered_quantile_interval(ordered, 0.5, 0.0, 0.05)
    assert found.estimate == 3.0
    assert math.isnan(found.low)


@pytest.mark.parametrize(
    "ordered",
    [
        of_values([]),
        of_values([1.0, math.nan]),
        of_bins([], []),
        of_bins([1.0, 2.0], [1]),
        of_bins([2.0, 1.0], [1, 1]),
        of_bins([1.0, math.nan], [1, 1]),
        of_bins([1.0, 2.0], [1, -1]),
        of_bins([1.0, 2.0], [1, math.nan]),
        of_bins([1.0, 2.0], [0, 0]),
    ],
)
def test_without_records_there_is_no_quantile(ordered: Ordered) -> None:
    assert ordered.records == 0
    found = quantile_interval(ordered, 0.5, 0.05)
    assert all(math.isnan(number) for number in (found.estimate, found.low, found.high))
    assert math.isnan(clustered_quantile_interval(ordered, 0.5, 0.1, 0.05).estimate)


@pytest.mark.parametrize("variance", [math.nan, math.inf, -1.0, 0.0, 1.0])
def test_a_variance_that_is_none_bounds_nothing(variance: float) -> None:
    found = clustered_quantile_interval(of_values(np.arange(90.0)), 0.5, variance, 0.05)
    assert found.estimate == 44.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, math.nan])
def test_a_share_that_is_none_has_no_quantile(p: float) -> None:
    assert math.isnan(quantile_interval(of_values(np.arange(90.0)), p, 0.05).estimate)


def test_waits_without_end_are_the_largest_values() -> None:
    found = quantile_interval(of_values([*range(50), *[math.inf] * 50]), 0.6, 0.05)
    assert found.estimate == math.inf
    assert found.low == 49.0
