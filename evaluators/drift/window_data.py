"""The rows of one window, as profiles and drift look at them: one column per observed quantity, scores
joined.

Invariant: only what the client was sent is observed, so shadow traffic is left out; long texts are measured
where they lie and never loaded. A record without a score, or unscored, has a null in the score's column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from collector.catalog import EndpointTables
from collector.table import Table
from evaluators.drift.sources import Kind, ObservedColumn
from evaluators.drift.windows import Window

__all__ = ["Kind", "ObservedColumn"]

SCORE_PREFIX: Final = "score:"
SLICE_KEY: Final = "variant"
_REQUEST_ID: Final = "databricks_request_id"


_PAYLOAD_COLUMNS: Final[tuple[tuple[ObservedColumn, pl.Expr], ...]] = tuple(
    (ObservedColumn(name, kind, data_type), expression.alias(name))
    for name, kind, data_type, expression in (
        ("status_code", Kind.CATEGORICAL, "int", pl.col("status_code")),
        ("execution_duration_ms", Kind.NUMERIC, "bigint", pl.col("execution_duration_ms")),
        ("time_to_first_token_ms", Kind.NUMERIC, "double", pl.col("time_to_first_token_ms")),
        ("input_tokens", Kind.NUMERIC, "bigint", pl.col("input_tokens")),
        ("output_tokens", Kind.NUMERIC, "bigint", pl.col("output_tokens")),
        ("prompt_length", Kind.NUMERIC, "bigint", pl.col("prompt_text").str.len_chars().cast(pl.Int64)),
        ("response_length", Kind.NUMERIC, "bigint", pl.col("response_text").str.len_chars().cast(pl.Int64)),
        ("finish_reason", Kind.CATEGORICAL, "string", pl.col("finish_reason")),
        ("model", Kind.CATEGORICAL, "string", pl.col("model")),
        ("served_entity", Kind.CATEGORICAL, "string", pl.col("served_entity")),
        ("error_type", Kind.CATEGORICAL, "string", pl.col("error_type")),
    )
)


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the traffic; both ``None`` is all of it."""

    key: str | None = None
    value: str | None = None

    def of(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows of ``frame`` in this slice."""
        return frame if self.key is None else frame.filter(pl.col(self.key) == self.value)


def read_window(tables: EndpointTables, window: Window, *, version: int | None = None) -> pl.DataFrame:
    """The records of ``window`` in the inference table at ``version``: the observed columns and the slice
    key."""
    records = (
        tables.payload.scan(since=window.start, until=window.end, version=version)
        .filter(~pl.col("is_shadow").fill_null(value=False))
        .select(_REQUEST_ID, SLICE_KEY, *(expression for _, expression in _PAYLOAD_COLUMNS))
        .collect()
    )
    scores = _wide_scores(tables.scores, window)
    return records.join(scores, on=_REQUEST_ID, how="left", maintain_order="left").drop(_REQUEST_ID)


def score_column(evaluator: str, target: str) -> str:
    """The name of a score's column: ``score:toxicity`` for answers, ``score:toxicity@request`` for
    requests."""
    return f"{SCORE_PREFIX}{evaluator}" if target == "response" else f"{SCORE_PREFIX}{evaluator}@{target}"


def observed_columns(*frames: pl.DataFrame) -> list[ObservedColumn]:
    """The columns to compare in ``frames``: those of the inference table, then every score that one of them
    has."""
    scores = sorted({name for frame in frames for name in frame.columns if name.startswith(SCORE_PREFIX)})
    return [
        *(column for column, _ in _PAYLOAD_COLUMNS),
        *(ObservedColumn(name, Kind.NUMERIC, "double") for name in scores),
    ]


def with_columns(frame: pl.DataFrame, columns: list[ObservedColumn]) -> pl.DataFrame:
    """``frame`` with a null column for every score that it lacks."""
    lacking = [column.name for column in columns if column.name not in frame.columns]
    return frame.with_columns(pl.lit(None, dtype=pl.Float64).alias(name) for name in lacking)


def slices(*frames: pl.DataFrame) -> list[Slice]:
    """All of the traffic, then one slice per variant that occurs in any of ``frames``."""
    values = {value for frame in frames for value in frame[SLICE_KEY].unique().to_list() if value is not None}
    return [Slice(), *(Slice(SLICE_KEY, value) for value in sorted(values))]


def _wide_scores(scores: Table, window: Window) -> pl.DataFrame:
    """One row per record, one column per evaluator and target."""
    long = (
        scores.scan(since=window.start, until=window.end)
        .select(_REQUEST_ID, "evaluator", "target", "score")
        .collect()
    )
    wide = long.select(_REQUEST_ID).unique()
    for (evaluator, target), part in sorted(long.partition_by("evaluator", "target", as_dict=True).items()):
        column = part.select(_REQUEST_ID, pl.col("score").alias(score_column(evaluator, target)))
        wide = wide.join(column.unique(_REQUEST_ID, keep="last"), on=_REQUEST_ID, how="left")
    return wide
