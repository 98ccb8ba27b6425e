"""Bounds of one rate that hold at every look and for every number of events, none included.

For k events of n independent draws and a rate p₀, mixing the likelihood ratio over a Beta(½, ½) law of the rates
*below* p₀ gives ::

    E(p₀) = B(½+k, ½+n−k)/B(½, ½) / (p₀^k (1−p₀)^(n−k)) · P(Beta(½+k, ½+n−k) < p₀)/P(Beta(½, ½) < p₀)

which is a supermartingale under every rate ≥ p₀. The rates that it has not rejected at 1/α end at an upper bound that
holds at all times together with probability 1−α; the lower one is that of the other outcome. So a perfect record can
be told from no record: 1,000 draws without an event bound the rate by 0.38 % at α = 5 %.

Invariant: exact for independent draws; nothing is asymptotic.

Source: the one-sided beta-binomial mixture of Howard, Ramdas, McAuliffe & Sekhon 2021, "Time-uniform,
nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49(2), §3.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import betainc, betaln

_HALF = 0.5
_NEAREST = 1e-12


def upper_bound(events: float, draws: int, alpha: float) -> float:
    """The rate's time-uniform upper bound at one-sided level ``alpha``; 1 without draws, NaN for what is no count.

    >>> round(upper_bound(0, 1_000, 0.05), 4)
    0.0038
    """
    if not (0 <= events <= draws and 0.0 < alpha < 1.0):
        return math.nan
    if draws == 0 or events == draws:
        return 1.0
    threshold = -math.log(alpha)

    def excess(rate: float) -> float:
        return log_e_below(events, draws, rate) - threshold

    low = max(events / draws, _NEAREST)
    high = 1.0 - _NEAREST
    if excess(high) <= 0:
        return 1.0
    return float(brentq(excess, low, high, xtol=1e-10))


def lower_bound(events: float, draws: int, alpha: float) -> float:
    """The rate's time-uniform lower bound at one-sided level ``alpha``; 0 without draws."""
    return 1.0 - upper_bound(draws - events, draws, alpha)


def log_e_below(events: float, draws: int, rate: float) -> float:
    """ln E against a rate of at least ``rate``, in (0, 1)."""
    a, b = _HALF + events, _HALF + draws - events
    mixed = float(betaln(a, b) - betaln(_HALF, _HALF))
    likelihood = events * math.log(rate) + (draws - events) * math.log1p(-rate)
    inside = float(betainc(a, b, rate))
    if inside <= 0.0:  # the law lies wholly above: no evidence for less
        return -math.inf
    return mixed - likelihood + math.log(inside) - math.log(float(betainc(_HALF, _HALF, rate)))
