"""Replaying the dead letter: exactly once, beside a collector or not; and letting a halted spool go on."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collector.audit import Audit
from collector.dead_letter import DeadLetter
from collector.ingest import Collector
from collector.record import UNROUTED, encode
from collector.replay import Replay, State
from servelens.errors import Conflict, Missing, Unavailable
from tests.unit.collector.test_ingest import Place, eventually, record, step_until


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def replay(place: Place, **which: object) -> list[tuple[int, State]]:
    outcomes = Replay(place.letters, place.catalog(), place.spools).run(**which)  # type: ignore[arg-type]
    return [(outcome.offset, outcome.state) for outcome in outcomes]


def heal(place: Place, worker: str, offset: int, name: str, endpoint: str = "chat") -> None:
    """As a newer release does: what the dead letter holds can be read now."""
    frame = place.letters.directory / worker / f"{offset:020d}.frame"
    frame.write_bytes(encode(record(name, endpoint)))


def collected(place: Place) -> str:
    """Four records, of which those at 1 and 2 are in the dead letter."""
    bad = [record(f"bad{number}", status_code="many") for number in (1, 2)]
    worker = place.spool([record("a0"), *bad, record("a3")])
    place.drain()
    return worker


def test_what_can_be_read_now_comes_to_its_table_once(place: Place) -> None:
    worker = collected(place)
    assert replay(place) == [(1, State.UNREADABLE), (2, State.UNREADABLE)]
    heal(place, worker, 2, "a2")
    assert replay(place) == [(1, State.UNREADABLE), (2, State.REPLAYED)]
    assert place.ids() == ["a0", "a2", "a3"]
    assert replay(place) == [(1, State.UNREADABLE)]
    heal(place, worker, 1, "a1")  # a lower offset than one that was replayed before
    assert replay(place) == [(1, State.REPLAYED)]
    assert replay(place) == []
    assert place.ids() == ["a0", "a1", "a2", "a3"]
    assert list(place.letters.entries()) == []
    assert place.letters.replayed() == 2
    for _ in range(2):  # a collector that reads the segment again finds them unreadable and knows them
        place.drain()
        assert list(place.letters.entries()) == []
    books = Audit(place.spools, place.catalog(), place.letters).run()
    assert books.adds_up
    assert (books.workers[0].in_table, books.workers[0].in_dead_letter, books.replayed_records) == (4, 0, 2)


def test_a_replay_that_died_before_its_mark_is_marked_by_the_next(place: Place) -> None:
    worker = collected(place)
    heal(place, worker, 1, "a1")
    heal(place, worker, 2, "a2")

    class Dies(DeadLetter):
        def mark_replayed(self, entry: object) -> None:
            raise Unavailable("the disk went away")

    with pytest.raises(Unavailable):
        list(Replay(Dies(place.letters.directory), place.catalog(), place.spools).run())
    assert place.ids() == ["a0", "a1", "a2", "a3"]
    assert replay(place) == [(1, State.THERE), (2, State.THERE)]
    assert place.ids() == ["a0", "a1", "a2", "a3"]


def test_one_worker_or_one_record_may_be_meant(place: Place) -> None:
    worker = collected(place)
    heal(place, worker, 1, "a1")
    heal(place, worker, 2, "a2")
    assert replay(place, worker_id=worker, offsets=[2]) == [(2, State.REPLAYED)]
    with pytest.raises(Missing, match="no such record"):
        replay(place, worker_id="somebody")
    assert replay(place, worker_id=worker) == [(1, State.REPLAYED)]


def test_what_a_restarted_collector_would_take_is_left_to_it(place: Place) -> None:
    """Its transaction in that table is not past the record, and the segment is still there: both would take it."""
    worker = place.spool([record("a0"), record("bad", status_code="many")])
    place.drain()
    heal(place, worker, 1, "b1", "code")
    assert replay(place) == [(1, State.IN_SPOOL)]
    assert place.ids("code") == []
    place.spool([record("a2")])
    place.drain()
    assert replay(place) == [(1, State.REPLAYED)]
    assert place.ids("code") == ["b1"]


def test_without_the_spool_nobody_else_can_take_it(place: Place) -> None:
    worker = place.spool([record("bad", status_code="many")])
    place.drain()
    shutil.rmtree(place.spools / "proxy-0")
    heal(place, worker, 0, "a0", "code")
    assert replay(place) == [(0, State.REPLAYED)]
    assert place.ids("code") == ["a0"]


def test_a_record_without_an_endpoint_goes_where_such_records_go(place: Place) -> None:
    worker = place.spool([record("bad", status_code="many"), record("x", UNROUTED)])
    place.drain()
    heal(place, worker, 0, "a0", "renamed-since")
    assert replay(place) == [(0, State.REPLAYED)]
    assert place.ids(UNROUTED) == ["a0", "x"]


def test_a_value_that_still_fits_no_row_stays(place: Place) -> None:
    place.spool([record("a0"), record("huge", status_code=2**40)])
    place.drain()
    assert replay(place) == [(1, State.UNREADABLE)]
    assert len(list(place.letters.entries())) == 1


def test_an_entry_whose_bytes_were_deleted_stays_and_counts(place: Place) -> None:
    worker = collected(place)
    (place.letters.directory / worker / f"{1:020d}.frame").unlink()
    heal(place, worker, 2, "a2")
    assert replay(place) == [(1, State.UNREADABLE), (2, State.REPLAYED)]
    books = Audit(place.spools, place.catalog(), place.letters).run()
    assert (books.adds_up, books.workers[0].in_dead_letter) == (True, 1)


def test_two_do_not_replay_at_once(place: Place) -> None:
    collected(place)
    with place.letters.replaying(), pytest.raises(Conflict, match="another process replays"):
        replay(place)


def test_beside_a_running_collector_every_record_is_there_once(
    place: Place, running: Callable[..., Collector]
) -> None:
    items = [record(f"a{number}", status_code="many" if number % 2 else 200) for number in range(300)]
    worker = place.spool(items)
    place.drain()
    for number in range(1, 300, 2):
        heal(place, worker, number, f"a{number}")
    running(commit_interval_s=0.05)
    place.spool([record(f"a{number}") for number in range(300, 400)])
    assert replay(place) == [(number, State.REPLAYED) for number in range(1, 300, 2)]
    eventually(lambda: place.holds(400))
    assert len(set(place.ids())) == 400


@pytest.fixture
def running(place: Place) -> Iterator[Callable[..., Collector]]:
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def start(**options: float) -> Collector:
        collector = place.collector(**options)
        threads.append(threading.Thread(target=collector.run, args=(stop,)))
        threads[-1].start()
        return collector

    yield start
    stop.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize("restarted", [False, True])
def test_a_halted_spool_goes_on_when_it_is_told_to(place: Place, restarted: bool) -> None:
    bad = [record(f"bad{number}", status_code="many") for number in range(40)]
    worker = place.spool([record("a0"), *bad, record("a9")])
    collector = place.drain()
    assert worker in collector.status.halted
    place.letters.skip_through(worker, 30)  # not far enough: a later run halts it again
    collector = place.drain()
    assert "offset 31" in collector.status.halted[worker]
    if not restarted:
        collector = place.collector()
        step_until(collector, lambda: worker in collector.status.halted)
    place.letters.skip_through(worker, 41)
    if restarted:
        place.drain()
    else:
        step_until(collector, lambda: place.holds(2))
        collector.close()
    assert place.ids() == ["a0", "a9"]
    assert len(list(place.letters.entries())) == 40
