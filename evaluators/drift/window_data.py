"""The records of one window, as profiles and drift look at them: one column per observed quantity, matched by the
record's id.

Invariant: only what the client was sent is observed, so shadow traffic is left out; long texts are measured where they
lie and never loaded. A record without a score, or unscored, has a null in the score's column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import polars as pl

from collector.catalog import EndpointTables
from collector.table import Table
from evaluators.drift.embedding_columns import EmbeddingColumns
from evaluators.drift.payload_features import FEATURE, PREDICTION, PayloadFeatures
from evaluators.drift.slices import UNSLICED, Slicing
from evaluators.drift.sources import REQUEST_ID, Kind, Observation, ObservedColumn, WindowSource
from evaluators.drift.windows import Window
from servelens.errors import Invalid

__all__ = ["Kind", "ObservedColumn"]

SCORE_PREFIX: Final = "score:"
_SAMPLED_TIMES: Final = 48

_PAYLOAD_COLUMNS: Final[tuple[tuple[ObservedColumn, pl.Expr], ...]] = tuple(
    (ObservedColumn(name, kind, data_type), expression)
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


@dataclass(frozen=True)
class PayloadColumns:
    """Columns that are expressions over the inference table alone; all such sources are read in one scan."""

    expressions: tuple[tuple[ObservedColumn, pl.Expr], ...] = _PAYLOAD_COLUMNS
    name: str = "payload"
    version: str = "1"

    @property
    def columns(self) -> tuple[ObservedColumn, ...]:
        return tuple(column for column, _ in self.expressions)

    def selected(self) -> list[pl.Expr]:
        """The expressions under the names of their columns."""
        return [expression.alias(column.name) for column, expression in self.expressions]

    def read(self, tables: EndpointTables, window: Window, *, version: int | None = None) -> Observation:
        frame = _records(tables, window, version).select(REQUEST_ID, *self.selected()).collect()
        return Observation(frame, self.columns)


@dataclass(frozen=True, slots=True)
class ScoreColumns:
    """One column per evaluator and target, of the scores as they are now."""

    name: ClassVar[str] = "scores"
    version: ClassVar[str] = "1"

    def read(self, tables: EndpointTables, window: Window, *, version: int | None = None) -> Observation:
        frame = _wide_scores(tables.scores, window)
        columns = tuple(
            ObservedColumn(name, Kind.NUMERIC, "double") for name in frame.columns if name != REQUEST_ID
        )
        return Observation(frame, columns)


STANDARD_SOURCES: Final[tuple[WindowSource, ...]] = (
    PayloadColumns(),
    ScoreColumns(),
    EmbeddingColumns(),
    PayloadFeatures(),
)


def observe(
    tables: EndpointTables,
    window: Window,
    *,
    sources: Sequence[WindowSource] = STANDARD_SOURCES,
    slicing: Slicing = UNSLICED,
    version: int | None = None,
) -> Observation:
    """The records of ``window`` in the inference table at ``version``: what every source says of them, and the columns
    ``slice:KEY``, which are none of the observed ones.

    Raises :class:`~servelens.errors.Invalid` when two sources give a column of one name, and what reading raises.
    """
    of_payload = [source for source in sources if isinstance(source, PayloadColumns)]
    columns = [column for source in of_payload for column in source.columns]
    expressions = [expression for source in of_payload for expression in source.selected()]
    frame = (
        _records(tables, window, version).select(REQUEST_ID, *slicing.expressions(), *expressions).collect()
    )
    if frame.is_empty():
        return Observation(frame, tuple(columns))
    for source in sources:
        if isinstance(source, PayloadColumns):
            continue
        observed = source.read(tables, window, version=version)
        columns.extend(observed.columns)
        _refuse_repeated(columns, source)
        frame = frame.join(observed.frame, on=REQUEST_ID, how="left", maintain_order="left")
    return Observation(frame, tuple(columns))


def read_window(tables: EndpointTables, window: Window, *, version: int | None = None) -> pl.DataFrame:
    """The standard columns of :func:`observe`, without ids."""
    return observe(tables, window, version=version).frame.drop(REQUEST_ID)


def sample_window(
    tables: EndpointTables, window: Window, *, rows: int, at_most: int, version: int | None = None
) -> pl.DataFrame:
    """As :func:`read_window`, but about ``at_most`` of the window's ``rows`` records where there are more: those of short
    times that are spread evenly over the window."""
    if rows <= at_most:
        return read_window(tables, window, version=version)
    step = window.length / _SAMPLED_TIMES
    length = step * (at_most / rows)
    starts = [window.start + index * step for index in range(_SAMPLED_TIMES)]
    parts = [read_window(tables, Window(start, start + length), version=version) for start in starts]
    return pl.concat(parts, how="diagonal")


def score_column(evaluator: str, target: str) -> str:
    """The name of a score's column: ``score:toxicity`` for answers, ``score:toxicity@request`` for
    requests."""
    return f"{SCORE_PREFIX}{evaluator}" if target == "response" else f"{SCORE_PREFIX}{evaluator}@{target}"


def observed_columns(*frames: pl.DataFrame) -> list[ObservedColumn]:
    """The standard columns of ``frames`` but vectors: those of the inference table, then every score, feature and
    prediction that one of them has."""
    scores = sorted({name for frame in frames for name in frame.columns if name.startswith(SCORE_PREFIX)})
    return [
        *(column for column, _ in _PAYLOAD_COLUMNS),
        *(ObservedColumn(name, Kind.NUMERIC, "double") for name in scores),
        *_examples(frames),
    ]


def _examples(frames: Sequence[pl.DataFrame]) -> list[ObservedColumn]:
    """Features and predictions; words where one of the frames has words."""
    kinds: dict[str, set[Kind]] = {}
    for frame in frames:
        for name, dtype in frame.schema.items():
            if name.startswith((FEATURE, PREDICTION)):
                inner = dtype.inner if isinstance(dtype, pl.List) else dtype
                kinds.setdefault(name, set()).add(Kind.NUMERIC if inner == pl.Float64 else Kind.CATEGORICAL)
    return [
        ObservedColumn(name, Kind.CATEGORICAL, "string")
        if Kind.CATEGORICAL in found
        else ObservedColumn(name, Kind.NUMERIC, "double")
        for name, found in kinds.items()
    ]


def with_columns(frame: pl.DataFrame, columns: list[ObservedColumn]) -> pl.DataFrame:
    """``frame`` with a null column for every score that it lacks."""
    lacking = [column.name for column in columns if column.name not in frame.columns]
    return frame.with_columns(pl.lit(None, dtype=pl.Float64).alias(name) for name in lacking)


def _records(tables: EndpointTables, window: Window, version: int | None) -> pl.LazyFrame:
    return tables.payload.scan(since=window.start, until=window.end, version=version).filter(
        ~pl.col("is_shadow").fill_null(value=False)
    )


def _refuse_repeated(columns: Sequence[ObservedColumn], source: WindowSource) -> None:
    names = [column.name for column in columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise Invalid(
            f"the source {source.name!r} gives a column {repeated[0]!r}, which there is already",
            field="sources",
            fix="Give the columns of a source a prefix of their own.",
        )


def _wide_scores(scores: Table, window: Window) -> pl.DataFrame:
    """One row per record, one column per evaluator and target."""
    long = (
        scores.scan(since=window.start, until=window.end)
        .select(REQUEST_ID, "evaluator", "target", "score")
        .collect()
    )
    wide = long.select(REQUEST_ID).unique()
    for (evaluator, target), part in sorted(long.partition_by("evaluator", "target", as_dict=True).items()):
        column = part.select(REQUEST_ID, pl.col("score").alias(score_column(evaluator, target)))
        wide = wide.join(column.unique(REQUEST_ID, keep="last"), on=REQUEST_ID, how="left")
    return wide
