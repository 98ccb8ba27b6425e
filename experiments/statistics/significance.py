"""Fixed-horizon results: valid for one look, at a time that was set before. Which method applies to what:

* Rates with one record per unit in one phase: :mod:`experiments.statistics.proportions`, the pooled two-proportion z-test
  or Fisher's exact test, with Newcombe's interval.
* Everything else: Welch's t-test on the unit level, which is the delta method for clustered records (Deng,
  Knoblich & Lu 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import ndtr, ndtri, stdtr, stdtrit

from experiments.metrics import Metric
from experiments.statistics.effect import Effect, Spread, Stratum
from experiments.statistics.proportions import two_proportions


@dataclass(frozen=True, slots=True)
class FixedHorizon:
    """``p_value`` is two-sided; the interval bounds the difference on the metric's scale. NaN: cannot be
    said.
    """

    p_value: float
    low: float
    high: float
    method: str


def fixed_horizon(metric: Metric, effect: Effect, alpha: float) -> FixedHorizon:
    """The two-sided result at level ``alpha``."""
    if metric.kind == "rate" and len(effect.strata) == 1:
        (stratum,) = effect.strata
        if stratum.control.one_record_each and stratum.treatment.one_record_each:
            return _two_proportions(stratum, alpha)
    return _welch(effect.difference, effect.fixed, alpha, clustered=_clustered(effect))


def _two_proportions(stratum: Stratum, alpha: float) -> FixedHorizon:
    control, treatment = stratum.control, stratum.treatment
    found = two_proportions(
        round(treatment.total), treatment.units, round(control.total), control.units, alpha
    )
    return FixedHorizon(found.p_value, found.low, found.high, found.method)


def _clustered(effect: Effect) -> bool:
    return not all(s.control.one_record_each and s.treatment.one_record_each for s in effect.strata)


def _welch(difference: float, spread: Spread, alpha: float, *, clustered: bool) -> FixedHorizon:
    method = "delta method" if clustered else "Welch"
    if not spread.se > 0:
        return FixedHorizon(math.nan, math.nan, math.nan, method)
    statistic = difference / spread.se
    if math.isinf(spread.degrees):
        p, critical = 2.0 * float(ndtr(-abs(statistic))), -float(ndtri(alpha / 2.0))
    else:
        p = 2.0 * float(stdtr(spread.degrees, -abs(statistic)))
        critical = -float(stdtrit(spread.degrees, alpha / 2.0))
    return FixedHorizon(p, difference - critical * spread.se, difference + critical * spread.se, method)
