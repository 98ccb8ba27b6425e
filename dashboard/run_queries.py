"""Where the evaluations of an endpoint stand: how old the oldest record is that one has not come to, its runs, their lag.

Invariant: what is read is bounded. The lag's history comes grouped from the database, 110 bins at the most for each
evaluator; the age of the oldest unscored record costs two version numbers and is read again only when a table has changed.
Answers of the database are shared by all viewers for some seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeVar

from apscheduler.triggers.cron import CronTrigger
from sqlalchemy import Integer, cast, extract, func, select

from collector.catalog import Catalog
from dashboard.queries import TableReader
from dashboard.view import Window
from evaluators.runs.cron import Cron
from evaluators.runs.evaluation import Evaluation
from evaluators.runs.evaluation_store import EvaluationStore, StoredEvaluation
from evaluators.runs.oldest_unscored import OldestUnscored
from evaluators.runs.run_history import EvaluationRun, RunHistory, RunState
from servelens.clock import Clock
from servelens.database import Database

Result = TypeVar("Result")
Standing = Literal["paused", "failing", "late", "running", "never", "ok"]

_SHARED_S: Final = 5
_SOON: Final = timedelta(minutes=1)
_CRON_GRACE: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class EvaluationStanding:
    """An evaluation, its last run, and since when the oldest record waits that it has neither scored nor left out
    (``None``: none waits). ``due`` is when a record that old ought to have been scored."""

    evaluation: Evaluation
    paused: bool
    last: EvaluationRun | None
    oldest: datetime | None
    due: datetime | None
    state: Standing

    @property
    def target(self) -> str:
        return (self.last and self.last.target) or self.evaluation.expected_target


@dataclass(frozen=True, slots=True)
class LagPoint:
    """The largest 99th percentile of the lag, in seconds, of the runs of an evaluator that began in the bin."""

    evaluator: str
    target: str
    start: datetime
    lag_p99_s: float


class RunQueries:
    """Reads evaluations, runs and lag. May be asked from several threads."""

    def __init__(self, catalog: Catalog, database: Database, reader: TableReader, clock: Clock) -> None:
        self._catalog = catalog
        self._database = database
        self._reader = reader
        self._clock = clock
        self._store = EvaluationStore(database, clock)
        self._history = RunHistory(database, clock)
        self._looks: dict[str, OldestUnscored] = {}
        self._lock = threading.Lock()

    def recent(self, endpoint: str, limit: int) -> Sequence[EvaluationRun]:
        """The newest runs on ``endpoint``, of whatever evaluator."""
        return self._shared(
            ("runs", endpoint, limit), lambda: self._history.recent(endpoint=endpoint, limit=limit)
        )

    def standings(self, endpoint: str) -> tuple[EvaluationStanding, ...]:
        """The evaluations of ``endpoint`` by name, each with where it stands now."""
        stored = self._shared(("evaluations", endpoint), lambda: self._with_last_run(endpoint))
        return tuple(self._standing(each, last) for each, last in stored)

    def lag(self, endpoint: str, window: Window) -> tuple[LagPoint, ...]:
        """The lag of the runs that began in ``window``, per bin of it, by evaluator and time."""
        return self._shared(("lag", endpoint, window), lambda: self._read_lag(endpoint, window))

    def _shared(self, key: tuple[object, ...], compute: Callable[[], Result]) -> Result:
        slot = int(self._clock.monotonic() // _SHARED_S)
        return self._reader.cache.get((slot, *key), compute)

    def _with_last_run(self, endpoint: str) -> list[tuple[StoredEvaluation, EvaluationRun | None]]:
        found = []
        for stored in self._store.all():
            if stored.evaluation.endpoint == endpoint:
                runs = self._history.recent(evaluation=stored.evaluation.name, limit=1)
                found.append((stored, runs[0] if runs else None))
        return found

    def _standing(self, stored: StoredEvaluation, last: EvaluationRun | None) -> EvaluationStanding:
        evaluation = stored.evaluation
        target = (last and last.target) or evaluation.expected_target
        oldest = self._oldest(evaluation.endpoint, f"{evaluation.spec.name}@{target}")
        due = None if oldest is None else due_at(evaluation, oldest)
        state = standing_state(
            paused=stored.paused,
            last=None if last is None else last.state,
            late=due is not None and self._clock.now() > due,
        )
        return EvaluationStanding(evaluation, stored.paused, last, oldest, due, state)

    def _oldest(self, endpoint: str, application_id: str) -> datetime | None:
        tables = self._catalog.tables(endpoint)
        with self._lock:
            look = self._looks.setdefault(endpoint + "\0" + application_id, OldestUnscored(tables))

        def compute() -> datetime | None:
            now = self._clock.now()
            age = look.age_s(application_id, now)
            return None if age == 0 else now - timedelta(seconds=age)

        return self._reader.read(
            [tables.payload, tables.scores], ("oldest", endpoint, application_id), compute
        )

    def _read_lag(self, endpoint: str, window: Window) -> tuple[LagPoint, ...]:
        width = int(window.bin.total_seconds())
        epoch = cast(extract("epoch", EvaluationRun.started_at), Integer)
        # A remainder, since integer division is spelled differently by each database; and grouped by the columns of a
        # subquery, since PostgreSQL takes two expressions with parameters for different ones.
        binned = (
            select(
                EvaluationRun.evaluator,
                func.coalesce(EvaluationRun.target, "").label("side"),
                (epoch - epoch % width).label("start"),
                EvaluationRun.lag_p99_s,
            )
            .where(EvaluationRun.endpoint == endpoint, EvaluationRun.lag_p99_s.is_not(None))
            .where(EvaluationRun.started_at >= window.since, EvaluationRun.started_at < window.until)
            .subquery()
        )
        places = (binned.c.evaluator, binned.c.side, binned.c.start)
        query = select(*places, func.max(binned.c.lag_p99_s)).group_by(*places).order_by(*places)
        with self._database.session(read_only=True) as session:
            return tuple(
                LagPoint(evaluator, side, datetime.fromtimestamp(second, UTC), lag)
                for evaluator, side, second, lag in session.execute(query)
                if lag is not None
            )


def due_at(evaluation: Evaluation, oldest: datetime) -> datetime:
    """When a record of the time ``oldest`` ought to have its score: a minute, or two intervals, later; with times of the
    clock ten minutes after the first of them that follows it.
    """
    if evaluation.every_s is not None:
        return oldest + max(_SOON, timedelta(seconds=2 * evaluation.every_s))
    trigger = CronTrigger(**asdict(Cron.parse(evaluation.cron or "")), timezone=UTC)
    following = trigger.get_next_fire_time(None, oldest)
    # A date that never comes (30 February) makes nothing late.
    return datetime.max.replace(tzinfo=UTC) if following is None else following + _CRON_GRACE


def standing_state(*, paused: bool, last: str | None, late: bool) -> Standing:
    """The one word for it: what needs somebody comes first. ``last`` is the state of the last run."""
    if paused:
        return "paused"
    if last == RunState.FAILED:
        return "failing"
    if late:
        return "late"
    if last == RunState.RUNNING:
        return "running"
    return "never" if last is None else "ok"
