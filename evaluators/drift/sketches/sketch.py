"""What every sketch of a column can do, and what each kind of column is summed up and compared by.

A sketch stands for the rows of a column in one window (and slice). It can be stored as bytes, and the sketches of the
parts of a window give that of the whole without a look at the records.

Invariant: merging is commutative, and associative up to the error that a sketch states of itself; while nothing had to
be left out, a merged sketch equals the sketch of all rows together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import polars as pl

from evaluators.drift.sources import Kind


class Sketch(Protocol):
    """The rows of one column, summed up.

    ``FORMAT`` names what the bytes mean and how much a sketch holds (``numeric-1-4096``); sketches of another format
    are made anew from the records.
    """

    FORMAT: ClassVar[str]

    @property
    def rows(self) -> int:
        """Rows, with those that have no value."""
        ...

    @property
    def nulls(self) -> int:
        """Rows that have no value."""
        ...

    @classmethod
    def of(cls, series: pl.Series) -> Self:
        """The sketch of all rows of ``series``, which may be empty or null throughout."""
        ...

    @classmethod
    def of_nulls(cls, rows: int) -> Self:
        """The sketch of ``rows`` rows without a value: of a column that some part of a window does not have."""
        ...

    @classmethod
    def merged(cls, sketches: Sequence[Self]) -> Self:
        """The sketch of all rows of ``sketches`` (at least one) together."""
        ...

    def to_bytes(self) -> bytes: ...

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises :class:`~servelens.errors.Invalid` when ``data`` are not of this format."""
        ...


Statistics = Mapping[str, Any]
"""Values by column of the profile or the drift table; what the data do not determine is absent or ``None``."""


@dataclass(frozen=True, slots=True)
class SketchKind:
    """How columns of one kind are summed up and compared; ``Any`` stands for the sketch class that ``sketch`` is.

    ``profile`` gives columns of ``PROFILE_SCHEMA`` beside the counts of rows and nulls, which all kinds have. ``drift``
    is called as ``drift(current, reference, min_rows)`` and gives columns of ``DRIFT_SCHEMA``, none of them with fewer
    than ``min_rows`` values on either side.
    """

    sketch: type[Any]
    profile: Callable[[Any], Statistics]
    drift: Callable[[Any, Any, int], Statistics]


SketchKinds = Mapping[Kind, SketchKind]
"""All kinds that a runner knows; see ``STANDARD_KINDS`` in :mod:`evaluators.drift.sketches.kinds`."""
