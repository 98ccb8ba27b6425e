"""Additive sufficient statistics of a metric, clustered by unit.

For each unit let n be its number of measured records and s the sum of their values. All that an analysis
needs of a variant in a phase are the sums over units of 1, n, s, n², n·s and s². The metric is the ratio R
= Σs/Σn; its variance comes from the delta method, with the unit as the independent draw (Deng, Knoblich &
Lu 2018, "Applying the Delta Method in Metric Analytics", KDD, §3): Var(R) ≈ N/(N−1) · Σ(s − R·n)² / (Σn)².
With one record per unit this is the ordinary variance of a mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Below this share of the values' own size a spread is rounding, not variance.
_ROUNDING = 1e-12
# Variances are squared on the way to degrees of freedom, and floats end at 1e308.
_LARGEST_SQUARE = 1e150


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over the units of one variant in one phase. Addition is over disjoint sets of units."""

    units: int = 0
    records: float = 0.0
    total: float = 0.0
    records_squared: float = 0.0
    records_total: float = 0.0
    total_squared: float = 0.0

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.units + other.units,
            self.records + other.records,
            self.total + other.total,
            self.records_squared + other.records_squared,
            self.records_total + other.records_total,
            self.total_squared + other.total_squared,
        )

    @property
    def mean(self) -> float:
        """R, the mean over records; the caller makes sure that there is a record."""
        return self.total / self.records

    @property
    def one_record_each(self) -> bool:
        """Whether every unit has exactly one record, so that records are independent draws."""
        return self.records == self.units and self.records_squared == self.units

    @property
    def too_large(self) -> bool:
        """Whether what follows from the values could leave the range of floats, or a value is no number."""
        return not (
            math.isfinite(self.total)
            and math.isfinite(self.records_total)
            and self.total_squared < _LARGEST_SQUARE
        )

    def residual_square(self, centre: float) -> float:
        """Σ(s − centre·n)², exactly zero when it is only rounding; NaN for values too large to calculate with."""
        size = self.total_squared + centre * centre * self.records_squared
        if not math.isfinite(size):
            return math.nan
        square = size - 2 * centre * self.records_total
        return square if square > _ROUNDING * size else 0.0

    def variance_of_mean(self) -> float:
        """Var(R) by the delta method; needs at least two units, NaN otherwise."""
        if self.units < 2 or self.records <= 0:
            return math.nan
        return self.units / (self.units - 1) * self.residual_square(self.mean) / self.records**2


@dataclass(frozen=True, slots=True)
class CrossMoments:
    """Sums over the units that are in two cells (say, control in phase 0 and treatment in phase 1) of
    products.
    """

    records_records: float = 0.0
    records_total: float = 0.0
    total_records: float = 0.0
    total_total: float = 0.0

    def covariance_of_means(self, first: Moments, second: Moments) -> float:
        """Cov(R₁, R₂) by the delta method: Σ(s₁ − R₁n₁)(s₂ − R₂n₂) / (Σn₁ Σn₂)."""
        mean, other = first.mean, second.mean
        product = (
            self.total_total
            - other * self.total_records
            - mean * self.records_total
            + mean * other * self.records_records
        )
        return product / (first.records * second.records)
