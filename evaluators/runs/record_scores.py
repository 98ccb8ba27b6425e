"""The scores of records: what an evaluator is given of them, and the reason of a record that has nothing to give.

Invariant: one score for each record, in their order, wherever this runs: in the scheduler, or on a node of a cluster that
has read the records itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Final, Protocol, runtime_checkable

import polars as pl

from collector.record import REQUEST_TOO_LARGE, RESPONSE_TOO_LARGE
from collector.table import Table
from evaluators.evaluator import NOT_FINITE, Evaluator, Score, Text, target_text, unscored, wanted_columns
from servelens.errors import Invalid, ServelensError, Unavailable

NO_TEXT: Final = "no_text"
"""The record has no text to score: the call failed, or the answer was empty."""
PAYLOAD_TOO_LARGE: Final = "payload_too_large"
"""The text was over the payload limit, so the inference table does not have it."""
RECORD_GONE: Final = "record_gone"
"""The record was deleted before it was scored."""

KEPT: Final = (
    "databricks_request_id",
    "request_date",
    "request_time",
    "endpoint",
    "served_entity",
    "variant",
)
"""Columns of a record that its row of the scores table has too."""
_BATCH_ROWS: Final = 2_000
_READ: Final = (*KEPT, "prompt_text", "response_text", "logging_error_codes")


@runtime_checkable
class ReadsRecords(Protocol):
    """An evaluator that reads the texts of records itself, where it runs: it is given only :data:`KEPT`."""

    @property
    def reads_records(self) -> bool:
        """Whether it does so as it is set."""
        ...

    def score_records(self, payload: Table, records: pl.DataFrame) -> list[Score]:
        """One score for each row of ``records``, which are in ``payload``."""
        ...


def batch_rows(evaluator: Evaluator) -> int:
    """How many records are scored and committed at a time; an evaluator may say otherwise by ``batch_rows``."""
    return int(getattr(evaluator, "batch_rows", _BATCH_ROWS))


def columns_of(evaluator: Evaluator, known: Collection[str]) -> list[str]:
    """The columns of the inference table that a record must have here. Raises :class:`~servelens.errors.Invalid` for one
    that is not among ``known``."""
    if isinstance(evaluator, ReadsRecords) and evaluator.reads_records:
        return list(KEPT)
    wanted = wanted_columns(evaluator)
    for name in wanted:
        if name not in known:
            raise Invalid(
                f"the evaluator asks for a column '{name}' that the inference table does not have",
                field=_name(evaluator),
            )
    return list(dict.fromkeys((*_READ, *wanted)))


def scores_of(records: pl.DataFrame, evaluator: Evaluator, payload: Table | None = None) -> list[Score]:
    """One score for each row. ``payload``: the table that they are from, for those that read themselves. Raises
    :class:`~servelens.errors.Unavailable` when the evaluator raises."""
    if payload is not None and isinstance(evaluator, ReadsRecords) and evaluator.reads_records:
        return evaluator.score_records(payload, records) if records.height else []
    target, wanted = evaluator.target, wanted_columns(evaluator)
    further = records.select(wanted).to_dicts() if wanted else [{}] * records.height
    texts = [
        Text(prompt=prompt, response=response, columns=columns)
        for prompt, response, columns in zip(
            records["prompt_text"], records["response_text"], further, strict=True
        )
    ]
    too_large = RESPONSE_TOO_LARGE if target == "response" else REQUEST_TOO_LARGE
    scores: list[Score | None] = [
        None if wanted or target_text(text, target) is not None else unscored(reason)
        for text, reason in zip(texts, _reasons(records, too_large), strict=True)
    ]
    asked = [index for index, score in enumerate(scores) if score is None]
    for index, score in zip(asked, _asked(evaluator, [texts[index] for index in asked]), strict=True):
        scores[index] = score
    return [score for score in scores if score is not None]


def _asked(evaluator: Evaluator, texts: Sequence[Text]) -> Sequence[Score]:
    if not texts:
        return []
    try:
        scores = evaluator.score(texts)
    except ServelensError:
        raise
    except Exception as error:
        raise Unavailable(
            f"the evaluator raised {type(error).__name__}: {error}", field=_name(evaluator)
        ) from error
    if len(scores) != len(texts):
        raise Unavailable(
            f"the evaluator gave {len(scores)} scores for {len(texts)} texts", field=_name(evaluator)
        )
    return [_finite(score) for score in scores]


def _name(evaluator: Evaluator) -> str:
    return f"{evaluator.name}@{evaluator.target}"


def _reasons(records: pl.DataFrame, too_large: str) -> pl.Series:
    over_limit = pl.col("logging_error_codes").list.contains(too_large).fill_null(value=False)
    reason = pl.when(over_limit).then(pl.lit(PAYLOAD_TOO_LARGE)).otherwise(pl.lit(NO_TEXT))
    return records.select(reason.alias("reason"))["reason"]


def _finite(score: Score) -> Score:
    # Third-party evaluators need not build their scores with our class, which would refuse this one.
    if score.value is not None and not math.isfinite(score.value):
        return unscored(NOT_FINITE)
    return score
