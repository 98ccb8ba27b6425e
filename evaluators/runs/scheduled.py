"""One evaluation as the scheduler runs it: its evaluator is started when it is first due, kept warm, and ended in the end.

Invariant: what fails is seen. An evaluator that cannot be loaded, or an endpoint that is gone, is a failed run in the
history (once for each error, not for each try), and the lag grows meanwhile.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from collector.catalog import EndpointTables
from evaluators.runs.evaluation import Evaluation
from evaluators.runs.oldest_unscored import OldestUnscored
from evaluators.runs.record_scores import batch_rows
from evaluators.runs.run_history import RunHistory, Trigger
from evaluators.runs.runner import EvaluationRunner, RunSummary
from evaluators.workers.placement import PlacedEvaluator
from servelens.clock import Clock
from servelens.errors import Conflict, ServelensError, Unavailable

logger = logging.getLogger(__name__)

_KEPT_WARM_S: Final = 600.0


@dataclass(slots=True)
class Tally:
    """What an evaluation has done since this process began to lead."""

    runs: int = 0
    failures: int = 0
    scored: int = 0
    skipped: int = 0
    unscored: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    tokens_per_s: float | None = None
    last_finished: datetime | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all evaluations of a scheduler share. ``exclusive`` keeps backfills of an endpoint's application id out."""

    tables: Callable[[str], EndpointTables]
    evaluator: Callable[[Evaluation], PlacedEvaluator]
    history: RunHistory
    clock: Clock
    fence: Callable[[], None]
    exclusive: Callable[[str, str], AbstractContextManager[bool]]


class Claims:
    """Which evaluation scores an endpoint under an application id: two would share one position in the table."""

    def __init__(self) -> None:
        self._owners: dict[tuple[str, str], ScheduledEvaluation] = {}
        self._lock = threading.Lock()

    def take(self, application_id: str, owner: ScheduledEvaluation) -> None:
        """Raises :class:`~servelens.errors.Conflict` when it is another evaluation's."""
        name, key = owner.evaluation.name, (owner.evaluation.endpoint, application_id)
        with self._lock:
            known = self._owners.get(key)
            if known is None or known.evaluation.name == name:
                self._owners[key] = owner
                return
        raise Conflict(
            f"evaluation '{known.evaluation.name}' scores {application_id} on endpoint '{key[0]}' already",
            field=f"evaluations[{name}]",
            fix="Give one of them another 'scores_as', or delete it.",
        )

    def leave(self, owner: ScheduledEvaluation) -> None:
        """It scores nothing any more."""
        with self._lock:
            self._owners = {key: each for key, each in self._owners.items() if each is not owner}


class ScheduledEvaluation:
    """Runs ``evaluation``; one run at a time. After :meth:`retire` there are no more runs."""

    def __init__(
        self, evaluation: Evaluation, surroundings: Surroundings, claims: Claims, stop: threading.Event
    ) -> None:
        self.evaluation = evaluation
        self.tally = Tally()
        self.application_id = f"{evaluation.score_name}@{evaluation.expected_target}"
        self._surroundings = surroundings
        self._claims = claims
        self._evaluator: PlacedEvaluator | None = None
        self._placing = threading.Lock()
        self._aborted = False
        self._stop = _Either(stop)
        self._busy = threading.Lock()
        self._runner: EvaluationRunner | None = None
        self._oldest: OldestUnscored | None = None
        self._reported: str | None = None

    @property
    def labels(self) -> tuple[str, str, str, str]:
        """Evaluation, endpoint, evaluator, target."""
        evaluator, _, target = self.application_id.rpartition("@")
        return self.evaluation.name, self.evaluation.endpoint, evaluator, target

    def run(self, trigger: Trigger = Trigger.SCHEDULE) -> RunSummary | None:
        """One run; ``None`` when it is to stop. Raises what loading and running raise."""
        with self._busy:
            if self._stop.is_set():
                return None
            try:
                runner = self._runner or self._loaded()
                summary = runner.run(self._stop, trigger)
            except ServelensError as error:
                if self._aborted:
                    logger.info("given up at the stop: evaluation=%s reason=%s", self.evaluation.name, error)
                    return None
                self.tally.failures += 1
                self._report(error, trigger)
                raise
            finally:
                self.tally.runs += 1
                self.tally.last_finished = self._surroundings.clock.now()
                if self.evaluation.every_s is None or self.evaluation.every_s > _KEPT_WARM_S:
                    self._end()
            self._reported = None
            self._count(summary)
            return summary

    def lag_s(self) -> float:
        """The age of the oldest record that it has not come to. Raises what the tables raise."""
        if self._oldest is None:
            self._oldest = OldestUnscored(self._surroundings.tables(self.evaluation.endpoint))
        return self._oldest.age_s(self.application_id, self._surroundings.clock.now())

    def retire(self) -> None:
        """Start no run any more, and end the evaluator after the run in hand, in the background."""
        self._stop.set()
        threading.Thread(target=self.close, name=f"retire {self.evaluation.name}", daemon=True).start()

    def abort(self) -> None:
        """End the run in hand at once; nothing of its batch is kept."""
        self._stop.set()
        with self._placing:
            self._aborted = True
            if self._evaluator is not None:
                self._evaluator.abort()

    def close(self) -> None:
        """Wait for the run in hand and end the evaluator."""
        self._stop.set()
        with self._busy:
            self._end()
            self._claims.leave(self)

    def _placed(self) -> PlacedEvaluator:
        """Where it runs, which is not known before the first run: a secret may be missing here, and that is a failed run."""
        with self._placing:
            if self._aborted:
                raise Unavailable("the evaluation was stopped", field=self.evaluation.name)
            if self._evaluator is None:
                self._evaluator = self._surroundings.evaluator(self.evaluation)
            return self._evaluator

    def _end(self) -> None:
        if self._evaluator is not None:
            self._evaluator.close()

    def _loaded(self) -> EvaluationRunner:
        evaluation, around = self.evaluation, self._surroundings
        tables = around.tables(evaluation.endpoint)
        evaluator = self._placed()
        self.application_id = f"{evaluator.name}@{evaluator.target}"
        self._claims.take(self.application_id, self)
        self._runner = EvaluationRunner(
            tables,
            evaluation.endpoint,
            evaluator,
            around.history,
            around.clock,
            evaluation=evaluation.name,
            max_rows=min(batch_rows(evaluator), evaluation.max_rows_per_run or sys.maxsize),
            max_rows_per_run=evaluation.max_rows_per_run,
            sampling=evaluation.sampling,
            fence=around.fence,
            exclusive=lambda: around.exclusive(evaluation.endpoint, self.application_id),
        )
        return self._runner

    def _report(self, error: ServelensError, trigger: Trigger) -> None:
        """Record what kept the run from beginning; what came later is in the history already."""
        if self._runner is not None or str(error) == self._reported:
            return
        self._reported = str(error)
        _, endpoint, evaluator, target = self.labels
        try:
            with self._surroundings.history.recorded(
                endpoint=endpoint,
                evaluator=evaluator,
                target=target,
                device="",
                from_version=None,
                evaluation=self.evaluation.name,
                trigger=trigger,
            ):
                raise error
        except ServelensError as also:
            if also is not error:
                logger.warning("a failed run was not recorded: %s", also)

    def _count(self, summary: RunSummary) -> None:
        tally = self.tally
        tally.scored += summary.scored
        tally.skipped += summary.skipped
        for reason, count in summary.unscored_reasons.items():
            tally.unscored[reason] = tally.unscored.get(reason, 0) + count
        if summary.tokens is not None:
            tally.tokens += summary.tokens
            tally.tokens_per_s = summary.tokens / summary.duration_s if summary.duration_s else None


class _Either(threading.Event):
    """Set when it is set itself, or when the other is."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        return super().is_set() or self._other.is_set()
