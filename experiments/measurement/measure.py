"""Reads a metric's values from the inference and score tables and sums them per unit, phase and variant.

Invariant: a record without a value is excluded with a reason and counted, never taken as zero. The frame of
unit sums is the whole state of an analysis: sums of later records can be added to it, and every statistic
follows from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from experiments.experiment import Experiment
from experiments.measurement.exposures import (
    EXCLUDED,
    IN_TWO_VARIANTS,
    excluded_counts,
    experiment_records,
    first_exposures,
    in_two_variants,
)
from experiments.metrics import Metric, metric_for
from experiments.statistics.statistic import CrossMoments, Moments
from servelens.errors import Unavailable

Cell = tuple[int, str]

# Durations are whole milliseconds in the table, so 0 stands for anything below one half.
_SHORTEST_MS: Final = 0.5
_CELL: Final = ("unit", "phase", "variant")


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric: moments by (phase, variant), cross moments between phases, and what was excluded by
    variant.
    """

    metric: Metric
    cells: dict[Cell, Moments]
    cross: dict[tuple[Cell, Cell], CrossMoments]
    excluded: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Measurements:
    """All metrics of an experiment; ``exposures`` are units by phase and variant, each in its first phase."""

    metrics: tuple[Measured, ...]
    exposures: dict[int, dict[str, int]]
    records: dict[str, int]
    excluded: dict[str, int]
    propensities: dict[int, dict[str, float]]
    phase_records: dict[Cell, int] = field(default_factory=dict)
    pilots: dict[str, float] = field(default_factory=dict)


def measure(payload: pl.LazyFrame, scores: pl.LazyFrame, experiment: Experiment) -> Measurements:
    """Everything that the experiment's analysis rests on, from two scans at fixed versions.

    Raises :class:`~servelens.errors.Unavailable` when the tables' files cannot be read.
    """
    metrics = [metric_for(name) for name in experiment.metrics]
    records = experiment_records(payload, experiment)
    kept = records.filter(pl.col(EXCLUDED).is_null())
    for metric in metrics:
        kept = _with_value(kept, scores, metric)
    sums = [
        expression
        for metric in metrics
        for value in [pl.col(_value(metric))]
        for expression in (value.count().cast(pl.Float64).alias(_n(metric)), value.sum().alias(_s(metric)))
    ]
    cells = kept.group_by(_CELL).agg(pl.len().alias("records"), pl.col("propensity").last(), *sums)
    reasons = [
        kept.filter(pl.col(_reason(metric)).is_not_null())
        .group_by("unit", "variant", pl.col(_reason(metric)).alias(EXCLUDED))
        .agg(pl.len().alias("records"))
        for metric in metrics
    ]
    try:
        by_unit, left_out, *by_reason = pl.collect_all([cells, excluded_counts(records), *reasons])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unavailable(f"the tables of {experiment.endpoint} cannot be read: {error}") from error
    return _measurements(metrics, by_unit, dict(left_out.rows()), by_reason)


def _measurements(
    metrics: Sequence[Metric],
    by_unit: pl.DataFrame,
    excluded: dict[str, int],
    by_reason: Sequence[pl.DataFrame],
) -> Measurements:
    torn = in_two_variants(by_unit)
    torn_units = by_unit.filter(torn).select("unit").unique()
    if len(torn_units):
        excluded = {**excluded, IN_TWO_VARIANTS: int(by_unit.filter(torn)["records"].sum())}
    units = by_unit.filter(~torn)
    records = units.group_by("variant").agg(pl.col("records").sum())
    propensities: dict[int, dict[str, float]] = {}
    for phase, variant, propensity in (
        units.group_by("phase", "variant").agg(pl.col("propensity").mean()).rows()
    ):
        if propensity is not None:
            propensities.setdefault(phase, {})[variant] = propensity
    return Measurements(
        metrics=tuple(
            Measured(
                metric, _moments(units, metric), _cross(units, metric), _reason_counts(reasons, torn_units)
            )
            for metric, reasons in zip(metrics, by_reason, strict=True)
        ),
        exposures=first_exposures(units),
        records=dict(records.rows()),
        excluded=excluded,
        propensities=propensities,
        phase_records={
            (phase, variant): count
            for phase, variant, count in units.group_by("phase", "variant")
            .agg(pl.col("records").sum())
            .rows()
        },
    )


def _value(metric: Metric) -> str:
    return f"value:{metric.name}"


def _reason(metric: Metric) -> str:
    return f"reason:{metric.name}"


def _n(metric: Metric) -> str:
    return f"n:{metric.name}"


def _s(metric: Metric) -> str:
    return f"s:{metric.name}"


def _with_value(records: pl.LazyFrame, scores: pl.LazyFrame, metric: Metric) -> pl.LazyFrame:
    """The records with the metric's value on its analysis scale (or null) and the reason for the null."""
    if metric.evaluator is not None:
        records, raw, missing = _scored(records, scores, metric)
    else:
        raw, missing = _from_payload(metric)
    value = raw.cast(pl.Float64).log() if metric.scale == "log" else raw.cast(pl.Float64)
    reason = (
        pl.when(missing.is_not_null())
        .then(missing)
        .when(raw.is_null())
        .then(pl.lit("not_measured"))
        .when(~value.is_finite())
        .then(pl.lit("not_finite"))
        .otherwise(pl.lit(None, dtype=pl.String))
    )
    return records.with_columns(
        pl.when(reason.is_null()).then(value).alias(_value(metric)), reason.alias(_reason(metric))
    )


def _from_payload(metric: Metric) -> tuple[pl.Expr, pl.Expr]:
    status, error = pl.col("status_code"), pl.col("error_type")
    answered = (status < 400) & error.is_null() & ~pl.col("client_disconnected").fill_null(value=False)
    nothing = pl.lit(None, dtype=pl.String)
    failed = pl.when(answered).then(nothing).otherwise(pl.lit("no_whole_answer"))
    if metric.name == "success_rate":
        return answered, nothing
    if metric.name == "error_rate":
        # A refusal (4xx from the entity) and a client that left are no success, but no fault of the entity.
        broken = error.is_not_null() & ~error.is_in(["client_disconnected", "upstream_status"])
        return (status >= 500) | status.is_in([408, 429]) | broken, nothing
    if metric.name == "latency_ms":
        return _at_least_the_shortest("execution_duration_ms"), failed
    if metric.name == "time_to_first_token_ms":
        streamed = pl.when(pl.col("is_stream").fill_null(value=False)).then(failed)
        return _at_least_the_shortest("time_to_first_token_ms"), streamed.otherwise(pl.lit("not_streamed"))
    return pl.col("output_tokens"), failed


def _at_least_the_shortest(column: str) -> pl.Expr:
    """Nulls and NaN stay what they are (``max_horizontal`` would turn them into the shortest time)."""
    duration = pl.col(column).cast(pl.Float64)
    return pl.when(duration < _SHORTEST_MS).then(pl.lit(_SHORTEST_MS)).otherwise(duration)


def _scored(
    records: pl.LazyFrame, scores: pl.LazyFrame, metric: Metric
) -> tuple[pl.LazyFrame, pl.Expr, pl.Expr]:
    score, unscored, found = f"score|{metric.name}", f"unscored|{metric.name}", f"found|{metric.name}"
    latest = (
        scores.filter((pl.col("evaluator") == metric.evaluator) & (pl.col("target") == "response"))
        .group_by("databricks_request_id")
        .agg(
            pl.col("score").sort_by("scored_at").last().alias(score),
            pl.col("unscored_reason").sort_by("scored_at").last().alias(unscored),
        )
        .with_columns(pl.lit(value=True).alias(found))
    )
    joined = records.join(latest, on="databricks_request_id", how="left")
    missing = (
        pl.when(pl.col(found).is_null())
        .then(pl.lit("not_scored_yet"))
        .when(pl.col(score).is_null())
        .then(pl.concat_str(pl.lit("unscored: "), pl.col(unscored).fill_null("no reason given")))
        .otherwise(pl.lit(None, dtype=pl.String))
    )
    return joined, pl.col(score), missing


def _moments(units: pl.DataFrame, metric: Metric) -> dict[Cell, Moments]:
    n, s = pl.col(_n(metric)), pl.col(_s(metric))
    sums = (
        units.filter(n > 0)
        .group_by("phase", "variant")
        .agg(
            pl.len(),
            n.sum().alias("n"),
            s.sum().alias("s"),
            (n * n).sum().alias("nn"),
            (n * s).sum().alias("ns"),
            (s * s).sum().alias("ss"),
        )
    )
    return {(phase, variant): Moments(*rest) for phase, variant, *rest in sums.rows()}


def _cross(units: pl.DataFrame, metric: Metric) -> dict[tuple[Cell, Cell], CrossMoments]:
    """Between every two phases: a unit that comes back in a later phase is not a new draw."""
    if units["phase"].n_unique() < 2:
        return {}
    n, s = pl.col(_n(metric)), pl.col(_s(metric))
    cells = units.select("unit", "phase", "variant", n.alias("n"), s.alias("s"))
    pairs = cells.join(cells, on="unit", suffix="2").filter(pl.col("phase") < pl.col("phase2"))
    sums = pairs.group_by("phase", "variant", "phase2", "variant2").agg(
        (pl.col("n") * pl.col("n2")).sum().alias("nn"),
        (pl.col("n") * pl.col("s2")).sum().alias("ns"),
        (pl.col("s") * pl.col("n2")).sum().alias("sn"),
        (pl.col("s") * pl.col("s2")).sum().alias("ss"),
    )
    return {
        ((phase, variant), (phase2, variant2)): CrossMoments(*rest)
        for phase, variant, phase2, variant2, *rest in sums.rows()
    }


def _reason_counts(reasons: pl.DataFrame, torn_units: pl.DataFrame) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    whole = reasons.join(torn_units, on="unit", how="anti")
    for variant, reason, records in (
        whole.group_by("variant", EXCLUDED).agg(pl.col("records").sum()).sort("variant", EXCLUDED).rows()
    ):
        counts.setdefault(variant, {})[reason] = records
    return counts
