from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.view import DEFAULT_RANGE, LONGEST, RANGES, parse, window
from servelens.clock import ManualClock

NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)
CLOCK = ManualClock(NOW)


@given(
    st.integers(946_684_800, 4_102_444_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    st.timedeltas(timedelta(seconds=1), LONGEST),
)
def test_window_covers_what_was_asked_in_few_whole_bins(since: datetime, length: timedelta) -> None:
    found = window(since, since + length)
    assert found.since <= since
    assert found.until >= since + length
    assert found.since > since - found.bin
    assert found.until < since + length + found.bin
    assert found.length / found.bin <= 112
    assert (found.length / found.bin).is_integer()


def test_previous_window_ends_where_this_one_begins() -> None:
    found = window(NOW - timedelta(hours=1), NOW)
    assert found.previous().until == found.since
    assert found.previous().length == found.length


@pytest.mark.parametrize("key", RANGES)
def test_relative_range_ends_now(key: str) -> None:
    view = parse({"endpoint": "a", "range": key}, ["a", "b"], CLOCK)
    assert view.relative
    assert view.window.since <= NOW - RANGES[key][1] < view.window.until
    assert view.window.until >= NOW


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"endpoint": "nope", "range": "1000y", "variants": "x", "zone": ["a"]},
        {"endpoint": {"a": 1}, "range": ["1h"], "from": 5, "to": "never"},
        {"from": "2026-03-14T12:00:00Z", "to": "2026-03-14T11:00:00Z"},
        {"from": "0001-01-01T00:00:00Z", "to": "9999-01-01T00:00:00Z"},
    ],
)
def test_unusable_values_become_defaults(data: Any) -> None:
    view = parse(data, ["a", "b"], CLOCK)
    assert view.endpoint == "a"
    assert view.range_label == RANGES[DEFAULT_RANGE][0].lower()
    assert view.arms == ()


def test_chosen_time_is_kept_and_bounded() -> None:
    view = parse({"from": "2026-03-14T12:00:00+02:00", "to": "2026-03-14T12:30:00+02:00"}, ["a"], CLOCK)
    assert not view.relative
    assert (view.window.since, view.window.until) == (
        datetime(2026, 3, 14, 10, tzinfo=UTC),
        datetime(2026, 3, 14, 10, 30, tzinfo=UTC),
    )
    long = parse({"from": "2020-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, ["a"], CLOCK)
    assert long.window.length <= LONGEST + 2 * long.window.bin


def test_no_endpoint_is_no_error() -> None:
    assert parse({"endpoint": "a"}, [], CLOCK).endpoint == ""
