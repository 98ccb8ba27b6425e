"""A quantile with an interval, for a time that most people or the slowest one in a hundred wait.

The interval consists of two order statistics, so nothing is assumed about the distribution's shape and no density is
estimated. For independent records the ranks are exact binomial ones (Conover 1999, Practical Nonparametric Statistics, 3rd
ed., §3.2). For records that are clustered by unit the ranks are adjusted by how much more than independent the indicator's
mean varies, which the delta method says (Deng, Knoblich & Lu 2018, "Applying the Delta Method in Metric Analytics", KDD,
§4.2); they are the exact ranks in the effective number of records (Korn & Graubard 1998, Survey Methodology 24, 193-201),
because at the 99th percentile the normal approximation has long broken down where there are still enough records.

The difference of two quantiles is :func:`experiments.statistics.mover.difference` of their intervals. Invariant: a bound that
would need more records than there are is NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from experiments.statistics.mover import Bounded

Floats = NDArray[np.float64]

# Of the histograms that are kept: each bin's upper edge is this much above its lower one.
RELATIVE_WIDTH = 0.005


@dataclass(frozen=True, slots=True, eq=False)
class Ordered:
    """Distinct values in ascending order, and how many records are at or below each."""

    values: Floats
    cumulative: Floats

    @property
    def records(self) -> int:
        """All of them."""
        return int(self.cumulative[-1]) if self.cumulative.size else 0

    def at_rank(self, rank: int) -> float:
        """The order statistic of a rank counted from 1; NaN for a rank that no record has."""
        if not 1 <= rank <= self.records:
            return math.nan
        return float(self.values[np.searchsorted(self.cumulative, rank)])

    def share_up_to(self, value: float) -> float:
        """The share of records at or below ``value``; NaN without records."""
        if not self.records:
            return math.nan
        below = int(np.searchsorted(self.values, value, side="right"))
        return float(self.cumulative[below - 1]) / self.records if below else 0.0


_NO_RECORDS = Ordered(np.empty(0), np.empty(0))


def of_values(values: ArrayLike) -> Ordered:
    """From the values of records. A NaN among them has no rank, so then there are no records."""
    ordered = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if not ordered.size or np.isnan(ordered[-1]):
        return _NO_RECORDS
    return Ordered(ordered, np.arange(1.0, ordered.size + 1))


def of_bins(upper_edges: ArrayLike, counts: ArrayLike, relative_width: float = RELATIVE_WIDTH) -> Ordered:
    """From a histogram: ascending upper edges of the bins that are kept (empty ones may be left out) and their counts.

    A bin (e/γ, e] with γ = 1 + ``relative_width`` answers with 2e/(1+γ), which is at most (γ-1)/(γ+1) from any of its values
    (Masson, Rim & Lee 2019, DDSketch, PVLDB 12); a bin whose edge is not positive answers with its edge. No records when
    the edges do not ascend or the counts are none.
    """
    edges, weights = np.asarray(upper_edges, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if not (edges.ndim == 1 and edges.shape == weights.shape and edges.size):
        return _NO_RECORDS
    if not (np.all(np.diff(edges) > 0) and np.all(np.isfinite(weights)) and np.all(weights >= 0)):
        return _NO_RECORDS
    kept = weights > 0
    values = np.where(edges > 0, edges * (2.0 / (2.0 + relative_width)), edges)
    return Ordered(values[kept], np.cumsum(weights[kept]))


def quantile(ordered: Ordered, p: float) -> float:
    """The smallest value with at least the share ``p`` of the records at or below it; 0 < p < 1."""
    if not 0.0 < p < 1.0:
        return math.nan
    # A product that is whole but for rounding must not become the next rank.
    return ordered.at_rank(max(math.ceil(ordered.records * p * (1.0 - 1e-12)), 1))


def quantile_interval(ordered: Ordered, p: float, alpha: float) -> Bounded:
    """The quantile of independent records; its interval holds the true one with a probability of at least 1-α."""
    return _bounded(ordered, p, ordered.records, alpha)


def clustered_quantile_interval(ordered: Ordered, p: float, variance: float, alpha: float) -> Bounded:
    """The same for records that come in clusters.

    ``variance`` is that of the mean over records of "value ≤ :func:`quantile`", by the delta method: what
    :meth:`~experiments.statistics.statistic.Moments.variance_of_mean` says with s the number of a unit's records up to the
    quantile. Bounds are NaN when there is none.
    """
    estimate = quantile(ordered, p)
    share = ordered.share_up_to(estimate)
    # Ties can lift the share above p, and a mean nearer to 1 varies less; relative to independence it is comparable.
    independent = share * (1.0 - share)
    effective = independent / variance if variance > 0 and independent > 0 else math.nan
    if not 1.0 <= effective < math.inf:
        return Bounded(estimate, math.nan, math.nan)
    return _bounded(ordered, p, math.floor(effective), alpha)


def _bounded(ordered: Ordered, p: float, effective: int, alpha: float) -> Bounded:
    estimate = quantile(ordered, p)
    if not (effective >= 1 and not math.isnan(estimate) and 0.0 < alpha < 1.0):
        return Bounded(estimate, math.nan, math.nan)
    low, high = binom.ppf(alpha / 2.0, effective, p), binom.isf(alpha / 2.0, effective, p) + 1.0
    # Each effective record stands for this many neighbouring ranks; its own is the middle one of them.
    each = ordered.records / effective
    return Bounded(
        estimate,
        ordered.at_rank(math.floor((low - 0.5) * each + 0.5)) if low >= 1 else math.nan,
        ordered.at_rank(math.ceil((high - 0.5) * each + 0.5)) if high <= effective else math.nan,
    )
