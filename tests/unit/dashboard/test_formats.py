from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

from dashboard import formats

NAN = math.nan


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "–"),
        (NAN, "–"),
        (0, "0"),
        (999, "999"),
        (1234, "1,234"),
        (9999, "9,999"),
        (12_340, "12.3k"),
        (4_560_000, "4.56M"),
        (7.1e9, "7.10B"),
    ],
)
def test_count(value: float | None, words: str) -> None:
    assert formats.count(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "–"),
        (0.42, "0.42 ms"),
        (412, "412 ms"),
        (999.6, "1.00 s"),
        (1840, "1.84 s"),
        (123_000, "2 min 3 s"),
        (7_380_000, "2 h 3 min"),
    ],
)
def test_milliseconds(value: float | None, words: str) -> None:
    assert formats.milliseconds(value) == words


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (None, "–"),
        (0, "0.00 %"),
        (0.0031, "0.31 %"),
        (0.124, "12.4 %"),
        (1, "100.0 %"),
        (0.00001, "< 0.01 %"),
        (-0.05, "−5.00 %"),
    ],
)
def test_percent(share: float | None, words: str) -> None:
    assert formats.percent(share) == words


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.124, "+12.4 %"), (-0.031, "−3.10 %"), (40, "×41.0"), (math.inf, "∞"), (None, "–")],
)
def test_lift(share: float | None, words: str) -> None:
    assert formats.lift(share) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (4.567, "4.57"),
        (1240, "1,240"),
        (-0.5, "−0.500"),
        (1e-9, "1.0e−09"),
        (math.inf, "∞"),
        (NAN, "–"),
    ],
)
def test_significant(value: float, words: str) -> None:
    assert formats.significant(value) == words


def test_p_value_is_never_zero() -> None:
    assert formats.p_value(0.0) == "p < 0.001"
    assert formats.p_value(0.0321) == "p = 0.032"
    assert formats.p_value(None) == "p –"


def test_times_are_in_the_viewers_zone() -> None:
    moment = datetime(2026, 7, 1, 12, 0, 5, 125_000, tzinfo=UTC)
    assert formats.moment(moment, "Europe/Berlin") == "1 Jul, 14:00:05"
    assert formats.full_moment(moment, "Europe/Berlin") == "2026-07-01 14:00:05.125 +0200"
    for unknown in (None, "", "Mars/Base", "../../etc/passwd", "a" * 5000, "\0"):
        assert formats.moment(moment, unknown) == "1 Jul, 12:00:05"


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        (timedelta(seconds=-5), "just now"),
        (timedelta(seconds=44), "just now"),
        (timedelta(minutes=4), "4 min ago"),
        (timedelta(hours=3), "3 h ago"),
        (timedelta(days=5), "5 days ago"),
    ],
)
def test_ago(gap: timedelta, words: str) -> None:
    now = datetime(2026, 7, 1, tzinfo=UTC)
    assert formats.ago(now - gap, now) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "1 second"),
        (90, "90 seconds"),
        (150, "2.5 minutes"),
        (900, "15 minutes"),
        (3600, "60 minutes"),
        (12600, "3.5 hours"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    assert formats.duration(timedelta(seconds=seconds)) == words


def test_plural() -> None:
    assert formats.plural(1, "case") == "1 case"
    assert formats.plural(2000, "case") == "2,000 cases"
