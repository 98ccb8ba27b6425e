"""How far two samples are apart: tests of significance and distances, each as published.

- Kolmogorov–Smirnov: the two-sample test, D = sup|F − G|; Hodges (1958), Arkiv för Matematik 3.
- Wasserstein distance of first order, ∫|F − G|, in the column's own unit; Ramdas et al. (2017), Entropy 19.
- Chi-squared: homogeneity of two samples, Pearson (1900). Rare categories are pooled first so that every
  expected count is at least 5; Cochran (1954), Biometrics 10(4).
- Total variation: ½ Σ|p − q|. L-infinity: max|p − q|.
- Jensen–Shannon distance: √(½KL(p‖m) + ½KL(q‖m)) with m = ½(p + q), in base 2, so between 0 and 1;
  Endres & Schindelin (2003), IEEE Trans. Inf. Theory 49(7).
- Population stability index (PSI): Σ(p − q)·ln(p/q); Siddiqi (2006), Credit Risk Scorecards. Half a count is
  added to each bin (the Jeffreys prior), so that an empty bin gives a finite number that sample size governs.

Jensen–Shannon and PSI of numbers are taken over bins at the quantiles of both samples together: ten, or
fewer where a bin would expect less than five values of the smaller sample. Both grow with few values even
when nothing changed (PSI by about (bins − 1)·(1/n + 1/m); Yurdakul & Naranjo 2020, J. Risk Model Validation
14(4)), so they are effect sizes to be read beside a p-value, not tests.

Invariant: a statistic that the data do not determine is ``None``, never zero; a zero has been measured.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from evaluators.drift.sketches.sample import Counts, Sample, Values

__all__ = ["Counts", "Values"]

_BINS: Final = 10
_LEAST_EXPECTED: Final = 5.0
# Up to this size the exact p-value is as cheap as the asymptotic one and cannot overflow; beyond, the two
# agree to about one per cent.
_EXACT_KS: Final = 500
# The exact computation can round a p-value of one to slightly more, and then gives up with a warning.
_SURELY_EQUAL: Final = 0.5


@dataclass(frozen=True, slots=True)
class Significance:
    """The statistic of a test and its p-value."""

    statistic: float
    pvalue: float


@dataclass(frozen=True, slots=True)
class NumericDistances:
    """How far two samples of numbers are apart; ``wasserstein`` has the unit of the numbers."""

    ks_test: Significance
    wasserstein: float
    js: float
    psi: float


@dataclass(frozen=True, slots=True)
class CategoricalDistances:
    """How far two samples of categories are apart; ``chi_squared_test`` is ``None`` where too few counts
    remain."""

    chi_squared_test: Significance | None
    tv: float
    l_infinity: float
    js: float
    psi: float


def numeric_distances(current: Sample, reference: Sample) -> NumericDistances:
    """All distances between two samples of at least one number each."""
    current_counts, reference_counts = quantile_counts(current, reference)
    return NumericDistances(
        ks_test=kolmogorov_smirnov(current, reference),
        wasserstein=wasserstein(current, reference),
        js=jensen_shannon(current_counts, reference_counts),
        psi=population_stability_index(current_counts, reference_counts),
    )


def kolmogorov_smirnov(current: Sample, reference: Sample) -> Significance:
    """The two-sample test; exact for small samples, else asymptotic. Ties make the p-value larger than it need be.

    Of compressed samples the statistic may be off by the sum of their errors. The p-value is that of the smallest
    statistic that this leaves possible, so that a difference which compression may have made is never significant.
    """
    n, m = current.size, reference.size
    numbers = np.concatenate([current.values, reference.values])
    differences = current.at_most(numbers) / n - reference.at_most(numbers) / m
    statistic = float(np.max(np.abs(differences)))
    if n == m == 1:  # two values can always be told apart, or never: scipy divides by zero
        return Significance(statistic, 1.0)
    least = max(statistic - current.error - reference.error, 0.0)
    effective = n * m / (n + m)
    exact = current.rank_error == reference.rank_error == 0 and max(n, m) <= _EXACT_KS
    if exact and stats.kstwobign.sf(math.sqrt(effective) * statistic) < _SURELY_EQUAL:
        now, then = (np.repeat(sample.values, sample.weights) for sample in (current, reference))
        pvalue = float(stats.ks_2samp(now, then, method="exact").pvalue)
    else:
        pvalue = float(np.clip(stats.kstwo.sf(least, max(round(effective), 1)), 0.0, 1.0))
    return Significance(statistic, pvalue)


def wasserstein(current: Sample, reference: Sample) -> float:
    """The area between the two distribution functions. Of compressed samples it may be off by the sum of their errors
    times the range of the values."""
    numbers = np.sort(np.concatenate([current.values, reference.values]))
    differences = current.at_most(numbers) / current.size - reference.at_most(numbers) / reference.size
    return float(np.dot(np.abs(differences[:-1]), np.diff(numbers)))


def categorical_distances(
    current: Mapping[Hashable, int], reference: Mapping[Hashable, int]
) -> CategoricalDistances:
    """All distances between two non-empty tallies (category → count); a category absent from one counts 0
    there."""
    categories = list(dict.fromkeys([*reference, *current]))
    current_counts = np.array([current.get(category, 0) for category in categories], dtype=np.int64)
    reference_counts = np.array([reference.get(category, 0) for category in categories], dtype=np.int64)
    differences = np.abs(current_counts / current_counts.sum() - reference_counts / reference_counts.sum())
    return CategoricalDistances(
        chi_squared_test=chi_squared(current_counts, reference_counts),
        tv=float(differences.sum() / 2),
        l_infinity=float(differences.max()),
        js=jensen_shannon(current_counts, reference_counts),
        psi=population_stability_index(current_counts, reference_counts),
    )


def quantile_counts(current: Sample, reference: Sample) -> tuple[Counts, Counts]:
    """Both samples counted over the same bins, whose edges are quantiles of the two together."""
    bins = max(2, min(_BINS, int(min(current.size, reference.size) / _LEAST_EXPECTED)))
    both = Sample.merged([current, reference])
    # The smallest value that a share of i/bins does not exceed: it occurs, so a point mass is a bin's closed end and
    # stays in one bin.
    ranks = -(-np.arange(1, bins, dtype=np.int64) * both.size // bins) - 1
    edges = np.unique(both.values[both.at_ranks(ranks)])
    counts = [
        np.diff(sample.at_most(edges), prepend=0, append=sample.size) for sample in (current, reference)
    ]
    seen = (counts[0] + counts[1]) > 0
    return counts[0][seen], counts[1][seen]


def jensen_shannon(current: Counts, reference: Counts) -> float:
    """The Jensen–Shannon distance between two histograms over the same bins, in base 2: 0 equal, 1
    disjoint."""
    p, q = current / current.sum(), reference / reference.sum()
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return math.sqrt(min(max(divergence, 0.0), 1.0))


def population_stability_index(current: Counts, reference: Counts) -> float:
    """The population stability index between two histograms over the same bins, half a count added to each
    bin."""
    p = (current + 0.5) / (current.sum() + 0.5 * current.size)
    q = (reference + 0.5) / (reference.sum() + 0.5 * reference.size)
    return float(np.sum((p - q) * np.log(p / q)))


def chi_squared(current: Counts, reference: Counts) -> Significance | None:
    """Pearson's test over pooled categories; ``None`` when pooling leaves one category of several.

    Two samples of one and the same category differ in nothing: statistic 0, p-value 1.
    """
    if np.count_nonzero(current + reference) == 1:
        return Significance(0.0, 1.0)
    pooled = _pooled(current, reference)
    if pooled.shape[1] < 2:
        return None
    result = stats.chi2_contingency(pooled, correction=False)
    return Significance(float(result.statistic), float(result.pvalue))


def _pooled(current: Counts, reference: Counts) -> Counts:
    # Which categories are pooled depends on the sum of both samples alone, so pooling cannot favour a
    # difference.
    table = np.stack([current, reference])
    table = table[:, np.argsort(-table.sum(axis=0), kind="stable")]
    smaller_share = table.sum(axis=1).min() / table.sum()
    enough = table.sum(axis=0) * smaller_share >= _LEAST_EXPECTED
    kept, rest = table[:, enough], table[:, ~enough].sum(axis=1, keepdims=True)
    if rest.sum() == 0:
        return kept
    if rest.sum() * smaller_share >= _LEAST_EXPECTED or kept.shape[1] == 0:
        return np.hstack([kept, rest])
    kept = kept.copy()
    kept[:, -1:] += rest
    return kept


def _relative_entropy(p: Values, q: Values) -> float:
    seen = p > 0
    return float(np.sum(p[seen] * np.log2(p[seen] / q[seen])))
