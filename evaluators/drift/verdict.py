"""Which columns drifted: significance corrected for how many columns were tested, with the effect size
beside it.

Holm's step-down procedure (Holm 1979, Scand. J. Statist. 6(2)) over all p-values of one window pair keeps
the chance of any false alarm in that pair at ``alpha`` or less, however the columns depend on each other.
The effect is the largest difference of the two distribution functions (Kolmogorov–Smirnov D) for numbers
and the total variation distance for categories: both are shares between 0 and 1, so they can be read side
by side.

Invariant: a column without a test (too few rows) is neither drifted nor not drifted: its verdict is null.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from collector.profile_tables import DRIFT_SCHEMA, WHOLE_TABLE
from evaluators.drift.distances import Values
from servelens.errors import Invalid

_PAIR: Final = ("window", "window_cmp", "granularity", "drift_type")
_WHERE: Final = ("slice_key", "slice_value", "column_name", "data_type")


def drifted(rows: pl.DataFrame, alpha: float = 0.05) -> pl.DataFrame:
    """One row per drift row about a column, in their order; ``rows`` are of the drift table.

    Beside the columns that say where: ``test`` (``ks`` | ``chi_squared``), ``statistic``, ``p_value``,
    ``p_adjusted``, ``effect`` (0 to 1), ``effect_name`` (``ks_distance`` | ``tv_distance``) and ``drifted``
    (null: insufficient data). The correction is over the rows given per window pair: pass only the slices
    that are looked at together.
    """
    if not 0 < alpha < 1:
        raise Invalid(f"{alpha} is not between 0 and 1", field="alpha")
    if rows.is_empty():
        rows = pl.DataFrame(DRIFT_SCHEMA.empty_table())
    ks, chi_squared = pl.col("ks_test").struct, pl.col("chi_squared_test").struct
    is_ks = ks.field("pvalue").is_not_null()
    is_chi_squared = chi_squared.field("pvalue").is_not_null()
    tested = rows.filter(pl.col("column_name") != WHOLE_TABLE).select(
        *_PAIR,
        *_WHERE,
        pl.when(is_ks).then(pl.lit("ks")).when(is_chi_squared).then(pl.lit("chi_squared")).alias("test"),
        pl.coalesce(ks.field("statistic"), chi_squared.field("statistic")).alias("statistic"),
        pl.coalesce(ks.field("pvalue"), chi_squared.field("pvalue")).alias("p_value"),
        pl.coalesce(ks.field("statistic"), "tv_distance").alias("effect"),
        pl.when(is_ks)
        .then(pl.lit("ks_distance"))
        .when(pl.col("tv_distance").is_not_null())
        .then(pl.lit("tv_distance"))
        .alias("effect_name"),
    )
    adjusted = tested.with_columns(
        pl.col("p_value")
        .map_batches(_holm_or_null, return_dtype=pl.Float64)
        .over(*(pl.col(name) for name in _PAIR))
        .alias("p_adjusted")
    )
    return adjusted.with_columns((pl.col("p_adjusted") <= alpha).alias("drifted"))


def holm(p_values: Values) -> Values:
    """Holm's adjusted p-values of a one-dimensional array, in its order."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(p_values.size, 0, -1)
    stepped = np.maximum.accumulate(p_values[order] * factors)
    adjusted = np.empty_like(stepped)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _holm_or_null(p_values: pl.Series) -> pl.Series:
    known = p_values.is_not_null().to_numpy()
    adjusted = np.full(p_values.len(), np.nan)
    adjusted[known] = holm(p_values.drop_nulls().to_numpy())
    return pl.Series(p_values.name, adjusted, dtype=pl.Float64).fill_nan(None)
