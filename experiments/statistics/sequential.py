"""Results that stay valid however often one looks.

**Normal mixture in information time.** For an estimate with standard error se let I = 1/se² and z =
difference/se. Under no difference z·√I behaves like a Brownian motion at time I; mixing the likelihood
ratio over normal alternatives with precision 1/κ gives a martingale (Robbins 1970), which by Ville's
inequality crosses 1/α with probability at most α, at *any* look. With r = κI:

* reject iff z² > ((1+r)/r)·ln((1+r)/α²);
* the interval's half-width is se·√(the right-hand side);
* p = min(1, √(1+r)·exp(−z² r/(2(1+r)))), of which the running minimum may be kept.

Sources: Howard, Ramdas, McAuliffe & Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence
sequences", Annals of Statistics 49(2), eq. 14; Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024,
"Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 52(6), which
makes it asymptotically valid for any finite variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import lambertw

DEFAULT_PLANNED_UNITS = 5_000

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AlwaysValid:
    """``low`` and ``high`` bound the difference; infinite where nothing bounds it yet. ``critical`` is on
    t's scale.
    """

    p_value: float
    low: float
    high: float
    critical: float
    r: float


def tuning(alpha: float) -> float:
    """c(α) = −W₋₁(−α²/e) − 1: the r at which the boundary is lowest, so the best r at the planned size.

    >>> round(tuning(0.05), 3)
    8.212
    """
    return float(-lambertw(-(alpha**2) / math.e, -1).real - 1.0)


def planned_r(half_harmonic: float, planned_units: float, alpha: float) -> float:
    """r = c·(4 n₀n₁/(n₀+n₁))/N*: c at the planned total N* when split evenly."""
    return tuning(alpha) * 4.0 * half_harmonic / planned_units


def critical_value(r: Floats | float, alpha: float) -> Floats:
    """√(((1+r)/r)·ln((1+r)/α²)), on the scale of z; r > 0."""
    ratio = np.asarray(r, dtype=np.float64)
    return np.asarray(np.sqrt((1.0 + ratio) / ratio * np.log((1.0 + ratio) / alpha**2)))


def log_e_value(z: Floats | float, r: Floats | float) -> Floats:
    """ln E = z² r/(2(1+r)) − ½·ln(1+r): the evidence against no difference at this look; r > 0."""
    square, ratio = np.asarray(z, dtype=np.float64) ** 2, np.asarray(r, dtype=np.float64)
    return np.asarray(square * ratio / (2.0 * (1.0 + ratio)) - 0.5 * np.log1p(ratio))


def p_value(z: Floats | float, r: Floats | float) -> Floats:
    """min(1, 1/E) = min(1, √(1+r)·exp(−z² r/(2(1+r))))."""
    return np.asarray(np.exp(np.minimum(-log_e_value(z, r), 0.0)))


def always_valid(difference: float, se: float, degrees: float, r: float, alpha: float) -> AlwaysValid:
    """The result at one look; ``se`` > 0, r > 0.

    With few units se itself is uncertain and the statistic is Student's t with ``degrees`` of freedom, so
    it is carried to the normal scale first. That vanishes as units are added, and keeps early looks honest.
    """
    statistic = difference / se
    boundary = float(critical_value(r, alpha))
    critical = student_from_normal(boundary, degrees)
    half = se * critical
    p = float(p_value(normal_from_student(statistic, degrees), r))
    return AlwaysValid(p, difference - half, difference + half, critical, r)


def normal_from_student(t: float, degrees: float) -> float:
    """The normal quantile that belongs to Student's t; Wallace 1959 (Annals of Mathematical Statistics 30,
    p. 1124).

    z = ±((8ν+1)/(8ν+3))·√(ν·ln(1+t²/ν)): monotone, with a closed inverse, and sound in tails where p
    underflows.
    """
    if math.isinf(degrees):
        return t
    factor = (8.0 * degrees + 1.0) / (8.0 * degrees + 3.0)
    return math.copysign(factor * math.sqrt(degrees * math.log1p(t * t / degrees)), t)


def student_from_normal(z: float, degrees: float) -> float:
    """The inverse of :func:`normal_from_student`; infinite where it leaves the range of floats."""
    if math.isinf(degrees):
        return z
    factor = (8.0 * degrees + 3.0) / (8.0 * degrees + 1.0)
    exponent = (z * factor) ** 2 / degrees
    if exponent > 600.0:
        return math.copysign(math.inf, z)
    return math.copysign(math.sqrt(degrees * math.expm1(exponent)), z)
