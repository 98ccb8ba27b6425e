"""Times of day and week in five fields, as cron has them: minute, hour, day of month, month, day of week (crontab(5)), UTC.

APScheduler 3 reads weekday numbers otherwise than cron does (0 is its Monday), and joins day of month and day of week by
*and* where cron does by *or*: the first is put right here, and what restricts both days is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from servelens.errors import Invalid

_WEEK: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


@dataclass(frozen=True, slots=True)
class Cron:
    """Each field in APScheduler's spelling: ``*``, or the values one by one with commas between."""

    minute: str
    hour: str
    day: str
    month: str
    day_of_week: str

    @classmethod
    def parse(cls, text: str) -> Cron:
        """Read ``"*/5 * * * *"``. Raises :class:`~servelens.errors.Invalid` with the field ``cron``.

        >>> Cron.parse("0 7 * * 1-5").day_of_week
        'mon,tue,wed,thu,fri'
        """
        fields = text.split()
        if len(fields) != 5:
            raise _wrong(f"'{text}' has {len(fields)} fields, not 5")
        minute, hour, day, month, week = fields
        if day != "*" and week != "*":
            raise _wrong(f"'{text}' names days of the month and of the week")
        numbers = {name: number for number, name in enumerate(_WEEK)}
        months = {name: number for number, name in enumerate(_MONTHS, start=1)}
        days = "*"
        if week != "*":
            days = ",".join(
                _WEEK[number] for number in sorted({each % 7 for each in _values(week, 0, 7, numbers)})
            )
        return cls(
            _field(minute, 0, 59, {}),
            _field(hour, 0, 23, {}),
            _field(day, 1, 31, {}),
            _field(month, 1, 12, months),
            days,
        )


def _field(text: str, low: int, high: int, names: dict[str, int]) -> str:
    return "*" if text == "*" else ",".join(map(str, sorted(_values(text, low, high, names))))


def _values(text: str, low: int, high: int, names: dict[str, int]) -> set[int]:
    found: set[int] = set()
    for part in text.lower().split(","):
        span, slash, step = part.partition("/")
        if slash and (not step.isdecimal() or int(step) == 0):
            raise _wrong(f"'{part}' has no step after '/'")
        first, dash, last = span.partition("-")
        if span == "*":
            begin, end = low, min(high, 6) if names and low == 0 else high
        else:
            begin = _number(first, part, names)
            end = _number(last, part, names) if dash else high if slash else begin
        if not low <= begin <= end <= high:
            raise _wrong(f"'{part}' is not within {low} to {high}")
        found |= set(range(begin, end + 1, int(step) if slash else 1))
    return found


def _number(text: str, part: str, names: dict[str, int]) -> int:
    if text in names:
        return names[text]
    if not text.isdecimal():
        raise _wrong(f"'{part}' is not a number")
    return int(text)


def _wrong(message: str) -> Invalid:
    return Invalid(
        f"{message}.", field="cron", fix="Write five fields, as in '*/5 * * * *' or '0 7 * * mon-fri'."
    )
