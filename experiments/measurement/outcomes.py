"""What becomes known of a record after its answer: scores and feedback, joined by the record's id.

Invariant: the newest score of an evaluator counts (``scored_at``), and the newest feedback of a name that came within the
experiment's window. An evaluator is read on the answer; one whose scores are only of the prompt is read on that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal

import polars as pl

from experiments.measurement.exposures import ID, hashed
from experiments.measurement.values import (
    NO_FEEDBACK,
    NOT_SCORED_YET,
    UNSCORED,
    WINDOW_OPEN,
    Reading,
    code,
    finite,
    value_column,
)

_VALUE: Final = "found_value"
_JOINED: Final = ("id", "time", "found", _VALUE)
# Times as many rows as there are: where slices meet more, the tables are in another order, and one join is faster.
_DISORDER: Final = 8

Engine = Literal["in-memory", "streaming"]
Target = Literal["request", "response"]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Rows of scores and feedback as :func:`score_rows` and :func:`feedback_rows` read them, of all records that they
    are joined to; what each evaluator is read on; and until when feedback was waited for (``None``: long enough).
    """

    scores: pl.DataFrame
    feedback: pl.DataFrame
    targets: Mapping[str, Target] = field(default_factory=dict)
    as_of: datetime | None = None

    def with_targets(self, reading: Reading) -> Outcomes:
        """With each evaluator that has scores read on what they are of."""
        found = {name: _target(self.scores, name) for name in reading.evaluators}
        return replace(self, targets={name: target for name, target in found.items() if target is not None})


def score_rows(scores: pl.LazyFrame, reading: Reading) -> pl.LazyFrame:
    """``id`` and ``time`` of the records, ``evaluator``, ``of_response``, the score, ``unscored`` (the reason, where
    there is none) and ``scored_at``, of the evaluators that the experiment needs.
    """
    wanted = pl.col("evaluator").is_in(reading.evaluators)
    unscored = pl.when(pl.col("score").is_null()).then(pl.col("unscored_reason"))
    return scores.filter(wanted).select(
        hashed(ID).alias("id"),
        pl.col("evaluator").cast(pl.Categorical),
        (pl.col("target") == "response").fill_null(value=False).alias("of_response"),
        pl.col("score").alias(_VALUE),
        unscored.cast(pl.Categorical).alias("unscored"),
        "scored_at",
        pl.col("request_time").alias("time"),
        pl.lit(value=True).alias("found"),
    )


def feedback_rows(feedback: pl.LazyFrame, reading: Reading) -> pl.LazyFrame:
    """``id`` and ``time`` of the records, ``name``, the value and ``feedback_time`` of the feedback that the experiment
    needs, and that came within its window.
    """
    window = timedelta(seconds=reading.experiment.outcome_window_s)
    in_time = pl.col("feedback_time") - pl.col("request_time") <= window
    return feedback.filter(pl.col("name").is_in(reading.feedback) & in_time).select(
        hashed(ID).alias("id"),
        pl.col("name").cast(pl.Categorical),
        pl.col("value").alias(_VALUE),
        "feedback_time",
        pl.col("request_time").alias("time"),
        pl.lit(value=True).alias("found"),
    )


def with_outcomes(
    records: pl.DataFrame, outcomes: Outcomes, reading: Reading, *, slice_rows: int = 100_000
) -> pl.DataFrame:
    """The records with value and reason of each score and feedback, and the evaluators' own words for what they could
    not score. Many records are joined ``slice_rows`` at a time.
    """
    for evaluator in reading.evaluators:
        on_response = outcomes.targets.get(evaluator, "response") == "response"
        wanted = (pl.col("evaluator") == evaluator) & (pl.col("of_response") == on_response)
        rows = outcomes.scores.filter(wanted).select(*_JOINED, "unscored", "scored_at")
        joined = _with_newest(records, rows, "scored_at", slice_rows)
        missing = (
            pl.when(pl.col("found").is_null())
            .then(code(NOT_SCORED_YET))
            .when(pl.col(_VALUE).is_null())
            .then(code(UNSCORED))
        )
        records = joined.with_columns(
            *finite(f"score:{evaluator}", pl.col(_VALUE), missing),
            pl.col("unscored").alias(unscored_column(f"score:{evaluator}")),
        ).drop(_VALUE, "found", "unscored", "scored_at")
    for name in reading.feedback:
        rows = outcomes.feedback.filter(pl.col("name") == name).select(*_JOINED, "feedback_time")
        joined = _with_newest(records, rows, "feedback_time", slice_rows)
        missing = (
            pl.when(_window_open(outcomes.as_of, reading))
            .then(code(WINDOW_OPEN))
            .when(pl.col("found").is_null())
            .then(code(NO_FEEDBACK))
        )
        records = joined.with_columns(finite(f"feedback:{name}", pl.col(_VALUE), missing)).drop(
            _VALUE, "found", "feedback_time"
        )
    return records


def closed_before(as_of: datetime, reading: Reading) -> datetime:
    """Records of an earlier time wait for no more feedback."""
    return as_of - timedelta(seconds=reading.experiment.outcome_window_s)


def unscored_column(value: str) -> str:
    """The evaluator's own words for why there is no score."""
    return f"unscored:{value_column(value)}"


def _with_newest(records: pl.DataFrame, rows: pl.DataFrame, by: str, slice_rows: int) -> pl.DataFrame:
    """The records with the columns of their newest row, in the records' order."""
    parts = _neighbours(records, rows, slice_rows) if len(records) > slice_rows else [(records, rows)]
    found = []
    for some, near in parts:
        ids = some.select("id")
        joined = ids.join(near, on="id", how="left", maintain_order="left")
        if len(joined) > len(ids):
            # Only now is it known that a record has several, which is rare, and to look for the newest is slow. The
            # value settles which of two of the same moment counts, in whatever order they were read.
            newest = near.sort(by, _VALUE, nulls_last=False).unique("id", keep="last")
            joined = ids.join(newest, on="id", how="left", maintain_order="left")
        found.append(joined.drop("id", "time"))
    return records.hstack(pl.concat(found))


def _neighbours(
    records: pl.DataFrame, rows: pl.DataFrame, slice_rows: int
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Slices of the records, each with all rows of the same times.

    Both tables are nearly in the order of time, so a slice meets few rows, and a join of few rows stays in the
    processor's cache: three times as fast as one join of all.
    """
    spans = [
        (part["time"].min(), part["time"].max(), part)
        for part in rows.iter_slices(slice_rows)
        if part["time"].null_count() < len(part)
    ]
    met = []
    for some in records.iter_slices(slice_rows):
        first, last = some["time"].min(), some["time"].max()
        near = [part for low, high, part in spans if low <= last and high >= first]  # type: ignore[operator]
        met.append((some, near, pl.col("time").is_between(first, last)))
    if sum(len(part) for _, near, _ in met for part in near) > _DISORDER * len(rows):
        yield records, rows
        return
    for some, near, then in met:
        yield some, pl.concat([part.filter(then) for part in near]) if near else rows.clear()


def _window_open(as_of: datetime | None, reading: Reading) -> pl.Expr:
    if as_of is None:
        return pl.lit(value=False)
    return pl.col("time") > closed_before(as_of, reading)


def _target(scores: pl.DataFrame, evaluator: str) -> Target | None:
    own = pl.col("evaluator") == evaluator
    scored, on_responses = scores.select(
        own.any(), (own & pl.col("of_response")).any().alias("response")
    ).row(0)
    if not scored:
        return None
    return "response" if on_responses else "request"
