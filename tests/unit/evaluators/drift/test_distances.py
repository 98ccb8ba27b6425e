"""Each formula against an independent computation: by hand in numpy what the code takes from scipy, and
vice versa."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.spatial.distance import jensenshannon

from evaluators.drift.distances import (
    Counts,
    NumericDistances,
    Values,
    categorical_distances,
    chi_squared,
    jensen_shannon,
    population_stability_index,
)
from evaluators.drift.distances import numeric_distances as distances_of_samples
from evaluators.drift.distances import quantile_counts as counts_of_samples
from evaluators.drift.sketches.sample import Sample

values = arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6).map(lambda x: round(x, 1)))


def numeric_distances(a: Values, b: Values) -> NumericDistances:
    return distances_of_samples(Sample.of(a), Sample.of(b))


def quantile_counts(a: Values, b: Values) -> tuple[Counts, Counts]:
    return counts_of_samples(Sample.of(a), Sample.of(b))


def counts_of(*numbers: int) -> Counts:
    return np.array(numbers, dtype=np.int64)


def distribution_differences(a: Values, b: Values) -> tuple[Values, Values]:
    """Where the two empirical distribution functions step, and their difference from there on."""
    steps = np.unique(np.concatenate([a, b]))
    f = np.array([np.mean(a <= step) for step in steps])
    g = np.array([np.mean(b <= step) for step in steps])
    return steps, np.abs(f - g)


@given(values, values)
def test_kolmogorov_smirnov_and_wasserstein_are_those_of_the_distribution_functions(
    a: Values, b: Values
) -> None:
    distances = numeric_distances(a, b)
    steps, differences = distribution_differences(a, b)
    assert distances.ks_test.statistic == pytest.approx(differences.max(), abs=1e-12)
    area = float(np.sum(differences[:-1] * np.diff(steps)))
    assert distances.wasserstein == pytest.approx(area, rel=1e-9, abs=1e-6)
    assert 0 <= distances.ks_test.pvalue <= 1


def test_the_kolmogorov_smirnov_p_value_is_the_share_of_permutations_at_least_as_far_apart() -> None:
    a, b = np.array([0.1, 0.4, 0.7, 1.2]), np.array([0.9, 1.5, 2.0, 2.2])
    observed = numeric_distances(a, b).ks_test
    pooled, further, splits = np.concatenate([a, b]), 0, 0
    for mask in range(2**8):
        chosen = np.array([bool(mask >> bit & 1) for bit in range(8)])
        if chosen.sum() != 4:
            continue
        splits += 1
        _, differences = distribution_differences(pooled[chosen], pooled[~chosen])
        further += differences.max() >= observed.statistic - 1e-12
    assert observed.pvalue == pytest.approx(further / splits)


@pytest.mark.parametrize("sizes", [(501, 400), (2_000, 3_000), (4_096, 600)])
def test_kolmogorov_smirnov_and_wasserstein_are_scipys(sizes: tuple[int, int]) -> None:
    generator = np.random.default_rng(6)
    a, b = (generator.normal(size=size).round(2) + index / 20 for index, size in enumerate(sizes))
    distances = numeric_distances(a, b)
    expected = stats.ks_2samp(a, b, method="asymp")
    assert distances.ks_test.statistic == expected.statistic
    assert distances.ks_test.pvalue == pytest.approx(expected.pvalue)
    assert distances.wasserstein == pytest.approx(stats.wasserstein_distance(a, b))


def test_large_and_very_unequal_samples_neither_fail_nor_warn() -> None:
    generator = np.random.default_rng(5)
    for sizes in ((499, 500), (20, 200_000), (100_000, 99_999)):
        a, b = (generator.normal(size=size) for size in sizes)
        assert 0 <= numeric_distances(a, b).ks_test.pvalue <= 1


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12))
def test_jensen_shannon_is_scipys(pairs: list[tuple[int, int]]) -> None:
    p, q = (np.array(side, dtype=np.int64) for side in zip(*pairs, strict=True))
    if p.sum() == 0 or q.sum() == 0:
        return
    expected = jensenshannon(p / p.sum(), q / q.sum(), base=2)
    assert jensen_shannon(p, q) == pytest.approx(np.nan_to_num(expected), abs=1e-7)


def test_jensen_shannon_is_0_for_equal_and_1_for_disjoint_histograms() -> None:
    assert jensen_shannon(counts_of(10, 20), counts_of(100, 200)) == 0
    assert jensen_shannon(counts_of(10, 0), counts_of(0, 3)) == 1


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=12))
def test_population_stability_index_is_the_sum_of_its_parts(pairs: list[tuple[int, int]]) -> None:
    p, q = (list(side) for side in zip(*pairs, strict=True))
    total = 0.0
    for a, b in zip(p, q, strict=True):
        share_a = (a + 0.5) / (sum(p) + 0.5 * len(p))
        share_b = (b + 0.5) / (sum(q) + 0.5 * len(q))
        total += (share_a - share_b) * math.log(share_a / share_b)
    index = population_stability_index(counts_of(*p), counts_of(*q))
    assert index == pytest.approx(total, abs=1e-12)
    assert index >= -1e-12


def test_population_stability_index_without_a_change_is_about_what_chance_gives() -> None:
    """Yurdakul & Naranjo (2020): the expectation is (bins − 1)(1/n + 1/m) when nothing changed."""
    generator = np.random.default_rng(11)
    indexes = [
        numeric_distances(generator.normal(size=400), generator.normal(size=800)).psi for _ in range(200)
    ]
    assert np.mean(indexes) == pytest.approx(9 * (1 / 400 + 1 / 800), rel=0.15)


@given(values, values)
def test_bins_count_every_value_once_and_none_is_empty(a: Values, b: Values) -> None:
    current, reference = quantile_counts(a, b)
    assert (current.sum(), reference.sum()) == (a.size, b.size)
    assert np.all(current + reference > 0)
    assert current.size <= 10


def test_bins_are_deciles_of_both_samples_together() -> None:
    generator = np.random.default_rng(3)
    current, reference = quantile_counts(generator.normal(size=500), generator.normal(size=500))
    assert current.size == 10
    assert np.all(np.abs(current + reference - 100) <= 1)


def test_numbers_equal_to_a_constant_are_no_distance_apart() -> None:
    distances = numeric_distances(np.full(50, 3.0), np.full(30, 3.0))
    assert (distances.ks_test.statistic, distances.ks_test.pvalue) == (0, 1)
    assert (distances.wasserstein, distances.js, distances.psi) == (0, 0, 0)


def test_one_constant_against_another_is_as_far_as_it_gets() -> None:
    distances = numeric_distances(np.full(50, 2.0), np.full(50, 3.0))
    assert distances.ks_test.statistic == 1
    assert distances.ks_test.pvalue < 1e-20
    assert (distances.wasserstein, distances.js) == (1, 1)
    assert distances.psi > 2


def test_chi_squared_is_pearsons_sum() -> None:
    current, reference = counts_of(90, 40, 20), counts_of(70, 60, 30)
    total = current.sum() + reference.sum()
    statistic = 0.0
    for side in (current, reference):
        expected = (current + reference) * side.sum() / total
        statistic += float(np.sum((side - expected) ** 2 / expected))
    result = chi_squared(current, reference)
    assert result is not None
    assert result.statistic == pytest.approx(statistic)
    assert result.pvalue == pytest.approx(stats.chi2.sf(statistic, df=2))


def test_chi_squared_pools_categories_that_are_too_rare() -> None:
    current, reference = counts_of(90, 40, 3, 4, 0), counts_of(80, 50, 2, 3, 1)
    pooled = stats.chi2_contingency([[90, 40, 7], [80, 50, 6]], correction=False)
    result = chi_squared(current, reference)
    assert result is not None
    assert (result.statistic, result.pvalue) == pytest.approx((pooled.statistic, pooled.pvalue))


def test_chi_squared_adds_a_rest_that_is_too_rare_to_the_rarest_kept_category() -> None:
    pooled = stats.chi2_contingency([[90, 43], [80, 51]], correction=False)
    result = chi_squared(counts_of(90, 40, 3), counts_of(80, 50, 1))
    assert result is not None
    assert result.statistic == pytest.approx(pooled.statistic)


def test_chi_squared_is_undetermined_when_only_one_category_is_common_enough() -> None:
    assert chi_squared(counts_of(97, 3), counts_of(100, 0)) is None
    assert chi_squared(counts_of(1, 1, 1), counts_of(1, 1, 0)) is None


def test_chi_squared_of_one_category_only_is_no_difference() -> None:
    result = chi_squared(counts_of(40), counts_of(60))
    assert result is not None
    assert (result.statistic, result.pvalue) == (0, 1)


def test_categorical_distances_are_those_of_the_shares() -> None:
    distances = categorical_distances({"stop": 60, "length": 40}, {"stop": 90, "error": 10})
    assert distances.tv == pytest.approx((0.3 + 0.4 + 0.1) / 2)
    assert distances.l_infinity == pytest.approx(0.4)
    assert distances.js == pytest.approx(jensenshannon([0.6, 0.4, 0], [0.9, 0, 0.1], base=2))
    assert distances.chi_squared_test is not None
    assert distances.chi_squared_test.pvalue < 1e-9


def test_a_null_is_a_category_like_any_other() -> None:
    distances = categorical_distances({None: 80, "upstream_timeout": 20}, {None: 100})
    assert distances.tv == pytest.approx(0.2)
    assert distances.chi_squared_test is not None
    assert distances.chi_squared_test.pvalue < 1e-4
