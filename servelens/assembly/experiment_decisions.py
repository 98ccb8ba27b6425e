"""What a person decides about an experiment by hand, and the decisions that there were. Imports nothing heavy."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from experiments.lifecycle import Lifecycle
from experiments.models import DecisionRow
from servelens.control.promotion import Promotion
from servelens.database import Database
from servelens.errors import Conflict


class ManualDecisions:
    """Promotes and aborts. Killed between two of its writes, it goes on where it was when it is asked again."""

    def __init__(self, database: Database, lifecycle: Lifecycle, promotion: Promotion) -> None:
        self._database = database
        self._lifecycle = lifecycle
        self._promotion = promotion

    def promote(self, name: str, by: str, reason: str) -> None:
        """The treatment gets the control's route, and the experiment ends. Raises Missing and Conflict."""
        standing = self._lifecycle.standing(name)
        experiment = standing.experiment
        if standing.outcome == "promoted":
            return
        if not standing.is_live:
            what = "is a draft" if standing.state == "draft" else f"has ended already ({standing.outcome})"
            raise Conflict(
                f"experiment '{name}' {what}, so it cannot be promoted.",
                field="state",
                fix="Promote one that is running.",
            )
        if len(experiment.treatments) != 1:
            names = ", ".join(variant.name for variant in experiment.treatments)
            raise Conflict(
                f"experiment '{name}' has several treatments: {names}.",
                field="treatments",
                fix="Stop it, and give the route to the one that you want.",
            )
        (treatment,) = experiment.treatments
        self._promotion(experiment.endpoint, experiment.control.served_entity, treatment.served_entity, by)
        self._lifecycle.stop(name, by, "promoted", reason)

    def abort(self, name: str, by: str, reason: str) -> None:
        """The experiment ends, and all traffic follows the routes. Raises Missing and Conflict."""
        self._lifecycle.stop(name, by, "aborted", reason)

    def history(self, name: str, limit: int) -> list[dict[str, Any]]:
        """The decisions, the newest first, as JSON-able values."""
        newest = select(DecisionRow).where(DecisionRow.experiment == name).order_by(DecisionRow.id.desc())
        with self._database.session(read_only=True) as session:
            return [_plain(row) for row in session.scalars(newest.limit(limit))]


def _plain(row: DecisionRow) -> dict[str, Any]:
    return {
        "decided_at": row.decided_at.isoformat(),
        "decision": row.decision,
        "by": row.by,
        "step": row.step,
        "phase": row.phase,
        "dry_run": row.dry_run,
        "applied": row.applied,
        "reason": row.reason,
        "evidence": row.evidence,
    }
