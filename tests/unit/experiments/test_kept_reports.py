"""Which reports are kept. That a decision's are is in tests/conformance/test_kept_reports.py."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

from experiments.kept_reports import superfluous
from tests.unit.experiments.records import START


def _kept(every: timedelta, life: timedelta, tidied: timedelta) -> list[datetime]:
    """What is left of looks ``every`` so often over a ``life``, with a tidying up ``tidied`` so often."""
    kept: list[tuple[int, datetime]] = []
    last_tidied = now = START
    for number in range(life // every):
        now = START + every * number
        kept.append((number, now))
        if now - last_tidied >= tidied:
            gone = set(superfluous(kept, now))
            kept = [each for each in kept if each[0] not in gone]
            last_tidied = now
    gone = set(superfluous(kept, now))
    return [as_of for number, as_of in kept if number not in gone]


def test_a_week_of_looks_every_minute_leaves_a_chart_of_it() -> None:
    kept = _kept(timedelta(minutes=1), timedelta(days=7), timedelta(minutes=15))
    now = START + timedelta(days=7) - timedelta(minutes=1)
    assert len(kept) < 120
    assert (kept[0], kept[-1]) == (START, now)
    for span, within in ((2, 60), (30, 24 * 60), (6 * 60, 7 * 24 * 60)):
        recent = [as_of for as_of in kept if now - as_of < timedelta(minutes=within)]
        gaps = [later - earlier for earlier, later in pairwise(recent)]
        assert max(gaps) <= timedelta(minutes=2 * span), f"in the last {within} minutes"
    assert [now - as_of for as_of in kept[-5:]] == [timedelta(minutes=n) for n in (4, 3, 2, 1, 0)]


def test_a_year_leaves_one_a_day() -> None:
    kept = _kept(timedelta(hours=1), timedelta(days=365), timedelta(days=1))
    assert 365 <= len(kept) < 480
    assert len({as_of.date() for as_of in kept}) == 365


def test_what_is_kept_does_not_depend_on_how_often_it_is_tidied_up() -> None:
    often, seldom = (
        _kept(timedelta(minutes=3), timedelta(days=3), tidied) for tidied in (timedelta(0), timedelta(days=2))
    )
    assert often == seldom


def test_a_clock_that_went_back_removes_nothing() -> None:
    ahead = [(n, START + timedelta(hours=n)) for n in range(50)]
    assert superfluous(ahead, START) == []
    assert superfluous([], START) == []
    assert superfluous(ahead[:1], START + timedelta(days=400)) == []
