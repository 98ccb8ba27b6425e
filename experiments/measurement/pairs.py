"""Shadow experiments: each answer of the control beside the treatment's answer to the same request.

A pair is a record of the control's entity and the mirror of it that the treatment's entity answered (``shadow_of``). Both
answer the same prompt, so what is compared are differences within pairs. Invariant: a pair counts for a metric when both
of its records have a value; who has none, and why, is counted by side.

Nobody saw the mirror, so nothing that users do is compared, and neither are quantiles, of which no difference within a
pair exists.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from experiments.experiment import Experiment, Variant
from experiments.measurement.exposures import ID, answerable, hashed, payload_columns
from experiments.measurement.measured import PairCounts, PairedMetric, Pairs
from experiments.measurement.outcomes import Engine, Outcomes, score_rows, unscored_column, with_outcomes
from experiments.measurement.tallies import words_of
from experiments.measurement.values import Reading, answered, on_scale, reading_for, reason_on_scale
from experiments.metrics import Metric
from experiments.statistics.statistic import Moments
from servelens.errors import Unavailable

_SIDES: Final = ("control", "treatment")
_IDENTICAL: Final = "answers_identical"
_OVERLAP: Final = "word_overlap"


def measure_pairs(
    payload: pl.LazyFrame, scores: pl.LazyFrame, experiment: Experiment, *, engine: Engine = "in-memory"
) -> tuple[Pairs, ...]:
    """The pairs of each treatment, in their order, from scans at fixed versions.

    Raises :class:`~servelens.errors.Unavailable` when the tables' files cannot be read.
    """
    whole = reading_for(experiment)
    metrics = tuple(metric for metric in whole.metrics if metric.quantile is None and not metric.feedback)
    reading = Reading(experiment, metrics, whole.payload_values, whole.evaluators, ())
    try:
        scored = score_rows(scores, reading).collect(engine=engine)
        outcomes = Outcomes(scored, pl.DataFrame()).with_targets(reading)
        return tuple(
            _pairs(payload, outcomes, reading, treatment, engine) for treatment in experiment.treatments
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unavailable(f"the tables of {experiment.endpoint} cannot be read: {error}") from error


def _pairs(
    payload: pl.LazyFrame, outcomes: Outcomes, reading: Reading, treatment: Variant, engine: Engine
) -> Pairs:
    is_shadow, entity = pl.col("is_shadow").fill_null(value=False), pl.col("served_entity")
    control = payload.filter(~is_shadow & (entity == reading.experiment.control.served_entity) & answerable())
    mirrors = (
        payload.filter(is_shadow & pl.col("shadow_of").is_not_null() & (entity == treatment.served_entity))
        .select(hashed("shadow_of").alias("original"), "propensity", *_columns(reading))
        .unique("original", keep="any")
        .collect(engine=engine)
    )
    originals, counted = pl.collect_all(
        [
            control.select(hashed(ID).alias("original"), "unit", *_columns(reading)).join(
                mirrors.lazy().select("original"), on="original", how="semi"
            ),
            control.select(pl.len()),
        ],
        engine=engine,
    )
    sides = {}
    for side, records in zip(_SIDES, (originals, mirrors), strict=True):
        found = with_outcomes(records, outcomes, reading)
        sides[side] = found.select(
            "original", "unit" if side == "control" else "propensity", *_measured(reading, side)
        )
    frame = sides["control"].join(sides["treatment"], on="original")
    unit = pl.col("original")
    if reading.clustered:
        # A request without a unit is one of its own.
        unit = pl.when(pl.col("unit").is_null() | (pl.col("unit") == "")).then(unit).otherwise(hashed("unit"))
    frame = frame.with_columns(unit.alias("unit"), *_agreement())
    total = int(counted.item())
    failed = len(frame) - int(frame["whole:treatment"].sum())
    complete = not len(frame) or bool((frame["propensity"].fill_null(0.0) >= 1.0).all())
    missing = {"failed": failed, "dropped" if complete else "not_mirrored": total - len(frame)}
    return Pairs(
        treatment.name,
        total,
        len(frame),
        tuple(_paired(frame, number, metric) for number, metric in enumerate(reading.metrics)),
        _moments(frame, pl.col(_IDENTICAL)),
        _moments(frame, pl.col(_OVERLAP)),
        {reason: count for reason, count in missing.items() if count},
    )


def _columns(reading: Reading) -> list[pl.Expr]:
    text = pl.when(answered()).then(pl.col("response_text"))
    return [
        hashed(ID).alias("id"),
        pl.col("request_time").alias("time"),
        answered().fill_null(value=False).alias("whole"),
        text.alias("text"),
        *payload_columns(reading),
    ]


def _measured(reading: Reading, side: str) -> list[pl.Expr]:
    columns = [pl.col("whole").alias(f"whole:{side}"), pl.col("text").alias(f"text:{side}")]
    for number, metric in enumerate(reading.metrics):
        columns.append(on_scale(metric, None).alias(f"{number}:{side}"))
        columns.append(reason_on_scale(metric).alias(f"{number}:{side}:reason"))
        if metric.evaluator:
            columns.append(pl.col(unscored_column(metric.value)).alias(f"{number}:{side}:unscored"))
    return columns


def _agreement() -> list[pl.Expr]:
    texts = [pl.col(f"text:{side}") for side in _SIDES]
    plain = [text.str.replace_all(r"\s+", " ").str.strip_chars() for text in texts]
    first, second = (text.str.to_lowercase().str.extract_all(r"\w+").list.unique() for text in texts)
    shared, either = first.list.set_intersection(second).list.len(), first.list.set_union(second).list.len()
    return [
        (plain[0] == plain[1]).cast(pl.Float64).alias(_IDENTICAL),
        pl.when(either > 0).then(shared / either).alias(_OVERLAP),
    ]


def _paired(frame: pl.DataFrame, number: int, metric: Metric) -> PairedMetric:
    control, treatment = (pl.col(f"{number}:{side}") for side in _SIDES)
    counts = None
    if metric.kind == "rate":
        ones = frame.group_by(control.alias("control"), treatment.alias("treatment")).len().rows()
        found = {(one, other): count for one, other, count in ones}
        counts = PairCounts(
            *(found.get(pair, 0) for pair in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)))
        )
    excluded: dict[str, dict[str, int]] = {}
    for side in _SIDES:
        text = pl.col(f"{number}:{side}:unscored") if metric.evaluator else pl.lit(None, dtype=pl.String)
        without = frame.filter(pl.col(f"{number}:{side}").is_null())
        reasons = without.group_by(
            pl.col(f"{number}:{side}:reason").alias("reason"), text.alias("text")
        ).len()
        for reason, words, count in reasons.rows():
            by_reason = excluded.setdefault(side, {})
            named = words_of(reason, words)
            by_reason[named] = by_reason.get(named, 0) + count
    both = frame.filter(control.is_not_null() & treatment.is_not_null())
    return PairedMetric(
        metric,
        _moments(both, treatment - control),
        _moments(both, control),
        _moments(both, treatment),
        counts,
        excluded,
    )


def _moments(frame: pl.DataFrame, value: pl.Expr) -> Moments:
    by_unit = (
        frame.select("unit", value.alias("value"))
        .drop_nulls("value")
        .group_by("unit")
        .agg(pl.col("value").count().cast(pl.Float64).alias("n"), pl.col("value").sum().alias("s"))
    )
    n, s = by_unit["n"].to_numpy(), by_unit["s"].to_numpy()
    with np.errstate(over="ignore", invalid="ignore"):  # sums of values that are too large are no numbers
        return Moments(len(by_unit), float(n.sum()), float(s.sum()), float(n @ n), float(n @ s), float(s @ s))
