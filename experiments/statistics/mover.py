"""MOVER: an interval for a difference from the intervals of its two parts ("square and add").

Each bound recovers a variance from the near bounds of the two parts, so an asymmetric part gives an asymmetric difference,
and a part whose estimate has no spread (no events at all) still contributes what its own interval knows. Zou & Donner 2008,
"Construction of confidence limits about effect measures: a general approach", Statistics in Medicine 27, 1693-1702;
Newcombe's interval for two proportions (1998) is the special case with Wilson's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounded:
    """An estimate with its interval, ``low`` ≤ ``estimate`` ≤ ``high``; a bound that cannot be said is NaN."""

    estimate: float
    low: float
    high: float


def difference(treatment: Bounded, control: Bounded, *, correlation: float = 0.0) -> Bounded:
    """Treatment minus control, at the confidence that both parts have.

    ``correlation`` is that of the two estimates, 0 for independent ones. A bound is NaN where one that it is made of is.

    >>> difference(Bounded(5.0, 2.0, 8.0), Bounded(1.0, 0.0, 5.0))
    Bounded(estimate=4.0, low=-1.0, high=7.16227766016838)
    """
    estimate = treatment.estimate - control.estimate
    return Bounded(
        estimate,
        estimate
        - _together(treatment.estimate - treatment.low, control.high - control.estimate, correlation),
        estimate
        + _together(treatment.high - treatment.estimate, control.estimate - control.low, correlation),
    )


def _together(one: float, other: float, correlation: float) -> float:
    if not correlation:
        return math.hypot(one, other) if math.isfinite(one + other) else math.nan
    return math.sqrt(max(one * one - 2.0 * correlation * one * other + other * other, 0.0))
