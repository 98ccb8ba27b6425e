"""Runs an evaluator over the records that are new in an inference table, and keeps the scores.

Invariant: a record is scored once. The inference table is read by version, in whole commits, and each batch
of scores is one commit that carries the version it was read up to as an application transaction
(``perplexity@response`` → 17). So after SIGKILL at any moment a batch either is in the scores table
together with that version, or neither is, and the next run begins where the last commit ended
(https://github.com/delta-io/delta/blob/master/PROTOCOL.md, "Transaction Identifiers"). Every record gets a
row: a score, or the reason why there is none.

Where the table's history does not reach back to that version any more, what has no score yet is looked for in the
tables themselves; the version is carried by the last of these batches.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Final

import polars as pl

from collector.catalog import EndpointTables
from collector.record import REQUEST_TOO_LARGE, RESPONSE_TOO_LARGE
from collector.table import Changes
from evaluators.evaluator import NOT_FINITE, Evaluator, Score, Text, begin_run, target_text, unscored
from evaluators.runs.run_history import RunHistory, RunProgress
from evaluators.runs.unscored_records import unscored_records
from evaluators.runs.vector_writer import VectorWriter
from servelens.clock import Clock
from servelens.errors import Conflict, Missing, ServelensError, Unavailable

logger = logging.getLogger(__name__)

NO_TEXT: Final = "no_text"
"""The record has no text to score: the call failed, or the answer was empty."""
PAYLOAD_TOO_LARGE: Final = "payload_too_large"
"""The text was over the payload limit, so the inference table does not have it."""

_MAX_ROWS: Final = 2_000
_KEPT: Final = (
    "databricks_request_id",
    "request_date",
    "request_time",
    "endpoint",
    "served_entity",
    "variant",
)
_READ: Final = (*_KEPT, "prompt_text", "response_text", "logging_error_codes")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What one run did; ``from_version`` (exclusive) and ``to_version`` are versions of the inference
    table."""

    endpoint: str
    evaluator: str
    target: str
    scored: int
    unscored: int
    unscored_reasons: Mapping[str, int]
    from_version: int | None
    to_version: int | None
    duration_s: float
    device: str


@dataclass(slots=True)
class _Totals:
    version: int | None
    scored: int = 0
    unscored_reasons: Counter[str] = field(default_factory=Counter)


class EvaluationRunner:
    """Scores one endpoint's records with one evaluator; a call of :meth:`run` catches up with the table.

    ``max_rows`` bounds how many records are held and committed at a time (one commit of the inference table
    may be larger). Not to be run twice at once for the same endpoint and evaluator.
    """

    def __init__(
        self,
        tables: EndpointTables,
        endpoint: str,
        evaluator: Evaluator,
        history: RunHistory,
        clock: Clock,
        *,
        max_rows: int = _MAX_ROWS,
    ) -> None:
        self._tables = tables
        self._endpoint = endpoint
        self._evaluator = evaluator
        self._history = history
        self._clock = clock
        self._max_rows = max_rows
        self._vectors = VectorWriter(tables.embeddings, clock)

    @property
    def application_id(self) -> str:
        """Under which the scores table keeps the version of the inference table that has been scored."""
        return f"{self._evaluator.name}@{self._evaluator.target}"

    def run(self, stop: Event | None = None) -> RunSummary:
        """Score everything that is new; with ``stop`` set it ends after the batch in hand.

        Raises :class:`~servelens.errors.Unavailable` when the evaluator raises (nothing of that batch is
        kept, the run history has the error, the next run tries again), and what reading and writing the
        tables raises.
        """
        started = self._clock.monotonic()
        scored_version = self._tables.scores.transaction_version(self.application_id)
        totals = _Totals(scored_version)
        begin_run(self._evaluator)
        news = self._news(totals)
        changes = next(news, None)
        if changes is not None:
            with self._history.recorded(
                endpoint=self._endpoint,
                evaluator=self._evaluator.name,
                target=self._evaluator.target,
                device=self._evaluator.device,
                from_version=scored_version,
            ) as progress:
                while changes is not None and not (stop is not None and stop.is_set()):
                    self._score_and_keep(changes, totals, progress)
                    changes = next(news, None)
        return RunSummary(
            endpoint=self._endpoint,
            evaluator=self._evaluator.name,
            target=self._evaluator.target,
            scored=totals.scored,
            unscored=totals.unscored_reasons.total(),
            unscored_reasons=dict(totals.unscored_reasons),
            from_version=scored_version,
            to_version=totals.version,
            duration_s=self._clock.monotonic() - started,
            device=self._evaluator.device,
        )

    def _news(self, totals: _Totals) -> Iterator[Changes]:
        """Batches of records that are not scored; without a version where more of the same one follow."""
        payload = self._tables.payload
        try:
            if totals.version is None and payload.exists():
                # From the start it would be read whole, however large, where the history does not begin there.
                payload.read_since(0, columns=_READ[:1], max_rows=1)
            yield from self._followed(totals)
        except Missing as error:
            newest = payload.version()
            if newest is None or newest < (totals.version or 0):
                raise self._out_of_step(totals.version, str(error)) from error
            logger.info(
                "history ended, records without a score are looked for: %s table=%s version=%d",
                self.application_id,
                payload.uri,
                newest,
            )
            yield from self._searched(newest)
            yield from self._followed(totals)

    def _followed(self, totals: _Totals) -> Iterator[Changes]:
        """What commits have added (upkeep of the table makes versions that add nothing)."""
        while True:
            version = totals.version
            changes = self._tables.payload.read_since(version, columns=_READ, max_rows=self._max_rows)
            if version is not None and (changes.version is None or changes.version < version):
                raise self._out_of_step(version, f"it is at version {changes.version}")
            if changes.frame.is_empty():
                return
            yield changes

    def _searched(self, version: int) -> Iterator[Changes]:
        """What has no score; the last batch, which may be empty, has the version."""
        evaluator, before = self._evaluator, pl.DataFrame()
        found = unscored_records(
            self._tables,
            evaluator.name,
            evaluator.target,
            version=version,
            columns=_READ,
            max_rows=self._max_rows,
        )
        for records in found:
            if not before.is_empty():
                yield Changes(before, None)
            before = records
        if before.is_empty():
            before = self._tables.payload.scan().select(_READ).clear().collect()
        yield Changes(before, version)

    def _out_of_step(self, version: int | None, what: str) -> Conflict:
        return Conflict(
            f"{self.application_id} has scored it up to version {version}, but {what}",
            field=self._tables.payload.uri,
            fix="If the inference table was replaced, move its scores table away as well.",
        )

    def _score_and_keep(self, changes: Changes, totals: _Totals, progress: RunProgress) -> None:
        scores = self._score(changes.frame)
        if self._tables.scores.transaction_version(self.application_id) != totals.version:
            # Scoring takes long; the table itself would refuse only a version that is not newer than its own.
            raise Conflict(
                f"somebody else scores {self._endpoint} too, so this batch was not kept",
                field=self.application_id,
                fix="Run one scheduler per endpoint.",
            )
        self._vectors.keep(
            changes.frame,
            scores,
            self._evaluator,
            None if changes.version is None else {self.application_id: changes.version},
        )
        self._tables.scores.append(
            self._rows(changes.frame, scores),
            transactions=None if changes.version is None else {self.application_id: changes.version},
        )
        reasons = Counter(score.unscored_reason for score in scores if score.unscored_reason is not None)
        if changes.version is not None:
            totals.version = changes.version
        totals.scored += len(scores) - reasons.total()
        totals.unscored_reasons.update(reasons)
        progress.update(
            to_version=totals.version, scored=totals.scored, unscored_reasons=totals.unscored_reasons
        )

    def _score(self, records: pl.DataFrame) -> list[Score]:
        texts = [
            Text(prompt=prompt, response=response)
            for prompt, response in zip(records["prompt_text"], records["response_text"], strict=True)
        ]
        too_large = RESPONSE_TOO_LARGE if self._evaluator.target == "response" else REQUEST_TOO_LARGE
        scores: list[Score | None] = [
            None if target_text(text, self._evaluator.target) is not None else unscored(reason)
            for text, reason in zip(texts, _reasons(records, too_large), strict=True)
        ]
        wanted = [index for index, score in enumerate(scores) if score is None]
        for index, score in zip(wanted, self._ask([texts[index] for index in wanted]), strict=True):
            scores[index] = score
        return [score for score in scores if score is not None]

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

    def _rows(self, records: pl.DataFrame, scores: Sequence[Score]) -> pl.DataFrame:
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
            pl.lit(self._clock.now()).cast(pl.Datetime("us", "UTC")).alias("scored_at"),
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
