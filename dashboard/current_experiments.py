"""The experiments as the console names them, followed as they are created, changed and ended."""

from __future__ import annotations

from functools import partial

from dashboard.followed_list import FollowedList
from experiments.lifecycle import Lifecycle
from experiments.standing import Standing
from servelens.clock import Clock


class CurrentExperiments(FollowedList[Standing]):
    """All experiments that have started: live ones first, in order of start, then those that have ended, the last one first."""

    def __init__(self, lifecycle: Lifecycle, clock: Clock) -> None:
        super().__init__("experiments", lifecycle.generation, partial(_read, lifecycle), clock)


def _read(lifecycle: Lifecycle) -> tuple[int, list[Standing]]:
    generation = lifecycle.generation()
    standings = lifecycle.standings()
    live = [each for each in reversed(standings) if each.is_live]
    ended = [each for each in standings if each.state == "stopped"]
    ended.sort(key=lambda each: each.changed_at, reverse=True)
    return generation, [*live, *ended]
