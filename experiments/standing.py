"""Where an experiment stands: its state, how it ended and why, and who has changed it last.

An experiment of an older release has no :class:`~experiments.models.LifecycleRow`: it came from the settings
file, is at its first step, and counts no changes yet.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, cast

from experiments.experiment import Experiment, experiment_from_dict
from experiments.models import ExperimentRow, LifecycleRow
from servelens.errors import Invalid

logger = logging.getLogger(__name__)

State = Literal["draft", "running", "paused", "stopped"]
Outcome = Literal["stopped", "removed", "promoted", "rolled_back", "aborted", "inconclusive"]
Source = Literal["file", "api"]

FILE: Final[Source] = "file"
API: Final[Source] = "api"
LIVE: Final[tuple[State, ...]] = ("running", "paused")


@dataclass(frozen=True, slots=True)
class Standing:
    """An experiment as the database has it.

    ``running`` and ``paused`` assign alike: a pause holds decisions, not traffic. ``step`` counts a canary's
    steps from 0. ``revision`` counts all changes; whoever changes what they have read gives it back.
    ``started_at`` and ``step_started_at`` are ``None`` for a draft, ``outcome`` for what has not ended.
    """

    experiment: Experiment
    state: State
    outcome: Outcome | None
    reason: str | None
    step: int
    step_started_at: datetime | None
    revision: int
    source: Source
    started_at: datetime | None
    stopped_at: datetime | None
    changed_by: str
    changed_at: datetime

    @property
    def is_live(self) -> bool:
        """Whether records count: it has started and has not ended."""
        return self.state in LIVE

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values, with the experiment as ``definition``."""
        return {
            "name": self.experiment.name,
            "endpoint": self.experiment.endpoint,
            "kind": self.experiment.kind,
            "state": self.state,
            "outcome": self.outcome,
            "reason": self.reason,
            "step": self.step,
            "step_started_at": _written(self.step_started_at),
            "revision": self.revision,
            "source": self.source,
            "started_at": _written(self.started_at),
            "stopped_at": _written(self.stopped_at),
            "changed_by": self.changed_by,
            "changed_at": _written(self.changed_at),
            "definition": self.experiment.to_dict(),
        }


def standing_of(row: ExperimentRow, lifecycle: LifecycleRow | None) -> Standing:
    """What the rows say. Raises :class:`~servelens.errors.Invalid` for a definition that is not read here."""
    state = cast("State", row.state)
    started_at = None if state == "draft" else row.started_at
    if lifecycle is None:
        return Standing(
            experiment=stored_experiment(row),
            state=state,
            outcome="stopped" if state == "stopped" else None,
            reason=None,
            step=0,
            step_started_at=started_at,
            revision=0,
            source=FILE,
            started_at=started_at,
            stopped_at=row.stopped_at,
            changed_by=FILE,
            changed_at=row.stopped_at or row.started_at,
        )
    return Standing(
        experiment=stored_experiment(row),
        state=state,
        outcome=cast("Outcome | None", lifecycle.outcome),
        reason=lifecycle.reason,
        step=lifecycle.step,
        step_started_at=lifecycle.step_started_at,
        revision=lifecycle.revision,
        source=cast("Source", lifecycle.source),
        started_at=started_at,
        stopped_at=row.stopped_at,
        changed_by=lifecycle.changed_by,
        changed_at=lifecycle.changed_at,
    )


def stored_experiment(row: ExperimentRow) -> Experiment:
    """The newest definition. Raises :class:`~servelens.errors.Invalid` when this release does not take what
    another one has stored.
    """
    try:
        return experiment_from_dict(row.definition)
    except (Invalid, KeyError, TypeError) as error:
        raise Invalid(
            f"the stored experiment '{row.name}' is not valid: {error}",
            field="definition",
            fix="Use the servelens that it was made with, or start another one under a new name.",
        ) from error


def readable(row: ExperimentRow) -> Experiment | None:
    """The newest definition, or ``None``, said in the log, where one that cannot be read must not keep the
    others from running.
    """
    try:
        return stored_experiment(row)
    except Invalid as error:
        logger.warning("experiment left out: %s", error)
        return None


def _written(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
