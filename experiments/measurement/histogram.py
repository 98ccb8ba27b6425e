"""Counts of values on logarithmic bins: what is kept of a metric whose quantiles are compared.

A positive value v lies in the bin k with 1.005^(k−1) < v ≤ 1.005^k, so any quantile is known to within 0.5 % of
itself, whatever the values' range, and counts of disjoint sets of records add up (the idea of DDSketch: Masson, Rim &
Lee 2019, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees", VLDB, §2). Negative
values have the mirrored bins, and zero has one of its own. Invariant: bins are numbered in the order of their values.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

RELATIVE_WIDTH: Final = 0.005

_LOG_BASE: Final = math.log1p(RELATIVE_WIDTH)
# More than the bin of the largest double has, so that every positive value has a positive number: 0 is the bin of zero.
_ORIGIN: Final = 150_000
_LARGEST_LOG: Final = math.log(sys.float_info.max)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many records lie in which bin; addition is over disjoint sets of records.

    >>> both = Histogram({bin_number(120.0): 3}) + Histogram({bin_number(0.0): 1})
    >>> both.total, both.counts.tolist(), both.values.round(1).tolist()
    (4, [1, 3], [0.0, 119.8])
    """

    bins: Mapping[int, int] = field(default_factory=dict)

    def __add__(self, other: Histogram) -> Histogram:
        bins = dict(self.bins)
        for number, count in other.bins.items():
            bins[number] = bins.get(number, 0) + count
        return Histogram(bins)

    @property
    def total(self) -> int:
        """The number of records."""
        return sum(self.bins.values())

    @property
    def counts(self) -> NDArray[np.int64]:
        """Records in each bin that is not empty, ascending by value."""
        return np.array([self.bins[number] for number in self._numbers()], dtype=np.int64)

    @property
    def edges(self) -> NDArray[np.float64]:
        """The upper end of each of these bins, which belongs to it; in the value's unit."""
        return self._at(upper=1.0)

    @property
    def values(self) -> NDArray[np.float64]:
        """What stands for the values of each of these bins: its geometric middle."""
        return self._at(upper=0.5)

    def quantile(self, probability: float) -> float:
        """The upper end of the bin in which the ``probability``-quantile lies (the smallest value that at least that
        share of the records does not exceed); NaN without records.
        """
        if not self.bins:
            return math.nan
        reached = np.cumsum(self.counts)
        return float(self.edges[int(np.searchsorted(reached, probability * reached[-1]))])

    def _numbers(self) -> list[int]:
        return sorted(number for number, count in self.bins.items() if count)

    def _at(self, upper: float) -> NDArray[np.float64]:
        numbers = np.array(self._numbers(), dtype=np.float64)
        steps = np.where(numbers > 0, numbers - _ORIGIN - 1.0 + upper, -numbers - _ORIGIN - upper)
        size = np.exp(np.minimum(_LOG_BASE * steps, _LARGEST_LOG))
        return np.where(numbers == 0, 0.0, np.sign(numbers) * size)


def bin_number(value: float) -> int:
    """The bin of one finite value."""
    return int(pl.select(bin_numbers(pl.lit(value, pl.Float64))).item())


def bin_numbers(value: pl.Expr) -> pl.Expr:
    """The bin of each value (finite or null), as :class:`polars.Int32`."""
    magnitude = (value.abs().log() / _LOG_BASE).ceil() + _ORIGIN
    return pl.when(value == 0.0).then(0.0).otherwise(magnitude * value.sign()).cast(pl.Int32)
