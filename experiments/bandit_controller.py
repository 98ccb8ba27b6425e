"""Moves a bandit's weights: every ``every_s`` seconds a new phase with the weights that the report says.

Invariant: weights change only by a new phase, so within a phase the logged probabilities are constant, which is what the
estimates rest on. Every change is in the log of decisions with the numbers that it follows from (one that a crash
cuts off from its row is still a phase with its weights and its time).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Protocol

from experiments.decision_log import DecisionLog, Entry
from experiments.experiment import Experiment
from experiments.report import AllocationResult, Report, plain
from servelens.clock import Clock
from servelens.errors import Conflict

logger = logging.getLogger(__name__)

ACTOR: Final = "bandit"
REWEIGHT: Final = "reweight"

# Percentage points below which a new phase would cost more (in units that estimate its mean) than it brings.
_LEAST_CHANGE = 1.0


class Phases(Protocol):
    """What begins a phase (:class:`experiments.lifecycle.Lifecycle`)."""

    def begin_phase(
        self, name: str, weights: dict[str, float], *, by: str, expected_revision: int | None = None
    ) -> Experiment: ...


class Standing(Protocol):
    """Where a bandit stands."""

    @property
    def experiment(self) -> Experiment: ...
    @property
    def state(self) -> str: ...
    @property
    def revision(self) -> int: ...


class BanditController:
    """Takes bandits from phase to phase. One process runs it."""

    def __init__(self, lifecycle: Phases, log: DecisionLog, clock: Clock) -> None:
        self._lifecycle = lifecycle
        self._log = log
        self._clock = clock

    def step(self, standing: Standing, report: Report, phase_began: timedelta) -> bool:
        """Move the weights when it is time (``phase_began`` ago the present phase began), and say whether it did.

        Nothing moves while it is paused, or while the split cannot be trusted. Somebody who changes the experiment at the
        same time wins.
        """
        experiment = standing.experiment
        bandit = experiment.bandit
        if bandit is None or standing.state != "running" or not report.sample_ratio.ok:
            return False
        if phase_began < timedelta(seconds=bandit.every_s) or not report.allocation:
            return False
        weights = {each.variant: each.next_weight for each in report.allocation}
        if all(abs(each.next_weight - each.weight) < _LEAST_CHANGE for each in report.allocation):
            return False
        try:
            changed = self._lifecycle.begin_phase(
                experiment.name, weights, by=ACTOR, expected_revision=standing.revision
            )
        except Conflict as conflict:
            logger.info("bandit not moved: experiment=%s reason=%s", experiment.name, conflict)
            return False
        self._log.append(
            experiment.name,
            Entry(
                decision=REWEIGHT,
                by=ACTOR,
                step=0,
                phase=changed.phase,
                dry_run=False,
                applied=True,
                reason=_reason(report.allocation),
                evidence={
                    "allocation": plain(report.allocation),
                    "as_of": report.as_of,
                    "payload_version": report.payload_version,
                    "scores_version": report.scores_version,
                    "feedback_version": report.feedback_version,
                    "code_version": report.basis.code_version,
                },
            ),
        )
        return True


def _reason(allocation: Sequence[AllocationResult]) -> str:
    return "; ".join(
        f"{each.variant} {each.weight:.0f} → {each.next_weight:.0f} %"
        + ("" if each.probability_best is None else f" (best with {each.probability_best * 100:.0f} %)")
        for each in allocation
    )
