"""Who was exposed to what: an experiment's own records, each with its unit, phase and variant.

Invariant: a record is left out only for what cannot depend on the variant, and everything left out is
counted by reason:

* ``reached_no_entity``: no variant answered, because the request itself was at fault (malformed, too large,
  unknown endpoint);
* ``no_unit``, ``unknown_variant``: nobody can say whom it belongs to;
* ``unit_in_two_variants``: the unit met two variants within one phase, so that its behaviour belongs to
  neither (:mod:`experiments.measurement.units`).

Shadow answers are no exposures: nobody saw them.

Ten million texts are slow, so a record's id and its unit are kept as 64-bit hashes, and a variant as its place in the
experiment. Two of ten million units share a hash with a probability of 3 in a million.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from experiments.measurement.values import Reading, payload_value

EXCLUDED: Final = "excluded"
IN_TWO_VARIANTS: Final = "unit_in_two_variants"

REACHED_NO_ENTITY, UNKNOWN_VARIANT, NO_UNIT = range(3)
EXCLUSIONS: Final = ("reached_no_entity", "unknown_variant", "no_unit")

ID: Final = "databricks_request_id"
_CLIENT_FAULTS: Final = ("invalid_request", "unknown_endpoint", "body_too_large")


def exposures(payload: pl.LazyFrame, reading: Reading, *, keys: bool | None = None) -> pl.LazyFrame:
    """The experiment's records: ``excluded`` (a reason's number, or null), ``id`` and ``time`` (where something is
    joined, or with ``keys``), ``unit`` (a hash; where units have several records), ``variant``, ``phase``, ``day``,
    ``propensity``, and value and reason of each value that the inference table has.
    """
    own = (pl.col("experiment") == reading.experiment.name) & ~pl.col("is_shadow").fill_null(value=False)
    return payload.filter(own).select(
        _excluded(reading).alias(EXCLUDED),
        *_keys(reading, joined=reading.joins if keys is None else keys),
        *_exposed(reading),
        *payload_columns(reading),
    )


def payload_columns(reading: Reading) -> list[pl.Expr]:
    """Value and reason of each value that the inference table has."""
    return [column for value in reading.payload_values for column in payload_value(value, reading.experiment)]


def answerable() -> pl.Expr:
    """Whether an entity was reached, so that what came of it is not the request's own fault."""
    at_fault = pl.col("error_type").is_in(_CLIENT_FAULTS).fill_null(value=False)
    return pl.col("served_entity").is_not_null() & ~at_fault


def hashed(column: str) -> pl.Expr:
    """A text as 64 bits: the same in every process that has the same polars."""
    return pl.col(column).hash()


def _keys(reading: Reading, *, joined: bool) -> list[pl.Expr]:
    keys = [hashed(ID).alias("id"), pl.col("request_time").alias("time")] if joined else []
    return [*keys, hashed("unit").alias("unit")] if reading.clustered else keys


def _exposed(reading: Reading) -> list[pl.Expr]:
    return [
        _place(reading).alias("variant"),
        pl.col("phase").fill_null(0),
        pl.col("request_time").dt.date().alias("day"),
        pl.col("propensity"),
    ]


def _place(reading: Reading) -> pl.Expr:
    place = pl.lit(None, dtype=pl.UInt8)
    for number, name in enumerate(reading.names):
        place = pl.when(pl.col("variant") == name).then(pl.lit(number, dtype=pl.UInt8)).otherwise(place)
    return place


def _excluded(reading: Reading) -> pl.Expr:
    unknown = pl.col("variant").is_null() | ~pl.col("variant").is_in(reading.names)
    reason = pl.when(~answerable()).then(_code(REACHED_NO_ENTITY)).when(unknown).then(_code(UNKNOWN_VARIANT))
    if reading.clustered:
        # Where the unit is the request, each record is its own unit, whatever its unit is called.
        reason = reason.when(pl.col("unit").is_null() | (pl.col("unit") == "")).then(_code(NO_UNIT))
    return reason.otherwise(pl.lit(None, dtype=pl.UInt8))


def _code(reason: int) -> pl.Expr:
    return pl.lit(reason, dtype=pl.UInt8)
