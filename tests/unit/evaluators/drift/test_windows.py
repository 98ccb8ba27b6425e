from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.drift.windows import Granularity, Window
from servelens.errors import Invalid

GRANULARITIES = (
    "5 minutes",
    "30 minutes",
    "1 hour",
    "1 day",
    "1 week",
    "2 weeks",
    "1 month",
    "3 months",
    "1 year",
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
moments = st.integers(0, 4_000_000_000_000_000).map(lambda us: EPOCH + timedelta(microseconds=us))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("granularity", "start", "end"),
    [
        ("5 minutes", "2026-03-04T10:25", "2026-03-04T10:30"),
        ("1 hour", "2026-03-04T10:00", "2026-03-04T11:00"),
        ("1 day", "2026-03-04", "2026-03-05"),
        ("1 week", "2026-03-02", "2026-03-09"),  # a Monday
        ("1 month", "2026-03-01", "2026-04-01"),
        ("3 months", "2026-01-01", "2026-04-01"),
        ("1 year", "2026-01-01", "2027-01-01"),
    ],
)
def test_windows_are_aligned_to_the_clock(granularity: str, start: str, end: str) -> None:
    window = Granularity.parse(granularity).containing(at("2026-03-04T10:27:13.5"))
    assert window == Window(at(start), at(end))


@given(moments, st.sampled_from(GRANULARITIES))
def test_windows_tile_the_time_line(moment: datetime, text: str) -> None:
    granularity = Granularity.parse(text)
    window = granularity.containing(moment)
    assert window.start <= moment < window.end
    assert granularity.after(window).start == window.end
    assert granularity.before(window).end == window.start
    assert granularity.containing(window.start) == window
    assert granularity.containing(window.end - timedelta(microseconds=1)) == window
    assert str(granularity) == text


def test_another_zone_gives_the_same_window() -> None:
    moment = at("2026-03-04T23:30")
    elsewhere = moment.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert Granularity.parse("1 day").containing(elsewhere) == Granularity.parse("1 day").containing(moment)


def test_a_window_is_closed_once_its_end_and_the_lag_have_passed() -> None:
    granularity, lag = Granularity.parse("1 hour"), timedelta(minutes=1)
    since = at("2026-03-04T08:00")

    def closed(now: str, limit: int = 10) -> list[int]:
        found = granularity.closed(since=since, now=at(now), lag=lag, limit=limit)
        return [window.start.hour for window in found]

    assert closed("2026-03-04T09:00:59") == []
    assert closed("2026-03-04T09:01:00") == [8]
    assert closed("2026-03-04T11:30:00") == [8, 9, 10]
    assert closed("2026-03-04T11:30:00", limit=2) == [8, 9]
    assert closed("2026-03-04T07:00:00") == []


def test_closed_begins_with_the_first_whole_window() -> None:
    found = Granularity.parse("1 hour").closed(
        since=at("2026-03-04T08:10"), now=at("2026-03-04T10:00"), lag=timedelta(0), limit=5
    )
    assert [window.start for window in found] == [at("2026-03-04T09:00")]


@given(moments, st.sampled_from(GRANULARITIES), st.integers(1, 5))
def test_start_of_last_goes_back_as_many_windows_as_asked(moment: datetime, text: str, windows: int) -> None:
    granularity = Granularity.parse(text)
    since = granularity.start_of_last(windows, now=moment, lag=timedelta(0))
    assert len(granularity.closed(since=since, now=moment, lag=timedelta(0), limit=100)) == windows


@pytest.mark.parametrize("text", ["", "hour", "0 hours", "1 fortnight", "-1 day", "1.5 hours", "1 hour 2"])
def test_what_is_no_granularity_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="granularity"):
        Granularity.parse(text)


def test_empty_and_naive_windows_are_refused() -> None:
    with pytest.raises(Invalid, match="ends after"):
        Window(at("2026-01-01"), at("2026-01-01"))
    with pytest.raises(Invalid, match="zone"):
        Window(datetime(2026, 1, 1), at("2026-01-02"))  # noqa: DTZ001 - the point of the test


def test_the_window_before_has_the_same_length() -> None:
    window = Window(at("2026-01-02"), at("2026-01-05"))
    assert window.before() == Window(at("2025-12-30"), at("2026-01-02"))
