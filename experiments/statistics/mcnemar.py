"""Paired yes-or-no outcomes, as in a shadow experiment: both variants answer the same request.

Only the pairs on which they differ say something about which is better: McNemar's test (1947, Psychometrika 12) asks whether
the differing pairs are split evenly. The exact test guards its level strictly; its mid-p version counts half of the
probability of what was seen, hardly ever exceeds the level and has more power (Fagerland, Lydersen & Laake 2013, BMC Medical
Research Methodology 13:91), so it is the one to show.

The difference of the two proportions has Newcombe's interval (1998, Statistics in Medicine 17, 2635-2650, method 10):
MOVER on the two Wilson intervals, with the correlation of the pairs. It does not collapse when no pair differs.

Pairs must be independent draws. Several per unit are clustered: use :mod:`experiments.statistics.paired`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import binom

from experiments.statistics.mover import Bounded, difference
from experiments.statistics.proportions import wilson_interval


@dataclass(frozen=True, slots=True)
class Pairs:
    """How many pairs had the event in both variants, in one only, or in neither. Addition is over disjoint pairs."""

    both: int = 0
    treatment_only: int = 0
    control_only: int = 0
    neither: int = 0

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(
            self.both + other.both,
            self.treatment_only + other.treatment_only,
            self.control_only + other.control_only,
            self.neither + other.neither,
        )

    @property
    def pairs(self) -> int:
        """All of them."""
        return self.both + self.treatment_only + self.control_only + self.neither


@dataclass(frozen=True, slots=True)
class McNemar:
    """Two-sided p-values, NaN when no pair differs; the share of the treatment minus that of the control."""

    exact_p_value: float
    mid_p_value: float
    difference: Bounded


def mcnemar(counts: Pairs, alpha: float) -> McNemar:
    """Treatment against control; all NaN unless there is a pair and all counts are counts.

    >>> found = mcnemar(Pairs(both=1, treatment_only=1, control_only=7, neither=12), 0.05)
    >>> round(found.exact_p_value, 3), round(found.mid_p_value, 3)
    (0.07, 0.039)
    """
    cells = (counts.both, counts.treatment_only, counts.control_only, counts.neither)
    if not (all(0 <= cell < math.inf for cell in cells) and counts.pairs > 0):
        return McNemar(math.nan, math.nan, Bounded(math.nan, math.nan, math.nan))
    exact, middle = _p_values(counts.treatment_only, counts.control_only)
    return McNemar(exact, middle, _newcombe(counts, alpha))


def _p_values(one: int, other: int) -> tuple[float, float]:
    differing = one + other
    if not differing:
        return math.nan, math.nan
    tail = float(binom.cdf(min(one, other), differing, 0.5))
    seen = float(binom.pmf(one, differing, 0.5))
    # Both tails hold an even split, whose exact p is 1; as published, half of its probability is taken off that.
    return min(2.0 * tail, 1.0), 1.0 - seen / 2.0 if one == other else 2.0 * tail - seen


def _newcombe(counts: Pairs, alpha: float) -> Bounded:
    n = counts.pairs
    x1, x0 = counts.both + counts.treatment_only, counts.both + counts.control_only
    return difference(
        Bounded(x1 / n, *wilson_interval(x1, n, alpha)),
        Bounded(x0 / n, *wilson_interval(x0, n, alpha)),
        correlation=_correlation(counts, x1, x0),
    )


def _correlation(counts: Pairs, x1: int, x0: int) -> float:
    """φ of the pairs, with Newcombe's continuity correction of n/2 towards zero when it is positive."""
    n = counts.pairs
    square = float(x1) * float(n - x1) * float(x0) * float(n - x0)
    if not square:
        return 0.0
    excess = float(counts.both) * float(counts.neither) - float(counts.treatment_only) * float(
        counts.control_only
    )
    corrected = max(excess - n / 2.0, 0.0) if excess > 0 else excess
    return corrected / math.sqrt(square)
