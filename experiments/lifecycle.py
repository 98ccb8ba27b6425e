"""The life of experiments: drafted, started, paused, stopped, by the settings file, people and controllers.

The database is the truth; proxies follow it by one number, :meth:`Lifecycle.generation`. Every change is one
transaction under one lock (:mod:`experiments.lifecycle_change`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from experiments.definition_changes import weights_of
from experiments.experiment import Experiment
from experiments.file_blocks import apply_blocks, differing, digests_of
from experiments.lifecycle_change import LifecycleChange, known_row, locked_change, state_of
from experiments.models import ExperimentRow, GenerationRow, LifecycleRow
from experiments.standing import (
    API,
    LIVE,
    Outcome,
    Standing,
    readable,
    standing_of,
    stored_experiment,
)
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Conflict, Invalid

_GENERATION: Final = str(select(GenerationRow.value))
_BEFORE_START: Final[tuple[Outcome, ...]] = ("stopped", "removed", "aborted")


class Lifecycle:
    """Reads and changes where experiments stand. Methods may be called from several threads and processes.

    Changes raise :class:`~servelens.errors.Missing` for an unknown name, and
    :class:`~servelens.errors.Conflict` for what the experiment's state does not allow, for units that another
    live experiment has, and when the experiment is not at ``expected_revision`` any more.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def generation(self) -> int:
        """The number of the last change; 0 before the first. One row is read."""
        return int(self._database.scalar(_GENERATION) or 0)

    def assigned(self) -> tuple[int, list[Experiment]]:
        """A generation, and the experiments, at least as new, that decide who answers, in order of start."""
        with self._database.session(read_only=True) as session:
            generation = session.scalar(select(GenerationRow.value)) or 0
            return generation, [one for one in _live(session) if one.assigns]

    def live(self) -> list[Experiment]:
        """All experiments that have started and not ended, shadow experiments too, in order of start."""
        with self._database.session(read_only=True) as session:
            return _live(session)

    def standing(self, name: str) -> Standing:
        """Where ``name`` stands. Raises :class:`~servelens.errors.Missing`."""
        with self._database.session(read_only=True) as session:
            return standing_of(known_row(session, name), session.get(LifecycleRow, name))

    def standings(self) -> list[Standing]:
        """Where all of them stand, the newest first."""
        query = (
            select(ExperimentRow, LifecycleRow)
            .outerjoin(LifecycleRow, LifecycleRow.experiment == ExperimentRow.name)
            .order_by(ExperimentRow.started_at.desc(), ExperimentRow.name)
        )
        with self._database.session(read_only=True) as session:
            rows = session.execute(query)
            return [standing_of(row, lifecycle) for row, lifecycle in rows if readable(row) is not None]

    def apply_file(self, experiments: Sequence[Experiment], by: str) -> list[str]:
        """Reconcile the experiments of the settings file; the names of those that were changed.

        A new block starts its experiment, a changed one changes what may change, one that is gone stops it. Raises
        :class:`~servelens.errors.Conflict` for a block that cannot be applied, when all others have been.
        """
        with self._database.session(read_only=True) as session:
            if not differing(session, digests_of(experiments)):
                return []
        with locked_change(self._database, self._clock) as change:
            done, refused = apply_blocks(change, experiments, by)
        if len(refused) == 1:
            raise refused[0]
        if refused:
            raise Conflict(" ".join(str(each) for each in refused), field="experiments")
        return done

    def create(self, experiment: Experiment, by: str, start: bool = True) -> Standing:
        """Add an experiment, running or as a draft. Raises Conflict when there is one of that name."""
        with locked_change(self._database, self._clock) as change:
            if change.session.get(ExperimentRow, experiment.name) is not None:
                raise Conflict(
                    f"there is an experiment named '{experiment.name}' already.",
                    field="name",
                    fix="Give this one another name.",
                )
            change.add(experiment, state="running" if start else "draft", source=API, by=by)
            return _standing(change, experiment.name)

    def start(self, name: str, by: str, expected_revision: int | None = None) -> Standing:
        """A draft begins to assign."""

        def begin(change: LifecycleChange, row: ExperimentRow) -> None:
            _refuse_unless(row, "draft", to="started")
            change.start(row, stored_experiment(row), by)

        return self._changed(name, expected_revision, begin)

    def pause(self, name: str, by: str, expected_revision: int | None = None) -> Standing:
        """Hold a rollout's and a bandit's decisions; the traffic stays as it is."""

        def hold(change: LifecycleChange, row: ExperimentRow) -> None:
            _refuse_unless(row, "running", to="paused")
            change.note(row, by)
            row.state = "paused"

        return self._changed(name, expected_revision, hold)

    def resume(self, name: str, by: str, expected_revision: int | None = None) -> Standing:
        """Go on after a pause."""

        def go_on(change: LifecycleChange, row: ExperimentRow) -> None:
            _refuse_unless(row, "paused", to="resumed")
            change.refuse_overlap(stored_experiment(row))
            change.note(row, by)
            row.state = "running"

        return self._changed(name, expected_revision, go_on)

    def stop(
        self,
        name: str,
        by: str,
        outcome: Outcome = "stopped",
        reason: str | None = None,
        expected_revision: int | None = None,
    ) -> Standing:
        """End it for good: its units follow the routes, and later records no longer count. A second time with the
        same outcome changes nothing.
        """

        def end(change: LifecycleChange, row: ExperimentRow) -> None:
            before = standing_of(row, change.session.get(LifecycleRow, name)).outcome
            if row.state == "stopped":
                if before == outcome:
                    return
                raise Conflict(
                    f"experiment '{name}' has ended already ({before}), so it cannot end as {outcome}.",
                    field="state",
                    fix="Start another one under a new name.",
                )
            if row.state == "draft" and outcome not in _BEFORE_START:
                _refuse_unless(row, "running", to=outcome)
            change.stop(row, by, outcome, reason)

        return self._changed(name, expected_revision, end)

    def begin_phase(
        self,
        name: str,
        weights: Mapping[str, float],
        *,
        step: int | None = None,
        share: float | None = None,
        by: str,
        expected_revision: int | None = None,
    ) -> Experiment:
        """The next phase, with these weights in percent by variant (and this share, if one is given); gives the
        experiment in it. ``step`` is the canary's step that begins with it. What is so already changes nothing.

        Raises :class:`~servelens.errors.Invalid` for weights and steps that the experiment cannot have.
        """

        def begin(change: LifecycleChange, row: ExperimentRow) -> None:
            _refuse_unless(row, "running", to="given other weights")
            known = stored_experiment(row)
            _check_weights(known, weights, step)
            lifecycle = change.session.get(LifecycleRow, name)
            at = 0 if lifecycle is None else lifecycle.step
            next_phase = known.with_weights(dict(weights), share=share)
            if weights_of(next_phase) == weights_of(known) and step in (None, at):
                if share not in (None, known.share):
                    change.redefine(row, replace(known, share=share), by)
                return
            changed = change.redefine(row, next_phase, by)
            if step is not None:
                changed.step, changed.step_started_at = step, change.now

        return self._changed(name, expected_revision, begin).experiment

    def change_share(
        self, name: str, share: float, by: str, expected_revision: int | None = None
    ) -> Standing:
        """Another share of the units takes part, in the same phase: nobody changes variant.

        Raises :class:`~servelens.errors.Invalid` for what is no share.
        """

        def change_to(change: LifecycleChange, row: ExperimentRow) -> None:
            if row.state == "stopped":
                _refuse_unless(row, "running", to="given another share")
            known = stored_experiment(row)
            if known.share != share:
                change.redefine(row, replace(known, share=share), by)

        return self._changed(name, expected_revision, change_to)

    def _changed(
        self,
        name: str,
        expected_revision: int | None,
        make: Callable[[LifecycleChange, ExperimentRow], None],
    ) -> Standing:
        with locked_change(self._database, self._clock) as change:
            make(change, change.row(name, expected_revision))
            return _standing(change, name)


def _live(session: Session) -> list[Experiment]:
    query = (
        select(ExperimentRow)
        .where(ExperimentRow.state.in_(LIVE))
        .order_by(ExperimentRow.started_at, ExperimentRow.name)
    )
    found = (readable(row) for row in session.scalars(query))
    return [experiment for experiment in found if experiment is not None]


def _standing(change: LifecycleChange, name: str) -> Standing:
    change.session.flush()
    return standing_of(known_row(change.session, name), change.session.get(LifecycleRow, name))


def _refuse_unless(row: ExperimentRow, state: str, *, to: str) -> None:
    if state_of(row) == state:
        return
    is_ = {
        "draft": ("is a draft", "Start it first."),
        "running": ("is running", "Stop it, if it should end."),
        "paused": ("is paused", "Resume it first."),
        "stopped": ("has stopped", "Start another one under a new name."),
    }
    words, fix = is_[state_of(row)]
    raise Conflict(f"experiment '{row.name}' {words}, so it cannot be {to}.", field="state", fix=fix)


def _check_weights(known: Experiment, weights: Mapping[str, float], step: int | None) -> None:
    names = weights_of(known)
    unknown = sorted(weights.keys() - names.keys())
    if unknown:
        raise Invalid(
            f"there is no variant '{unknown[0]}'.",
            field=f"weights.{unknown[0]}",
            fix=f"Use {', '.join(names)}.",
        )
    for name, weight in weights.items():
        if not 0 <= weight <= 100:
            raise Invalid(f"{weight} is no percentage.", field=f"weights.{name}", fix="Use 0 to 100.")
    if not known.assigns:
        raise Invalid(
            "a shadow experiment has no weights.", field="weights", fix="Change the endpoint's shadows."
        )
    total = math.fsum({**names, **weights}.values())
    if abs(total - 100) > 1e-6:
        raise Invalid(
            f"the weights would add up to {total:g}, not 100.",
            field="weights",
            fix=f"Give {', '.join(names)} others.",
        )
    if step is not None and known.rollout is not None and not 0 <= step < len(known.rollout.steps):
        raise Invalid(
            f"there is no step {step}.", field="step", fix=f"Use 0 to {len(known.rollout.steps) - 1}."
        )
