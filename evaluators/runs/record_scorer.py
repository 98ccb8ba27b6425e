"""Records in, rows of the scores table out: what every way of running an evaluator does alike.

Invariant: every record that is given gets a row, with a score or the reason why there is none; and nothing is written
unless ``fence`` lets it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import polars as pl

from collector.catalog import EndpointTables
from collector.record import REQUEST_TOO_LARGE, RESPONSE_TOO_LARGE
from evaluators.evaluator import NOT_FINITE, Evaluator, Score, Text, target_text, unscored, wanted_columns
from evaluators.runs.lag import Lag
from evaluators.runs.vector_writer import VectorWriter
from servelens.clock import Clock
from servelens.errors import Conflict, Invalid, ServelensError, Unavailable

NO_TEXT: Final = "no_text"
"""The record has no text to score: the call failed, or the answer was empty."""
PAYLOAD_TOO_LARGE: Final = "payload_too_large"
"""The text was over the payload limit, so the inference table does not have it."""

_KEPT: Final = (
    "databricks_request_id",
    "request_date",
    "request_time",
    "endpoint",
    "served_entity",
    "variant",
)
_READ: Final = (*_KEPT, "prompt_text", "response_text", "logging_error_codes")


@dataclass(slots=True)
class Totals:
    """What a run has done so far; ``version`` is that of the inference table up to which it came."""

    version: int | None
    scored: int = 0
    skipped: int = 0
    unscored_reasons: Counter[str] = field(default_factory=Counter)
    tokens: int | None = None
    lag: Lag = field(default_factory=Lag)

    @property
    def rows(self) -> int:
        """Rows that were written."""
        return self.scored + self.unscored_reasons.total()

    def add(self, records: pl.DataFrame, scores: Sequence[Score], scored_at: datetime) -> None:
        """Count what was kept."""
        reasons = Counter(score.unscored_reason for score in scores if score.unscored_reason is not None)
        self.scored += len(scores) - reasons.total()
        self.unscored_reasons.update(reasons)
        counted = [score.details["tokens"] for score in scores if "tokens" in score.details]
        if counted:
            self.tokens = (self.tokens or 0) + int(sum(float(tokens) for tokens in counted))
        waited = (pl.lit(scored_at) - pl.col("request_time")).dt.total_microseconds() / 1e6
        self.lag.add(records.select(waited.alias("lag"))["lag"].drop_nulls())

    def columns(self) -> dict[str, float | None]:
        """Those of the run's row that :meth:`~evaluators.runs.run_history.RunProgress.update` does not name."""
        return {
            "skipped": self.skipped,
            "tokens": self.tokens,
            "lag_p99_s": self.lag.quantile(0.99),
            "lag_max_s": self.lag.max_s,
        }


class RecordScorer:
    """Scores the records of one endpoint with one evaluator and keeps the scores.

    ``fence`` is called right before each commit, and raises when the caller may not write any more.
    """

    def __init__(
        self,
        tables: EndpointTables,
        evaluator: Evaluator,
        clock: Clock,
        *,
        fence: Callable[[], None] = lambda: None,
    ) -> None:
        self._tables = tables
        self._evaluator = evaluator
        self._clock = clock
        self._fence = fence
        self._vectors = VectorWriter(tables.embeddings, clock)

    @property
    def application_id(self) -> str:
        """Under which the scores table keeps the version of the inference table that has been scored."""
        return f"{self._evaluator.name}@{self._evaluator.target}"

    @property
    def columns(self) -> list[str]:
        """The columns of the inference table that a record must have here. Raises :class:`~servelens.errors.Invalid`."""
        wanted = wanted_columns(self._evaluator)
        for name in wanted:
            if name not in self._tables.payload.schema.names:
                raise Invalid(
                    f"the evaluator asks for a column '{name}' that the inference table does not have",
                    field=self.application_id,
                )
        return list(dict.fromkeys((*_READ, *wanted)))

    def score(self, records: pl.DataFrame) -> list[Score]:
        """One score for each row. Raises :class:`~servelens.errors.Unavailable` when the evaluator raises."""
        target, wanted = self._evaluator.target, wanted_columns(self._evaluator)
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
        for index, score in zip(asked, self._ask([texts[index] for index in asked]), strict=True):
            scores[index] = score
        return [score for score in scores if score is not None]

    def keep(
        self,
        records: pl.DataFrame,
        scores: Sequence[Score],
        transactions: Mapping[str, int] | None = None,
        after: Mapping[str, int | None] | None = None,
    ) -> datetime:
        """Write the scores in one commit, with ``transactions``; when that was. ``after``: see
        :meth:`~collector.table.Table.append`. Vectors are written before them, since the
        scores say that the record is done.

        Raises :class:`~servelens.errors.Conflict` when the fence does not let it, a transaction is in already, or somebody
        has come further than ``after`` says.
        """
        scored_at = self._clock.now()
        rows = self._rows(records, scores, scored_at)
        self._fence()
        self._vectors.keep(records, scores, self._evaluator, transactions)
        self._tables.scores.append(rows, transactions=transactions, after=after)
        return scored_at

    def _ask(self, texts: Sequence[Text]) -> Sequence[Score]:
        if not texts:
            return []
        try:
            scores = self._evaluator.score(texts)
        except ServelensError:
            raise
        except Exception as error:
            raise Unavailable(
                f"the evaluator raised {type(error).__name__}: {error}", field=self.application_id
            ) from error
        if len(scores) != len(texts):
            raise Unavailable(
                f"the evaluator gave {len(scores)} scores for {len(texts)} texts", field=self.application_id
            )
        return [_finite(score) for score in scores]

    def _rows(self, records: pl.DataFrame, scores: Sequence[Score], scored_at: datetime) -> pl.DataFrame:
        evaluator = self._evaluator
        return records.select(_KEPT).with_columns(
            pl.lit(evaluator.name).alias("evaluator"),
            pl.lit(evaluator.version).alias("evaluator_version"),
            pl.lit(evaluator.model).alias("model"),
            pl.lit(evaluator.target).alias("target"),
            pl.Series("score", [score.value for score in scores], dtype=pl.Float64),
            pl.Series("label", [score.label for score in scores], dtype=pl.String),
            pl.Series("unscored_reason", [score.unscored_reason for score in scores], dtype=pl.String),
            pl.Series("details", [_json(score.details) for score in scores], dtype=pl.String),
            pl.lit(scored_at).cast(pl.Datetime("us", "UTC")).alias("scored_at"),
        )


def somebody_else(endpoint: str, application_id: str) -> Conflict:
    """Another process has scored what this one was about to keep."""
    return Conflict(
        f"somebody else scores {endpoint} too, so this batch was not kept",
        field=application_id,
        fix="Run the schedulers of one installation on one database, and evaluations of one evaluator once.",
    )


def _reasons(records: pl.DataFrame, too_large: str) -> pl.Series:
    over_limit = pl.col("logging_error_codes").list.contains(too_large).fill_null(value=False)
    reason = pl.when(over_limit).then(pl.lit(PAYLOAD_TOO_LARGE)).otherwise(pl.lit(NO_TEXT))
    return records.select(reason.alias("reason"))["reason"]


def _finite(score: Score) -> Score:
    # Third-party evaluators need not build their scores with our class, which would refuse this one.
    if score.value is not None and not math.isfinite(score.value):
        return unscored(NOT_FINITE)
    return score


def _json(details: Mapping[str, float | str]) -> str:
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in details.items()
    }
    return json.dumps(finite, ensure_ascii=False, allow_nan=False)
