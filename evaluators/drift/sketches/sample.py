"""A sample of numbers as its sorted distinct values with how often each occurs, and how far its ranks may be off.

Invariant: for every number x, how many values of the summed-up sample are at most x differs from what this one says by
``rank_error`` or less; 0 means that nothing was left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self, TypeAlias

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
        return cls.of_sorted(np.sort(np.asarray(numbers, dtype=np.float64)))

    @classmethod
    def of_sorted(cls, numbers: Values) -> Self:
        """All of ``numbers``, which ascend."""
        if numbers.size == 0:
            return cls(np.empty(0), np.empty(0, dtype=np.int64))
        starts = np.concatenate([[0], np.flatnonzero(numbers[1:] != numbers[:-1]) + 1])
        # Adding zero takes the sign from a zero, so that equal numbers have equal bits.
        return cls(numbers[starts] + 0.0, np.diff(starts, append=numbers.size).astype(np.int64))

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
        starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
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
        bounds = (np.arange(capacity + 1, dtype=np.int64) * self.size) // capacity
        sizes = np.diff(bounds)
        at = self.at_ranks(bounds[:-1] + (sizes - 1) // 2)
        whole = self.at_ranks(bounds[:-1]) == self.at_ranks(bounds[1:] - 1)
        lost = int(sizes[~whole].max(initial=0)) // 2
        starts = np.concatenate([[0], np.flatnonzero(at[1:] != at[:-1]) + 1])
        return type(self)(
            self.values[at[starts]], np.add.reduceat(sizes, starts), rank_error=self.rank_error + lost
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
