"""Fixed-horizon results: valid for one look, at a time that was set before.

* Rates with one record per unit: the pooled two-proportion z-test, or Fisher's exact test when an expected
  count is under five (Cochran's rule), with Newcombe's hybrid score interval (Newcombe 1998, Statistics in
  Medicine 17, method 10).
* Everything else: Welch's t-test on the unit level, which is the delta method for clustered records (Deng,
  Knoblich & Lu 2018).

Relative lift comes with Fieller's interval (Fieller 1954, JRSS B 16), which accounts for the error of the
control's own estimate, or, on the log scale, with the exponential of the difference's interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit
from scipy.stats import fisher_exact

from experiments.metrics import Metric
from experiments.statistics.effect import Effect, Spread
from experiments.statistics.statistic import Moments

_FEWEST_EXPECTED = 5.0


@dataclass(frozen=True, slots=True)
class FixedHorizon:
    """``p_value`` is two-sided; the interval bounds the difference on the metric's scale. NaN: cannot be
    said.
    """

    p_value: float
    low: float
    high: float
    method: str


@dataclass(frozen=True, slots=True)
class Lift:
    """Treatment over control minus one. NaN bounds: the control is too close to zero to divide by."""

    estimate: float
    low: float
    high: float


def fixed_horizon(metric: Metric, effect: Effect, alpha: float) -> FixedHorizon:
    """The two-sided result at level ``alpha``."""
    if metric.kind == "rate" and len(effect.strata) == 1:
        (stratum,) = effect.strata
        if stratum.control.one_record_each and stratum.treatment.one_record_each:
            return _two_proportions(stratum.control, stratum.treatment, alpha)
    return _welch(effect.difference, effect.fixed, alpha, clustered=_clustered(effect))


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


def _two_proportions(control: Moments, treatment: Moments, alpha: float) -> FixedHorizon:
    x0, n0 = round(control.total), control.units
    x1, n1 = round(treatment.total), treatment.units
    low, high = newcombe_interval(x1, n1, x0, n0, alpha)
    pooled = (x0 + x1) / (n0 + n1)
    if min(n0, n1) * min(pooled, 1.0 - pooled) < _FEWEST_EXPECTED:
        p = float(fisher_exact(np.array([[x1, n1 - x1], [x0, n0 - x0]])).pvalue)
        return FixedHorizon(p, low, high, "Fisher")
    se = math.sqrt(pooled * (1.0 - pooled) * (1.0 / n0 + 1.0 / n1))
    p = 2.0 * float(ndtr(-abs(x1 / n1 - x0 / n0) / se))
    return FixedHorizon(p, low, high, "pooled z")


def newcombe_interval(x1: int, n1: int, x0: int, n0: int, alpha: float) -> tuple[float, float]:
    """Newcombe's interval for x₁/n₁ − x₀/n₀ at confidence 1−α, built from the two Wilson intervals."""
    p1, p0 = x1 / n1, x0 / n0
    low1, high1 = _wilson(x1, n1, alpha)
    low0, high0 = _wilson(x0, n0, alpha)
    difference = p1 - p0
    return (
        difference - math.hypot(p1 - low1, high0 - p0),
        difference + math.hypot(high1 - p1, p0 - low0),
    )


def _wilson(x: int, n: int, alpha: float) -> tuple[float, float]:
    z = -float(ndtri(alpha / 2.0))
    p = x / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At the ends the interval reaches 0 or 1 exactly; rounding must not push it past the estimate.
    return min(centre - half, p), max(centre + half, p)


def lift(metric: Metric, effect: Effect, spread: Spread, critical: float) -> Lift:
    """The relative lift with an interval at ``critical`` standard errors, on the evidence in ``spread``."""
    if metric.scale == "log":
        half = critical * spread.se
        return Lift(
            math.expm1(effect.difference),
            math.expm1(effect.difference - half),
            _expm1(effect.difference + half),
        )
    if effect.control <= 0:
        return Lift(math.nan, math.nan, math.nan)
    low, high = fieller(effect.treatment, effect.control, spread, critical)
    if metric.kind == "rate":
        low = max(low, 0.0) if math.isfinite(low) else low
    return Lift(effect.treatment / effect.control - 1.0, low - 1.0, high - 1.0)


def fieller(treatment: float, control: float, spread: Spread, critical: float) -> tuple[float, float]:
    """The ratios ρ with (treatment − ρ·control)² ≤ critical²·Var(treatment − ρ·control); NaN when
    unbounded.
    """
    square = critical**2
    a = control**2 - square * spread.control
    b = treatment * control - square * spread.covariance
    c = treatment**2 - square * spread.treatment
    if not (math.isfinite(square) and a > 0):
        return math.nan, math.nan
    root = math.sqrt(max(b * b - a * c, 0.0))
    return (b - root) / a, (b + root) / a


def _expm1(exponent: float) -> float:
    return math.expm1(exponent) if exponent < 700.0 else math.inf
