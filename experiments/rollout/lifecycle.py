"""What a rollout needs of the experiments' lifecycle and of the endpoints' routes, and nothing else of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Literal, Protocol

from experiments.experiment import Experiment

Outcome = Literal["rolled_back", "promoted", "inconclusive", "aborted"]

OUTCOMES: Final[Mapping[str, Outcome]] = {
    "roll_back": "rolled_back",
    "promote": "promoted",
    "inconclusive": "inconclusive",
    "abort": "aborted",
}

Promote = Callable[[str, str, str, str], object]
"""``(endpoint, control's entity, treatment's entity, by)``: the champion's route goes to the treatment's entity.
Without effect when it is there already.
"""


class Standing(Protocol):
    """Where an experiment stands. ``revision`` counts its changes."""

    @property
    def experiment(self) -> Experiment: ...
    @property
    def state(self) -> str: ...
    @property
    def outcome(self) -> str | None: ...
    @property
    def step(self) -> int: ...
    @property
    def step_started_at(self) -> datetime | None: ...
    @property
    def started_at(self) -> datetime | None: ...
    @property
    def revision(self) -> int: ...
    @property
    def changed_by(self) -> str: ...


class Lifecycle(Protocol):
    """What changes an experiment. A change raises :class:`~servelens.errors.Conflict` when the revision is
    another one than expected, or when the experiment's state does not allow it.
    """

    def standing(self, name: str) -> Standing: ...
    def begin_phase(
        self,
        name: str,
        weights: dict[str, float],
        *,
        step: int | None = None,
        by: str,
        expected_revision: int | None = None,
    ) -> Experiment: ...
    def stop(
        self, name: str, by: str, outcome: Outcome, reason: str, expected_revision: int | None = None
    ) -> object: ...
