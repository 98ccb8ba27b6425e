"""Two proportions with one record per unit, so that counts are binomial.

Tests: the pooled two-proportion z-test, or Fisher's exact test when an expected count is under five (Cochran's rule, 1954,
Biometrics 10).

Intervals of the difference:

* **Newcombe** (1998, Statistics in Medicine 17, 873-890, method 10), from the two Wilson (1927) intervals. This is what is
  shown: closed form, never outside [-1, 1], no collapse when an arm has no events. Both it and Miettinen-Nurminen's are
  recommended (Newcombe; Fagerland, Lydersen & Laake 2015, Statistical Methods in Medical Research 24, 224-254); beside a
  small arm with rare events, a canary's case, it stays closer to its level (exact coverage of 95 % intervals for 20 units
  beside 200 and rates from 1 % to 60 %: at least 94.8 %, against 91.7 %).
* **Miettinen-Nurminen** (1985, Statistics in Medicine 4, 213-226), all differences that the score test with the restricted
  maximum-likelihood variance does not reject. It is the one to use where a margin is tested (non-inferiority), because the
  interval and the test of that margin then never contradict each other. On the null hypothesis of no difference its test is
  the pooled z-test but for the factor (N-1)/N.

Invariant: where there is nothing to compare (an empty arm, no event at all, or nothing but events) p is NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import fisher_exact

from experiments.statistics.mover import Bounded, difference

_FEWEST_EXPECTED = 5.0
# As close to an end as the difference is looked for; a bound nearer to it than this is that end.
_NEAR = 1e-10


@dataclass(frozen=True, slots=True)
class TwoProportions:
    """``p_value`` is two-sided, the interval is Newcombe's for treatment minus control. NaN: cannot be said."""

    p_value: float
    low: float
    high: float
    method: str


def two_proportions(x1: int, n1: int, x0: int, n0: int, alpha: float) -> TwoProportions:
    """Compare ``x1`` events of ``n1`` units of the treatment with ``x0`` of ``n0`` of the control."""
    low, high = newcombe_interval(x1, n1, x0, n0, alpha)
    if _fewest_expected(x1, n1, x0, n0) < _FEWEST_EXPECTED:
        return TwoProportions(fisher_p_value(x1, n1, x0, n0), low, high, "Fisher")
    return TwoProportions(pooled_z_p_value(x1, n1, x0, n0), low, high, "pooled z")


def pooled_z_p_value(x1: int, n1: int, x0: int, n0: int) -> float:
    """Two-sided p of z = (p₁-p₀)/√(p̂(1-p̂)(1/n₁+1/n₀)), p̂ the pooled rate."""
    if not _comparable(x1, n1, x0, n0):
        return math.nan
    pooled = (x0 + x1) / (n0 + n1)
    se = math.sqrt(pooled * (1.0 - pooled) * (1.0 / n0 + 1.0 / n1))
    return 2.0 * float(ndtr(-abs(x1 / n1 - x0 / n0) / se))


def fisher_p_value(x1: int, n1: int, x0: int, n0: int) -> float:
    """Two-sided p of Fisher's exact test: all tables with these margins that are no more probable."""
    if not _comparable(x1, n1, x0, n0):
        return math.nan
    return float(fisher_exact(np.array([[x1, n1 - x1], [x0, n0 - x0]])).pvalue)


def wilson_interval(x: int, n: int, alpha: float) -> tuple[float, float]:
    """Wilson's score interval for x/n at confidence 1-α; NaN for no units."""
    if not _counted(x, n):
        return math.nan, math.nan
    z = -float(ndtri(alpha / 2.0))
    p = x / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At the ends the interval reaches 0 or 1 exactly; rounding must not push it past the estimate.
    return min(centre - half, p), max(centre + half, p)


def newcombe_interval(x1: int, n1: int, x0: int, n0: int, alpha: float) -> tuple[float, float]:
    """Newcombe's interval for x₁/n₁ - x₀/n₀ at confidence 1-α, built from the two Wilson intervals."""
    if not (_counted(x1, n1) and _counted(x0, n0)):
        return math.nan, math.nan
    treatment = Bounded(x1 / n1, *wilson_interval(x1, n1, alpha))
    control = Bounded(x0 / n0, *wilson_interval(x0, n0, alpha))
    found = difference(treatment, control)
    return found.low, found.high


def miettinen_nurminen_interval(x1: int, n1: int, x0: int, n0: int, alpha: float) -> tuple[float, float]:
    """The differences δ = p₁-p₀ that :func:`score_z` does not reject at level α."""
    z = -float(ndtri(alpha / 2.0))
    if not (_counted(x1, n1) and _counted(x0, n0) and 0 < z < math.inf):
        return math.nan, math.nan

    def beyond(delta: float, side: float) -> float:
        off, se = _score(x1, n1, x0, n0, delta)
        return side * off - z * se

    estimate = x1 / n1 - x0 / n0
    bounds = []
    for side in (1.0, -1.0):
        # Where both arms have only events or none the variance at the estimate itself is zero, which is no bound.
        inner = estimate - side * _NEAR
        if abs(inner) >= 1.0 or beyond(inner, side) >= 0.0:
            bounds.append(estimate)
        else:
            bounds.append(float(brentq(beyond, -side, inner, args=(side,), xtol=1e-14)))
    return bounds[0], bounds[1]


def score_z(x1: int, n1: int, x0: int, n0: int, delta: float = 0.0) -> float:
    """z of Miettinen & Nurminen's score test that p₁-p₀ is ``delta``; positive when the estimate is above it.

    For non-inferiority with a margin m > 0 on a rate that should be high, test ``delta`` = -m, one-sided. NaN where the
    restricted estimate has no variance.
    """
    if not (_counted(x1, n1) and _counted(x0, n0) and -1.0 < delta < 1.0):
        return math.nan
    off, se = _score(x1, n1, x0, n0, delta)
    return off / se if se > 0 else math.nan


def _score(x1: int, n1: int, x0: int, n0: int, delta: float) -> tuple[float, float]:
    """Estimate minus ``delta``, and its standard error if ``delta`` is true."""
    p0 = _restricted(x1, n1, x0, n0, delta)
    p1 = p0 + delta
    n = n1 + n0
    variance = (p1 * (1.0 - p1) / n1 + p0 * (1.0 - p0) / n0) * n / (n - 1)
    return x1 / n1 - x0 / n0 - delta, math.sqrt(max(variance, 0.0))


def _restricted(x1: int, n1: int, x0: int, n0: int, delta: float) -> float:
    """The maximum-likelihood p₀ when p₁ = p₀+δ: the root of their cubic that lies in range, in closed form."""
    n, x = n1 + n0, x1 + x0
    if delta == 0.0:
        return x / n
    b = ((n1 + 2 * n0) * delta - n - x) / n
    c = ((n0 * delta - n - 2 * x0) * delta + x) / n
    d = x0 * delta * (1.0 - delta) / n
    q = (b / 3.0) ** 3 - b * c / 6.0 + d / 2.0
    p = math.copysign(math.sqrt(max((b / 3.0) ** 2 - c / 3.0, 0.0)), q)
    cosine = q / p**3 if p else 1.0
    angle = (math.pi + math.acos(min(max(cosine, -1.0), 1.0))) / 3.0
    root = 2.0 * p * math.cos(angle) - b / 3.0
    return min(max(root, 0.0, -delta), 1.0, 1.0 - delta)


def _counted(x: int, n: int) -> bool:
    """Whether these are counts of a sample; NaN is not."""
    return 0 <= x <= n and 0 < n < math.inf


def _comparable(x1: int, n1: int, x0: int, n0: int) -> bool:
    return _counted(x1, n1) and _counted(x0, n0) and 0 < x1 + x0 < n1 + n0


def _fewest_expected(x1: int, n1: int, x0: int, n0: int) -> float:
    n = n0 + n1
    pooled = (x0 + x1) / n if n else math.nan
    return min(n0, n1) * min(pooled, 1.0 - pooled)
