"""One change of experiments, made while nobody else makes one.

It holds the lock of the counter's row (:class:`~experiments.models.GenerationRow`) from before it reads what it
changes until it is committed with the new number. So changes happen one after the other, none is lost, a process
that dies half-way has changed nothing, and whoever has seen a number can see everything up to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from experiments.definition_changes import weights_of
from experiments.definition_rules import refuse_overlaps
from experiments.experiment import Experiment
from experiments.models import ExperimentRow, GenerationRow, LifecycleRow, PhaseRow
from experiments.standing import FILE, LIVE, Outcome, Source, State, readable, stored_experiment
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Conflict, Invalid, Missing

_SHOWN_NAMES = 20


@contextmanager
def locked_change(database: Database, clock: Clock) -> Iterator[LifecycleChange]:
    """A change that is committed, and counted if it changed anything, when the block ends without an error."""
    _add_counter(database)
    with database.session() as session:
        counter = session.scalars(select(GenerationRow).with_for_update()).one()
        change = LifecycleChange(session, clock.now())
        yield change
        if change.is_change:
            counter.value += 1


def _add_counter(database: Database) -> None:
    with database.session(read_only=True) as session:
        if session.get(GenerationRow, 1) is not None:
            return
    try:
        with database.session() as session:
            session.add(GenerationRow(id=1, value=0))
    except Conflict:  # somebody else has added it meanwhile
        return


def known_row(session: Session, name: str) -> ExperimentRow:
    """The experiment called ``name``. Raises :class:`~servelens.errors.Missing`, naming those that there are."""
    row = session.get(ExperimentRow, name)
    if row is None:
        newest = select(ExperimentRow.name).order_by(ExperimentRow.started_at.desc(), ExperimentRow.name)
        names = session.scalars(newest.limit(_SHOWN_NAMES + 1)).all()
        known = ", ".join(names[:_SHOWN_NAMES]) + (", …" if len(names) > _SHOWN_NAMES else "")
        raise Missing(
            f"there is no experiment '{name}'.",
            field="name",
            fix=f"Use one of: {known or 'there is none yet'}.",
        )
    return row


class LifecycleChange:
    """The rows as they are now, and what may be done to them."""

    def __init__(self, session: Session, now: datetime) -> None:
        self.session = session
        self.now = now
        self.is_change = False

    def row(self, name: str, expected_revision: int | None = None) -> ExperimentRow:
        """The experiment. Raises Missing, and Conflict when it has been changed since it was read."""
        row = known_row(self.session, name)
        lifecycle = self.session.get(LifecycleRow, name)
        revision = 0 if lifecycle is None else lifecycle.revision
        if expected_revision is not None and expected_revision != revision:
            by = f" by {lifecycle.changed_by}" if lifecycle is not None else ""
            raise Conflict(
                f"experiment '{name}' is at revision {revision}, not {expected_revision}: it was changed{by}.",
                field="revision",
                fix="Read it again.",
            )
        return row

    def phases(self, name: str) -> dict[int, dict[str, float]]:
        """The weights of all phases so far."""
        rows = self.session.scalars(select(PhaseRow).where(PhaseRow.experiment == name))
        return {row.phase: dict(row.weights) for row in rows}

    def add(self, experiment: Experiment, *, state: State, source: Source, by: str) -> LifecycleRow:
        """A new experiment; one that starts may not want the units of another."""
        row = ExperimentRow(
            name=experiment.name,
            endpoint=experiment.endpoint,
            definition=experiment.to_dict(),
            state="draft",
            started_at=self.now,
            stopped_at=None,
        )
        if state == "running":
            self.refuse_overlap(experiment)
        self.session.add(row)
        self.session.flush()
        lifecycle = self.note(row, by)
        lifecycle.source = source
        if state == "running":
            self._run(row, lifecycle, experiment)
        return lifecycle

    def start(self, row: ExperimentRow, experiment: Experiment, by: str) -> LifecycleRow:
        """A draft begins, with its definition as it was or another one."""
        self.refuse_overlap(experiment)
        row.endpoint, row.definition = experiment.endpoint, experiment.to_dict()
        lifecycle = self.note(row, by)
        self._run(row, lifecycle, experiment)
        return lifecycle

    def stop(self, row: ExperimentRow, by: str, outcome: Outcome, reason: str | None) -> LifecycleRow:
        """It ends for good. A draft ends without having started."""
        lifecycle = self.note(row, by)
        if row.state == "draft":
            row.started_at = self.now
        row.state, row.stopped_at = "stopped", self.now
        lifecycle.outcome, lifecycle.reason = outcome, reason
        return lifecycle

    def redefine(self, row: ExperimentRow, experiment: Experiment, by: str) -> LifecycleRow:
        """Another share, other weights in another phase, or both."""
        known = stored_experiment(row)
        if experiment.share > known.share and row.state in LIVE:
            self.refuse_overlap(experiment)
        if experiment.phase > known.phase:
            self._add_phase(experiment)
        row.definition = experiment.to_dict()
        return self.note(row, by)

    def note(self, row: ExperimentRow, by: str) -> LifecycleRow:
        """Count a change; the row that says who made it is made when it is first needed."""
        self.is_change = True
        lifecycle = self.session.get(LifecycleRow, row.name)
        if lifecycle is None:
            lifecycle = LifecycleRow(
                experiment=row.name,
                source=FILE,
                outcome="stopped" if row.state == "stopped" else None,
                step=0,
                step_started_at=None if row.state == "draft" else row.started_at,
                revision=0,
            )
            self.session.add(lifecycle)
        lifecycle.revision += 1
        lifecycle.changed_by, lifecycle.changed_at = by, self.now
        return lifecycle

    def refuse_overlap(self, experiment: Experiment) -> None:
        """Raise :class:`~servelens.errors.Conflict` when a live experiment has units that this one wants."""
        live = select(ExperimentRow).where(
            ExperimentRow.state.in_(LIVE), ExperimentRow.name != experiment.name
        )
        for row in self.session.scalars(live.order_by(ExperimentRow.started_at, ExperimentRow.name)):
            other = readable(row)
            if other is None:
                continue
            try:
                refuse_overlaps((other, experiment))
            except Invalid as error:
                raise Conflict(error.message, field=error.field, fix=error.fix) from error

    def _run(self, row: ExperimentRow, lifecycle: LifecycleRow, experiment: Experiment) -> None:
        row.state, row.started_at = "running", self.now
        lifecycle.step, lifecycle.step_started_at = 0, self.now
        self._add_phase(experiment)

    def _add_phase(self, experiment: Experiment) -> None:
        self.session.add(
            PhaseRow(
                experiment=experiment.name,
                phase=experiment.phase,
                weights=weights_of(experiment),
                started_at=self.now,
            )
        )


def state_of(row: ExperimentRow) -> State:
    """The state, as a type."""
    return cast("State", row.state)
