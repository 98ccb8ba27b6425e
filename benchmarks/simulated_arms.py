"""Arms of simulated experiments: what a variant's units do, as the moments that the analysis would read.

Invariant: moments at a later look contain those of the earlier ones, as in an experiment that goes on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from experiments.statistics.statistic import Moments

Floats = NDArray[np.float64]


class Arm(Protocol):
    """One variant's units."""

    def moments(self, rng: np.random.Generator, sizes: Sequence[int]) -> list[Moments]:
        """The moments of its first ``sizes`` units; sizes ascend."""


@dataclass(frozen=True, slots=True)
class Binary:
    """One record per unit, an event with probability ``rate``; so events between two looks are binomial."""

    rate: float

    def moments(self, rng: np.random.Generator, sizes: Sequence[int]) -> list[Moments]:
        """Drawn look by look."""
        blocks = [later - earlier for earlier, later in pairwise([0, *sizes])]
        events = accumulate(int(k) for k in rng.binomial(blocks, self.rate))
        return [Moments(n, n, k, n, k, k) for n, k in zip(sizes, events, strict=True)]


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Log durations, one record per unit: the analysis takes logarithms when it reads the table."""

    sigma: float
    lift: float = 0.0

    def values(self, rng: np.random.Generator, units: int) -> Floats:
        """One value per unit, on the log scale."""
        return rng.normal(math.log1p(self.lift), self.sigma, units)

    def moments(self, rng: np.random.Generator, sizes: Sequence[int]) -> list[Moments]:
        """Drawn unit by unit."""
        return _summed(np.ones(sizes[-1]), self.values(rng, sizes[-1]), sizes)


@dataclass(frozen=True, slots=True)
class Clustered:
    """Users with five requests each and an intra-class correlation of 0.3 on the log scale."""

    lift: float = 0.0

    def moments(self, rng: np.random.Generator, sizes: Sequence[int]) -> list[Moments]:
        """Drawn user by user; the sum of a user's five errors has five times their variance."""
        units = sizes[-1]
        user = rng.normal(math.log1p(self.lift), math.sqrt(0.3), units)
        errors = rng.normal(0.0, math.sqrt(5 * 0.7), units)
        return _summed(np.full(units, 5.0), 5 * user + errors, sizes)


@dataclass(frozen=True, slots=True)
class ClusteredRate:
    """Users with one to many requests, some of whom fail much more often than others."""

    rate: float

    def moments(self, rng: np.random.Generator, sizes: Sequence[int]) -> list[Moments]:
        """Drawn user by user."""
        records = rng.poisson(4, sizes[-1]) + 1
        own = rng.beta(2 * self.rate, 2 * (1 - self.rate), sizes[-1])
        return _summed(records.astype(float), rng.binomial(records, own).astype(float), sizes)


@dataclass(frozen=True, slots=True)
class Toxicity:
    """Scores, nearly all close to zero, three in a hundred high."""

    def moments(self, rng: np.random.Generator, sizes: Sequence[int]) -> list[Moments]:
        """Drawn record by record."""
        units = sizes[-1]
        high = rng.random(units) < 0.03
        values = np.where(high, rng.uniform(0.5, 1, units), rng.beta(0.5, 50, units))
        return _summed(np.ones(units), values, sizes)


def _summed(n: Floats, s: Floats, sizes: Sequence[int]) -> list[Moments]:
    """Moments of the first ``sizes`` units with n records that add up to s."""
    blocks = np.add.reduceat(np.stack([n, s, n * n, n * s, s * s]), [0, *sizes[:-1]], axis=1)
    sums = blocks.cumsum(axis=1)
    return [Moments(size, *(float(value) for value in sums[:, i])) for i, size in enumerate(sizes)]
