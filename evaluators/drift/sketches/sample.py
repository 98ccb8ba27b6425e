"""A sample of numbers as its sorted distinct values with how often each occurs, and how far its ranks may be off.

Invariant: for every number x, how many values of the summed-up sample are at most x differs from what this one says by
``rank_error`` or less; 0 means that nothing was left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """``values``: finite, ascending, each once; ``weights``: how often each occurs, at least once."""

    values: Values
    weights: Counts
    rank_error: int = 0

    @classmethod
    def of(cls, numbers: ArrayLike) -> Self:
        """All of ``numbers`` (finite, in any order)."""
        # Adding zero takes the sign from a zero, so that equal numbers have equal bits.
        return cls.of_sorted(np.sort(np.asarray(numbers, dtype=np.float64)) + 0.0)

    @classmethod
    def of_sorted(cls, numbers: Values) -> Self:
        """All of ``numbers``, which ascend and have no zero with a sign."""
        if numbers.size == 0:
            return cls(np.empty(0), np.empty(0, dtype=np.int64))
        starts = _starts(numbers)
        return cls(numbers[starts], np.diff(starts, append=numbers.size).astype(np.int64))

    @classmethod
    def compressed_of_sorted(cls, numbers: Values, capacity: int) -> Self:
        """As ``of_sorted(numbers).compressed(capacity)`` where more than ``capacity`` differ, without the steps between."""
        if numbers.size <= capacity:
            return cls.of_sorted(numbers)
        sizes, middles = _blocks(numbers.size, capacity)
        values = numbers[middles]
        starts = _starts(values)
        return cls(values[starts], np.add.reduceat(sizes, starts), rank_error=int(sizes.max()) // 2)

    @classmethod
    def merged(cls, samples: Sequence[Self]) -> Self:
        """All of ``samples`` (at least one) together; the errors add up."""
        values = np.concatenate([sample.values for sample in samples])
        weights = np.concatenate([sample.weights for sample in samples])
        order = np.argsort(values, kind="stable")
        values, weights = values[order], weights[order]
        error = sum(sample.rank_error for sample in samples)
        if values.size == 0:
            return cls(values, weights, error)
        starts = _starts(values)
        return cls(values[starts], np.add.reduceat(weights, starts), error)

    @property
    def size(self) -> int:
        """How many numbers, repetitions included."""
        return int(self.cumulated[-1]) if self.cumulated.size else 0

    @property
    def error(self) -> float:
        """``rank_error`` as a share of the sample, 0 to 1."""
        return self.rank_error / self.size if self.size else 0.0

    @cached_property
    def cumulated(self) -> Counts:
        """For each of ``values``, how many numbers are at most as large."""
        return np.cumsum(self.weights)

    def compressed(self, capacity: int) -> Self:
        """At most ``capacity`` values that stand for all.

        The ranks are cut into ``capacity`` blocks of equal size (to one), and the middle of each block stands for it.
        A number x splits one block at the most, so ranks are off by half a block: by n/(2·capacity) + ½ or less
        (equi-depth histogram: Piatetsky-Shapiro & Connell 1984, SIGMOD; errors of merged summaries add up: Agarwal et
        al. 2012, PODS).
        """
        if self.values.size <= capacity:
            return self
        sizes, middles = _blocks(self.size, capacity)
        at = self.at_ranks(middles)
        starts = _starts(at)
        return type(self)(
            self.values[at[starts]],
            np.add.reduceat(sizes, starts),
            rank_error=self.rank_error + int(sizes.max()) // 2,
        )

    def at_ranks(self, ranks: Counts) -> Counts:
        """Index into ``values`` of the numbers at ``ranks`` (from 0)."""
        return np.searchsorted(self.cumulated, ranks, side="right")

    def at_most(self, numbers: Values) -> Counts:
        """How many of the sample are at most as large as each of ``numbers``."""
        counts = np.concatenate([[0], self.cumulated])
        return counts[np.searchsorted(self.values, numbers, side="right")]

    def quantiles(self, shares: Values) -> Values:
        """Quantiles interpolated linearly, as numpy does by default; the sample is not empty."""
        positions = shares * (self.size - 1)
        low = np.floor(positions)
        lower = self.values[self.at_ranks(low.astype(np.int64))]
        upper = self.values[self.at_ranks(np.minimum(low.astype(np.int64) + 1, self.size - 1))]
        return lower + (upper - lower) * (positions - low)


def _starts(values: NDArray[Any]) -> NDArray[np.intp]:
    """Where in ascending ``values`` each different one begins."""
    return np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])


def _blocks(size: int, capacity: int) -> tuple[Counts, Counts]:
    """``size`` ranks cut into ``capacity`` blocks: how many are in each, and the middle one."""
    bounds = (np.arange(capacity + 1, dtype=np.int64) * size) // capacity
    sizes = np.diff(bounds)
    return sizes, bounds[:-1] + (sizes - 1) // 2
