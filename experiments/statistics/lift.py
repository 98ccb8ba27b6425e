"""Relative lift with Fieller's interval (Fieller 1954, JRSS B 16), which accounts for the error of the control's own
estimate, or, on the log scale, with the exponential of the difference's interval.

Invariant: on the same spread and critical value, the lift's interval holds zero exactly when the difference's does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from experiments.metrics import Metric
from experiments.statistics.effect import Effect, Spread

_LARGEST_LOGARITHM = 700.0


@dataclass(frozen=True, slots=True)
class Lift:
    """Treatment over control minus one. NaN bounds: the control is too close to zero to divide by."""

    estimate: float
    low: float
    high: float


def lift(metric: Metric, effect: Effect, spread: Spread, critical: float) -> Lift:
    """The relative lift with an interval at ``critical`` standard errors, on the evidence in ``spread``."""
    if metric.scale == "log":
        half = critical * spread.se
        return Lift(
            relative(effect.difference),
            relative(effect.difference - half),
            relative(effect.difference + half),
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


def relative(difference: float) -> float:
    """A difference of logarithms as a relative change; infinite where it leaves the range of floats."""
    return math.inf if difference >= _LARGEST_LOGARITHM else math.expm1(difference)
