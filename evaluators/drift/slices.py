"""Parts of the traffic that are profiled and compared by themselves: per variant, served entity, tag.

Invariant: a slice that is there is whole. A window has a bounded number of slices per key, those with the most
records; a slice that some part of a window had to leave out is left out of the whole window, and how many records were
left out is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import polars as pl

from servelens.errors import Invalid

VARIANT: Final = "variant"
SLICE_COLUMN: Final = "slice:"
"""Before the key, the name of a slice's column in a frame."""
_TAG: Final = re.compile(r"tags\.(.+)")
_COLUMNS: Final = (
    "variant",
    "served_entity",
    "entity_version",
    "model",
    "api",
    "experiment",
    "finish_reason",
    "error_type",
    "status_code",
    "is_stream",
    "phase",
)


@dataclass(frozen=True, slots=True, order=True)
class Slice:
    """A part of the traffic; both ``None`` is all of it."""

    key: str | None = None
    value: str | None = None


WHOLE: Final = Slice()


@dataclass(frozen=True, slots=True)
class Slicing:
    """What records are divided by (columns of the inference table with few values, or ``tags.NAME``), and into how many
    slices per key at the most. Raises :class:`~servelens.errors.Invalid` for a key that nothing can be divided by.
    """

    keys: tuple[str, ...] = (VARIANT,)
    limit: int = 20

    def __post_init__(self) -> None:
        for key in self.keys:
            if key not in _COLUMNS and not _TAG.fullmatch(key):
                raise Invalid(
                    f"records cannot be divided by {key!r}",
                    field="slices",
                    fix=f"Name tags.NAME or one of {', '.join(_COLUMNS)}.",
                )
        if len(set(self.keys)) < len(self.keys):
            raise Invalid("a key is named twice", field="slices", fix="Name each once.")
        if self.limit < 1:
            raise Invalid(f"{self.limit} slices are none", field="max_slices", fix="Write 1 or more.")

    def expressions(self) -> list[pl.Expr]:
        """From the inference table, the column ``slice:KEY`` of each key, as text."""
        return [_expression(key).alias(SLICE_COLUMN + key) for key in self.keys]

    def divided(self, frame: pl.DataFrame, key: str) -> tuple[dict[Slice, pl.DataFrame], int]:
        """The slices of ``frame`` by ``key``, and how many records are in slices that were left out."""
        column = SLICE_COLUMN + key
        filled = frame.filter(pl.col(column).is_not_null())
        counts = (
            filled.group_by(pl.col(column).alias("value"))
            .agg(pl.len().alias("count"))
            .sort(["count", "value"], descending=[True, False])
        )
        kept, left_out = counts.head(self.limit), int(counts["count"].slice(self.limit).sum())
        # One slice after the other: dividing all at once would hold the records twice.
        return {
            Slice(key, value): filled.filter(pl.col(column) == value) for value in kept["value"]
        }, left_out


BY_VARIANT: Final = Slicing()
UNSLICED: Final = Slicing(keys=())


def _expression(key: str) -> pl.Expr:
    tag = _TAG.fullmatch(key)
    if tag is not None:
        return pl.col("tags").map.get(tag[1])
    return pl.col(key).cast(pl.String)
