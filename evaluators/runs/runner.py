"""Runs an evaluator over the records that are new in an inference table, and keeps the scores.

Invariant: a record is scored once. The inference table is read by version, in whole commits, and each batch
of scores is one commit that carries the version it was read up to as an application transaction
(``perplexity@response`` → 17). So after SIGKILL at any moment a batch either is in the scores table
together with that version, or neither is, and the next run begins where the last commit ended
(https://github.com/delta-io/delta/blob/master/PROTOCOL.md, "Transaction Identifiers"). Every record that sampling does
not leave out gets a row: a score, or the reason why there is none.

Where the table's history does not reach back to that version any more, what has no score yet is looked for in the
tables themselves; the version is carried by the last of these batches. So it is before the first run when a backfill has
been there. Looking for scores is safe only while nobody else adds them: these runs are ``exclusive`` with backfills. All
others need not be, since a backfill stays below the version that the schedule has reached
(:mod:`evaluators.runs.backfill`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from threading import Event
from typing import Final

from collector.catalog import EndpointTables
from collector.table import Changes
from evaluators.evaluator import Evaluator, begin_run
from evaluators.runs.batch_size import BatchSize
from evaluators.runs.record_scorer import NO_TEXT, PAYLOAD_TOO_LARGE, RecordScorer, Totals, somebody_else
from evaluators.runs.run_history import RunHistory, RunProgress, Trigger
from evaluators.runs.sampler import Sampler
from evaluators.runs.sampling import Sampling
from evaluators.runs.unscored_records import Wanted, unscored_records
from servelens.clock import Clock
from servelens.errors import Conflict, Missing

__all__ = ["NO_TEXT", "PAYLOAD_TOO_LARGE", "EvaluationRunner", "RunSummary", "backfill_id"]

logger = logging.getLogger(__name__)

_MAX_ROWS: Final = 2_000


def backfill_id(application_id: str) -> str:
    """Under which the scores table counts the portions of backfills."""
    return f"backfill {application_id}"


def _alone() -> AbstractContextManager[bool]:
    return nullcontext(enter_result=True)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What one run did; ``from_version`` (exclusive) and ``to_version`` are versions of the inference
    table."""

    endpoint: str
    evaluator: str
    target: str
    scored: int
    unscored: int
    skipped: int
    unscored_reasons: Mapping[str, int]
    from_version: int | None
    to_version: int | None
    duration_s: float
    device: str
    tokens: int | None = None


class EvaluationRunner:
    """Scores one endpoint's records with one evaluator; a call of :meth:`run` catches up with the table.

    ``max_rows`` bounds how many records are held and committed at a time (one commit of the inference table
    may be larger); a run ends with the batch that reaches ``max_rows_per_run``. ``fence`` is called before each commit
    and raises when this process may not write any more. ``exclusive`` gives, for the time of its block, whether no backfill
    runs. Not to be run twice at once for the same endpoint and evaluator.
    """

    def __init__(
        self,
        tables: EndpointTables,
        endpoint: str,
        evaluator: Evaluator,
        history: RunHistory,
        clock: Clock,
        *,
        evaluation: str | None = None,
        max_rows: int = _MAX_ROWS,
        max_rows_per_run: int | None = None,
        sampling: Sampling | None = None,
        fence: Callable[[], None] = lambda: None,
        exclusive: Callable[[], AbstractContextManager[bool]] = _alone,
    ) -> None:
        self._tables = tables
        self._endpoint = endpoint
        self._evaluator = evaluator
        self._history = history
        self._clock = clock
        self._evaluation = evaluation
        self._batch = BatchSize(max_rows)
        self._max_rows_per_run = max_rows_per_run
        self._sampling = sampling or Sampling()
        self._exclusive = exclusive
        self._scorer = RecordScorer(tables, evaluator, clock, fence=fence)
        self._sampler: Sampler | None = None

    @property
    def application_id(self) -> str:
        """Under which the scores table keeps the version of the inference table that has been scored."""
        return self._scorer.application_id

    def run(self, stop: Event | None = None, trigger: Trigger = Trigger.SCHEDULE) -> RunSummary:
        """Score everything that is new; with ``stop`` set it ends after the batch in hand.

        Raises :class:`~servelens.errors.Unavailable` when the evaluator raises (nothing of that batch is
        kept, the run history has the error, the next run tries again), and what reading and writing the
        tables raises.
        """
        started = self._clock.monotonic()
        scored_version = self._tables.scores.transaction_version(self.application_id)
        totals = Totals(scored_version)
        begin_run(self._evaluator)
        with closing(self._news(totals)) as news:
            changes = next(news, None)
            if changes is not None:
                with self._history.recorded(
                    endpoint=self._endpoint,
                    evaluator=self._evaluator.name,
                    target=self._evaluator.target,
                    device=self._evaluator.device,
                    from_version=scored_version,
                    evaluator_version=self._evaluator.version,
                    evaluation=self._evaluation,
                    trigger=trigger,
                ) as progress:
                    while changes is not None and not (stop is not None and stop.is_set()):
                        self._score_and_keep(changes, totals, progress)
                        changes = None if self._had_enough(totals) else next(news, None)
                    self._note(totals, progress, waiting=self._waiting(totals))
        return RunSummary(
            endpoint=self._endpoint,
            evaluator=self._evaluator.name,
            target=self._evaluator.target,
            scored=totals.scored,
            unscored=totals.unscored_reasons.total(),
            skipped=totals.skipped,
            unscored_reasons=dict(totals.unscored_reasons),
            from_version=scored_version,
            to_version=totals.version,
            duration_s=self._clock.monotonic() - started,
            device=self._evaluator.device,
            tokens=totals.tokens,
        )

    def _news(self, totals: Totals) -> Generator[Changes, None, None]:
        """Batches of records that are not scored; without a version where more of the same one follow."""
        payload = self._tables.payload
        try:
            if totals.version is None and payload.exists():
                with self._exclusive() as alone:
                    if not alone:
                        logger.info("waiting for the end of a backfill: %s", self.application_id)
                        return
                    if self._tables.scores.transaction_version(backfill_id(self.application_id)) is not None:
                        raise Missing("a backfill has scored a part of it")
                    # From the start it would be read whole, however large, where the history does not begin there.
                    payload.read_since(0, columns=["databricks_request_id"], max_rows=1)
                    yield from self._followed(totals)
                    return
            yield from self._followed(totals)
        except Missing as error:
            newest = payload.version()
            if newest is None or newest < (totals.version or 0):
                raise self._out_of_step(totals.version, str(error)) from error
            logger.info(
                "records without a score are looked for: %s table=%s version=%d reason=%s",
                self.application_id,
                payload.uri,
                newest,
                error,
            )
            with self._exclusive() as alone:
                if not alone:
                    logger.info("waiting for the end of a backfill: %s", self.application_id)
                    return
                yield from self._searched(newest)
            yield from self._followed(totals)

    def _followed(self, totals: Totals) -> Iterator[Changes]:
        """What commits have added (upkeep of the table makes versions that add nothing)."""
        columns = self._scorer.columns
        while True:
            version = totals.version
            changes = self._tables.payload.read_since(version, columns=columns, max_rows=self._batch.rows)
            if version is not None and (changes.version is None or changes.version < version):
                raise self._out_of_step(version, f"it is at version {changes.version}")
            if changes.frame.is_empty():
                return
            yield changes

    def _searched(self, version: int) -> Iterator[Changes]:
        """What has no score; the last batch, which may be empty, has the version."""
        evaluator, before = self._evaluator, self._nothing()
        found = unscored_records(
            self._tables,
            Wanted(evaluator.name, evaluator.target),
            version=version,
            columns=self._scorer.columns,
            max_rows=self._batch.rows,
        )
        for records in found:
            if not before.frame.is_empty():
                yield before
            before = Changes(records, None)
        yield Changes(before.frame, version)

    def _nothing(self) -> Changes:
        return Changes(self._tables.payload.scan().select(self._scorer.columns).clear().collect(), None)

    def _out_of_step(self, version: int | None, what: str) -> Conflict:
        return Conflict(
            f"{self.application_id} has scored it up to version {version}, but {what}",
            field=self._tables.payload.uri,
            fix="If the inference table was replaced, move its scores table away as well.",
        )

    def _score_and_keep(self, changes: Changes, totals: Totals, progress: RunProgress) -> None:
        if self._sampler is None:
            self._sampler = Sampler(
                self._sampling, self._tables.scores, self._evaluator.name, self._evaluator.target
            )
        records = self._sampler.chosen(changes.frame)
        began = self._clock.monotonic()
        scores = self._scorer.score(records)
        self._batch.learn(records.height, self._clock.monotonic() - began)
        if self._tables.scores.transaction_version(self.application_id) != totals.version:
            # Seen before anything is written; that it still holds is seen to by the commit.
            raise somebody_else(self._endpoint, self.application_id)
        scored_at = self._scorer.keep(
            records,
            scores,
            None if changes.version is None else {self.application_id: changes.version},
            after={self.application_id: totals.version},
        )
        if changes.version is not None:
            totals.version = changes.version
        totals.skipped += changes.frame.height - records.height
        totals.add(records, scores, scored_at)
        self._note(totals, progress)

    def _had_enough(self, totals: Totals) -> bool:
        return self._max_rows_per_run is not None and totals.rows >= self._max_rows_per_run

    def _note(self, totals: Totals, progress: RunProgress, **more: float | None) -> None:
        progress.update(
            to_version=totals.version,
            scored=totals.scored,
            unscored_reasons=totals.unscored_reasons,
            **totals.columns(),
            **more,
        )

    def _waiting(self, totals: Totals) -> int | None:
        """Rows of the inference table that are new since the last batch; ``None`` where nobody can say."""
        if totals.version is None:
            return None
        if self._tables.payload.version() == totals.version:
            return 0
        return self._tables.payload.rows_since(totals.version)
