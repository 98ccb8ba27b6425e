"""Every decision about an experiment, with the numbers that it rests on: why it has the weights that it has.

Invariant: whatever changed something has a row of its own. A decision that changed nothing and is only taken
again (the same kind and cause, by the same one, at the same step) does not add a row a minute: it updates the
newest one in time, reason and evidence, where ``since`` and ``looks`` say from when on and how often it was
taken. So the log of a canary that waits for a week stays readable.

What is carried out is written before and settled after (``progress`` in the evidence goes ``begun`` →
``applied`` → ``told``, or ``failed``), so that the next run finds what a crash cut in two:
:meth:`DecisionLog.unsettled`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from experiments.models import DecisionRow, ExperimentRow
from experiments.report import plain
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Missing

Progress = Literal["begun", "applied", "told", "failed"]

_UNSETTLED: Final = ("begun", "applied")


@dataclass(frozen=True, slots=True)
class Entry:
    """A decision to be kept. ``phase`` is the one it was taken in; ``evidence`` becomes JSON, where what is
    not finite is null, and has its ``cause`` and what else belongs to it.
    """

    decision: str
    by: str
    step: int
    phase: int
    dry_run: bool
    applied: bool
    reason: str
    evidence: dict[str, Any]

    @property
    def progress(self) -> str | None:
        """How far it was carried out; ``None`` for one that only waits."""
        progress: str | None = self.evidence.get("progress")
        return progress


@dataclass(frozen=True, slots=True)
class Logged(Entry):
    """A decision as the database has it."""

    id: int
    experiment: str
    decided_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values only."""
        values: dict[str, Any] = plain(
            {each.name: getattr(self, each.name) for each in fields(self) if each.name != "decided_at"}
        )
        return {**values, "decided_at": self.decided_at.isoformat()}


class DecisionLog:
    """Reads and writes decisions. Methods may be called from several threads and processes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def append(self, experiment: str, entry: Entry) -> Logged:
        """Keep a decision: as a row of its own, or in the newest one when that only says it again.

        Raises :class:`~servelens.errors.Missing` for an unknown experiment.
        """
        now = self._clock.now()
        evidence = {**plain(entry.evidence), "since": now.isoformat(), "looks": 1}
        with self._database.session() as session:
            _known(session, experiment)
            newest = session.scalars(_newest_first(experiment).limit(1)).first()
            if newest is not None and _says_again(newest, entry):
                evidence["since"] = newest.evidence.get("since", newest.decided_at.isoformat())
                evidence["looks"] = newest.evidence.get("looks", 1) + 1
                row = newest
            else:
                row = DecisionRow(experiment=experiment)
                session.add(row)
            row.decided_at, row.reason, row.evidence = now, entry.reason, evidence
            row.decision, row.by, row.step, row.phase = entry.decision, entry.by, entry.step, entry.phase
            row.dry_run, row.applied = entry.dry_run, entry.applied
            session.flush()
            return _logged(row)

    def settle(self, number: int, progress: Progress, **more: Any) -> Logged:
        """Say how far the decision with the id ``number`` was carried out, and what else its evidence has now.

        Raises :class:`~servelens.errors.Missing` when there is no such row.
        """
        with self._database.session() as session:
            row = session.get(DecisionRow, number)
            if row is None:
                raise Missing(f"there is no decision {number}")
            row.applied = progress in ("applied", "told")
            row.evidence = {**row.evidence, **plain(more), "progress": progress}
            return _logged(row)

    def unsettled(self, experiment: str | None = None) -> list[Logged]:
        """What was begun and is not known to be done, or done and not told yet; the oldest first."""
        wanted = (
            select(DecisionRow)
            .where(DecisionRow.evidence["progress"].as_string().in_(_UNSETTLED))
            .order_by(DecisionRow.id)
        )
        if experiment is not None:
            wanted = wanted.where(DecisionRow.experiment == experiment)
        with self._database.session(read_only=True) as session:
            return [_logged(row) for row in session.scalars(wanted)]

    def history(self, experiment: str, *, limit: int = 100) -> list[Logged]:
        """The decisions, the newest first. Raises :class:`~servelens.errors.Missing` for an unknown experiment."""
        with self._database.session(read_only=True) as session:
            _known(session, experiment)
            return [_logged(row) for row in session.scalars(_newest_first(experiment).limit(limit))]


def _newest_first(experiment: str) -> Any:
    return select(DecisionRow).where(DecisionRow.experiment == experiment).order_by(DecisionRow.id.desc())


def _says_again(row: DecisionRow, entry: Entry) -> bool:
    """Neither has changed anything, and both say the same with other numbers."""
    if row.applied or entry.applied or row.evidence.get("progress") in _UNSETTLED:
        return False
    said = (row.decision, row.by, row.step, row.phase, row.dry_run, *_subject(row.evidence))
    return said == (
        entry.decision,
        entry.by,
        entry.step,
        entry.phase,
        entry.dry_run,
        *_subject(entry.evidence),
    )


def _subject(evidence: Mapping[str, Any]) -> tuple[Any, Any]:
    return evidence.get("cause"), evidence.get("wanted")


def _known(session: Session, experiment: str) -> None:
    if session.get(ExperimentRow, experiment) is None:
        raise Missing(f"there is no experiment {experiment!r}", fix="Look at the list of experiments.")


def _logged(row: DecisionRow) -> Logged:
    return Logged(
        decision=row.decision,
        by=row.by,
        step=row.step,
        phase=row.phase,
        dry_run=row.dry_run,
        applied=row.applied,
        reason=row.reason,
        evidence=dict(row.evidence),
        id=row.id,
        experiment=row.experiment,
        decided_at=row.decided_at,
    )
