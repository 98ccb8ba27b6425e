"""Sums of a unit's records, and from them the moments.

One row is a unit in a phase and variant: ``unit``, ``phase``, ``variant``, ``day`` (of its first record there), and for
the metric at place i ``n<i>`` (its measured records) and ``s<i>`` (the sum of their values). Rows are in the order of
the units.

Invariant: a unit that met two variants within one phase counts nowhere, and a unit counts in one period: the UTC day of
its first record in any phase. So moments of periods are over disjoint sets of units and add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from experiments.measurement.covariates import covariate_sums
from experiments.measurement.outcomes import Engine
from experiments.measurement.totals import Sums, Totals, sums_of
from experiments.measurement.values import Reading, on_scale

_DAY = "cohort"


@dataclass(frozen=True, slots=True)
class Units:
    """Rows of units: those that count (with ``cohort``), those of them whose unit has several, and the units that met
    two variants.
    """

    counted: pl.DataFrame
    returning: pl.DataFrame
    torn: pl.Series


def unit_rows(
    records: pl.DataFrame, reading: Reading, pilots: Mapping[str, float], engine: Engine = "in-memory"
) -> pl.DataFrame:
    """The rows that ``records`` make."""
    places = range(len(reading.metrics))
    # One key of 64 bits is grouped three times as fast as three columns; a small number does not change how seldom
    # two units share one.
    cell = pl.col("phase").cast(pl.UInt64) * 256 + pl.col("variant")
    values = [
        on_scale(metric, pilots.get(metric.name)).alias(f"s{i}") for i, metric in enumerate(reading.metrics)
    ]
    grouped = (
        records.lazy()
        .select((pl.col("unit") ^ cell).alias("key"), cell.alias("cell"), "day", *values)
        .group_by("key")
        .agg(
            pl.col("cell").max(),
            pl.col("day").min(),
            *(pl.col(f"s{i}").count().cast(pl.UInt32).alias(f"n{i}") for i in places),
            *(pl.col(f"s{i}").sum() for i in places),
        )
        .select(
            (pl.col("key") ^ pl.col("cell")).alias("unit"),
            (pl.col("cell") // 256).cast(pl.Int32).alias("phase"),
            (pl.col("cell") % 256).cast(pl.UInt8).alias("variant"),
            "day",
            *(f"{kind}{i}" for i in places for kind in "ns"),
        )
    )
    return grouped.sort("unit").collect(engine=engine)


def merged(known: pl.DataFrame, added: pl.DataFrame, taken: pl.DataFrame, reading: Reading) -> pl.DataFrame:
    """The rows of ``known`` with the records of ``added`` and without those of ``taken``."""
    places = range(len(reading.metrics))
    counts = [pl.col(f"n{i}").cast(pl.Int64) for i in places]
    gone = taken.with_columns(*(-count for count in counts), *(-pl.col(f"s{i}") for i in places))
    return (
        pl.concat([known.with_columns(counts), added.with_columns(counts), gone])
        .group_by("unit", "phase", "variant")
        .agg(pl.col("day").min(), *(pl.col(f"{kind}{i}").sum() for i in places for kind in "ns"))
        .with_columns(pl.col(f"n{i}").cast(pl.UInt32) for i in places)
        .select(known.columns)
        .sort("unit")
    )


def settled(rows: pl.DataFrame) -> Units:
    """What of ``rows`` counts, and in which period."""
    unit = pl.col("unit")
    several = rows.select(
        ((unit == unit.shift(1)) | (unit == unit.shift(-1))).fill_null(value=False).alias("several")
    ).to_series()
    if not several.any():
        return Units(rows.with_columns(pl.col("day").alias(_DAY)), rows.clear(), rows["unit"].clear())
    returning = rows.filter(several).with_columns(
        (pl.col("variant").n_unique().over("unit", "phase") > 1).any().over("unit").alias("torn"),
        pl.col("day").min().over("unit").alias(_DAY),
    )
    torn = returning.filter("torn")["unit"].unique()
    returning = returning.filter(~pl.col("torn")).drop("torn")
    single = rows.filter(~several).with_columns(pl.col("day").alias(_DAY))
    return Units(pl.concat([single, returning]), returning, torn)


def totals_of_units(
    units: Units, reading: Reading, history: pl.DataFrame | None = None, engine: Engine = "in-memory"
) -> Totals:
    """Moments, cross moments and exposures of units, and with their ``history`` what that says of them."""
    frame = units.counted.lazy()
    sums = [
        expression.alias(f"{number}:{place}")
        for number in range(len(reading.metrics))
        for place, expression in enumerate(_squares(f"n{number}", f"s{number}"))
    ]
    moments = frame.group_by(_DAY, "phase", "variant").agg(*sums).collect(engine=engine)
    again = units.returning.filter(pl.col("phase") > pl.col("phase").min().over("unit"))
    exposures = Totals(exposures=_counts(units.counted))
    exposures.add(Totals(exposures=_counts(again)), -1)
    return Totals(
        exposures=exposures.exposures,
        moments=_moments(moments, len(reading.metrics)),
        cross=_cross(units.returning, len(reading.metrics)),
        covariates={} if history is None else covariate_sums(units.counted, history, reading, engine),
    )


def totals_of_requests(
    records: pl.DataFrame, reading: Reading, pilots: Mapping[str, float], engine: Engine = "in-memory"
) -> Totals:
    """The same, where each record is a unit."""
    values = [
        on_scale(metric, pilots.get(metric.name)).alias(f"s{i}") for i, metric in enumerate(reading.metrics)
    ]
    sums = [
        expression.alias(f"{number}:{place}")
        for number in range(len(reading.metrics))
        for value in [pl.col(f"s{number}")]
        for place, expression in enumerate(
            (value.count(), value.count(), value.sum(), value.count(), value.sum(), (value * value).sum())
        )
    ]
    moments, exposures = pl.collect_all(
        [
            records.lazy()
            .select(pl.col("day").alias(_DAY), "phase", "variant", *values)
            .group_by(_DAY, "phase", "variant")
            .agg(*sums),
            records.lazy().group_by("phase", "variant").len(),
        ],
        engine=engine,
    )
    return Totals(exposures=sums_of(exposures, 2), moments=_moments(moments, len(reading.metrics)))


def _squares(n: str, s: str) -> Iterable[pl.Expr]:
    records, total = pl.col(n).cast(pl.Float64), pl.col(s)
    return (
        (records > 0).sum(),
        records.sum(),
        total.sum(),
        (records * records).sum(),
        (records * total).sum(),
        (total * total).sum(),
    )


def _moments(frame: pl.DataFrame, metrics: int) -> Sums:
    found: Sums = {}
    frame = frame.with_columns(pl.col(_DAY).cast(pl.Int32))
    for number in range(metrics):
        found |= sums_of(
            frame.select(_DAY, "phase", "variant", *(f"{number}:{place}" for place in range(6))), 3, number
        )
    return found


def _counts(rows: pl.DataFrame) -> Sums:
    return sums_of(rows.group_by("phase", "variant").len(), 2)


def _cross(returning: pl.DataFrame, metrics: int) -> Sums:
    """Between every two phases: a unit that comes back in a later phase is not a new draw."""
    if returning.is_empty():
        return {}
    pairs = returning.join(returning, on="unit", suffix="'").filter(pl.col("phase") < pl.col("phase'"))
    found: Sums = {}
    for i in range(metrics):
        n, n2 = pl.col(f"n{i}").cast(pl.Float64), pl.col(f"n{i}'").cast(pl.Float64)
        s, s2 = pl.col(f"s{i}"), pl.col(f"s{i}'")
        sums = pairs.group_by("phase", "variant", "phase'", "variant'").agg(
            pl.len(),
            (n * n2).sum().alias("nn"),
            (n * s2).sum().alias("ns"),
            (s * n2).sum().alias("sn"),
            (s * s2).sum().alias("ss"),
        )
        found |= sums_of(sums, 4, i)
    return found
