"""What decides about experiments and carries it out: rollouts, bandits, and what people say. Imports nothing heavy."""

from __future__ import annotations

from typing import Any

from experiments.analysis.code_version import code_version
from experiments.decision_log import DecisionLog
from experiments.lifecycle import Lifecycle
from experiments.rollout.controller import Controller
from experiments.rollout.webhooks import Webhooks
from servelens.clock import Clock
from servelens.control.promotion import Promotion
from servelens.control.store import EndpointStore
from servelens.database import Database
from servelens.errors import Conflict


def build_controller(
    database: Database, lifecycle: Lifecycle, endpoints: EndpointStore, clock: Clock
) -> Controller:
    """The controller; several processes may have one, and whoever comes second finds that it is done."""
    return Controller(
        lifecycle,
        DecisionLog(database, clock),
        Promotion(endpoints),
        clock,
        webhooks=Webhooks(),
        code_version=code_version(),
    )


class ManualDecisions:
    """What a person decides by hand. A decision that was not carried out (a webhook holds it, or somebody was quicker) is a
    :class:`~servelens.errors.Conflict`.
    """

    def __init__(self, controller: Controller, log: DecisionLog) -> None:
        self._controller = controller
        self._log = log

    def promote(self, name: str, by: str, reason: str) -> None:
        """The treatment gets the control's route, and the experiment ends."""
        decision = self._controller.promote(name, by, reason)
        if decision.kind != "promote":
            raise Conflict(f"experiment '{name}' was not promoted: {decision.reason}", field="name")

    def abort(self, name: str, by: str, reason: str) -> None:
        """The experiment ends, and all traffic follows the routes."""
        decision = self._controller.abort(name, by, reason)
        if decision.kind != "abort":
            raise Conflict(f"experiment '{name}' was not aborted: {decision.reason}", field="name")

    def history(self, name: str, limit: int) -> list[dict[str, Any]]:
        """The decisions, the newest first, as JSON-able values."""
        return [logged.to_dict() for logged in self._log.history(name, limit=limit)]
