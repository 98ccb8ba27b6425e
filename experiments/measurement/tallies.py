"""What is counted by record: answers, reasons why there is no value, and histograms."""

from __future__ import annotations

import polars as pl

from experiments.measurement.exposures import EXCLUDED, EXCLUSIONS
from experiments.measurement.histogram import bin_numbers
from experiments.measurement.outcomes import Engine, unscored_column
from experiments.measurement.totals import Sums, Totals, sums_of
from experiments.measurement.values import (
    REASONS,
    UNSCORED,
    Reading,
    on_scale,
    reason_on_scale,
    value_column,
)


def tally(records: pl.DataFrame, reading: Reading, engine: Engine = "in-memory") -> Totals:
    """The counts of records that belong to a variant."""
    frame = records.lazy()
    queries = [
        frame.group_by("phase", "variant").agg(
            pl.len(), pl.col("propensity").sum().alias("p"), pl.col("propensity").count().alias("logged")
        )
    ]
    for metric in reading.metrics:
        text = pl.col(unscored_column(metric.value)) if metric.evaluator else pl.lit(None, dtype=pl.String)
        queries.append(
            frame.filter(on_scale(metric, None).is_null())
            .group_by("variant", reason_on_scale(metric).alias("reason"), text.alias("text"))
            .len()
        )
    quantiles = [number for number, metric in enumerate(reading.metrics) if metric.quantile is not None]
    for number in quantiles:
        value = pl.col(value_column(reading.metrics[number].value))
        queries.append(
            frame.filter(value.is_not_null())
            .group_by("phase", "variant", bin_numbers(value).alias("bin"))
            .len()
        )
    answers, *rest = pl.collect_all(queries, engine=engine)
    reasons: Sums = {}
    for number, counts in enumerate(rest[: len(reading.metrics)]):
        for variant, reason, text, count in counts.rows():
            key = (number, variant, words_of(reason, text))
            reasons[key] = (reasons.get(key, (0.0,))[0] + count,)
    bins: Sums = {}
    for number, counts in zip(quantiles, rest[len(reading.metrics) :], strict=True):
        bins |= sums_of(counts, 3, number)
    return Totals(records=sums_of(answers, 2), reasons=reasons, bins=bins)


def words_of(reason: int, text: str | None) -> str:
    """A reason in words, with the evaluator's own ``text`` for what it could not score."""
    return f"unscored: {text or 'no reason given'}" if reason == UNSCORED else REASONS[reason]


def exclusions(records: pl.DataFrame) -> Totals:
    """The counts of records that belong to no variant."""
    left_out = records[EXCLUDED].drop_nulls()
    if left_out.is_empty():
        return Totals()
    counts = left_out.value_counts().rows()
    return Totals(excluded={(EXCLUSIONS[reason],): (float(count),) for reason, count in counts})
