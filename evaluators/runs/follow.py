"""Keeps the running schedule what the stored evaluations say: added, changed, paused and deleted ones, and runs asked for.

A change takes effect within :data:`LOOK_S` seconds, without a restart; a run in hand goes on to the end of its batch. An
evaluation that cannot be understood (its row was written by a newer servelens) is left out and logged.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Final

from evaluators.runs.evaluation import Evaluation
from evaluators.runs.evaluation_store import EvaluationStore, StoredEvaluation
from evaluators.runs.run_history import Trigger
from evaluators.runs.schedule import Job, Schedule
from evaluators.runs.scheduled import Claims, ScheduledEvaluation, Surroundings
from servelens.errors import ServelensError

logger = logging.getLogger(__name__)

LOOK_S: Final = 2.0
_KEPT_RUNS: Final = timedelta(days=30)
_FORGET_EVERY_S: Final = 3_600.0
ABORT_AFTER_S: Final = 5.0


class FollowedEvaluations:
    """The evaluations of one term of leadership. :meth:`close` ends it; batches in hand then have ``abort_after_s``."""

    def __init__(
        self,
        store: EvaluationStore,
        surroundings: Surroundings,
        stop: threading.Event,
        *,
        look_s: float = LOOK_S,
        abort_after_s: float = ABORT_AFTER_S,
    ) -> None:
        self._look_s = look_s
        self._abort_after_s = abort_after_s
        self._store = store
        self._surroundings = surroundings
        self._stop = stop
        self._claims = Claims()
        self._lock = threading.Lock()
        self._current: dict[str, ScheduledEvaluation] = {}
        self._planned: dict[str, Job] = {}
        self._requested: dict[str, int] = {}
        self._thread: threading.Thread | None = None
        self._forgotten_at = float("-inf")

    @property
    def current(self) -> list[ScheduledEvaluation]:
        """Those that are there now, paused ones included, by name."""
        with self._lock:
            return [self._current[name] for name in sorted(self._current)]

    def jobs(self) -> list[Job]:
        """One job for each that is not paused, for a single pass. Raises :class:`~servelens.errors.Unavailable`."""
        jobs = []
        for stored in self._store.all():
            if not stored.paused:
                jobs.append(_job(self._known(stored.evaluation)))
        return jobs

    def follow(self, schedule: Schedule) -> None:
        """Begin to keep ``schedule``, in a thread, until the term is over."""
        self._look(schedule)
        self._thread = threading.Thread(
            target=self._follow, args=(schedule,), name="evaluations", daemon=True
        )
        self._thread.start()

    def close(self, finish: Callable[[], None]) -> None:
        """Call ``finish``, which waits for the jobs, and end all evaluators. Batches in hand have some seconds; what takes
        longer is given up, and is scored by whoever leads next.
        """
        impatient = threading.Timer(self._abort_after_s, self._abort)
        impatient.daemon = True
        impatient.start()
        try:
            if self._thread is not None:
                self._thread.join()
            finish()
            for each in self.current:
                each.close()
        finally:
            impatient.cancel()

    def _abort(self) -> None:
        for each in self.current:
            each.abort()

    def _follow(self, schedule: Schedule) -> None:
        while not self._stop.wait(self._look_s):
            try:
                self._look(schedule)
            except Exception:
                # The thread must outlive whatever one look dies of, or no change would be seen any more.
                logger.exception("evaluations not followed this time")

    def _look(self, schedule: Schedule) -> None:
        try:
            stored = self._store.all()
            self._forget_old_runs()
        except ServelensError as error:
            logger.warning("evaluations not read, those that are known go on: %s", error)
            return
        for name in sorted(set(self._current) - {each.evaluation.name for each in stored}):
            self._retire(name, schedule)
        for each in stored:
            self._bring(each, schedule)

    def _bring(self, stored: StoredEvaluation, schedule: Schedule) -> None:
        name = stored.evaluation.name
        known = self._current.get(name)
        if known is not None and known.evaluation != stored.evaluation:
            self._retire(name, schedule)
        try:
            scheduled = self._known(stored.evaluation)
            if stored.paused and name in self._planned:
                schedule.remove(self._planned.pop(name).name)
            elif not stored.paused and name not in self._planned:
                job = _job(scheduled)
                schedule.add(job)
                self._planned[name] = job
            if stored.runs_requested > self._requested.setdefault(name, stored.runs_requested):
                schedule.run_soon(_job(scheduled, Trigger.MANUAL))
        except ServelensError as error:
            logger.error("evaluation not scheduled: evaluation=%s reason=%s", name, error)
        self._requested[name] = stored.runs_requested

    def _known(self, evaluation: Evaluation) -> ScheduledEvaluation:
        with self._lock:
            if evaluation.name not in self._current:
                self._current[evaluation.name] = ScheduledEvaluation(
                    evaluation, self._surroundings, self._claims, self._stop
                )
            return self._current[evaluation.name]

    def _retire(self, name: str, schedule: Schedule) -> None:
        if name in self._planned:
            schedule.remove(self._planned.pop(name).name)
        with self._lock:
            gone = self._current.pop(name)
        gone.retire()

    def _forget_old_runs(self) -> None:
        clock = self._surroundings.clock
        if clock.monotonic() - self._forgotten_at >= _FORGET_EVERY_S:
            self._forgotten_at = clock.monotonic()
            self._surroundings.history.forget(clock.now() - _KEPT_RUNS)


def _job(scheduled: ScheduledEvaluation, trigger: Trigger = Trigger.SCHEDULE) -> Job:
    evaluation = scheduled.evaluation
    return Job(
        f"score {evaluation.name}",
        evaluation.every_s,
        partial(scheduled.run, trigger),
        cron=evaluation.cron,
    )
