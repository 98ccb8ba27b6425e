"""Compares answers with the truth that arrives as feedback, and keeps a score for each record that has one.

Invariant: a feedback is taken once. The feedback table is read by version, in whole commits, and the scores of what was read
are one commit that carries that version as an application transaction (``ground_truth@feedback`` → 17). What was killed in
the middle is read again, and finds in the scores table what it has written.

A feedback may come before its record. It then gets a row ``waiting_for_record`` that holds the truth, and another row as soon
as the record is there, or ``no_record`` when it is not there in time: nothing is lost, whichever process looks. Of several
truths of one record the one with the newest ``feedback_time`` counts; it is scored anew, and an older one that arrives later
is left out. So the row with the newest ``scored_at`` is always the one that counts.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event
from typing import Final

import polars as pl

from collector.catalog import EndpointTables
from collector.table import Changes
from evaluators.evaluator import Score, unscored
from evaluators.ground_truth.comparison import NO_TRUTH, compare
from evaluators.ground_truth.options import GroundTruthOptions
from evaluators.ground_truth.truths import TARGET, WAITING, Truth, Truths, score_rows, truths_of
from evaluators.runs.run_history import RunHistory, RunProgress
from servelens.clock import Clock
from servelens.errors import Conflict, Missing, Unavailable

logger = logging.getLogger(__name__)

NO_RECORD: Final = "no_record"
"""The record did not come in time."""

_MAX_ROWS: Final = 2_000
# Feedback of other names adds versions without rows of ours: so many are read again at the most after a restart.
_VERSIONS_UNCOMMITTED: Final = 100
_READ: Final = (
    "feedback_id",
    "databricks_request_id",
    "request_date",
    "request_time",
    "feedback_time",
    "endpoint",
    "name",
    "value",
    "label",
)


@dataclass(frozen=True, slots=True)
class GroundTruthSummary:
    """What one run did; versions are of the feedback table. ``waiting`` counts truths whose record is not there yet."""

    endpoint: str
    evaluator: str
    scored: int
    unscored_reasons: Mapping[str, int]
    waiting: int
    from_version: int | None
    to_version: int | None
    duration_s: float


@dataclass(slots=True)
class _Run:
    stack: ExitStack
    progress: RunProgress | None = None
    scored: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


class GroundTruthRunner:
    """Scores one endpoint's records by one kind of feedback; a call of :meth:`run` catches up.

    ``max_rows`` bounds how many truths are held and committed at a time (one commit of feedback may be larger). Not to be
    run twice at once for the same endpoint and truth.
    """

    def __init__(
        self,
        tables: EndpointTables,
        endpoint: str,
        options: GroundTruthOptions,
        history: RunHistory,
        clock: Clock,
        *,
        max_rows: int = _MAX_ROWS,
    ) -> None:
        self._tables = tables
        self._endpoint = endpoint
        self._options = options
        self._history = history
        self._clock = clock
        self._max_rows = max_rows
        self._truths = Truths(tables, options.evaluator)
        self._committed: tuple[int | None, int | None] | None = None
        self._read_to: int | None = None
        self._waiting: dict[str, Truth] = {}
        self._looked_at: int | None = None

    @property
    def application_id(self) -> str:
        """Under which the scores table keeps the version of the feedback table that has been read."""
        return f"{self._options.evaluator}@feedback"

    @property
    def _waiting_id(self) -> str:
        # Its version only counts commits: it tells whether somebody else has scored what we hold as waiting.
        return f"{self._options.evaluator}@waiting"

    def run(self, stop: Event | None = None) -> GroundTruthSummary:
        """Take what is new, and look again for records that were not there; with ``stop`` set it ends after the batch in hand.

        Raises what reading and writing the tables raises; what was committed by then stays.
        """
        started = self._clock.monotonic()
        committed = self._versions()
        if committed != self._committed:
            self._committed, self._read_to = committed, committed[0]
            self._waiting, self._looked_at = self._truths.waiting(), None
        first = self._read_to
        with ExitStack() as stack:
            run = _Run(stack)
            self._look_again(run, stop)
            for changes in self._news():
                self._take(changes, run)
                if stop is not None and stop.is_set():
                    break
        return GroundTruthSummary(
            endpoint=self._endpoint,
            evaluator=self._options.evaluator,
            scored=run.scored,
            unscored_reasons=dict(run.reasons),
            waiting=len(self._waiting),
            from_version=first,
            to_version=self._read_to,
            duration_s=self._clock.monotonic() - started,
        )

    def _versions(self) -> tuple[int | None, int | None]:
        ids = (self.application_id, self._waiting_id)
        found = self._tables.scores.transaction_versions(ids)
        return found[ids[0]], found[ids[1]]

    def _news(self) -> Iterator[Changes]:
        """Batches of feedback; without a version where more of the same one follow."""
        feedback = self._tables.feedback
        while True:
            try:
                changes = feedback.read_since(self._read_to, columns=_READ, max_rows=self._max_rows)
            except Missing:
                newest = feedback.version()
                if newest is None or newest < (self._read_to or 0):
                    raise
                logger.info(
                    "history ended, all feedback is read: %s table=%s", self.application_id, feedback.uri
                )
                yield from self._everything(newest)
                continue
            if changes.version is None or changes.version == self._read_to:
                return
            if self._read_to is not None and changes.version < self._read_to:
                raise Conflict(
                    f"{self.application_id} has read it up to version {self._read_to}, but it is at {changes.version}",
                    field=feedback.uri,
                    fix="If the feedback table was replaced, move its scores table away as well.",
                )
            yield changes

    def _everything(self, version: int) -> Iterator[Changes]:
        mine = self._tables.feedback.scan(version=version).filter(pl.col("name") == self._options.truth)
        days = _collected(mine.select("request_date").unique())["request_date"].sort()
        for day in days:
            of_day = pl.col("request_date").eq_missing(pl.lit(day, pl.Date))
            for rows in _collected(mine.filter(of_day).select(_READ)).iter_slices(self._max_rows):
                yield Changes(rows, None)
        yield Changes(_collected(mine.select(_READ).clear()), version)

    def _take(self, changes: Changes, run: _Run) -> None:
        mine = changes.frame.filter(pl.col("name") == self._options.truth)
        new = self._truths.not_taken(truths_of(mine, self._options))
        if new or self._far_behind(changes.version):
            now = self._clock.now()
            scores = self._scores(new, now)
            transactions = {} if changes.version is None else {self.application_id: changes.version}
            self._commit(new, scores, transactions, run)
        if changes.version is not None:
            self._read_to = changes.version

    def _far_behind(self, version: int | None) -> bool:
        committed = None if self._committed is None else self._committed[0]
        return version is not None and version - (committed or 0) >= _VERSIONS_UNCOMMITTED

    def _look_again(self, run: _Run, stop: Event | None) -> None:
        """Score what was waiting and is there now, and give up what has waited too long."""
        now = self._clock.now()
        version = self._tables.payload.version()
        candidates = list(self._waiting.values())
        if version == self._looked_at:
            candidates = [each for each in candidates if self._given_up(each, now)]
        for begin in range(0, len(candidates), self._max_rows):
            some = candidates[begin : begin + self._max_rows]
            scores = self._scores(some, now)
            done = [
                (truth, score)
                for truth, score in zip(some, scores, strict=True)
                if score.unscored_reason != WAITING
            ]
            if done:
                assert self._committed is not None
                number = 1 + (-1 if self._committed[1] is None else self._committed[1])
                self._commit(
                    [truth for truth, _ in done],
                    [score for _, score in done],
                    {self._waiting_id: number},
                    run,
                )
            if stop is not None and stop.is_set():
                return
        self._looked_at = version

    def _given_up(self, truth: Truth, now: datetime) -> bool:
        return truth.waiting_since is not None and now - truth.waiting_since >= self._options.wait

    def _scores(self, truths: Sequence[Truth], now: datetime) -> list[Score]:
        self._truths.find_records(truths)
        # A wrong time in the feedback shall not lose it.
        late = [truth for truth in truths if truth.record is None and self._given_up(truth, now)]
        self._truths.find_records(late, everywhere=True)
        scores = []
        for truth in truths:
            if truth.record is not None:
                if truth.expected is None:
                    scores.append(unscored(NO_TRUTH))
                else:
                    record = truth.record
                    scores.append(
                        compare(record["response"], record["response_text"], truth.expected, self._options)
                    )
                continue
            truth.waiting_since = truth.waiting_since or now
            scores.append(unscored(NO_RECORD if self._given_up(truth, now) else WAITING))
        return scores

    def _commit(
        self, truths: Sequence[Truth], scores: Sequence[Score], transactions: Mapping[str, int], run: _Run
    ) -> None:
        if self._committed is None or self._versions() != self._committed:
            raise Conflict(
                f"somebody else scores {self._endpoint} too, so this batch was not kept",
                field=self.application_id,
                fix="Run one scheduler per endpoint.",
            )
        if run.progress is None:
            run.progress = run.stack.enter_context(
                self._history.recorded(
                    endpoint=self._endpoint,
                    evaluator=self._options.evaluator,
                    target=TARGET,
                    device="cpu",
                    from_version=self._read_to,
                )
            )
        rows = score_rows(truths, scores, self._options, now=self._clock.now(), endpoint=self._endpoint)
        after = dict(zip((self.application_id, self._waiting_id), self._committed, strict=True))
        self._tables.scores.append(rows, transactions=transactions or None, after=after)
        self._committed = (
            transactions.get(self.application_id, self._committed[0]),
            transactions.get(self._waiting_id, self._committed[1]),
        )
        for truth, score in zip(truths, scores, strict=True):
            if score.unscored_reason == WAITING:
                self._waiting[truth.request_id] = truth
                self._looked_at = None
            else:
                self._waiting.pop(truth.request_id, None)
        reasons = Counter(score.unscored_reason for score in scores if score.unscored_reason is not None)
        run.scored += len(scores) - reasons.total()
        run.reasons.update(reasons)
        read_to = transactions.get(self.application_id, self._read_to)
        run.progress.update(to_version=read_to, scored=run.scored, unscored_reasons=run.reasons)


def _collected(frame: pl.LazyFrame) -> pl.DataFrame:
    try:
        return frame.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unavailable(f"the feedback table cannot be read: {error}") from error
