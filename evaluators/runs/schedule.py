"""Runs jobs at intervals in the background: APScheduler with the rules that evaluations need.

Invariant: a job never runs twice at once, and neither do two jobs of one ``group``. A start that is due
while the job still runs is left out; starts that were slept through are made up for by one. A job that
raises is logged and runs again when it is next due. Stopping waits for the running jobs and starts no
others.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from servelens.clock import Clock, SystemClock
from servelens.errors import Conflict, Invalid, ServelensError

logger = logging.getLogger(__name__)

_SHORTEST_S: Final = 0.01
_EXECUTOR: Final = "servelens"


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do every ``every_s`` seconds; jobs of one ``group`` (an endpoint, for example) wait for
    each other."""

    name: str
    every_s: float
    action: Callable[[], object]
    group: str | None = None


@dataclass(frozen=True, slots=True)
class JobResult:
    """One run of a job: what its action returned, or the error that it raised."""

    name: str
    value: object = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What a job has done so far; ``last_error`` is that of the last run, ``None`` when it went well."""

    name: str
    running: bool = False
    runs: int = 0
    failures: int = 0
    last_started: datetime | None = None
    last_finished: datetime | None = None
    last_error: str | None = None


class Schedule:
    """Runs ``jobs``, each for the first time at :meth:`start`. A stopped schedule is not started again."""

    def __init__(self, jobs: Sequence[Job], clock: Clock | None = None) -> None:
        names = [job.name for job in jobs]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise Invalid(f"two jobs are called {doubled[0]!r}", field="jobs", fix="Give each its own name.")
        for job in jobs:
            if not job.every_s >= _SHORTEST_S:
                raise Invalid(f"{job.every_s} seconds is no interval", field=f"jobs.{job.name}.every_s")
        self._jobs = tuple(jobs)
        self._clock = clock or SystemClock()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._job_locks = {job.name: threading.Lock() for job in jobs}
        self._group_locks = {job.group: threading.Lock() for job in jobs if job.group is not None}
        self._status = {job.name: JobStatus(job.name) for job in jobs}
        self._scheduler: BackgroundScheduler | None = None

    def start(self) -> None:
        """Begin, in the background; every job is due at once."""
        with self._lock:
            if self._scheduler is not None or self._stopping.is_set():
                raise Conflict("the schedule has been started before", fix="Make a new one.")
            self._scheduler = BackgroundScheduler(
                timezone=UTC,
                executors={_EXECUTOR: ThreadPoolExecutor(max(len(self._jobs), 1))},
                job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
                logger=_quiet("apscheduler.scheduler.servelens", logging.ERROR),
            )
            scheduler = self._scheduler
        # One line per start of each job would bury everything else.
        _quiet(f"apscheduler.executors.{_EXECUTOR}", logging.WARNING)
        for job in self._jobs:
            scheduler.add_job(
                self._due,
                IntervalTrigger(seconds=job.every_s, timezone=UTC),
                args=[job],
                executor=_EXECUTOR,
                id=job.name,
                name=job.name,
                next_run_time=datetime.now(UTC),
            )
        scheduler.start()

    def stop(self) -> None:
        """Start no more jobs and wait for those that run. Does nothing the second time."""
        self._stopping.set()
        with self._lock:
            scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.shutdown(wait=True)

    def run_forever(self, stop: threading.Event) -> None:
        """Start, wait for ``stop``, and stop."""
        self.start()
        try:
            stop.wait()
        finally:
            self.stop()

    def run_once(self) -> list[JobResult]:
        """Run every job now, one after the other in their order; a job that raises does not stop the
        others."""
        return [self._run(job) for job in self._jobs]

    def status(self) -> list[JobStatus]:
        """What each job has done so far, in their order."""
        with self._lock:
            return [self._status[job.name] for job in self._jobs]

    def _due(self, job: Job) -> None:
        if not self._stopping.is_set():
            self._run(job, unless_stopping=True)

    def _run(self, job: Job, *, unless_stopping: bool = False) -> JobResult:
        with ExitStack() as held:
            held.enter_context(self._job_locks[job.name])
            if job.group is not None:
                held.enter_context(self._group_locks[job.group])
            if unless_stopping and self._stopping.is_set():
                return JobResult(job.name)
            self._note(job, running=True, last_started=self._clock.now())
            result = _outcome(job)
            status = self._status[job.name]
            self._note(
                job,
                running=False,
                runs=status.runs + 1,
                failures=status.failures + (result.error is not None),
                last_finished=self._clock.now(),
                last_error=None if result.error is None else f"{type(result.error).__name__}: {result.error}",
            )
            return result

    def _note(self, job: Job, **changes: Any) -> None:
        with self._lock:
            self._status[job.name] = replace(self._status[job.name], **changes)


def _outcome(job: Job) -> JobResult:
    try:
        return JobResult(job.name, value=job.action())
    except ServelensError as error:
        logger.error("job failed: job=%s error=%s", job.name, error)
        return JobResult(job.name, error=error)
    except Exception as error:
        logger.exception("job failed: job=%s", job.name)
        return JobResult(job.name, error=error)


def _quiet(name: str, level: int) -> logging.Logger:
    named = logging.getLogger(name)
    named.setLevel(level)
    return named
