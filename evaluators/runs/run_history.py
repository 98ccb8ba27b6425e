"""The history of evaluation runs, in the SQL database: what ran, how far it came, and why it failed.

Invariant: a run is ``running`` only while it runs. One endpoint's evaluator never runs twice at once, so
when it starts again, whatever it left ``running`` was cut off (by SIGKILL, for example) and is marked
``interrupted``. The history informs; the scores table alone decides what has been scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Index, String, delete, func, select, update
from sqlalchemy.orm import Mapped, mapped_column

from servelens.clock import Clock
from servelens.database import Base, Database, UtcDateTime

_ERROR_CHARACTERS: Final = 2_000


class RunState(StrEnum):
    """How a run ended, if it did."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Trigger(StrEnum):
    """What began a run."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    BACKFILL = "backfill"


class EvaluationRun(Base):
    """One run of an evaluator over one endpoint's new records.

    ``from_version`` (exclusive; null: the beginning) and ``to_version`` are versions of the inference table.
    ``scored`` and ``unscored`` count records; ``unscored_reasons`` maps each reason to its count. ``skipped`` were left
    out by sampling, and ``waiting`` were new in the table when the run ended. ``tokens`` is the sum of what the scores'
    details say, null where they do not. ``lag_p99_s`` and ``lag_max_s``: from a record's ``request_time`` to
    ``scored_at``. What is null was not kept (yet), or does not apply.
    """

    __tablename__ = "evaluation_runs"
    __table_args__ = (Index("ix_evaluation_runs_endpoint_evaluator", "endpoint", "evaluator", "started_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    endpoint: Mapped[str]
    evaluator: Mapped[str]
    target: Mapped[str | None]
    device: Mapped[str]
    state: Mapped[str] = mapped_column(default=RunState.RUNNING.value)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime())
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime(), default=None)
    duration_s: Mapped[float | None] = mapped_column(default=None)
    from_version: Mapped[int | None] = mapped_column(default=None)
    to_version: Mapped[int | None] = mapped_column(default=None)
    scored: Mapped[int] = mapped_column(default=0)
    unscored: Mapped[int] = mapped_column(default=0)
    unscored_reasons: Mapped[dict[str, int]] = mapped_column(JSON, default=dict)
    error: Mapped[str | None] = mapped_column(default=None)
    evaluation: Mapped[str | None] = mapped_column(String(200), default=None)
    trigger: Mapped[str | None] = mapped_column(String(20), default=None)
    evaluator_version: Mapped[str | None] = mapped_column(String(200), default=None)
    skipped: Mapped[int | None] = mapped_column(default=None)
    tokens: Mapped[int | None] = mapped_column(BigInteger, default=None)
    lag_p99_s: Mapped[float | None] = mapped_column(default=None)
    lag_max_s: Mapped[float | None] = mapped_column(default=None)
    waiting: Mapped[int | None] = mapped_column(default=None)

    @property
    def rows(self) -> int:
        """Rows of the scores table that it wrote."""
        return self.scored + self.unscored

    @property
    def tokens_per_s(self) -> float | None:
        """Over the whole run, reading and writing included."""
        if self.tokens is None or not self.duration_s:
            return None
        return self.tokens / self.duration_s

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        names = (*(column.name for column in self.__table__.columns), "rows", "tokens_per_s")
        values = {name: getattr(self, name) for name in names}
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in values.items()
        }


class RunHistory:
    """Writes and lists runs."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @contextmanager
    def recorded(
        self,
        *,
        endpoint: str,
        evaluator: str,
        target: str | None,
        device: str,
        from_version: int | None,
        evaluator_version: str | None = None,
        evaluation: str | None = None,
        trigger: Trigger = Trigger.SCHEDULE,
    ) -> Iterator[RunProgress]:
        """Record the run that the block is; an exception is kept as the run's error and goes on.

        ``target`` is ``request`` or ``response``, or the granularity of what looks at windows. A backfill and the
        schedule may run at the same time; neither of them does so twice.
        """
        backfill = trigger is Trigger.BACKFILL
        started = self._clock.monotonic()
        with self._database.session() as session:
            session.execute(
                update(EvaluationRun)
                .where(EvaluationRun.endpoint == endpoint, EvaluationRun.evaluator == evaluator)
                .where(EvaluationRun.target.is_not_distinct_from(target))
                .where(EvaluationRun.state == RunState.RUNNING.value)
                .where((func.coalesce(EvaluationRun.trigger, "") == Trigger.BACKFILL.value).is_(backfill))
                .values(state=RunState.INTERRUPTED.value, error="the process ended before the run did")
            )
            run = EvaluationRun(
                endpoint=endpoint,
                evaluator=evaluator,
                target=target,
                device=device,
                started_at=self._clock.now(),
                from_version=from_version,
                to_version=from_version,
                evaluation=evaluation,
                trigger=trigger.value,
                evaluator_version=evaluator_version,
            )
            session.add(run)
        progress = RunProgress(self._database, run.id)
        try:
            yield progress
        except BaseException as error:
            self._finish(run.id, RunState.FAILED, started, error=_described(error))
            raise
        self._finish(run.id, RunState.SUCCEEDED, started, error=None)

    def recent(
        self,
        *,
        endpoint: str | None = None,
        evaluator: str | None = None,
        evaluation: str | None = None,
        limit: int = 50,
    ) -> list[EvaluationRun]:
        """The newest ``limit`` runs, newest first."""
        query = select(EvaluationRun).order_by(EvaluationRun.started_at.desc(), EvaluationRun.id.desc())
        if endpoint is not None:
            query = query.where(EvaluationRun.endpoint == endpoint)
        if evaluator is not None:
            query = query.where(EvaluationRun.evaluator == evaluator)
        if evaluation is not None:
            query = query.where(EvaluationRun.evaluation == evaluation)
        with self._database.session(read_only=True) as session:
            return list(session.scalars(query.limit(limit)))

    def forget(self, before: datetime) -> int:
        """Delete the runs that started before ``before`` and give their number."""
        with self._database.session() as session:
            old = session.scalars(
                delete(EvaluationRun)
                .where(EvaluationRun.started_at < before)
                .where(EvaluationRun.state != RunState.RUNNING.value)
                .returning(EvaluationRun.id)
            )
            return len(old.all())

    def _finish(self, run_id: int, state: RunState, started: float, *, error: str | None) -> None:
        with self._database.session() as session:
            session.execute(
                update(EvaluationRun)
                .where(EvaluationRun.id == run_id)
                .values(
                    state=state.value,
                    finished_at=self._clock.now(),
                    duration_s=self._clock.monotonic() - started,
                    error=error,
                )
            )


def _described(error: BaseException) -> str:
    # A text column of PostgreSQL cannot hold a null character, and a model's message may quote its input.
    return f"{type(error).__name__}: {error}".replace("\0", "")[:_ERROR_CHARACTERS]


class RunProgress:
    """How far a run has come; written after each commit, so that a run that is cut off shows what it did."""

    def __init__(self, database: Database, run_id: int) -> None:
        self._database = database
        self._run_id = run_id

    def update(
        self,
        *,
        to_version: int | None,
        scored: int,
        unscored_reasons: Mapping[str, int],
        **more: float | None,
    ) -> None:
        """Store the totals of the run so far; ``more`` are other columns of the run."""
        with self._database.session() as session:
            session.execute(
                update(EvaluationRun)
                .where(EvaluationRun.id == self._run_id)
                .values(
                    to_version=to_version,
                    scored=scored,
                    unscored=sum(unscored_reasons.values()),
                    unscored_reasons=dict(unscored_reasons),
                    **more,
                )
            )
