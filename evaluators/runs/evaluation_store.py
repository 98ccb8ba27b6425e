"""Evaluations in the SQL database: those of the settings file and those that were made by API, in one list.

Invariants: a name belongs to one evaluation. What the settings file defines is changed there; the API may hold it, let it
go on and ask for a run, as with all others. Each change raises ``revision``, so that a writer who names the revision that
it has read overwrites nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import JSON, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from evaluators.runs.evaluation import Evaluation
from evaluators.runs.secret_options import shown
from servelens.clock import Clock
from servelens.database import Base, Database, UtcDateTime
from servelens.errors import Conflict, Invalid, Missing

logger = logging.getLogger(__name__)

FILE: Final = "file"
API: Final = "api"
_BY_FILE: Final = "servelens.yaml"


class EvaluationRow(Base):
    """One evaluation. ``runs_requested`` counts how often somebody asked for a run beside the schedule."""

    __tablename__ = "evaluation_schedules"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    endpoint: Mapped[str] = mapped_column(String(255))
    definition: Mapped[dict[str, Any]] = mapped_column(JSON)
    source: Mapped[str] = mapped_column(String(8))
    paused: Mapped[bool]
    runs_requested: Mapped[int]
    revision: Mapped[int]
    changed_by: Mapped[str] = mapped_column(String(255))
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


@dataclass(frozen=True, slots=True)
class StoredEvaluation:
    """An evaluation as it is stored."""

    evaluation: Evaluation
    source: str
    paused: bool
    runs_requested: int
    revision: int
    changed_by: str
    changed_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without secrets."""
        return {
            **self.evaluation.to_dict(),
            "options": shown(self.evaluation.spec.options),
            "source": self.source,
            "state": "paused" if self.paused else "scheduled",
            "revision": self.revision,
            "changed_by": self.changed_by,
            "changed_at": self.changed_at.isoformat(),
        }


class EvaluationStore:
    """Reads and writes evaluations. Methods may be called from several threads and processes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def all(self) -> list[StoredEvaluation]:
        """All, by name; without those that only a newer servelens can read, which are logged."""
        found = []
        with self._database.session(read_only=True) as session:
            for row in session.scalars(select(EvaluationRow).order_by(EvaluationRow.name)):
                try:
                    found.append(_stored(row))
                except (Invalid, KeyError, TypeError) as error:
                    logger.warning("evaluation not usable here: name=%s reason=%s", row.name, error)
        return found

    def get(self, name: str) -> StoredEvaluation:
        """The evaluation called ``name``. Raises :class:`~servelens.errors.Missing`."""
        with self._database.session(read_only=True) as session:
            return _stored(_row(session, name, lock=False))

    def create(self, evaluation: Evaluation, *, by: str) -> StoredEvaluation:
        """Add one. Raises :class:`~servelens.errors.Conflict` when the name is taken."""
        with self._database.session() as session:
            if session.get(EvaluationRow, evaluation.name) is not None:
                raise Conflict(
                    f"there is an evaluation named '{evaluation.name}' already.",
                    field="name",
                    fix="Give this one another 'name', or change that one.",
                )
            row = self._new(evaluation, API, by)
            session.add(row)
            return _stored(row)

    def replace(
        self, evaluation: Evaluation, *, by: str, expected_revision: int | None = None
    ) -> StoredEvaluation:
        """Give the evaluation of that name another definition. Raises :class:`~servelens.errors.Missing`,
        :class:`~servelens.errors.Conflict`, and :class:`~servelens.errors.Invalid` for one of the settings file.
        """
        with self._database.session() as session:
            row = _row(session, evaluation.name, expected_revision)
            _refuse_file(row)
            row.definition, row.endpoint = evaluation.to_dict(), evaluation.endpoint
            return self._changed(row, by)

    def pause(
        self, name: str, *, paused: bool, by: str, expected_revision: int | None = None
    ) -> StoredEvaluation:
        """Start no runs by schedule any more, or start them again. A run that was asked for is made all the same."""
        with self._database.session() as session:
            row = _row(session, name, expected_revision)
            row.paused = paused
            return self._changed(row, by)

    def request_run(self, name: str, *, by: str) -> StoredEvaluation:
        """Ask the scheduler for a run; it begins within seconds."""
        with self._database.session() as session:
            row = _row(session, name)
            row.runs_requested += 1
            return self._changed(row, by)

    def delete(self, name: str, expected_revision: int | None = None) -> None:
        """Remove it; its scores and runs stay. Raises as :meth:`replace`."""
        with self._database.session() as session:
            row = _row(session, name, expected_revision)
            _refuse_file(row)
            session.delete(row)

    def apply_file(self, evaluations: Sequence[Evaluation]) -> None:
        """Make the evaluations of the settings file those of source ``file``. Raises
        :class:`~servelens.errors.Invalid` when one has the name of one that was made by API.
        """
        with self._database.session() as session:
            rows = {row.name: row for row in session.scalars(select(EvaluationRow).with_for_update())}
            for index, evaluation in enumerate(evaluations):
                row = rows.get(evaluation.name)
                if row is None:
                    session.add(self._new(evaluation, FILE, _BY_FILE))
                elif row.source != FILE:
                    raise Invalid(
                        f"there is an evaluation '{evaluation.name}' that was made by API.",
                        field=f"evaluations[{index}].name",
                        fix="Delete that one, or give this one another name.",
                    )
                elif row.definition != evaluation.to_dict():
                    row.definition, row.endpoint = evaluation.to_dict(), evaluation.endpoint
                    self._changed(row, _BY_FILE)
            kept = {evaluation.name for evaluation in evaluations}
            for row in rows.values():
                if row.source == FILE and row.name not in kept:
                    session.delete(row)

    def _new(self, evaluation: Evaluation, source: str, by: str) -> EvaluationRow:
        now = self._clock.now()
        return EvaluationRow(
            name=evaluation.name,
            endpoint=evaluation.endpoint,
            definition=evaluation.to_dict(),
            source=source,
            paused=False,
            runs_requested=0,
            revision=1,
            changed_by=by,
            changed_at=now,
            created_at=now,
        )

    def _changed(self, row: EvaluationRow, by: str) -> StoredEvaluation:
        row.revision += 1
        row.changed_by, row.changed_at = by, self._clock.now()
        return _stored(row)


def _row(
    session: Session, name: str, expected_revision: int | None = None, *, lock: bool = True
) -> EvaluationRow:
    row = session.get(EvaluationRow, name, with_for_update=lock)
    if row is None:
        names = ", ".join(session.scalars(select(EvaluationRow.name).order_by(EvaluationRow.name).limit(20)))
        raise Missing(
            f"there is no evaluation '{name}'.",
            field="name",
            fix=f"Use one of: {names or 'there is none yet'}.",
        )
    if expected_revision is not None and row.revision != expected_revision:
        raise Conflict(
            f"evaluation '{name}' is at revision {row.revision}, not {expected_revision}.",
            field="If-Match",
            fix="Read it again.",
        )
    return row


def _refuse_file(row: EvaluationRow) -> None:
    if row.source == FILE:
        raise Invalid(
            f"evaluation '{row.name}' is defined in the settings file.",
            field="name",
            fix="Change it there and restart the scheduler, or pause it here.",
        )


def _stored(row: EvaluationRow) -> StoredEvaluation:
    return StoredEvaluation(
        evaluation=Evaluation.from_dict(row.definition),
        source=row.source,
        paused=row.paused,
        runs_requested=row.runs_requested,
        revision=row.revision,
        changed_by=row.changed_by,
        changed_at=row.changed_at,
    )
