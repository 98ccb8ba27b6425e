"""Experiments in the SQL database: what was started is frozen, what was concluded is kept.

Invariant: while an experiment runs, nothing that its analysis depends on changes. The share may change,
since it moves no unit between variants; new weights need a new phase, so that the analysis can keep old and
new traffic apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, cast

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from experiments.definition_changes import refuse_frozen, weights_of
from experiments.experiment import Experiment, experiment_from_dict
from experiments.kept_reports import decided_on, is_due, tidy
from experiments.models import (
    AnalysisRow,
    ConstantRow,
    ExperimentRow,
    LifecycleRow,
    LookRow,
    PhaseRow,
    RunningRow,
)
from experiments.standing import State
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Conflict, Missing

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Registered:
    """An experiment as the database has it."""

    experiment: Experiment
    state: State
    started_at: datetime
    stopped_at: datetime | None


@dataclass(frozen=True, slots=True)
class RunningP:
    """The smallest p-value so far, the difference that it belongs to, and when that was."""

    p_value: float
    difference: float
    reached_at: datetime


@dataclass(frozen=True, slots=True)
class SeenLook:
    """One look of a group-sequential design: its number from 1, the fraction of the planned information, the
    statistic and the boundary for |z| then.
    """

    look: int
    fraction: float
    z: float
    boundary: float
    seen_at: datetime


class ExperimentStore:
    """Reads and writes experiments. Methods may be called from several threads and processes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def register(self, experiment: Experiment) -> Registered:
        """Start the experiment, take over its new share or phase, or find that nothing has changed.

        It is for tests and simulations: proxies do not notice. What
        :class:`~experiments.lifecycle.Lifecycle` has started is found as it is, and never changed here.
        Raises :class:`~servelens.errors.Conflict`, naming the field, for a change that would spoil the
        analysis, or any change of a stopped experiment.
        """
        return self._twice(lambda session: self._register(session, experiment))

    def _register(self, session: Session, experiment: Experiment) -> Registered:
        row = session.get(ExperimentRow, experiment.name)
        now = self._clock.now()
        if row is None:
            row = ExperimentRow(
                name=experiment.name,
                endpoint=experiment.endpoint,
                definition=experiment.to_dict(),
                state="running",
                started_at=now,
                stopped_at=None,
            )
            session.add(row)
            session.flush()
            session.add(_phase_row(experiment, now))
            return _registered(row)
        known = experiment_from_dict(row.definition)
        if known == experiment:
            return _registered(row)
        if session.get(LifecycleRow, experiment.name) is not None:
            refuse_frozen(known, experiment)
            return _registered(row)  # who has read an older share or phase must not put it back
        _refuse_changes(known, experiment, row.state)
        if experiment.phase > known.phase:
            session.add(_phase_row(experiment, now))
        row.definition = experiment.to_dict()
        return _registered(row)

    def get(self, name: str) -> Registered:
        """The experiment called ``name``. Raises :class:`~servelens.errors.Missing`."""
        with self._database.session(read_only=True) as session:
            return _registered(_row(session, name))

    def all(self) -> list[Registered]:
        """All experiments, the newest first."""
        newest_first = select(ExperimentRow).order_by(ExperimentRow.started_at.desc(), ExperimentRow.name)
        with self._database.session(read_only=True) as session:
            return [_registered(row) for row in session.scalars(newest_first)]

    def stop(self, name: str) -> Registered:
        """End the experiment: later records no longer count. A second time changes nothing."""
        with self._database.session() as session:
            row = _row(session, name)
            if row.state != "stopped":
                row.state, row.stopped_at = "stopped", self._clock.now()
            return _registered(row)

    def weights(self, name: str) -> dict[int, dict[str, float]]:
        """Each phase's weights in percent, by variant."""
        with self._database.session(read_only=True) as session:
            rows = session.scalars(select(PhaseRow).where(PhaseRow.experiment == name))
            return {row.phase: dict(row.weights) for row in rows}

    def phase_began(self, name: str, phase: int) -> datetime:
        """When the phase began; the experiment's start for one that is not known."""
        with self._database.session(read_only=True) as session:
            row = session.get(PhaseRow, (name, phase))
            return _row(session, name).started_at if row is None else row.started_at

    def kappa(self, name: str, metric: str, treatment: str) -> float | None:
        """The frozen κ, or ``None`` when there was too little to freeze it on."""
        with self._database.session(read_only=True) as session:
            row = session.get(ConstantRow, (name, metric, treatment))
            return None if row is None else row.kappa

    def freeze_kappa(self, name: str, metric: str, treatment: str, kappa: float) -> float:
        """Keep κ unless there is one already; gives the one that counts."""

        def freeze(session: Session) -> float:
            row = session.get(ConstantRow, (name, metric, treatment))
            if row is None:
                row = ConstantRow(
                    experiment=name,
                    metric=metric,
                    treatment=treatment,
                    kappa=kappa,
                    frozen_at=self._clock.now(),
                )
                session.add(row)
            return row.kappa

        return self._twice(freeze)

    def running_p(self, name: str, metric: str, treatment: str) -> RunningP | None:
        """The smallest p-value of all looks so far."""
        with self._database.session(read_only=True) as session:
            row = session.get(RunningRow, (name, metric, treatment))
            return None if row is None else RunningP(row.p_value, row.difference, row.reached_at)

    def lower_p(self, name: str, metric: str, treatment: str, p_value: float, difference: float) -> RunningP:
        """Take ``p_value`` into the running minimum; gives the minimum."""
        known = self.running_p(name, metric, treatment)
        if known is not None and known.p_value <= p_value:  # as at most looks, which need no lock then
            return known

        def lower(session: Session) -> RunningP:
            row = session.get(RunningRow, (name, metric, treatment))
            if row is None:
                row = RunningRow(experiment=name, metric=metric, treatment=treatment)
                session.add(row)
            elif row.p_value <= p_value:
                return RunningP(row.p_value, row.difference, row.reached_at)
            row.p_value, row.difference, row.reached_at = p_value, difference, self._clock.now()
            return RunningP(p_value, difference, row.reached_at)

        return self._twice(lower)

    def looks(self, name: str, metric: str, treatment: str) -> list[SeenLook]:
        """The looks of a committed horizon so far, in order."""
        with self._database.session(read_only=True) as session:
            return _looks(session, name, metric, treatment)

    def add_look(self, name: str, metric: str, treatment: str, look: SeenLook) -> list[SeenLook]:
        """Keep a look unless that number was taken already; gives all of them."""

        def add(session: Session) -> list[SeenLook]:
            if session.get(LookRow, (name, metric, treatment, look.look)) is None:
                row = LookRow(
                    experiment=name,
                    metric=metric,
                    treatment=treatment,
                    look=look.look,
                    fraction=look.fraction,
                    z=look.z,
                    boundary=look.boundary,
                    seen_at=look.seen_at,
                )
                session.add(row)
                session.flush()
            return _looks(session, name, metric, treatment)

        return self._twice(add)

    def add_analysis(
        self,
        name: str,
        as_of: datetime,
        payload_version: int | None,
        scores_version: int | None,
        report: dict[str, Any],
    ) -> None:
        """Keep a report, and of the older ones those that are needed (:mod:`experiments.kept_reports`). One on the same
        tables as the newest takes its place, unless a decision rests on that: nothing new was seen.
        """
        versions = (payload_version, scores_version)
        with self._database.session() as session:
            seen = (AnalysisRow.payload_version, AnalysisRow.scores_version)
            newest = session.execute(
                _newest_first(name).with_only_columns(AnalysisRow.id, AnalysisRow.as_of, *seen).limit(1)
            ).first()
            same = newest is not None and tuple(newest[2:]) == versions
            if newest is not None and same and not decided_on(session, name, newest.as_of):
                session.execute(
                    update(AnalysisRow).where(AnalysisRow.id == newest.id).values(as_of=as_of, report=report)
                )
                return
            session.add(
                AnalysisRow(
                    experiment=name,
                    as_of=as_of,
                    payload_version=payload_version,
                    scores_version=scores_version,
                    report=report,
                )
            )
            if newest is not None and is_due(newest.as_of, as_of):
                session.flush()
                tidy(session, name, as_of)

    def latest(self, name: str) -> dict[str, Any] | None:
        """The newest report, or ``None`` before the first analysis."""
        reports = self.history(name, limit=1)
        return reports[0] if reports else None

    def history(self, name: str, *, limit: int = 100) -> list[dict[str, Any]]:
        """The reports that are kept, the newest first. Raises :class:`~servelens.errors.Missing` for an unknown
        experiment.
        """
        with self._database.session(read_only=True) as session:
            _row(session, name)
            return [dict(row.report) for row in session.scalars(_newest_first(name).limit(limit))]

    def _twice(self, change: Callable[[Session], _T]) -> _T:
        """Two processes may insert the same row at once; the one that lost finds it on the second try."""
        try:
            with self._database.session() as session:
                return change(session)
        except Conflict as conflict:
            if conflict.field is not None:  # our own refusal, not the database's
                raise
            with self._database.session() as session:
                return change(session)


def _looks(session: Session, name: str, metric: str, treatment: str) -> list[SeenLook]:
    query = (
        select(LookRow)
        .where(LookRow.experiment == name, LookRow.metric == metric, LookRow.treatment == treatment)
        .order_by(LookRow.look)
    )
    return [
        SeenLook(row.look, row.fraction, row.z, row.boundary, row.seen_at) for row in session.scalars(query)
    ]


def _newest_first(name: str) -> Select[AnalysisRow]:
    return select(AnalysisRow).where(AnalysisRow.experiment == name).order_by(AnalysisRow.id.desc())


def _row(session: Session, name: str) -> ExperimentRow:
    row = session.get(ExperimentRow, name)
    if row is None:
        raise Missing(f"there is no experiment {name!r}", fix="Look at the list of experiments.")
    return row


def _registered(row: ExperimentRow) -> Registered:
    return Registered(
        experiment=experiment_from_dict(row.definition),
        state=cast("State", row.state),
        started_at=row.started_at,
        stopped_at=row.stopped_at,
    )


def _phase_row(experiment: Experiment, now: datetime) -> PhaseRow:
    return PhaseRow(
        experiment=experiment.name, phase=experiment.phase, weights=weights_of(experiment), started_at=now
    )


def _refuse_changes(known: Experiment, wanted: Experiment, state: str) -> None:
    path = f"experiments[{wanted.name}]"
    refuse_frozen(known, wanted)
    if state == "stopped":
        raise Conflict(
            "the experiment has stopped, so it cannot be changed",
            field=path,
            fix="Start another one under a new name.",
        )
    if wanted.phase < known.phase:
        raise Conflict(
            f"the phase is {known.phase} already and cannot go back to {wanted.phase}",
            field=f"{path}.phase",
            fix=f"Use {known.phase}, or {known.phase + 1} for new weights.",
        )
    if wanted.phase == known.phase and weights_of(wanted) != weights_of(known):
        raise Conflict(
            f"the weights changed from {weights_of(known)} to {weights_of(wanted)} within phase {known.phase}",
            field=f"{path}.weight",
            fix=f"Raise phase to {known.phase + 1}, so that old and new traffic are analysed apart.",
        )
