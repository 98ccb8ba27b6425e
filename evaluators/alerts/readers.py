"""What is measured, read from the tables: one reader for each kind of measure.

Invariant: a read is bounded in time (only files of the window are opened) and in columns. Cost: a
window of ten minutes at 100 records a second (60,000 rows in files of five minutes) took 25 to 85 ms on a busy core. Prompts and
answers are never read.

Readers are built for one rule; ``read`` gives a sample for each slice, and no sample for a slice without values.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final, Protocol

import polars as pl

from collector.catalog import EndpointTables
from evaluators.alerts.rule import (
    Aggregate,
    AlertRule,
    DriftMeasure,
    FeedbackMeasure,
    LagMeasure,
    ScoreMeasure,
    TrafficMeasure,
    TrafficMetric,
)
from evaluators.alerts.samples import Count, Plain, Sample, Total
from evaluators.alerts.slicing import ID, SLICE, VALUE, Slicing, Statistic, collected, summarised
from evaluators.drift.windows import Window

EXAMPLES: Final = 5
"""Ids of records that an incident carries at the most."""

_MICROSECOND: Final = timedelta(microseconds=1)
_WHO: Final = ("variant", "served_entity")


class Reader(Protocol):
    """Reads one measure of one endpoint."""

    def read(self, window: Window) -> Mapping[str, Sample]:
        """The samples of ``window`` by slice. Raises :class:`~servelens.errors.Unavailable`."""
        ...

    def examples(self, window: Window, slice_: str, *, highest: bool) -> list[str]:
        """Ids of up to :data:`EXAMPLES` records of the slice that show it best: those with the highest values, or the
        lowest."""
        ...

    def nothing(self) -> str:
        """One sentence that says what there is none of."""
        ...


class ScoreReader:
    """Scores, by the time of their request. Of several scores of one record the newest counts. Mirrored calls are scored
    as well, and left out here: nobody was given their answers."""

    def __init__(self, tables: EndpointTables, measure: ScoreMeasure, slicing: Slicing) -> None:
        self._table = tables.scores
        self._payload = tables.payload
        self._measure = measure
        self._slicing = slicing

    def read(self, window: Window) -> Mapping[str, Sample]:
        value, statistic = _aggregated(self._measure.aggregate)
        return summarised(self._rows(window).with_columns(value.alias(VALUE)), statistic)

    def examples(self, window: Window, slice_: str, *, highest: bool) -> list[str]:
        aggregate = self._measure.aggregate
        rows = self._rows(window)
        if aggregate.kind == "share_label":
            rows = rows.filter(pl.col("label") == aggregate.label)
        if aggregate.kind == "unscored_share":
            rows = rows.filter(pl.col("score").is_null())
        return _ids(rows.with_columns(pl.col("score").alias(VALUE)), slice_, _wanted(aggregate, highest))

    def nothing(self) -> str:
        return f"there is no score of {self._measure.evaluator} in the window"

    def _rows(self, window: Window) -> pl.LazyFrame:
        rows = self._table.scan(since=window.start, until=window.end).filter(
            pl.col("evaluator") == self._measure.evaluator, pl.col("target") == self._measure.target
        )
        mirrored = self._payload.scan(since=window.start, until=window.end).filter(pl.col("is_shadow"))
        rows = rows.join(mirrored.select(ID), on=ID, how="anti")
        newest = rows.select(ID, *_WHO, "score", "label", "scored_at").sort("scored_at", nulls_last=False)
        return self._slicing.of(newest.unique(ID, keep="last", maintain_order=True))


class FeedbackReader:
    """Feedback, by the time at which it arrived. Who changes their mind counts once, as they said last."""

    def __init__(self, tables: EndpointTables, measure: FeedbackMeasure, slicing: Slicing) -> None:
        self._tables = tables
        self._measure = measure
        self._slicing = slicing

    def read(self, window: Window) -> Mapping[str, Sample]:
        value, statistic = _aggregated(self._measure.aggregate)
        return summarised(self._rows(window).with_columns(value.alias(VALUE)), statistic)

    def examples(self, window: Window, slice_: str, *, highest: bool) -> list[str]:
        rows = self._rows(window)
        if self._measure.aggregate.kind == "share_label":
            rows = rows.filter(pl.col("label") == self._measure.aggregate.label)
        wanted = _wanted(self._measure.aggregate, highest)
        return _ids(rows.with_columns(pl.col("score").alias(VALUE)), slice_, wanted)

    def nothing(self) -> str:
        return f"no feedback '{self._measure.name}' arrived in the window"

    def _rows(self, window: Window) -> pl.LazyFrame:
        rows = collected(
            self._tables.feedback.scan(since=window.start, until=window.end)
            .filter(pl.col("name") == self._measure.name)
            .select(
                *(ID, "source_id", "request_time", "feedback_time", "feedback_id", "label"),
                pl.col("value").alias("score"),
            )
            .sort(
                "feedback_time", "feedback_id"
            )  # which of two of one moment counts is the same at each look
            .unique([ID, "source_id"], keep="last", maintain_order=True)
        )
        if self._slicing.always == "" or rows.is_empty():
            who = pl.DataFrame(schema={ID: pl.String, "variant": pl.String, "served_entity": pl.String})
        else:
            who = self._who(rows)
        return self._slicing.of(rows.join(who, on=ID, how="left").lazy())

    def _who(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Feedback does not say whose answer it is about; its request does."""
        times = rows["request_time"].sort()
        records = self._tables.payload.scan(since=times[0], until=times[-1] + _MICROSECOND)
        wanted = pl.col(ID).is_in(rows[ID].unique().to_list())
        return collected(records.filter(wanted).select(ID, *_WHO).unique(ID))


_QUANTILES: Final = {"median": 0.5, "p95": 0.95, "p99": 0.99}
_TIMES: Final = {"latency": "execution_duration_ms", "time_to_first_token": "time_to_first_token_ms"}


class TrafficReader:
    """Numbers of the inference table. A failed call is no fast answer, so times are of answers only."""

    def __init__(self, tables: EndpointTables, measure: TrafficMeasure, slicing: Slicing) -> None:
        self._table = tables.payload
        self._metric: TrafficMetric = measure.metric
        self._slicing = slicing

    def read(self, window: Window) -> Mapping[str, Sample]:
        value, statistic = self._value()
        found = summarised(self._rows(window).with_columns(value.alias(VALUE)), statistic)
        always = self._slicing.always
        if always is not None and always not in found and self._table.exists():
            # A window without calls has none of them: that is a number, where there is a table.
            if statistic.kind == "count":
                found[always] = Count(0)
            elif statistic.kind == "total":
                found[always] = Total(0, 0.0, 0.0)
        return found

    def examples(self, window: Window, slice_: str, *, highest: bool) -> list[str]:
        value, statistic = self._value()
        if statistic.kind in ("count", "total"):
            return []  # no call stands for how many there are
        rows = self._rows(window).with_columns(value.alias(VALUE))
        if statistic.kind == "share":
            rows = rows.filter(pl.col(VALUE) == float(highest))
        return _ids(rows, slice_, highest)

    def nothing(self) -> str:
        return "there is no call in the window that has this number"

    def _rows(self, window: Window) -> pl.LazyFrame:
        rows = self._table.scan(since=window.start, until=window.end)
        served = rows.filter(~pl.col("is_shadow").fill_null(value=False))
        columns = ("status_code", "error_type", "execution_duration_ms", "time_to_first_token_ms")
        return self._slicing.of(
            served.select(ID, "request_time", *_WHO, *columns, "input_tokens", "output_tokens").with_columns(
                _failed().alias("failed")
            )
        )

    def _value(self) -> tuple[pl.Expr, Statistic]:
        match self._metric:
            case "requests":
                return pl.lit(1.0), Statistic("count")
            case "error_rate":
                return pl.col("failed").cast(pl.Float64), Statistic("share")
            case "input_tokens" | "output_tokens":
                return pl.col(self._metric), Statistic("total")
            case "tokens":
                return pl.sum_horizontal("input_tokens", "output_tokens"), Statistic("total")
        name, _, shape = self._metric.rpartition("_")
        value = pl.when(~pl.col("failed")).then(pl.col(_TIMES[name]))
        quantile = _QUANTILES.get(shape)
        return value, Statistic("mean") if quantile is None else Statistic("quantile", quantile)


class LagReader:
    """How far scoring is behind: the age of the oldest record that is newer than the newest scored one, at the window's
    end. Records that a sample leaves out between scored ones do not count as waiting.
    """

    def __init__(self, tables: EndpointTables, measure: LagMeasure, slicing: Slicing) -> None:
        self._tables = tables
        self._measure = measure
        self._slicing = slicing

    def read(self, window: Window) -> Mapping[str, Sample]:
        scores = self._tables.scores.scan(since=window.start, until=window.end).filter(
            pl.col("evaluator") == self._measure.evaluator, pl.col("target") == self._measure.target
        )
        reached = self._slicing.of(scores).group_by(SLICE).agg(pl.col("request_time").max().alias("reached"))
        waiting = (
            self._records(window)
            .join(reached, on=SLICE, how="left")
            .group_by(SLICE)
            .agg(
                pl.col("request_time")
                .filter((pl.col("request_time") > pl.col("reached")).fill_null(value=True))
                .min()
                .alias("oldest"),
                pl.len().alias("n"),
            )
        )
        found: dict[str, Sample] = {
            name: Plain(0.0 if oldest is None else (window.end - oldest).total_seconds(), n)
            for name, oldest, n in collected(waiting.select(SLICE, "oldest", "n")).iter_rows()
        }
        always = self._slicing.always
        if always is not None and always not in found and self._tables.payload.exists():
            found[always] = Plain(0.0, 0)  # nothing came, so nothing waits
        return found

    def examples(self, window: Window, slice_: str, *, highest: bool) -> list[str]:
        return []

    def nothing(self) -> str:
        return "there is no record in the window that could be scored"

    def _records(self, window: Window) -> pl.LazyFrame:
        rows = self._tables.payload.scan(since=window.start, until=window.end)
        served = rows.filter(~pl.col("is_shadow").fill_null(value=False))
        return self._slicing.of(served.select("request_time", *_WHO))


def reader_for(rule: AlertRule, tables: EndpointTables) -> Reader:
    """The reader of the rule's measure."""
    slicing = Slicing(rule.sliced, rule.variant)
    match rule.measure:
        case ScoreMeasure():
            return ScoreReader(tables, rule.measure, slicing)
        case TrafficMeasure():
            return TrafficReader(tables, rule.measure, slicing)
        case FeedbackMeasure():
            return FeedbackReader(tables, rule.measure, slicing)
        case LagMeasure():
            return LagReader(tables, rule.measure, slicing)
        case DriftMeasure():
            from evaluators.alerts.drift_reader import DriftReader

            return DriftReader(tables, rule.measure, slicing)


def _failed() -> pl.Expr:
    """As on the dashboard: an error status, or an error after a good one was sent; a client that left is none."""
    left = pl.col("error_type").fill_null("") == "client_disconnected"
    return ((pl.col("status_code") >= 400) | pl.col("error_type").is_not_null()) & ~left


def _aggregated(aggregate: Aggregate) -> tuple[pl.Expr, Statistic]:
    """The value of one row with ``score`` and ``label``, and what is made of the values."""
    score = pl.when(pl.col("score").is_finite()).then(pl.col("score"))
    match aggregate.kind:
        case "mean":
            return score, Statistic("mean")
        case "median" | "p95" | "p99":
            return score, Statistic("quantile", _QUANTILES[aggregate.kind])
        case "share_above":
            return (score > aggregate.limit).cast(pl.Float64), Statistic("share")
        case "share_below":
            return (score < aggregate.limit).cast(pl.Float64), Statistic("share")
        case "share_label":
            return (pl.col("label") == aggregate.label).cast(pl.Float64), Statistic("share")
        case "unscored_share":
            return score.is_null().cast(pl.Float64), Statistic("share")


def _wanted(aggregate: Aggregate, highest: bool) -> bool:
    """Whether the highest scores make the value what it is: a share of low ones is high by the lowest."""
    return not highest if aggregate.kind == "share_below" else highest


def _ids(rows: pl.LazyFrame, slice_: str, highest: bool) -> list[str]:
    best = rows.filter(pl.col(SLICE) == slice_).select(ID, VALUE)
    known = best.filter(pl.col(VALUE).cast(pl.Float64).is_finite().fill_null(value=True))
    first = known.sort([VALUE, ID], descending=[highest, True], nulls_last=True).head(EXAMPLES)
    return [str(name) for name in collected(first)[ID].to_list() if name is not None]
