"""The journal: what becomes of each arrival, and that it agrees with the spool after any end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.intake.arrival import (
    REQUEST_MISSING,
    RESPONSE_MISSING,
    TIME_IMPLAUSIBLE,
    UNKNOWN_STATUS,
    Arrival,
    Kind,
    arrival,
    key_of,
    plausible,
)
from collector.intake.journal import Journal, Step
from collector.record import Record
from servelens.errors import Invalid, Unavailable

NOON_US = 1_772_366_400_000_000
SECOND = 1_000_000


def half(kind: Kind, name: str = "a", *, at_us: int = NOON_US) -> Arrival:
    is_request = kind is Kind.REQUEST
    record = Record(
        request_id=f"{name}-{kind.name}",
        request_time_us=at_us,
        status_code=UNKNOWN_STATUS if is_request else 200,
        duration_us=0,
        endpoint="chat",
        api="chat" if is_request else "unknown",
        request=b"asked" if is_request else None,
        response=None if is_request else b"said",
        model=None if is_request else "m",
        tags={kind.name: "1"},
        arrived_us=at_us,
    )
    return arrival(key_of(name), kind, record)


def whole(name: str) -> Arrival:
    return arrival(key_of(name), Kind.WHOLE, half(Kind.RESPONSE, name).record)


def steps(journal: Journal, *arrivals: Arrival, next_offset: int = 0, now_us: int = NOON_US) -> list[Step]:
    return [one.step for one in journal.plan(arrivals, now_us=now_us, next_offset=next_offset)]


OPEN: list[Journal] = []


def opened(folder: Path, next_offset: int = 0, worker_id: str = "intake-0-1") -> Journal:
    path = folder / "deep" / "journal.db"
    OPEN.append(Journal.open(path, worker_id=worker_id, next_offset=next_offset))
    return OPEN[-1]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return opened(tmp_path)


@pytest.mark.parametrize("order", [(Kind.REQUEST, Kind.RESPONSE), (Kind.RESPONSE, Kind.REQUEST)])
def test_two_halves_are_one_record_in_any_order(journal: Journal, order: tuple[Kind, Kind]) -> None:
    first, second = (half(kind, at_us=NOON_US + (kind is Kind.RESPONSE) * SECOND) for kind in order)
    (waits,) = journal.plan([first], now_us=NOON_US, next_offset=0)
    assert (waits.step, waits.record, journal.waiting) == (Step.WAITS, None, 1)
    (made,) = journal.plan([second], now_us=NOON_US, next_offset=0)
    record = made.record
    assert made.step is Step.JOINED
    assert record is not None
    assert record.request_id == "a-REQUEST"
    assert (record.request, record.response, record.status_code) == (b"asked", b"said", 200)
    assert (record.request_time_us, record.duration_us) == (NOON_US, SECOND)
    assert (record.api, record.model, record.error_type) == ("chat", "m", None)
    assert record.arrived_us == NOON_US + SECOND
    assert record.tags == {"REQUEST": "1", "RESPONSE": "1"}
    assert steps(journal, first, second) == [Step.DUPLICATE, Step.DUPLICATE]


def test_both_halves_and_their_copies_in_one_group(journal: Journal) -> None:
    request, response = half(Kind.REQUEST), half(Kind.RESPONSE)
    assert steps(journal, request, request, response, response, request) == [
        Step.WAITS,
        Step.DUPLICATE,
        Step.JOINED,
        Step.DUPLICATE,
        Step.DUPLICATE,
    ]


def test_a_response_clock_behind_the_request_gives_no_negative_duration(journal: Journal) -> None:
    journal.plan([half(Kind.REQUEST)], now_us=NOON_US, next_offset=0)
    late = half(Kind.RESPONSE, at_us=NOON_US - SECOND)
    (made,) = journal.plan([late], now_us=NOON_US, next_offset=0)
    assert made.record is not None
    assert made.record.duration_us == 0


@pytest.mark.parametrize(
    ("kind", "error_type", "status"),
    [(Kind.REQUEST, RESPONSE_MISSING, UNKNOWN_STATUS), (Kind.RESPONSE, REQUEST_MISSING, 200)],
)
def test_a_half_that_waited_long_enough_goes_alone(
    journal: Journal, kind: Kind, error_type: str, status: int
) -> None:
    journal.plan([half(kind), half(kind, "young")], now_us=NOON_US, next_offset=0)
    assert journal.give_up(before_us=NOON_US, now_us=NOON_US, limit=10, next_offset=0) == []
    (given_up, _) = journal.give_up(before_us=NOON_US + 1, now_us=NOON_US, limit=10, next_offset=0)
    assert given_up.record is not None
    assert (given_up.record.error_type, given_up.record.status_code) == (error_type, status)
    assert given_up.record.arrived_us == NOON_US  # it is not late before now
    # Its other half is late and goes alone as well; nothing is lost and nothing is there twice.
    other = Kind.RESPONSE if kind is Kind.REQUEST else Kind.REQUEST
    later = journal.plan([half(other), half(kind)], now_us=NOON_US, next_offset=2, forget=[given_up.key])
    assert [one.step for one in later] == [Step.LATE, Step.DUPLICATE]
    assert later[0].record is not None
    assert later[0].record.error_type in (REQUEST_MISSING, RESPONSE_MISSING)


def test_only_so_many_are_given_up_at_once_the_oldest_first(journal: Journal) -> None:
    for number in range(5):
        journal.plan([half(Kind.REQUEST, str(number))], now_us=NOON_US + number, next_offset=0)
    given_up = journal.give_up(before_us=NOON_US + SECOND, now_us=NOON_US, limit=3, next_offset=7)
    assert [one.record and one.record.request_id for one in given_up] == [f"{n}-REQUEST" for n in range(3)]


def test_what_the_spool_has_is_known_after_a_restart(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    arrivals = [whole("x"), half(Kind.REQUEST), half(Kind.RESPONSE), half(Kind.REQUEST, "b")]
    assert steps(journal, *arrivals) == [Step.SPOOL, Step.WAITS, Step.JOINED, Step.WAITS]
    journal.close()
    again = opened(tmp_path, next_offset=2)
    assert again.waiting == 1
    assert steps(again, *arrivals, next_offset=2) == [Step.DUPLICATE] * 4
    assert steps(again, half(Kind.RESPONSE, "b"), next_offset=2) == [Step.JOINED]


def test_what_the_spool_never_got_is_taken_back_after_a_crash(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.plan([half(Kind.REQUEST)], now_us=NOON_US, next_offset=0)
    arrivals = [whole("in"), half(Kind.RESPONSE), whole("out")]
    assert steps(journal, *arrivals, next_offset=0) == [Step.SPOOL, Step.JOINED, Step.SPOOL]
    journal.close()  # the spool took one record and died
    again = opened(tmp_path, next_offset=1)
    assert again.waiting == 1
    assert steps(again, *arrivals, next_offset=1) == [Step.DUPLICATE, Step.JOINED, Step.SPOOL]


def test_what_the_spool_refuses_is_taken_back(journal: Journal) -> None:
    journal.plan([half(Kind.REQUEST)], now_us=NOON_US, next_offset=0)
    arrivals = [half(Kind.RESPONSE), whole("x")]
    decisions = journal.plan(arrivals, now_us=NOON_US, next_offset=0)
    journal.take_back([one.key for one in decisions])
    assert journal.waiting == 1
    assert steps(journal, *arrivals) == [Step.JOINED, Step.SPOOL]


def test_another_spool_directory_takes_nothing_back(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.plan([whole("x"), half(Kind.REQUEST)], now_us=NOON_US, next_offset=50)
    journal.close()
    again = opened(tmp_path, next_offset=0, worker_id="intake-0-2")
    assert steps(again, whole("x"), half(Kind.REQUEST)) == [Step.DUPLICATE, Step.DUPLICATE]
    assert again.waiting == 1


def test_old_events_are_forgotten_and_waiting_ones_are_not(journal: Journal) -> None:
    assert steps(journal, whole("old"), half(Kind.REQUEST)) == [Step.SPOOL, Step.WAITS]
    assert steps(journal, whole("new"), now_us=NOON_US + SECOND, next_offset=1) == [Step.SPOOL]
    assert journal.tidy(before_us=NOON_US + SECOND, limit=100) == 1
    assert steps(journal, whole("old"), whole("new"), half(Kind.REQUEST), next_offset=2) == [
        Step.SPOOL,
        Step.DUPLICATE,
        Step.DUPLICATE,
    ]


def test_halves_in_the_spool_leave_the_journal(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    pair = journal.plan([half(Kind.REQUEST), half(Kind.RESPONSE)], now_us=NOON_US, next_offset=0)
    journal.tidy(before_us=0, limit=1, forget=[pair[1].key])
    assert journal.waiting == 0
    with sqlite3.connect(tmp_path / "deep" / "journal.db") as connection:
        assert connection.execute("SELECT count(*) FROM halves").fetchone() == (0,)
    connection.close()


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    opened(tmp_path)
    assert (tmp_path / "deep").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "deep" / "journal.db").stat().st_mode & 0o777 == 0o600


def test_a_disk_that_refuses_changes_nothing(tmp_path: Path, journal: Journal) -> None:
    other = sqlite3.connect(tmp_path / "deep" / "journal.db", isolation_level=None)
    other.execute("CREATE TRIGGER full BEFORE INSERT ON halves BEGIN SELECT RAISE(FAIL, 'disk is full'); END")
    with pytest.raises(Unavailable, match="disk is full"):
        journal.plan([whole("x"), half(Kind.REQUEST)], now_us=NOON_US, next_offset=0)
    other.execute("DROP TRIGGER full")
    other.close()
    assert steps(journal, whole("x"), half(Kind.REQUEST)) == [Step.SPOOL, Step.WAITS]
    assert journal.waiting == 1


def test_a_damaged_file_and_a_newer_one_are_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(Unavailable, match=r"journal\.db cannot be used.*move it away"):
        Journal.open(path, worker_id="w", next_offset=0)
    newer = tmp_path / "newer.db"
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version=9")
    connection.close()
    with pytest.raises(Unavailable, match="newer release"):
        Journal.open(newer, worker_id="w", next_offset=0)


def test_times_that_cannot_be_become_now() -> None:
    assert plausible(NOON_US - 5, NOON_US) == (NOON_US - 5, [])
    for wrong in (0, -1, 10**18, NOON_US + 2 * 86_400 * SECOND):
        assert plausible(wrong, NOON_US) == (NOON_US, [TIME_IMPLAUSIBLE])


def test_a_record_that_no_spool_can_hold_is_refused() -> None:
    broken = Record("x", 2**70, 200, 0, "chat", "chat")
    with pytest.raises(Invalid, match="out of range"):
        arrival(b"k", Kind.WHOLE, broken)
    with pytest.raises(Invalid, match="cannot be stored"):
        arrival(b"k", Kind.WHOLE, Record("x", 1, 200, 0, "chat", "chat", model="\ud800"))


def test_keys_tell_every_part_apart() -> None:
    assert key_of("a", "bc") != key_of("ab", "c")
    assert key_of("a", "") != key_of("a")
    assert len(key_of("\ud800" * 1000)) == 16
