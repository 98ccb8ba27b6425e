"""The mean of paired differences, clustered by unit: a shadow experiment, in which both variants answer the same request.

For each unit let n be its number of pairs and s the sum of its differences, treatment minus control. The mean difference is
Σs/Σn, with the variance that :class:`~experiments.statistics.statistic.Moments` has from the delta method, and the statistic is
compared with Student's t with one degree of freedom fewer than there are units (Deng, Knoblich & Lu 2018, KDD, §3; for the
degrees, Cameron & Miller 2015, Journal of Human Resources 50, §VI). With one pair per unit it is the paired t-test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import stdtr, stdtrit

from experiments.statistics.statistic import Moments


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Treatment minus control per pair, on the metric's scale. ``p_value`` is two-sided. NaN: cannot be said."""

    difference: float
    se: float
    degrees: int
    p_value: float
    low: float
    high: float


def paired_difference(differences: Moments, alpha: float) -> PairedDifference:
    """The mean of the differences whose sums per unit are ``differences``.

    Without pairs all is NaN; with one unit, or without variance, there is an estimate and nothing to judge it by.
    """
    degrees = max(differences.units - 1, 0)
    if not (differences.records > 0 and math.isfinite(differences.total)):
        return PairedDifference(math.nan, math.nan, degrees, math.nan, math.nan, math.nan)
    mean = differences.mean
    square = differences.variance_of_mean() if math.isfinite(differences.total_squared) else math.nan
    if not 0.0 < square < math.inf:
        return PairedDifference(mean, math.nan, degrees, math.nan, math.nan, math.nan)
    se = math.sqrt(square)
    half = -float(stdtrit(degrees, alpha / 2.0)) * se
    return PairedDifference(
        mean, se, degrees, 2.0 * float(stdtr(degrees, -abs(mean) / se)), mean - half, mean + half
    )
