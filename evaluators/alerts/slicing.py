"""From rows to samples: which slice a row belongs to, and what is made of the values of each.

A slice is a variant; records outside experiments belong to their served entity, as on the dashboard. Shadow traffic is
nobody's answer and never part of a slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from evaluators.alerts.rule import WHOLE
from evaluators.alerts.samples import Count, Mean, Quantile, Sample, Share, Total
from servelens.errors import Unavailable

SLICE: Final = "slice"
VALUE: Final = "value"
ID: Final = "databricks_request_id"
NO_ENTITY: Final = "no entity"
MOST_SLICES: Final = 100
"""How many slices one look keeps, those with the most rows: a runaway of names must not become a runaway of alerts."""


@dataclass(frozen=True, slots=True)
class Slicing:
    """All of the traffic, each variant by itself (``each``), or only ``variant``."""

    each: bool = False
    variant: str | None = None

    def of(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """``frame`` (with ``variant`` and ``served_entity``) with the column :data:`SLICE`, without other slices' rows."""
        if not self.each and self.variant is None:
            return frame.with_columns(pl.lit(WHOLE).alias(SLICE))
        named = frame.with_columns(
            pl.coalesce("variant", "served_entity", pl.lit(NO_ENTITY)).cast(pl.String).alias(SLICE)
        )
        return named if self.variant is None else named.filter(pl.col(SLICE) == self.variant)

    @property
    def always(self) -> str | None:
        """The one slice that there is also without a row; ``None`` when slices are found in the rows."""
        return None if self.each else self.variant or WHOLE


@dataclass(frozen=True, slots=True)
class Statistic:
    """What a sample is of: ``quantile`` only with ``kind`` quantile."""

    kind: Literal["share", "mean", "quantile", "count", "total"]
    quantile: float = 0.5


def summarised(frame: pl.LazyFrame, statistic: Statistic) -> dict[str, Sample]:
    """A sample for each slice of ``frame`` (columns :data:`SLICE` and :data:`VALUE`). A value that is null or not finite
    is none; a slice without values has no sample.
    """
    value = pl.col(VALUE).cast(pl.Float64)
    if statistic.kind != "count":
        frame = frame.filter(value.is_finite())
    made: Mapping[str, Sequence[pl.Expr]] = {
        "share": [value.sum().cast(pl.Int64).alias("hits")],
        "mean": [value.mean().alias("mean"), value.var().fill_null(0.0).alias("variance")],
        "quantile": [value.sort().alias("values")],
        "count": [],
        "total": [value.sum().alias("total"), (value * value).sum().alias("squares")],
    }
    rows = collected(frame.group_by(SLICE).agg(pl.len().alias("n"), *made[statistic.kind]))
    kept = rows.sort(["n", SLICE], descending=[True, False]).head(MOST_SLICES)
    return {row[SLICE]: _sample(row, statistic) for row in kept.iter_rows(named=True)}


def _sample(row: Mapping[str, Any], statistic: Statistic) -> Sample:
    match statistic.kind:
        case "share":
            return Share(row["hits"], row["n"])
        case "mean":
            return Mean(row["n"], row["mean"], row["variance"])
        case "count":
            return Count(row["n"])
        case "total":
            return Total(row["n"], row["total"], row["squares"])
        case "quantile":
            return Quantile(statistic.quantile, np.asarray(row["values"], dtype=np.float64))


def collected(frame: pl.LazyFrame) -> pl.DataFrame:
    """The rows. Raises :class:`~servelens.errors.Unavailable` when the storage fails."""
    try:
        return frame.collect()
    except (PolarsError, OSError) as error:
        raise Unavailable(f"a table cannot be read: {error}") from error
