"""A column of categories, summed up: how often each occurs, for the :data:`CAPACITY` most frequent.

While there are no more categories than that, all counts are exact. Beyond, the least frequent are left out, and the
sketch says how often any of them can have occurred (``error``): at most n/CAPACITY for each level of merging, as with
the counters of Misra & Gries (1982), Sci. Comput. Program. 2, and Agarwal et al. (2012), PODS. Theirs subtract
from every counter when one is given up; here a category's count stays as it was counted, so what is frequent in every
part of a window is counted exactly, and two windows can be compared.

Invariant: the count of a category that is kept is its true count less ``error`` or less, never more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np
import polars as pl

from evaluators.drift.sketches.distinct import Hashes, estimated, text_hashes, union
from evaluators.drift.sketches.encoding import packed, unpacked

CAPACITY: Final = 2048
ROWS_AT_ONCE: Final = 1 << 20
_LONGEST: Final = 200
_KEPT_OF_LONG: Final = 180


@dataclass(frozen=True, slots=True)
class Lengths:
    """Of texts in characters."""

    shortest: int
    longest: int
    total: int

    @classmethod
    def merged(cls, parts: Sequence[Lengths | None]) -> Lengths | None:
        known = [part for part in parts if part is not None]
        if not known:
            return None
        return cls(
            min(part.shortest for part in known),
            max(part.longest for part in known),
            sum(part.total for part in known),
        )


@dataclass(frozen=True, slots=True)
class CategoricalSketch:
    """``counts``: most frequent first, then by name; ``lengths`` are ``None`` for what is no text, or null throughout;
    ``hashes`` are ``None`` while ``counts`` holds every category.

    A category longer than 200 characters goes by its beginning and a hash of the whole.
    """

    FORMAT: ClassVar[str] = f"categorical-1-{CAPACITY}"

    rows: int
    nulls: int
    counts: Mapping[str, int]
    error: int = 0
    lengths: Lengths | None = None
    hashes: Hashes | None = None

    @classmethod
    def of(cls, series: pl.Series) -> Self:
        """Of a series of texts, numbers or Booleans."""
        parts = [
            cls._of_part(series.slice(start, ROWS_AT_ONCE))
            for start in range(0, max(series.len(), 1), ROWS_AT_ONCE)
        ]
        return cls.merged(parts)

    @classmethod
    def _of_part(cls, series: pl.Series) -> Self:
        counted = series.drop_nulls().alias("item").value_counts(name="count")
        counted = counted.with_columns(pl.col("item").cast(pl.String), pl.col("count").cast(pl.Int64)).sort(
            ["count", "item"], descending=[True, False]
        )
        lengths = None
        if series.dtype in (pl.String, pl.Categorical, pl.Enum) and counted.height:
            characters = counted["item"].str.len_chars().cast(pl.Int64).to_numpy()
            total = int(np.dot(characters, counted["count"].to_numpy()))
            lengths = Lengths(int(characters.min()), int(characters.max()), total)
        kept = counted.head(CAPACITY)
        exact = counted.height <= CAPACITY
        return cls(
            rows=series.len(),
            nulls=series.null_count(),
            counts={_named(item): count for item, count in kept.iter_rows()},
            error=0 if exact else int(counted["count"][CAPACITY]),
            lengths=lengths,
            hashes=None if exact else text_hashes(_named(item) for item in counted["item"]),
        )

    @classmethod
    def of_nulls(cls, rows: int) -> Self:
        return cls(rows, rows, {})

    @classmethod
    def merged(cls, sketches: Sequence[Self]) -> Self:
        total: dict[str, int] = {}
        for sketch in sketches:
            for item, count in sketch.counts.items():
                total[item] = total.get(item, 0) + count
        ordered = sorted(total.items(), key=lambda entry: (-entry[1], entry[0]))
        error = sum(sketch.error for sketch in sketches)
        exact = len(ordered) <= CAPACITY and all(sketch.hashes is None for sketch in sketches)
        return cls(
            rows=sum(sketch.rows for sketch in sketches),
            nulls=sum(sketch.nulls for sketch in sketches),
            counts=dict(ordered[:CAPACITY]),
            error=error + (ordered[CAPACITY][1] if len(ordered) > CAPACITY else 0),
            lengths=Lengths.merged([sketch.lengths for sketch in sketches]),
            hashes=None if exact else union([sketch._hashed() for sketch in sketches]),
        )

    def _hashed(self) -> Hashes:
        return text_hashes(self.counts) if self.hashes is None else self.hashes

    @property
    def count(self) -> int:
        """Rows that have a category."""
        return self.rows - self.nulls

    @property
    def distinct(self) -> int:
        """Different categories; an estimate beyond the capacity."""
        return len(self.counts) if self.hashes is None else estimated(self.hashes)

    def to_bytes(self) -> bytes:
        lengths = self.lengths
        fields = {
            "rows": self.rows,
            "nulls": self.nulls,
            "error": self.error,
            "items": list(self.counts),
            "lengths": None if lengths is None else [lengths.shortest, lengths.longest, lengths.total],
        }
        counts = np.array(list(self.counts.values()), dtype=np.int64)
        return packed(self.FORMAT, fields, {"counts": counts, "hashes": self.hashes})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        content = unpacked(cls.FORMAT, data)
        fields, lengths = content.fields, content.fields["lengths"]
        return cls(
            rows=fields["rows"],
            nulls=fields["nulls"],
            counts=dict(zip(fields["items"], content.arrays["counts"].tolist(), strict=True)),
            error=fields["error"],
            lengths=None if lengths is None else Lengths(*lengths),
            hashes=content.arrays.get("hashes"),
        )


def _named(item: str) -> str:
    if len(item) <= _LONGEST:
        return item
    return f"{item[:_KEPT_OF_LONG]}…{int(text_hashes([item])[0]):016x}"
