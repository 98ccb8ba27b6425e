"""Mann-Whitney's U and the probability that a draw from the treatment exceeds one from the control.

For independent draws, one per unit, when the metric is ordinal or its tail makes means meaningless. Data are counts on common
ordered bins (what the analysis keeps), and values in one bin are ties: exact with respect to the bins.

Two tests that ask different things. Mann & Whitney 1947 (Annals of Mathematical Statistics 18), in the normal approximation
with the tie correction and Yates's ½, asks whether the two distributions are the same. Brunner & Munzel 2000 (Biometrical
Journal 42, 17-25) asks whether P(X > Y) + ½P(X = Y) is ½, whatever the shapes; its variance is also that of DeLong, DeLong &
Clarke-Pearson 1988 (Biometrics 44) for an area under the ROC curve. Invariant: the interval agrees with Brunner-Munzel's p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, stdtr, stdtrit

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MannWhitney:
    """``u`` counts pairs that the treatment wins, ties half; ``probability`` is u over all pairs.

    ``p_value`` is Mann-Whitney's and ``unequal_p_value`` Brunner-Munzel's, both two-sided; ``low`` and ``high`` bound the
    probability. NaN: cannot be said, for instance the interval when the variants do not overlap.
    """

    u: float
    p_value: float
    probability: float
    low: float
    high: float
    unequal_p_value: float


_NOTHING = MannWhitney(*(math.nan,) * 6)


def mann_whitney(treatment: ArrayLike, control: ArrayLike, alpha: float) -> MannWhitney:
    """Compare counts per bin, both over the same bins in ascending order.

    All NaN unless both are counts (finite, not negative, equally many bins) with at least one draw each.
    """
    x, y = np.asarray(treatment, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if not (x.ndim == 1 and x.shape == y.shape and _counts(x) and _counts(y)):
        return _NOTHING
    m, n = float(x.sum()), float(y.sum())
    if not (m >= 1 and n >= 1):
        return _NOTHING
    # The share of the other variant below each bin, with half of its own bin.
    beaten, beating = (np.cumsum(y) - y / 2.0) / n, (np.cumsum(x) - x / 2.0) / m
    probability = float(x @ beaten) / m
    low, high, unequal = _brunner_munzel(
        probability,
        _variance(x, beaten, probability, m),
        _variance(y, beating, 1.0 - probability, n),
        (m, n),
        alpha,
    )
    return MannWhitney(
        u=probability * m * n,
        p_value=_same_distribution(probability * m * n, x + y, m, n),
        probability=probability,
        low=low,
        high=high,
        unequal_p_value=unequal,
    )


def mann_whitney_of_values(treatment: ArrayLike, control: ArrayLike, alpha: float) -> MannWhitney:
    """The same for raw values; all NaN when a value is NaN."""
    x, y = np.asarray(treatment, dtype=np.float64).ravel(), np.asarray(control, dtype=np.float64).ravel()
    both = np.concatenate([x, y])
    if np.isnan(both).any():
        return _NOTHING
    distinct, bins = np.unique(both, return_inverse=True)
    return mann_whitney(
        np.bincount(bins[: x.size], minlength=distinct.size),
        np.bincount(bins[x.size :], minlength=distinct.size),
        alpha,
    )


def _counts(counts: Floats) -> bool:
    return bool(np.all(np.isfinite(counts)) and np.all(counts >= 0))


def _same_distribution(u: float, tied: Floats, m: float, n: float) -> float:
    total = m + n
    ties = float(np.sum(tied**3 - tied)) / (total * (total - 1.0))
    square = m * n / 12.0 * (total + 1.0 - ties)
    if not square > 0:
        return math.nan
    off = max(abs(u - m * n / 2.0) - 0.5, 0.0)
    return 2.0 * float(ndtr(-off / math.sqrt(square)))


def _variance(counts: Floats, placements: Floats, mean: float, total: float) -> float:
    """The sampling variance of a mean placement; NaN for a single draw."""
    return float(counts @ (placements - mean) ** 2) / (total - 1.0) / total if total > 1 else math.nan


def _brunner_munzel(
    probability: float, treatment: float, control: float, draws: tuple[float, float], alpha: float
) -> tuple[float, float, float]:
    square = treatment + control
    if not square > 0:
        return math.nan, math.nan, math.nan
    degrees = square**2 / (treatment**2 / (draws[0] - 1.0) + control**2 / (draws[1] - 1.0))
    se = math.sqrt(square)
    half = -float(stdtrit(degrees, alpha / 2.0)) * se
    p = 2.0 * float(stdtr(degrees, -abs(probability - 0.5) / se))
    return max(probability - half, 0.0), min(probability + half, 1.0), p
