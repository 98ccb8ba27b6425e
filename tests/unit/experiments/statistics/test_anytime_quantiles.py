"""Against the published formula and confseq's reference values, scipy's laws, and simulated coverage at every look."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import betabinom, binom

from experiments.statistics.anytime_quantiles import (
    Histogram,
    QuantileBounds,
    SortedValues,
    mixture_ranks,
    quantile,
    quantile_difference,
    stitched_ranks,
)
from experiments.statistics.sequential import tuning
from servelens.errors import Invalid


@pytest.mark.parametrize(
    ("t", "p", "low", "high"),
    [
        # f(t) = 1.5·√(p(1−p)ℓ) + 0.8ℓ, ℓ = (1.4·ln ln(2.1t) + ln(10/0.05))/t, worked by hand:
        # t = 100: ln ln 210 = 1.676422, ℓ = 0.07645308; f(0.5) = 0.268540; f(0.95) = 0.151553
        (100, 0.5, 24, 76),
        (100, 0.95, 80, 100),
        # t = 10,000: ln ln 21,000 = 2.297575, ℓ = 0.000851492; f(0.5) = 0.022566; f(0.99) = 0.005036
        (10_000, 0.5, 4_775, 5_225),
        (10_000, 0.99, 9_850, 9_950),
    ],
)
def test_the_explicit_band_worked_by_hand(t: int, p: float, low: int, high: int) -> None:
    found = stitched_ranks(t, p, 0.05)
    assert (found.low, found.high) == (low, high)


def test_the_mixture_at_confseqs_own_reference_value() -> None:
    """github.com/gostevehoward/confseq, uniform_boundaries_unittest.cpp, TestTwoSidedBetaBinomialMixture: with g = p =
    0.2, h = 0.8, v = p(1−p)t = 100 (so t = 625), v_opt = 100 and α = 0.05 the boundary is 31.4308, from a reference
    implementation in R. K − tp is in (−∞, 31.4308], so K ≤ 156. confseq's tuning is an approximation, so the plan that
    gives its mixture is solved for.
    """
    rho = 100 / (2 * math.log(20) + math.log(1 + 2 * math.log(20)))
    planned = rho / 0.16 * tuning(0.05)
    assert mixture_ranks(625, 0.2, 0.05, planned).high == math.floor(125 + 31.4308)
    # The same band for the complement, where g and h change places.
    assert mixture_ranks(625, 0.8, 0.05, planned).low == math.ceil(500 - 31.4308)
    concentration = planned / tuning(0.05) - 1
    log_e = [
        float(betabinom.logpmf(k, 625, concentration * 0.2, concentration * 0.8) - binom.logpmf(k, 625, 0.2))
        for k in (135, 156, 157)
    ]
    assert log_e[0] == pytest.approx(-0.6941012, abs=1e-6)
    assert log_e[1] < math.log(20) <= log_e[2]


@pytest.mark.parametrize("p", [0.05, 0.5, 0.95, 0.99])
@pytest.mark.parametrize("t", [1, 7, 100, 3_000, 200_000])
def test_the_mixtures_ends_are_where_scipys_two_laws_differ_by_one_over_alpha(t: int, p: float) -> None:
    alpha, planned = 0.05, 10_000
    c = planned / tuning(alpha) - 1
    found = mixture_ranks(t, p, alpha, planned)

    def log_e(k: int) -> float:
        return float(betabinom.logpmf(k, t, c * p, c * (1 - p)) - binom.logpmf(k, t, p))

    assert all(log_e(k) < -math.log(alpha) for k in {found.low, round(t * p), found.high})
    assert found.low == 0 or log_e(found.low - 1) >= -math.log(alpha)
    assert found.high == t or log_e(found.high + 1) >= -math.log(alpha)


def test_the_mixture_is_narrowest_for_its_plan() -> None:
    widths = {
        planned: mixture_ranks(10_000, 0.95, 0.05, planned).high
        - mixture_ranks(10_000, 0.95, 0.05, planned).low
        for planned in (100, 10_000, 1_000_000)
    }
    assert widths[10_000] == min(widths.values())
    stitched = stitched_ranks(10_000, 0.95, 0.05)
    assert widths[10_000] < stitched.high - stitched.low


@pytest.mark.parametrize("planned", [None, 1_000])
def test_the_bounds_are_order_statistics(planned: float | None) -> None:
    values = np.arange(1.0, 1_001.0)  # the k-th smallest is k
    ranks = stitched_ranks(1_000, 0.9, 0.05) if planned is None else mixture_ranks(1_000, 0.9, 0.05, planned)
    found = quantile(SortedValues(values), 0.9, 0.05, planned=planned)
    assert found == QuantileBounds(900.0, float(ranks.low), float(ranks.high + 1))


def test_too_few_values_bound_nothing() -> None:
    found = quantile(SortedValues(np.arange(5.0)), 0.95, 0.05, planned=1_000)
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert found.estimate == 4.0


def test_a_histogram_gives_the_edges_of_the_bins_that_hold_the_bounds() -> None:
    rng = np.random.default_rng(1)
    values = np.sort(rng.lognormal(5, 1, 4_000))
    edges = np.r_[0.0, np.geomspace(1, 100_000, 200)]
    counts = np.histogram(values, edges)[0]
    exact = quantile(SortedValues(values), 0.95, 0.05, planned=4_000)
    binned = quantile(Histogram(edges, counts), 0.95, 0.05, planned=4_000)
    assert binned.low <= exact.low < exact.high <= binned.high
    widest = edges[1:][-1] / edges[1:][-2]
    assert exact.low / binned.low <= widest
    assert binned.high / exact.high <= widest
    assert binned.estimate == pytest.approx(exact.estimate, rel=widest - 1)


def test_empty_bins_hold_nothing() -> None:
    found = Histogram(np.arange(6.0), np.array([0, 2, 0, 3, 0]))
    assert [found.between(rank) for rank in (1, 2, 3, 5)] == [(1.0, 2.0), (1.0, 2.0), (3.0, 4.0), (3.0, 4.0)]


def test_a_difference_is_the_union_of_both_arms_at_half_the_level() -> None:
    rng = np.random.default_rng(2)
    control, treatment = np.sort(rng.normal(0, 1, 3_000)), np.sort(rng.normal(5, 1, 3_000))
    found = quantile_difference(SortedValues(control), SortedValues(treatment), 0.5, 0.05)
    ranks = stitched_ranks(3_000, 0.5, 0.025)
    assert found.low == pytest.approx(treatment[ranks.low - 1] - control[ranks.high])
    assert found.high == pytest.approx(treatment[ranks.high] - control[ranks.low - 1])
    assert found.low < 5 < found.high


def test_a_difference_with_an_unbounded_arm_is_unbounded() -> None:
    few, many = SortedValues(np.arange(4.0)), SortedValues(np.arange(4_000.0))
    for pair in ((few, many), (many, few), (few, few)):
        found = quantile_difference(*pair, 0.5, 0.05)
        assert (found.low, found.high) == (-math.inf, math.inf)


def test_without_values_nothing_can_be_said() -> None:
    nothing, some = SortedValues(np.array([])), SortedValues(np.arange(9.0))
    for found in (
        quantile(nothing, 0.5, 0.05),
        quantile(Histogram(np.array([0.0, 1.0]), np.array([0])), 0.5, 0.05),
        quantile(some, 1.0, 0.05),
        quantile(some, 0.5, math.nan),
        quantile_difference(nothing, some, 0.5, 0.05),
    ):
        assert math.isnan(found.estimate)
        assert math.isnan(found.low)
        assert math.isnan(found.high)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SortedValues(np.array([1.0, math.nan])),
        lambda: SortedValues(np.array([math.nan])),
        lambda: SortedValues(np.array([2.0, 1.0])),
        lambda: Histogram(np.array([0.0, 1.0]), np.array([1, 2])),
        lambda: Histogram(np.array([0.0, 1.0, 1.0]), np.array([1, 2])),
        lambda: Histogram(np.array([0.0, 1.0]), np.array([-1])),
    ],
)
def test_what_is_no_sorted_sample_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(Invalid, match="ascend"):
        make()


@pytest.mark.parametrize("p", [0.5, 0.95])
def test_both_bands_hold_at_every_time_together(p: float) -> None:
    """2,000 streams, each looked at after every one of 1,500 values; K is all that the bands depend on."""
    rng = np.random.default_rng(3)
    runs, steps = 2_000, 1_500
    at_or_below = np.cumsum(rng.random((runs, steps)) < p, axis=1, dtype=np.int32)
    mixture, stitched, naive = [], [], []
    spread = 1.96 * math.sqrt(p * (1 - p))
    for t in range(1, steps + 1):
        mixed, explicit = mixture_ranks(t, p, 0.05, 500.0), stitched_ranks(t, p, 0.05)
        mixture.append((mixed.low, mixed.high))
        stitched.append((explicit.low, explicit.high))
        naive.append((t * p - spread * math.sqrt(t), t * p + spread * math.sqrt(t)))
    missed = {}
    for name, band in (("mixture", mixture), ("stitched", stitched), ("naive", naive)):
        low, high = np.array(band).T
        missed[name] = float(np.mean(np.any((at_or_below < low) | (at_or_below > high), axis=1)))
    allowed = 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)
    assert missed["stitched"] <= missed["mixture"] <= allowed
    assert missed["mixture"] > 0
    assert missed["naive"] > 4 * allowed


def test_tied_values_are_still_covered() -> None:
    """Whole milliseconds, a third of which are the quantile itself."""
    rng = np.random.default_rng(4)
    chances, missed = np.array([0.3, 0.35, 0.35]), 0
    for _ in range(200):
        values = rng.choice([10.0, 11.0, 12.0], 400, p=chances)
        for t in range(20, 401, 20):
            found = quantile(SortedValues(np.sort(values[:t])), 0.5, 0.05, planned=200)
            missed += not found.low <= 11.0 <= found.high
    assert missed == 0


def test_the_planned_boundary_is_where_it_should_be_in_large_samples() -> None:
    """The normal mixture's half-width c·√(tp(1−p)) at the plan: Howard et al. 2021, eq. 14."""
    t, p = 1_000_000, 0.9
    found = mixture_ranks(t, p, 0.05, t)
    root = brentq(lambda z: z * z - (1 + 1 / tuning(0.05)) * math.log((1 + tuning(0.05)) / 0.05**2), 0, 10)
    assert (found.high - t * p) / math.sqrt(t * p * (1 - p)) == pytest.approx(root, rel=0.01)
