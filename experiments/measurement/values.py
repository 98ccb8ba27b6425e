"""From a metric to its value in a record, as polars expressions over the inference table.

Invariant: a record without a value has a reason instead, and never a zero. Reasons:

* ``no_whole_answer``: the entity failed or refused, or the client left, so its time and tokens say nothing;
* ``not_streamed``: a time to first token needs a stream;
* ``not_scored_yet`` and ``unscored: …``: what the evaluator has not reached, and what it could not score;
* ``window_open``: feedback may still come; ``no_feedback``: none came in time;
* ``not_measured``: nobody wrote the number down; ``not_finite``: it is none (or has no logarithm).

In frames a reason is a small number (:data:`REASONS`), for ten million words are slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from experiments.experiment import Experiment
from experiments.metrics import Metric, metric_for

(
    NO_WHOLE_ANSWER,
    NOT_STREAMED,
    NOT_MEASURED,
    NOT_FINITE,
    NOT_SCORED_YET,
    UNSCORED,
    WINDOW_OPEN,
    NO_FEEDBACK,
) = range(8)
REASONS: Final = (
    "no_whole_answer",
    "not_streamed",
    "not_measured",
    "not_finite",
    "not_scored_yet",
    "unscored",
    "window_open",
    "no_feedback",
)

# Durations are whole milliseconds in the table, so 0 stands for anything below one half.
_SHORTEST_MS: Final = 0.5
_NOTHING: Final = pl.lit(None, dtype=pl.UInt8)
_TOKENS_OF_A_PRICE: Final = 1e6


@dataclass(frozen=True, slots=True)
class Reading:
    """What an experiment needs of the tables: its metrics, and the values behind them, each once."""

    experiment: Experiment
    metrics: tuple[Metric, ...]
    payload_values: tuple[str, ...]
    evaluators: tuple[str, ...]
    feedback: tuple[str, ...]

    @property
    def clustered(self) -> bool:
        """Whether a unit can have several records."""
        return self.experiment.unit != "request"

    @property
    def joins(self) -> bool:
        """Whether something is joined to the records."""
        return bool(self.evaluators or self.feedback)

    @property
    def names(self) -> list[str]:
        """The variants' names; in frames a variant is its place in them."""
        return [variant.name for variant in self.experiment.variants]


def reading_for(experiment: Experiment) -> Reading:
    """What ``experiment`` needs."""
    metrics = tuple(metric_for(name) for name in experiment.metrics)
    joined = [metric for metric in metrics if metric.evaluator or metric.feedback]
    return Reading(
        experiment,
        metrics,
        tuple(dict.fromkeys(metric.value for metric in metrics if metric not in joined)),
        tuple(dict.fromkeys(metric.evaluator for metric in joined if metric.evaluator)),
        tuple(dict.fromkeys(metric.feedback for metric in joined if metric.feedback)),
    )


def value_column(value: str) -> str:
    """The column of a frame that holds a finite value, or null."""
    return f"value:{value}"


def reason_column(value: str) -> str:
    """The column that holds the reason for the null."""
    return f"reason:{value}"


def payload_value(value: str, experiment: Experiment) -> list[pl.Expr]:
    """Value and reason of what the inference table itself has."""
    raw, missing = _from_payload(value, experiment)
    return finite(value, raw, missing)


def finite(value: str, raw: pl.Expr, missing: pl.Expr) -> list[pl.Expr]:
    """The two columns of a value, from the number and the reason why it is not to be used (or null)."""
    number = raw.cast(pl.Float64)
    reason = (
        pl.when(missing.is_not_null())
        .then(missing)
        .when(number.is_null())
        .then(code(NOT_MEASURED))
        .when(~number.is_finite())
        .then(code(NOT_FINITE))
        .otherwise(_NOTHING)
    )
    return [
        pl.when(reason.is_null()).then(number).alias(value_column(value)),
        reason.alias(reason_column(value)),
    ]


def code(reason: int) -> pl.Expr:
    """A reason as it stands in a frame."""
    return pl.lit(reason, dtype=pl.UInt8)


def on_scale(metric: Metric, pilot: float | None) -> pl.Expr:
    """What is summed of a record: the value on the metric's scale, or an indicator; null where it is excluded.

    Without a ``pilot`` the indicator of a quantile is zero: its records are counted, and nothing is said of them.
    """
    value = pl.col(value_column(metric.value))
    if metric.limit is not None:
        return (value > metric.limit).cast(pl.Float64)
    if metric.kind == "quantile":
        return value * 0.0 if pilot is None else (value <= pilot).cast(pl.Float64)
    if metric.scale == "log":
        return pl.when(value > 0.0).then(value.log())
    return value


def reason_on_scale(metric: Metric) -> pl.Expr:
    """The reason why a record is excluded, null where it is not."""
    reason = pl.col(reason_column(metric.value))
    if metric.scale == "log" and metric.kind == "mean":
        return pl.when(pl.col(value_column(metric.value)) <= 0.0).then(code(NOT_FINITE)).otherwise(reason)
    return reason


def answered() -> pl.Expr:
    """Whether the whole answer came, and was taken."""
    left = pl.col("client_disconnected").fill_null(value=False)
    return (pl.col("status_code") < 400) & pl.col("error_type").is_null() & ~left


def _from_payload(value: str, experiment: Experiment) -> tuple[pl.Expr, pl.Expr]:
    failed = pl.when(answered()).then(_NOTHING).otherwise(code(NO_WHOLE_ANSWER))
    if value == "success_rate":
        return answered(), _NOTHING
    if value == "error_rate":
        return _broken(), _NOTHING
    if value == "latency_ms":
        return _at_least_the_shortest("execution_duration_ms"), failed
    if value == "time_to_first_token_ms":
        streamed = pl.when(pl.col("is_stream").fill_null(value=False)).then(failed)
        return _at_least_the_shortest("time_to_first_token_ms"), streamed.otherwise(code(NOT_STREAMED))
    if value == "cost":
        return _cost(experiment), failed
    return pl.col(value), failed


def _broken() -> pl.Expr:
    """A refusal (4xx from the entity) and a client that left are no success, but no fault of the entity."""
    status, error = pl.col("status_code"), pl.col("error_type")
    broken = error.is_not_null() & ~error.is_in(["client_disconnected", "upstream_status"])
    return (status >= 500) | status.is_in([408, 429]) | broken


def _at_least_the_shortest(column: str) -> pl.Expr:
    """Nulls and NaN stay what they are (``max_horizontal`` would turn them into the shortest time)."""
    duration = pl.col(column).cast(pl.Float64)
    return pl.when(duration < _SHORTEST_MS).then(pl.lit(_SHORTEST_MS)).otherwise(duration)


def _cost(experiment: Experiment) -> pl.Expr:
    """By the entity that answered, which a fallback may have changed; null where it has no price."""
    cost = pl.lit(None, dtype=pl.Float64)
    for price in experiment.prices:
        tokens = (
            pl.col("input_tokens") * price.input_per_million
            + pl.col("output_tokens") * price.output_per_million
        )
        cost = (
            pl.when(pl.col("served_entity") == price.served_entity)
            .then(tokens / _TOKENS_OF_A_PRICE)
            .otherwise(cost)
        )
    return cost
