"""A column of numbers, summed up: its distribution by at most :data:`CAPACITY` values, everything else exactly.

While a column has no more different finite values than that, its distribution is kept whole, and what is calculated
from it equals what the values themselves give. Beyond, :class:`~evaluators.drift.sketches.sample.Sample` says how far
ranks may be off: each compression adds 1/(2·CAPACITY) of the sample, about 0.012 %. A column is compressed once where
its window is read (twice beyond :data:`ROWS_AT_ONCE` rows) and once more per level of merging, so a month made of days
of hours is off by at most 0.05 %.

Invariant: counts, extremes, mean and variance do not depend on the compression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
import polars as pl

from evaluators.drift.sketches.distinct import Hashes, estimated, number_hashes, union
from evaluators.drift.sketches.encoding import packed, unpacked
from evaluators.drift.sketches.moments import Moments
from evaluators.drift.sketches.sample import Sample

CAPACITY: Final = 4096
ROWS_AT_ONCE: Final = 1 << 19
_FINER: Final = (
    8  # so much more is kept of a part before the parts are merged: its share of the error is small
)


@dataclass(frozen=True, slots=True)
class NumericSketch:
    """``not_finite`` counts NaN and the infinite; ``hashes`` are ``None`` while ``sample`` holds every value."""

    FORMAT: ClassVar[str] = f"numeric-1-{CAPACITY}"

    rows: int
    nulls: int
    not_finite: int
    zeros: int
    moments: Moments
    sample: Sample
    hashes: Hashes | None = None

    @classmethod
    def of(cls, series: pl.Series) -> Self:
        """Of a numeric or Boolean series."""
        if series.len() <= ROWS_AT_ONCE:
            return cls._of_part(series, CAPACITY)
        starts = range(0, series.len(), ROWS_AT_ONCE)
        return cls.merged(
            [cls._of_part(series.slice(start, ROWS_AT_ONCE), CAPACITY * _FINER) for start in starts]
        )

    @classmethod
    def _of_part(cls, series: pl.Series, kept: int) -> Self:
        numbers = series.drop_nulls().cast(pl.Float64).to_numpy()
        finite = np.isfinite(numbers)
        # Either way a new array, which may be changed in its place.
        ordered = numbers + 0.0 if finite.all() else numbers[finite] + 0.0  # and zero has no sign
        ordered.sort()
        exact = int(np.count_nonzero(ordered[1:] != ordered[:-1])) < CAPACITY
        return cls(
            rows=series.len(),
            nulls=series.null_count(),
            not_finite=numbers.size - ordered.size,
            zeros=int(np.diff(np.searchsorted(ordered, [0.0, np.nextafter(0.0, 1.0)]))[0]),
            moments=Moments.of_sorted(ordered),
            sample=Sample.of_sorted(ordered) if exact else Sample.compressed_of_sorted(ordered, kept),
            hashes=None if exact else number_hashes(ordered),
        )

    @classmethod
    def of_nulls(cls, rows: int) -> Self:
        return cls(rows, rows, 0, 0, Moments.merged([]), Sample.of([]))

    @classmethod
    def merged(cls, sketches: Sequence[Self]) -> Self:
        sample = Sample.merged([sketch.sample for sketch in sketches])
        exact = sample.values.size <= CAPACITY and all(sketch.hashes is None for sketch in sketches)
        return cls(
            rows=sum(sketch.rows for sketch in sketches),
            nulls=sum(sketch.nulls for sketch in sketches),
            not_finite=sum(sketch.not_finite for sketch in sketches),
            zeros=sum(sketch.zeros for sketch in sketches),
            moments=Moments.merged([sketch.moments for sketch in sketches]),
            sample=sample.compressed(CAPACITY),
            hashes=None if exact else union([sketch._hashed() for sketch in sketches]),
        )

    def _hashed(self) -> Hashes:
        return number_hashes(self.sample.values) if self.hashes is None else self.hashes

    @property
    def distinct(self) -> int:
        """Different finite values, and one more where some are not finite; an estimate beyond the capacity."""
        finite = self.sample.values.size if self.hashes is None else estimated(self.hashes)
        return finite + (self.not_finite > 0)

    def to_bytes(self) -> bytes:
        moments = self.moments
        fields: dict[str, Any] = {
            "rows": self.rows,
            "nulls": self.nulls,
            "not_finite": self.not_finite,
            "zeros": self.zeros,
            "rank_error": self.sample.rank_error,
            "moments": [moments.count, moments.mean, moments.m2, moments.minimum, moments.maximum],
        }
        arrays = {"values": self.sample.values, "weights": self.sample.weights, "hashes": self.hashes}
        return packed(self.FORMAT, fields, arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        content = unpacked(cls.FORMAT, data)
        fields, arrays = content.fields, content.arrays
        return cls(
            rows=fields["rows"],
            nulls=fields["nulls"],
            not_finite=fields["not_finite"],
            zeros=fields["zeros"],
            moments=Moments(*fields["moments"]),
            sample=Sample(arrays["values"], arrays["weights"], fields["rank_error"]),
            hashes=arrays.get("hashes"),
        )
