"""Runs jobs at intervals or at times of the clock in the background: APScheduler with the rules that evaluations need.

Invariant: a job never runs twice at once, and neither do two jobs of one ``group``. A start that is due
while the job still runs is left out; starts that were slept through are made up for by one. A job that
raises is logged and runs again when it is next due. Stopping waits for the running jobs and starts no
others. Jobs may come and go while it runs; one that is removed while it runs is left to finish.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from evaluators.runs.cron import Cron
from servelens.clock import Clock, SystemClock
from servelens.errors import Conflict, Invalid, ServelensError

logger = logging.getLogger(__name__)

_SHORTEST_S: Final = 0.01
_EXECUTOR: Final = "servelens"
_MOST_THREADS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do every ``every_s`` seconds, or with ``every_s`` of ``None`` at the times of ``cron`` (five fields,
    UTC); jobs of one ``group`` (an endpoint, for example) wait for each other."""

    name: str
    every_s: float | None
    action: Callable[[], object]
    group: str | None = None
    cron: str | None = None


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
    """Runs ``jobs``, those at intervals for the first time at :meth:`start`. A stopped schedule is not started again."""

    def __init__(self, jobs: Sequence[Job], clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._job_locks: dict[str, threading.Lock] = {}
        self._group_locks: dict[str, threading.Lock] = {}
        self._status: dict[str, JobStatus] = {}
        self._scheduler: BackgroundScheduler | None = None
        for job in jobs:
            self.add(job)

    def start(self) -> None:
        """Begin, in the background; every job with an interval is due at once."""
        with self._lock:
            if self._scheduler is not None or self._stopping.is_set():
                raise Conflict("the schedule has been started before", fix="Make a new one.")
            self._scheduler = BackgroundScheduler(
                timezone=UTC,
                # Threads are made when they are needed; jobs of a group wait in theirs.
                executors={_EXECUTOR: ThreadPoolExecutor(_MOST_THREADS)},
                job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
                logger=_quiet("apscheduler.scheduler.servelens", logging.ERROR),
            )
            # One line per start of each job would bury everything else.
            _quiet(f"apscheduler.executors.{_EXECUTOR}", logging.WARNING)
            for job in self._jobs.values():
                self._plan(self._scheduler, job)
            self._scheduler.start()

    def add(self, job: Job) -> None:
        """Add a job, also while the schedule runs. Raises :class:`~servelens.errors.Invalid`."""
        trigger = _trigger(job)
        with self._lock:
            if job.name in self._jobs:
                raise Invalid(
                    f"two jobs are called {job.name!r}", field="jobs", fix="Give each its own name."
                )
            self._jobs[job.name] = job
            self._know(job)
            if self._scheduler is not None:
                self._plan(self._scheduler, job, trigger)

    def remove(self, name: str) -> None:
        """Start the job no more. Does nothing when there is none."""
        with self._lock:
            if self._jobs.pop(name, None) is not None and self._scheduler is not None:
                self._scheduler.remove_job(name)

    def run_soon(self, job: Job) -> None:
        """Run ``job`` once, now; it waits for a run of its name and for those of its group. It need not have been added."""
        with self._lock:
            self._know(job)
            if self._scheduler is not None:
                self._scheduler.add_job(
                    self._due, args=[job], executor=_EXECUTOR, name=f"{job.name} (asked for)"
                )

    def _know(self, job: Job) -> None:
        self._job_locks.setdefault(job.name, threading.Lock())
        if job.group is not None:
            self._group_locks.setdefault(job.group, threading.Lock())
        self._status.setdefault(job.name, JobStatus(job.name))

    def _plan(self, scheduler: BackgroundScheduler, job: Job, trigger: Any = None) -> None:
        first = {"next_run_time": datetime.now(UTC)} if job.every_s is not None else {}
        scheduler.add_job(
            self._due,
            trigger or _trigger(job),
            args=[job],
            executor=_EXECUTOR,
            id=job.name,
            name=job.name,
            **first,
        )

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
        return [self._run(job) for job in list(self._jobs.values())]

    def status(self) -> list[JobStatus]:
        """What each job has done so far, in their order."""
        with self._lock:
            return [self._status[name] for name in self._jobs]

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


def _trigger(job: Job) -> Any:
    if job.every_s is not None:
        if not job.every_s >= _SHORTEST_S:
            raise Invalid(f"{job.every_s} seconds is no interval", field=f"jobs.{job.name}.every_s")
        return IntervalTrigger(seconds=job.every_s, timezone=UTC)
    return CronTrigger(**asdict(Cron.parse(job.cron or "")), timezone=UTC)


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
