"""The experiments as the console names them, followed as they are created, changed and ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import overload

from experiments.lifecycle import Lifecycle
from experiments.standing import Standing
from servelens.clock import Clock
from servelens.errors import ServelensError

logger = logging.getLogger(__name__)

_FRESH_S = 1.0


class CurrentExperiments(Sequence[Standing]):
    """All experiments that have started, at most a second old; while the database is away, as they were. Live ones first, in
    order of start, then those that have ended, the last one first. Any thread may read.
    """

    def __init__(self, lifecycle: Lifecycle, clock: Clock) -> None:
        self._lifecycle = lifecycle
        self._clock = clock
        self._lock = threading.Lock()
        self._known: tuple[Standing, ...] = ()
        self._generation = -1
        self._fresh_until = clock.monotonic()

    @overload
    def __getitem__(self, index: int) -> Standing: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Standing]: ...
    def __getitem__(self, index: int | slice) -> Standing | Sequence[Standing]:
        return self._now()[index]

    def __len__(self) -> int:
        return len(self._now())

    def _now(self) -> tuple[Standing, ...]:
        with self._lock:
            now = self._clock.monotonic()
            if now >= self._fresh_until:
                self._fresh_until = now + _FRESH_S
                try:
                    self._refresh()
                except ServelensError as error:
                    logger.warning("list of experiments not refreshed: %s", error)
            return self._known

    def _refresh(self) -> None:
        generation = self._lifecycle.generation()
        if generation == self._generation:
            return
        standings = self._lifecycle.standings()
        live = [each for each in reversed(standings) if each.is_live]
        ended = [each for each in standings if each.state == "stopped"]
        ended.sort(key=lambda each: each.changed_at, reverse=True)
        self._known = (*live, *ended)
        self._generation = generation
