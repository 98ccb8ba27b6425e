"""Mean and variance that add up: Chan, Golub & LeVeque (1983), The American Statistician 37(3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Moments:
    """Of ``count`` finite numbers; ``m2`` is the sum of squared differences from the mean. All 0 without a number."""

    count: int
    mean: float
    m2: float
    minimum: float
    maximum: float

    @classmethod
    def of_sorted(cls, numbers: NDArray[np.float64]) -> Self:
        """Of numbers that ascend."""
        if numbers.size == 0:
            return cls(0, 0.0, 0.0, 0.0, 0.0)
        mean = float(numbers.mean())
        away = numbers - mean
        away *= away  # and not a product of vectors, for which BLAS would start threads
        return cls(numbers.size, mean, float(away.sum()), float(numbers[0]), float(numbers[-1]))

    @classmethod
    def merged(cls, parts: Sequence[Self]) -> Self:
        """Of all numbers of ``parts`` together."""
        filled = [part for part in parts if part.count]
        if not filled:
            return cls(0, 0.0, 0.0, 0.0, 0.0)
        counts = np.array([part.count for part in filled], dtype=np.float64)
        means = np.array([part.mean for part in filled])
        # Differences from one of the means keep the digits of numbers that are large and close together.
        origin = filled[0].mean
        mean = origin + float(np.dot(counts, means - origin)) / float(counts.sum())
        between = float(np.dot(counts, (means - mean) ** 2))
        return cls(
            sum(part.count for part in filled),
            mean,
            sum(part.m2 for part in filled) + between,
            min(part.minimum for part in filled),
            max(part.maximum for part in filled),
        )

    @property
    def stddev(self) -> float | None:
        """The sample's standard deviation; ``None`` with fewer than two numbers."""
        return None if self.count < 2 else float(np.sqrt(self.m2 / (self.count - 1)))
