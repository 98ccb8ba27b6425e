"""Time as a dependency: whoever needs the time is given a clock, so that a test can move it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Wall-clock and monotonic time."""

    def now_us(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
        ...

    def now(self) -> datetime:
        """The same as an aware datetime in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def now(self) -> datetime:
        return datetime.now(UTC)

    monotonic = staticmethod(time.monotonic)  # asked several times for each invocation, so without a frame


class ManualClock:
    """A clock that stands still until it is told to move.

    >>> clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    >>> clock.advance(90)
    >>> clock.now().isoformat()
    '2026-01-01T00:01:30+00:00'
    """

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._monotonic = 0.0

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds

    def now_us(self) -> int:
        return datetime_us(self._now)

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def datetime_us(moment: datetime) -> int:
    """Microseconds since the Unix epoch of an aware datetime, exactly (no float on the way)."""
    return (moment - _EPOCH) // _MICROSECOND
