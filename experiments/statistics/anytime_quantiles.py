"""Confidence sequences for a quantile (p95 latency, say), valid however often one looks, for every distribution.

Let K be the number of the first t values at or below the quantile Q(p). K is binomial (t, p), so any time-uniform
band for it, k_low ≤ K ≤ k_high at all t with probability 1−α, turns into a band for the quantile: from the k_low-th
smallest value to the (k_high+1)-th. Two bands:

* ``stitched_ranks``, in closed form and tight at the iterated-logarithm rate: |K/t − p| < f(t) with f = 1.5·√(p(1−p)ℓ)
  + 0.8·ℓ and ℓ(t) = (1.4·ln ln(2.1t) + ln(10/α))/t;
* ``mixture_ranks``, narrower around a planned t: where the beta-binomial mixture
  B(a₁+K, a₀+t−K)/B(a₁, a₀)/(p^K(1−p)^(t−K)), a martingale, is below 1/α.

Values may be tied: ties only widen what is said. Where values are counted in bins the ends are moved to the edges of
their bins. Invariant: distribution-free and exact at every sample size, for values that are independent draws (one
record per unit); a unit's several records are not.

Source: Howard & Ramdas 2022, "Sequential estimation of quantiles with applications to A/B testing and best-arm
identification", Bernoulli 28(3), 1704-1728, Theorem 1; the mixture's tuning as in Howard, Ramdas, McAuliffe & Sekhon
2021, Annals of Statistics 49(2), §3.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln

from experiments.statistics.sequential import tuning
from servelens.errors import Invalid

Floats = NDArray[np.float64]

# A mixture that is planned for a handful of values must still be a probability law.
_LEAST_CONCENTRATION = 1e-3


@dataclass(frozen=True, slots=True)
class Ranks:
    """How many of t values are at or below the quantile: from ``low`` to ``high``, 0 to t at the widest."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class QuantileBounds:
    """``low`` and ``high`` hold the quantile; infinite where nothing bounds it yet, NaN where nothing can."""

    estimate: float
    low: float
    high: float


class OrderStatistics(Protocol):
    """Values of which the k-th smallest is known, exactly or between two edges."""

    @property
    def size(self) -> int:
        """How many values there are."""

    def between(self, rank: int) -> tuple[float, float]:
        """Bounds of the ``rank``-th smallest value, 1 ≤ rank ≤ size."""


@dataclass(frozen=True, slots=True)
class SortedValues:
    """Values in ascending order, without NaN. Raises :class:`~servelens.errors.Invalid` for others."""

    values: Floats

    def __post_init__(self) -> None:
        if not bool(np.all(self.values[1:] >= self.values[:-1])) or bool(np.any(np.isnan(self.values[:1]))):
            raise Invalid(
                "the values are not in ascending order", field="values", fix="Sort them, without NaN."
            )

    @property
    def size(self) -> int:
        """How many values there are."""
        return len(self.values)

    def between(self, rank: int) -> tuple[float, float]:
        """The value itself, twice."""
        value = float(self.values[rank - 1])
        return value, value


class Histogram:
    """Counts in bins: the i-th holds values between the i-th and the next of the ascending ``edges``.

    Raises :class:`~servelens.errors.Invalid` for edges that do not ascend and counts that are none.
    """

    def __init__(self, edges: Floats, counts: NDArray[np.int64]) -> None:
        if len(edges) != len(counts) + 1 or not bool(np.all(np.diff(edges) > 0)) or bool(np.any(counts < 0)):
            raise Invalid(
                "the edges do not ascend, or a count is negative",
                field="histogram",
                fix="Give ascending edges, one more than there are counts.",
            )
        self._edges = edges
        self._ends = np.cumsum(counts)

    @property
    def size(self) -> int:
        """How many values there are."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def between(self, rank: int) -> tuple[float, float]:
        """The edges of the bin that holds the value."""
        position = int(np.searchsorted(self._ends, rank))
        return float(self._edges[position]), float(self._edges[position + 1])


def stitched_ranks(t: int, p: float, alpha: float) -> Ranks:
    """The explicit band at time ``t`` ≥ 1; needs no plan, and is good over many orders of magnitude of t."""
    ell = (1.4 * math.log(math.log(2.1 * t)) + math.log(10.0 / alpha)) / t
    radius = 1.5 * math.sqrt(p * (1.0 - p) * ell) + 0.8 * ell
    return Ranks(max(math.floor(t * (p - radius)) + 1, 0), min(math.ceil(t * (p + radius)) - 1, t))


@lru_cache(maxsize=4096)
def mixture_ranks(t: int, p: float, alpha: float, planned: float) -> Ranks:
    """The mixture's band at time ``t`` ≥ 1, narrowest when ``planned`` values have come.

    E is convex in K and lowest near tp, so the ends are found by bisection. Kept, because the arms and the looks ask
    for the same ones.
    """
    concentration = max(planned / tuning(alpha) - 1.0, _LEAST_CONCENTRATION)
    a1, a0 = concentration * p, concentration * (1.0 - p)
    threshold = float(betaln(a1, a0)) - math.log(alpha)

    def allowed(k: int) -> bool:
        mixed = float(betaln(a1 + k, a0 + t - k))
        return mixed - k * math.log(p) - (t - k) * math.log1p(-p) < threshold

    middle = min(max(round(t * p), 0), t)
    if not allowed(middle):  # rounding at the extremes of floats: nothing is known
        return Ranks(0, t)
    return Ranks(_last(allowed, middle, 0), _last(allowed, middle, t))


def quantile(
    values: OrderStatistics, p: float, alpha: float, *, planned: float | None = None
) -> QuantileBounds:
    """The quantile ``p`` of one arm at level ``alpha``, by the mixture when a number of values is ``planned``, else
    by the explicit band.

    Without values, or for p or α outside (0, 1), all is NaN. The estimate of a histogram is its bin's middle.
    """
    if not (values.size and 0.0 < p < 1.0 and 0.0 < alpha < 1.0):
        return QuantileBounds(math.nan, math.nan, math.nan)
    t = values.size
    if planned is not None and 0.0 < planned < math.inf:
        ranks = mixture_ranks(t, p, alpha, planned)
    else:
        ranks = stitched_ranks(t, p, alpha)
    below, above = values.between(min(max(math.ceil(t * p - 1e-9), 1), t))
    return QuantileBounds(
        below + (above - below) / 2.0,
        values.between(ranks.low)[0] if ranks.low >= 1 else -math.inf,
        values.between(ranks.high + 1)[1] if ranks.high < t else math.inf,
    )


def quantile_difference(
    control: OrderStatistics,
    treatment: OrderStatistics,
    p: float,
    alpha: float,
    *,
    planned: float | None = None,
) -> QuantileBounds:
    """Treatment's quantile minus control's: each arm's band at α/2, so that both hold at once with probability 1−α.

    Conservative: the difference leaves these bounds much more rarely than α. ``planned`` is per arm.
    """
    arms = [quantile(values, p, alpha / 2.0, planned=planned) for values in (control, treatment)]
    return QuantileBounds(
        arms[1].estimate - arms[0].estimate,
        _less(arms[1].low, arms[0].high),
        _less(arms[1].high, arms[0].low),
    )


def _less(value: float, other: float) -> float:
    """The difference; between two infinities, which say nothing, the first."""
    return value if math.isinf(value) and math.isinf(other) else value - other


def _last(allowed: Callable[[int], bool], inside: int, end: int) -> int:
    """The farthest number from ``inside`` towards ``end`` that is allowed; ``inside`` is."""
    if allowed(end):
        return end
    outside = end
    while abs(outside - inside) > 1:
        middle = (inside + outside) // 2
        inside, outside = (middle, outside) if allowed(middle) else (inside, middle)
    return inside
