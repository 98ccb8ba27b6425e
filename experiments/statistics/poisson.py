"""Two Poisson rates: events per exposure (requests, tokens, hours), where one unit may have many.

The test is the exact conditional one: given all events, the treatment's are binomial with the share of its exposure
(Przyborowski & Wilenski 1940, Biometrika 31, 313-323). Its two-sided p is twice the smaller tail, so that it agrees with the
interval of the ratio, which comes from the Clopper-Pearson interval of that share (Fay 2010, R Journal 2, 53-58, on why the
two should agree). The difference gets MOVER on the two score intervals (Li, Tang, Poon & Tang 2011, Communications in
Statistics - Simulation and Computation 40, 1478-1493), which bounds it even when an arm has no events.

Only for events that come independently. Events that come in bursts per unit vary more than Poisson's; they are a clustered
mean, for which :class:`~experiments.statistics.statistic.Moments` has the delta method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import ndtri
from scipy.stats import beta, binom

from experiments.statistics.mover import Bounded, difference


@dataclass(frozen=True, slots=True)
class PoissonRates:
    """Treatment against control. ``p_value`` is two-sided; the ratio's ``high`` is infinite when the control has no events.

    NaN: cannot be said, as the ratio when nothing has happened in either.
    """

    p_value: float
    ratio: Bounded
    difference: Bounded


_UNSAID = Bounded(math.nan, math.nan, math.nan)


def poisson_rates(x1: int, exposure1: float, x0: int, exposure0: float, alpha: float) -> PoissonRates:
    """Compare ``x1`` events in ``exposure1`` of the treatment with ``x0`` in ``exposure0`` of the control.

    Exposures are in one unit, which is that of the rates; all NaN unless they are positive and finite.

    >>> found = poisson_rates(2, 17877, 9, 16660, 0.05)
    >>> round(found.p_value, 5), round(found.ratio.low, 4), round(found.ratio.high, 4)
    (0.05011, 0.0218, 1.0005)
    """
    if not (_counted(x1, exposure1) and _counted(x0, exposure0)):
        return PoissonRates(math.nan, _UNSAID, _UNSAID)
    between = difference(_rate(x1, exposure1, alpha), _rate(x0, exposure0, alpha))
    if x1 + x0 == 0:
        return PoissonRates(math.nan, _UNSAID, between)
    share = exposure1 / (exposure1 + exposure0)
    tail = min(float(binom.cdf(x1, x1 + x0, share)), float(binom.sf(x1 - 1, x1 + x0, share)))
    # The odds of an event being the treatment's are ratio·exposure₁/exposure₀.
    low, high = _clopper_pearson(x1, x1 + x0, alpha)
    scale = exposure0 / exposure1
    return PoissonRates(
        min(2.0 * tail, 1.0),
        Bounded(scale * x1 / x0 if x0 else math.inf, scale * _odds(low), scale * _odds(high)),
        between,
    )


def _rate(x: int, exposure: float, alpha: float) -> Bounded:
    """The score interval: all rates λ with (x - λE)² ≤ z²λE."""
    z = -float(ndtri(alpha / 2.0))
    centre, half = x + z * z / 2.0, z * math.sqrt(x + z * z / 4.0)
    return Bounded(x / exposure, max(centre - half, 0.0) / exposure, (centre + half) / exposure)


def _clopper_pearson(x: int, n: int, alpha: float) -> tuple[float, float]:
    low = float(beta.ppf(alpha / 2.0, x, n - x + 1)) if x else 0.0
    high = float(beta.isf(alpha / 2.0, x + 1, n - x)) if x < n else 1.0
    return low, high


def _odds(share: float) -> float:
    return share / (1.0 - share) if share < 1.0 else math.inf


def _counted(x: int, exposure: float) -> bool:
    return 0 <= x < math.inf and 0 < exposure < math.inf
