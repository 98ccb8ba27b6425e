"""Which columns drifted: significance corrected for how many columns and windows were looked at, with the effect
size beside it.

Within one window pair Holm's step-down procedure (Holm 1979, Scand. J. Statist. 6(2)) over all p-values keeps the
chance of any false alarm in that pair at ``alpha`` or less, however the columns depend on each other. Over the pairs
that are looked at together, those are selected by Benjamini & Hochberg (1995, J. R. Statist. Soc. B 57(1)) whose
smallest adjusted p-value is small among all, and in R selected of W pairs Holm's procedure is held to alpha·R/W
(Benjamini & Bogomolov 2014, J. R. Statist. Soc. B 76(1)). So where nothing drifted, the chance of an alarm in any of
the windows looked at is ``alpha`` or less, and of the windows that are flagged a share of ``alpha`` at most is expected
to be flagged wrongly. A window that is looked at alone is held to Holm's procedure only.

The effect is the largest difference of the two distribution functions (Kolmogorov–Smirnov D) for numbers, the total
variation distance for categories, and for vectors 2·AUC − 1 of the classifier that tells the windows apart: all are
shares between 0 and 1, so they can be read side by side. ``min_effect`` keeps windows of millions, where everything is
significant, from alarms about nothing.

Invariant: a column without a test (too few rows) is neither drifted nor not drifted: its verdict is null.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from collector.profile_tables import DRIFT_SCHEMA, WHOLE_TABLE
from evaluators.drift.sketches.sample import Values
from servelens.errors import Invalid

_PAIR: Final = ("window", "window_cmp", "granularity", "drift_type", "reference")
_WHERE: Final = ("slice_key", "slice_value", "column_name", "data_type")
_TESTS: Final = (
    ("ks", "ks_test", "ks_distance"),
    ("chi_squared", "chi_squared_test", "tv_distance"),
    ("embedding", "embedding_test", "separability"),
)


def drifted(rows: pl.DataFrame, alpha: float = 0.05, *, min_effect: float = 0.0) -> pl.DataFrame:
    """One row per drift row about a column, in their order; ``rows`` are of the drift table.

    Beside the columns that say where: ``test`` (``ks`` | ``chi_squared`` | ``embedding``), ``statistic``, ``p_value``,
    ``p_adjusted``, ``effect`` (0 to 1), ``effect_name`` (``ks_distance`` | ``tv_distance`` | ``separability``) and
    ``drifted`` (null: insufficient data). ``p_adjusted`` is at most ``alpha`` where the difference is significant; it
    depends on ``alpha`` when several window pairs are given. The correction is over all rows given: pass only the
    windows and slices that are looked at together.
    """
    if not 0 < alpha < 1:
        raise Invalid(f"{alpha} is not between 0 and 1", field="alpha")
    if not 0 <= min_effect <= 1:
        raise Invalid(f"{min_effect} is not between 0 and 1", field="min_effect")
    if rows.is_empty():
        rows = pl.DataFrame(DRIFT_SCHEMA.empty_table())
    effects = {
        "ks_distance": pl.col("ks_test").struct.field("statistic"),
        "tv_distance": pl.col("tv_distance"),
        "separability": (2 * pl.col("domain_classifier_auc") - 1).clip(lower_bound=0),
    }
    tested = rows.filter(pl.col("column_name") != WHOLE_TABLE).select(
        *_PAIR,
        *_WHERE,
        pl.coalesce(
            pl.when(_field(column, "pvalue").is_not_null()).then(pl.lit(test)) for test, column, _ in _TESTS
        ).alias("test"),
        pl.coalesce(_field(column, "statistic") for _, column, _ in _TESTS).alias("statistic"),
        pl.coalesce(_field(column, "pvalue") for _, column, _ in _TESTS).alias("p_value"),
        pl.coalesce(*effects.values()).alias("effect"),
        pl.coalesce(
            pl.when(effect.is_not_null()).then(pl.lit(name)) for name, effect in effects.items()
        ).alias("effect_name"),
    )
    within = tested.with_columns(
        pl.col("p_value").map_batches(_holm_or_null, return_dtype=pl.Float64).over(*_PAIR).alias("_holm")
    )
    pairs = within.group_by(*_PAIR).agg(pl.col("_holm").min())["_holm"].drop_nulls().to_numpy()
    factor = pairs.size / max(selected(pairs, alpha), 1)
    adjusted = (pl.col("_holm") * factor).clip(upper_bound=1.0)
    # No p-value, no verdict, whatever the effect.
    verdict = (adjusted <= alpha) & (pl.col("effect").fill_null(0.0) >= min_effect)
    return within.with_columns(
        adjusted.alias("p_adjusted"), pl.when(adjusted.is_not_null()).then(verdict).alias("drifted")
    ).drop("_holm")


def holm(p_values: Values) -> Values:
    """Holm's adjusted p-values of a one-dimensional array, in its order."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(p_values.size, 0, -1)
    stepped = np.maximum.accumulate(p_values[order] * factors)
    adjusted = np.empty_like(stepped)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def selected(p_values: Values, alpha: float) -> int:
    """How many of ``p_values`` Benjamini and Hochberg's procedure rejects."""
    below = np.sort(p_values) <= alpha * np.arange(1, p_values.size + 1) / max(p_values.size, 1)
    return int(np.flatnonzero(below)[-1]) + 1 if below.any() else 0


def _field(column: str, name: str) -> pl.Expr:
    return pl.col(column).struct.field(name)


def _holm_or_null(p_values: pl.Series) -> pl.Series:
    known = p_values.is_not_null().to_numpy()
    adjusted = np.full(p_values.len(), np.nan)
    adjusted[known] = holm(p_values.drop_nulls().to_numpy())
    return pl.Series(p_values.name, adjusted, dtype=pl.Float64).fill_nan(None)
