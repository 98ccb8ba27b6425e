from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

import pytest
from apscheduler.triggers.cron import CronTrigger

from evaluators.runs.cron import Cron
from servelens.errors import Invalid

SUNDAY = datetime(2026, 3, 1, tzinfo=UTC)


def times(text: str, count: int) -> list[str]:
    """The next times after Sunday, 1 March 2026, as the scheduler has them."""
    trigger, found, moment = CronTrigger(**asdict(Cron.parse(text)), timezone=UTC), [], None
    for _ in range(count):
        moment = trigger.get_next_fire_time(moment, moment or SUNDAY)
        found.append(f"{moment:%a %d %H:%M}")
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*/20 * * * *", ["Sun 01 00:00", "Sun 01 00:20", "Sun 01 00:40", "Sun 01 01:00"]),
        ("30 7 * * 1-5", ["Mon 02 07:30", "Tue 03 07:30", "Wed 04 07:30", "Thu 05 07:30"]),
        ("0 0 * * 0", ["Sun 01 00:00", "Sun 08 00:00"]),
        ("0 0 * * 7", ["Sun 01 00:00", "Sun 08 00:00"]),
        ("0 12 * * sat,SUN", ["Sun 01 12:00", "Sat 07 12:00"]),
        ("0 0 * * */3", ["Sun 01 00:00", "Wed 04 00:00", "Sat 07 00:00", "Sun 08 00:00"]),
        ("5 10-12/2 2,4 mar *", ["Mon 02 10:05", "Mon 02 12:05", "Wed 04 10:05"]),
        ("0 0 15/10 * *", ["Sun 15 00:00", "Wed 25 00:00"]),
    ],
)
def test_times_are_those_of_cron(text: str, expected: list[str]) -> None:
    assert times(text, len(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "a * * * *",
        "1, * * * *",
        "-1 * * * *",
        "0 0 1 * mon",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"^cron: .*Write five fields"):
        Cron.parse(text)
