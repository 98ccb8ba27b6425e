"""One-sided evidence for guardrails: is a harm larger than what is tolerated? Valid however often one looks.

For a harm with standard error se let z = (harm − tolerance)/se and r = κ/se², as in
:mod:`experiments.statistics.sequential`. Mixing the likelihood ratio over *positive* drifts only, with a half-normal
law of precision 1/κ, gives ::

    ln E = ln 2 − ½·ln(1+r) + z²r/(2(1+r)) + ln Φ(z·√(r/(1+r)))

which is a supermartingale for every harm ≤ tolerance, so it ever reaches 1/α with probability at most α. Up to twice
as much evidence as two-sided mixing has for the same harm; and however good a treatment is, E stays near 0.

Source: Howard, Ramdas, McAuliffe & Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
Annals of Statistics 49(2), one-sided normal mixture (Prop. 6). Exact for normal data with known variance,
asymptotically valid for any finite variance (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024, Annals of
Statistics 52(6)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import erfcx, log_ndtr

from experiments.metrics import Direction
from experiments.statistics.e_process import p_from_log_e
from experiments.statistics.effect import Effect
from experiments.statistics.sequential import normal_from_student, student_from_normal
from experiments.statistics.sequential import tuning as two_sided_tuning

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OneSided:
    """``log_e`` and ``p_value`` speak against harm ≤ tolerance. Each of ``low`` and ``high`` bounds the harm from
    its side with time-uniform level α (together: 2α); ``critical`` is on t's scale.
    """

    log_e: float
    p_value: float
    low: float
    high: float
    critical: float
    r: float


_UNKNOWN = OneSided(math.nan, math.nan, math.nan, math.nan, math.nan, math.nan)


def log_e_value(z: Floats | float, r: Floats | float) -> Floats:
    """ln E for z > 0 when harmful; r > 0.

    >>> round(float(log_e_value(3.0, 8.0)), 3)
    3.592
    """
    ratio = np.asarray(r, dtype=np.float64)
    x = np.asarray(z, dtype=np.float64) * np.sqrt(ratio / (1.0 + ratio))
    # Far below 0, x²/2 + ln Φ(x) is a difference of large numbers; scaled, erfc has none. Above, that overflows.
    with np.errstate(over="ignore", divide="ignore"):  # certainty is ±∞
        above = 0.5 * np.maximum(x, 0.0) ** 2 + log_ndtr(np.maximum(x, 0.0))
        below = np.log(0.5 * erfcx(-np.minimum(x, 0.0) / math.sqrt(2.0)))
    return np.asarray(math.log(2.0) - 0.5 * np.log1p(ratio) + np.where(x > 0.0, above, below))


def critical_value(r: float, alpha: float) -> float:
    """The z at which E reaches 1/α, by root finding; ``r`` > 0.

    With u = z√(r/(1+r)) it is where u²/2 + ln Φ(u) = ln 1/(2α) + ½·ln(1+r) =: L, and as Φ is between ½ and 1, u is
    between √(2L) and √(2L + 2·ln 2), which belong to the two-sided boundaries at 2α and at α.
    """
    level = -math.log(2.0 * alpha) + 0.5 * math.log1p(r)
    lowest, highest = math.sqrt(max(2.0 * level, 0.0)), math.sqrt(math.log1p(r) - 2.0 * math.log(alpha))
    u = brentq(lambda x: 0.5 * x * x + float(log_ndtr(x)) - level, lowest - 1e-9, highest + 1e-9, xtol=1e-12)
    return float(u) * math.sqrt((1.0 + r) / r)


@lru_cache(maxsize=64)
def tuning(alpha: float) -> float:
    """The r at which the one-sided boundary is lowest, so the best r at the planned size.

    With u = z√(r/(1+r)), ∂ln E/∂r = 0 at r = u(u + φ(u)/Φ(u)), which leaves one equation for u. Howard et al. 2021
    suggest the two-sided optimum at 2α, which is near: 6.638 for α = 0.05.

    >>> round(tuning(0.05), 3)
    6.692
    """

    def excess(u: float) -> float:
        return float(log_e_value(u * math.sqrt((1.0 + _best_r(u)) / _best_r(u)), _best_r(u))) + math.log(
            alpha
        )

    return _best_r(
        float(brentq(excess, 1e-9, 2.0 * math.sqrt(1.0 - 2.0 * math.log(alpha)) + 2.0, xtol=1e-12))
    )


def one_sided_r(r: float, alpha: float) -> float:
    """The r for one-sided use where :func:`experiments.statistics.tuning.tune` gave ``r`` for two-sided use.

    Both κ are best at the same planned size, so they differ by the constants only, and the one-sided κ is frozen
    when the other is.
    """
    return r * tuning(alpha) / two_sided_tuning(alpha)


def one_sided(harm: float, tolerance: float, se: float, degrees: float, r: float, alpha: float) -> OneSided:
    """The result at one look. ``harm`` is the difference, with the sign that makes it bad when positive.

    With few units the statistic is Student's t with ``degrees`` of freedom and carried to the normal scale, as in
    :func:`experiments.statistics.sequential.always_valid`. All NaN without a positive, finite standard error, r and
    degrees of freedom, or when there is no harm to speak of (NaN).
    """
    usable = 0.0 < se < math.inf and 0.0 < r < math.inf and degrees > 0.0 and 0.0 < alpha < 1.0
    if not (usable and math.isfinite(harm) and math.isfinite(tolerance)):
        return _UNKNOWN
    z = normal_from_student((harm - tolerance) / se, degrees)
    log_e = float(log_e_value(z, r))
    critical = student_from_normal(critical_value(r, alpha), degrees)
    half = se * critical
    return OneSided(log_e, p_from_log_e(log_e), harm - half, harm + half, critical, r)


def guardrail(estimate: Effect, better: Direction, tolerance: float, r: float, alpha: float) -> OneSided:
    """:func:`one_sided` for an estimate, where harm is a difference against ``better`` and ``r`` is what
    :func:`experiments.statistics.tuning.tune` gave.

    Where each variant's own standard error is larger than the null-pooled one, their mean counts. With a small arm and
    a rare event the number k of its events is skewed; over √m, pooled, its excess over the expected m is too often
    large, over √k too rarely, and over (√k + √m)/2 it is 2(√k − √m), whose skewness is nearly gone (Anscombe 1948,
    Biometrika 35). Simulated at a share of 5 %, a rate of 0.5 % and a look at every 100 units of the small arm up to
    10,000, that takes false alarms from 5.2 % to 1.5 %. Where units have one record each,
    :func:`experiments.statistics.e_process.one_sided_log_e` is exact.
    """
    spread = estimate.sequential
    se = max(spread.se, (spread.se + estimate.fixed.se) / 2.0)
    harm = estimate.difference if better == "lower" else -estimate.difference
    if not se > 0.0:
        return _UNKNOWN
    return one_sided(
        harm, tolerance, se, spread.degrees, one_sided_r(r, alpha) * (spread.se / se) ** 2, alpha
    )


def _best_r(u: float) -> float:
    """u(u + φ(u)/Φ(u))."""
    density = math.exp(-0.5 * u * u) / math.sqrt(2.0 * math.pi)
    return u * (u + density / math.exp(float(log_ndtr(u))))
