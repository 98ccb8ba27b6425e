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

import polars as pl

from collector.catalog import EndpointTables
from evaluators.evaluator import Evaluator, Score
from evaluators.runs.lag import Lag
from evaluators.runs.record_scores import KEPT, NO_TEXT, PAYLOAD_TOO_LARGE, columns_of, scores_of
from evaluators.runs.vector_writer import VectorWriter
from servelens.clock import Clock
from servelens.errors import Conflict

__all__ = ["NO_TEXT", "PAYLOAD_TOO_LARGE", "RecordScorer", "Totals", "somebody_else"]


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
        return columns_of(self._evaluator, self._tables.payload.schema.names)

    def score(self, records: pl.DataFrame) -> list[Score]:
        """One score for each row. Raises :class:`~servelens.errors.Unavailable` when the evaluator raises."""
        return scores_of(records, self._evaluator, self._tables.payload)

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

    def _rows(self, records: pl.DataFrame, scores: Sequence[Score], scored_at: datetime) -> pl.DataFrame:
        evaluator = self._evaluator
        return records.select(KEPT).with_columns(
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


def _json(details: Mapping[str, float | str]) -> str:
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in details.items()
    }
    return json.dumps(finite, ensure_ascii=False, allow_nan=False)
