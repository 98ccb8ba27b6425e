"""Who was exposed to what: an experiment's own records, each with its unit, phase and variant.

Invariant: a record is left out only for what cannot depend on the variant, and everything left out is
counted by reason:

* ``reached_no_entity``: no variant answered, because the request itself was at fault (malformed, too large,
  unknown endpoint);
* ``no_unit``, ``unknown_variant``: nobody can say whom it belongs to;
* ``unit_in_two_variants``: the unit met two variants within one phase, so that its behaviour belongs to
  neither.

Shadow answers are no exposures: nobody saw them.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from experiments.experiment import Experiment

EXCLUDED: Final = "excluded"
IN_TWO_VARIANTS: Final = "unit_in_two_variants"

_CLIENT_FAULTS: Final = ("invalid_request", "unknown_endpoint", "body_too_large")
_COLUMNS: Final = (
    "databricks_request_id",
    "status_code",
    "execution_duration_ms",
    "served_entity",
    "variant",
    "unit",
    "phase",
    "propensity",
    "request_time",
    "is_stream",
    "time_to_first_token_ms",
    "output_tokens",
    "error_type",
    "client_disconnected",
)


def experiment_records(payload: pl.LazyFrame, experiment: Experiment) -> pl.LazyFrame:
    """The experiment's records with ``excluded`` (a reason, or null); ``unit``, ``phase`` are never null
    where it is.

    When the unit is the request, the record's own id stands in for a missing unit.
    """
    own = (pl.col("experiment") == experiment.name) & ~pl.col("is_shadow").fill_null(value=False)
    unit = pl.col("unit")
    if experiment.unit == "request":
        unit = pl.coalesce(unit, pl.col("databricks_request_id"))
    names = [variant.name for variant in experiment.variants]
    reason = (
        pl.when(pl.col("served_entity").is_null() | pl.col("error_type").is_in(_CLIENT_FAULTS))
        .then(pl.lit("reached_no_entity"))
        .when(pl.col("variant").is_null() | ~pl.col("variant").is_in(names))
        .then(pl.lit("unknown_variant"))
        .when(unit.is_null() | (unit == ""))
        .then(pl.lit("no_unit"))
        .otherwise(pl.lit(None, dtype=pl.String))
    )
    return (
        payload.filter(own)
        .select(_COLUMNS)
        .with_columns(unit.alias("unit"), pl.col("phase").fill_null(0))
        .with_columns(reason.alias(EXCLUDED))
    )


def excluded_counts(records: pl.LazyFrame) -> pl.LazyFrame:
    """Columns ``excluded``, ``records``: how many were left out, by reason."""
    return records.filter(pl.col(EXCLUDED).is_not_null()).group_by(EXCLUDED).agg(pl.len().alias("records"))


def in_two_variants(cells: pl.DataFrame) -> pl.Series:
    """Whether each row of ``cells`` (one per unit, phase and variant) belongs to a unit that met two in one
    phase.
    """
    return cells.select(
        (pl.col("variant").n_unique().over("unit", "phase") > 1).any().over("unit").alias(IN_TWO_VARIANTS)
    ).to_series()


def first_exposures(cells: pl.DataFrame) -> dict[int, dict[str, int]]:
    """Units by phase and variant, each counted in its first phase only.

    A unit that returns in a later phase is the same draw of the hash again, so it would count twice in a
    test of the split.
    """
    first = cells.filter(pl.col("phase") == pl.col("phase").min().over("unit"))
    counts: dict[int, dict[str, int]] = {}
    for phase, variant, units in (
        first.group_by("phase", "variant").agg(pl.len()).sort("phase", "variant").rows()
    ):
        counts.setdefault(phase, {})[variant] = units
    return counts
