"""What units did before the experiment: a covariate that takes variance out of a difference (CUPED; Deng, Xu, Kohavi &
Walker 2013, "Improving the sensitivity of online controlled experiments by utilizing pre-experiment data", WSDM).

A unit's covariate is the mean of the metric's values over its own records of the days before the experiment, whoever
answered them. Invariant: none of these records is the experiment's own, and they are read once and never again, so
nothing that the experiment does can reach it. A unit without such records has no covariate, rather than a zero.
Quantiles have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import polars as pl

from experiments.measurement.exposures import ID, answerable, hashed, payload_columns
from experiments.measurement.outcomes import Engine
from experiments.measurement.totals import Sums, sums_of
from experiments.measurement.values import Reading, on_scale


def history_begins(reading: Reading, started_at: datetime | None) -> datetime | None:
    """From when on earlier records count, in an experiment that began then; ``None`` when none do."""
    experiment = reading.experiment
    if started_at is None or not reading.clustered or not experiment.cuped_days:
        return None
    return started_at - timedelta(days=experiment.cuped_days)


def earlier_records(payload: pl.LazyFrame, reading: Reading) -> pl.LazyFrame:
    """Records of other experiments and of none, with the unit's hash, and value and reason of each value."""
    known = pl.col("unit").is_not_null() & (pl.col("unit") != "")
    seen = ~pl.col("is_shadow").fill_null(value=False)
    other = (pl.col("experiment") != reading.experiment.name).fill_null(value=True)
    keys = [hashed(ID).alias("id"), pl.col("request_time").alias("time")] if reading.joins else []
    return payload.filter(known & seen & other & answerable()).select(
        *keys, hashed("unit").alias("unit"), *payload_columns(reading)
    )


def unit_means(records: pl.DataFrame, reading: Reading, engine: Engine = "in-memory") -> pl.DataFrame:
    """Each unit's covariates ``x<i>`` by the metric's place (null where it has none), in the order of the units."""
    means = [
        (
            pl.lit(None, dtype=pl.Float64) if metric.quantile is not None else on_scale(metric, None).mean()
        ).alias(f"x{i}")
        for i, metric in enumerate(reading.metrics)
    ]
    return records.lazy().group_by("unit").agg(*means).sort("unit").collect(engine=engine)


def covariate_sums(
    units: pl.DataFrame, history: pl.DataFrame, reading: Reading, engine: Engine = "in-memory"
) -> Sums:
    """The fields of :class:`CovariateMoments` in their order, after the number of units, by metric, phase and variant.

    ``units`` are rows as :mod:`experiments.measurement.units` has them.
    """
    places = [i for i, metric in enumerate(reading.metrics) if metric.quantile is None]
    sums = [
        expression.alias(f"{i}:{place}")
        for i in places
        for place, expression in enumerate(_products(f"n{i}", f"s{i}", f"x{i}"))
    ]
    found = (
        units.lazy()
        .join(history.lazy(), on="unit", how="left")
        .group_by("phase", "variant")
        .agg(*sums)
        .collect(engine=engine)
    )
    width = len(list(_products("", "", "")))
    result: Sums = {}
    for i in places:
        columns = [f"{i}:{place}" for place in range(width)]
        result |= sums_of(found.select("phase", "variant", *columns), 2, i)
    return result


def _products(records: str, total: str, covariate: str) -> Iterator[pl.Expr]:
    n, s, x = pl.col(records).cast(pl.Float64), pl.col(total), pl.col(covariate)
    measured, known = n > 0, x.is_not_null()
    yield measured.sum()
    for of in (measured & known, measured & ~known):
        one = of.cast(pl.Float64)
        yield of.sum()
        for product in (n, s, n * n, n * s, s * s):
            yield (product * one).sum()
    some = pl.when(measured).then(x)
    for product in (some, some * some, n * some, s * some):
        yield product.sum()
