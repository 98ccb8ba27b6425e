"""Windows of time: aligned to the clock in UTC, half-open, and closed only once their data can be complete.

Invariant: the windows of one granularity tile the time line, so every moment is in exactly one of them and
two processes name the same window alike. Granularities are written as in Databricks' monitoring tables (``5
minutes``, ``1 hour``, ``1 day``, ``1 week``, ``1 month``). Weeks begin on Monday (ISO 8601), months and
years are those of the calendar; everything shorter is counted from 1970-01-01T00:00Z.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from servelens.errors import Invalid

_UNITS: Final = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}
_MONTHS: Final = {"month": 1, "year": 12}
_TEXT: Final = re.compile(r"([1-9][0-9]{0,3}) (minute|hour|day|week|month|year)s?")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MONDAY: Final = datetime(1970, 1, 5, tzinfo=UTC)


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """The time in ``[start, end)``; both aware, kept in UTC. Raises :class:`Invalid` when it is empty or
    naive."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise Invalid("a window's start and end need a zone", field="window", fix="Pass aware datetimes.")
        if not self.start < self.end:
            raise Invalid(f"a window ends after it starts, unlike {self.start} to {self.end}", field="window")
        object.__setattr__(self, "start", self.start.astimezone(UTC))
        object.__setattr__(self, "end", self.end.astimezone(UTC))

    @property
    def length(self) -> timedelta:
        return self.end - self.start

    def before(self) -> Window:
        """The window of the same length that ends where this one starts."""
        return Window(self.start - self.length, self.start)


@dataclass(frozen=True, slots=True)
class Granularity:
    """The length that windows have: ``count`` times ``unit``.

    >>> Granularity.parse("1 hour").containing(datetime(2026, 1, 1, 12, 34, tzinfo=UTC)).start.isoformat()
    '2026-01-01T12:00:00+00:00'
    """

    count: int
    unit: str

    @classmethod
    def parse(cls, text: str) -> Granularity:
        """Read ``5 minutes`` or ``1 hour``; raises :class:`Invalid` on anything else."""
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise Invalid(
                f"{text!r} is not a granularity",
                field="granularity",
                fix="Write a number and a unit, such as 5 minutes, 1 hour, 1 day, 1 week or 1 month.",
            )
        return cls(int(match[1]), match[2])

    def __str__(self) -> str:
        return f"{self.count} {self.unit}{'' if self.count == 1 else 's'}"

    def containing(self, moment: datetime) -> Window:
        """The window that ``moment`` is in."""
        moment = moment.astimezone(UTC)
        if self.unit in _MONTHS:
            step = self.count * _MONTHS[self.unit]
            ordinal = (moment.year * 12 + moment.month - 1) // step * step
            return Window(_month(ordinal), _month(ordinal + step))
        step_length = self.count * _UNITS[self.unit]
        origin = _FIRST_MONDAY if self.unit == "week" else _EPOCH
        start = origin + (moment - origin) // step_length * step_length
        return Window(start, start + step_length)

    def before(self, window: Window) -> Window:
        """The aligned window that ends where ``window`` starts (months differ in length)."""
        return self.containing(window.start - timedelta(microseconds=1))

    def after(self, window: Window) -> Window:
        """The aligned window that starts where ``window`` ends."""
        return self.containing(window.end)

    def closed(self, *, since: datetime, now: datetime, lag: timedelta, limit: int) -> list[Window]:
        """The oldest ``limit`` windows, in order, that start at or after ``since`` and ended ``lag`` ago or
        more.

        ``lag`` is the time that a record needs at the most from its request to its place in the tables.
        """
        found: list[Window] = []
        window = self.containing(since)
        if window.start < since:
            window = self.after(window)
        while len(found) < limit and window.end <= now - lag:
            found.append(window)
            window = self.after(window)
        return found

    def start_of_last(self, windows: int, *, now: datetime, lag: timedelta) -> datetime:
        """Where the last ``windows`` closed windows begin."""
        window = self.containing(now - lag)
        for _ in range(windows):
            window = self.before(window)
        return window.start


def _month(ordinal: int) -> datetime:
    return datetime(ordinal // 12, ordinal % 12 + 1, 1, tzinfo=UTC)
