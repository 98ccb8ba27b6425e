"""A measured value together with how sure it is: what a window gave, with confidence limits.

Invariant: a sample of no values does not exist; whoever would make one has *no data*. Limits are one-sided: the true
value lies under ``lower`` with a probability of ``alpha`` at the most, and over ``upper`` likewise.

* :class:`Share`: Wilson's score limits (Wilson 1927, JASA 22), which are not degenerate at 0 of n;
* :class:`Mean`: Student's t;
* :class:`Count`: exact limits of a Poisson mean (Garwood 1936, Biometrika 28);
* :class:`Total`: a compound Poisson sum, whose variance is the sum of squares;
* :class:`Quantile`: order statistics, free of a distribution (David & Nagaraja, *Order Statistics*, §7.1).

Values are taken as independent: many requests of one user, or arrivals in bursts, vary more than these limits say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats


class Sample(Protocol):
    """What every sample has. ``n`` is how many values it is of."""

    @property
    def value(self) -> float: ...

    @property
    def n(self) -> int: ...

    def limits(self, alpha: float) -> tuple[float, float]:
        """One-sided limits, each at ``alpha``."""
        ...

    def scaled(self, factor: float) -> Sample:
        """The same for a window ``factor`` times as long: totals grow with it, nothing else does."""
        ...


@dataclass(frozen=True, slots=True)
class Share:
    """``hits`` of ``n``."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        return self.hits / self.n

    def limits(self, alpha: float) -> tuple[float, float]:
        z2 = float(stats.norm.isf(alpha)) ** 2
        centre = (self.hits + z2 / 2) / (self.n + z2)
        half = math.sqrt(z2 * (self.hits * (self.n - self.hits) / self.n + z2 / 4)) / (self.n + z2)
        # Rounding must not put the limit of 0 of n above the share itself.
        return (
            0.0 if self.hits == 0 else max(centre - half, 0.0),
            1.0 if self.hits == self.n else min(centre + half, 1.0),
        )

    def scaled(self, factor: float) -> Share:
        return self


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of ``n`` values with their ``variance`` (of a sample: by n - 1)."""

    n: int
    value: float
    variance: float

    def limits(self, alpha: float) -> tuple[float, float]:
        if self.n < 2:
            return -math.inf, math.inf
        half = float(stats.t.isf(alpha, self.n - 1)) * math.sqrt(self.variance / self.n)
        return self.value - half, self.value + half

    def scaled(self, factor: float) -> Mean:
        return self


@dataclass(frozen=True, slots=True)
class Count:
    """``n`` events in a window, shown for a window ``factor`` times as long."""

    n: int
    factor: float = 1.0

    @property
    def value(self) -> float:
        return self.n * self.factor

    def limits(self, alpha: float) -> tuple[float, float]:
        lower = 0.0 if self.n == 0 else float(stats.gamma.ppf(alpha, self.n))
        return lower * self.factor, float(stats.gamma.isf(alpha, self.n + 1)) * self.factor

    def scaled(self, factor: float) -> Count:
        return replace(self, factor=self.factor * factor)


@dataclass(frozen=True, slots=True)
class Total:
    """The sum of ``n`` values and the sum of their squares."""

    n: int
    total: float
    squares: float
    factor: float = 1.0

    @property
    def value(self) -> float:
        return self.total * self.factor

    def limits(self, alpha: float) -> tuple[float, float]:
        half = float(stats.norm.isf(alpha)) * math.sqrt(self.squares) * self.factor
        return self.value - half, self.value + half

    def scaled(self, factor: float) -> Total:
        return replace(self, factor=self.factor * factor)


@dataclass(frozen=True, slots=True, eq=False)
class Quantile:
    """The ``q`` quantile of ``values`` (sorted, one-dimensional, not empty; in the measure's unit)."""

    q: float
    values: NDArray[np.float64]

    @property
    def n(self) -> int:
        return int(self.values.size)

    @property
    def value(self) -> float:
        return float(np.quantile(self.values, self.q))

    def limits(self, alpha: float) -> tuple[float, float]:
        # P(X_(r) > quantile) = P(B < r) for B ~ Binomial(n, q); ranks count from one.
        below = int(stats.binom.ppf(alpha, self.n, self.q))
        if stats.binom.cdf(below, self.n, self.q) > alpha:
            below -= 1
        lower_rank = below + 1
        upper_rank = int(stats.binom.isf(alpha, self.n, self.q)) + 1
        lower = -math.inf if lower_rank < 1 else float(self.values[lower_rank - 1])
        upper = math.inf if upper_rank > self.n else float(self.values[upper_rank - 1])
        return min(lower, self.value), max(upper, self.value)

    def scaled(self, factor: float) -> Quantile:
        return self


@dataclass(frozen=True, slots=True)
class Plain:
    """A number that somebody else computed (drift, lag), from ``n`` things, without limits."""

    value: float
    n: int

    def limits(self, alpha: float) -> tuple[float, float]:
        return self.value, self.value

    def scaled(self, factor: float) -> Plain:
        return self


def rounded(value: float | None) -> float | None:
    """Six significant digits, ``None`` for what is not finite: JSON has no word for that."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """``values`` with :func:`rounded` floats."""
    return {name: rounded(value) if isinstance(value, float) else value for name, value in values.items()}
