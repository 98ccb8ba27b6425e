"""A list of the database, followed by the number of its last change."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar, overload

from servelens.clock import Clock
from servelens.errors import ServelensError

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_FRESH_S: Final = 1.0


class FollowedList(Sequence[_T], Generic[_T]):
    """At most a second old; while the database is away, as it was. Any thread may read.

    ``generation`` gives the number of the last change, ``read`` a generation and all there is, at least as new; both may raise a
    :class:`~servelens.errors.ServelensError`. ``what`` is what the log calls it.
    """

    def __init__(
        self,
        what: str,
        generation: Callable[[], int],
        read: Callable[[], tuple[int, Sequence[_T]]],
        clock: Clock,
    ) -> None:
        self._what = what
        self._newest = generation
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._known: tuple[_T, ...] = ()
        self._generation = -1
        self._fresh_until = clock.monotonic()

    @overload
    def __getitem__(self, index: int) -> _T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[_T]: ...
    def __getitem__(self, index: int | slice) -> _T | Sequence[_T]:
        return self._now()[index]

    def __len__(self) -> int:
        return len(self._now())

    def _now(self) -> tuple[_T, ...]:
        with self._lock:
            now = self._clock.monotonic()
            if now >= self._fresh_until:
                self._fresh_until = now + _FRESH_S
                try:
                    if self._newest() != self._generation:
                        self._generation, found = self._read()
                        self._known = tuple(found)
                except ServelensError as error:
                    logger.warning("list of %s not refreshed: %s", self._what, error)
            return self._known
