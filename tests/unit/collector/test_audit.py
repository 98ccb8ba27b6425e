"""The audit: whatever happened to a record, it is counted once, and what is nowhere is named."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction

from collector.audit import Audit, Books, WorkerBooks
from collector.catalog import Catalog
from collector.dead_letter import DeadLetter, Entry
from collector.repeated_ids import repeated_ids
from collector.spool import SpoolWriter
from collector.worker_directory import WorkerDirectory
from servelens.errors import SpoolFull
from tests.unit.collector.test_ingest import NAMES, Place, record

PARTS = ("in_table", "in_spool", "in_dead_letter", "damaged", "removed", "missing", "dropped")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def audit(place: Place) -> Books:
    books = Audit(place.spools, place.catalog(), place.letters).run()
    for worker in books.workers:
        assert worker.accepted == sum(getattr(worker, part) for part in PARTS), worker
    return books


def only(books: Books) -> WorkerBooks:
    (worker,) = books.workers
    return worker


def some(count: int, first: int = 0) -> list[object]:
    return [
        record(f"r{number}", ("chat", "code", "gone")[number % 3]) for number in range(first, first + count)
    ]


def collected(place: Place) -> None:
    """Thirty records that are in the tables only, and one in a newer segment."""
    place.spool(some(30))
    place.drain()
    place.spool(some(1, 30))
    place.drain()


def remove(place: Place, endpoint: str, worker: str, condition: str, count: int) -> None:
    """As maintenance does: the commit says how many rows of the worker have left."""
    DeltaTable(place.catalog().tables(endpoint).payload.uri).delete(
        condition,
        commit_properties=CommitProperties(app_transactions=[Transaction(f"deleted:{worker}", count)]),
    )


def test_what_is_removed_may_still_be_in_the_newest_segment(place: Place) -> None:
    worker_id = place.spool(some(30))
    place.drain()
    remove(place, "chat", worker_id, "spool_offset < 6", 2)
    worker = only(audit(place))
    assert (worker.in_table, worker.in_spool, worker.removed) == (28, 0, 2)


def drop_rows(place: Place, endpoint: str, condition: str) -> None:
    DeltaTable(place.catalog().tables(endpoint).payload.uri).delete(condition)


def test_nothing_at_all_adds_up(place: Place) -> None:
    books = audit(place)
    assert books.adds_up
    assert books.workers == []


def test_records_count_where_they_are(place: Place) -> None:
    first = place.spool(some(30))
    place.drain()
    place.spool(some(12, 30))
    second = place.spool(some(5, 100), "proxy-1")
    books = audit(place)
    assert books.adds_up
    assert books.rows == 30
    found = {
        worker.worker_id: (worker.accepted, worker.in_table, worker.in_spool) for worker in books.workers
    }
    assert found == {first: (42, 30, 12), second: (5, 0, 5)}
    place.drain()
    assert [(worker.in_table, worker.in_spool) for worker in audit(place).workers] == [(42, 0), (5, 0)]


def test_a_worker_that_has_just_started_again_has_its_past(place: Place) -> None:
    collected(place)
    writer = SpoolWriter.open(place.spools / "proxy-0")
    try:
        place.drain()  # deletes what is behind the new segment, which is empty
        worker = only(audit(place))
        assert worker.writer_alive
        assert (worker.accepted, worker.in_table, worker.in_spool) == (31, 31, 0)
    finally:
        writer.close(10)


def test_looking_changes_nothing(place: Place) -> None:
    place.spool(some(3))
    segment = place.segments()[0]
    with segment.open("ab") as file:
        file.write(b"torn")
    before = {path: path.stat().st_mtime_ns for path in place.spools.rglob("*")}
    assert audit(place).adds_up
    assert {path: path.stat().st_mtime_ns for path in place.spools.rglob("*")} == before
    assert not place.letters.directory.exists()


def test_what_cannot_be_read_or_kept_is_counted(place: Place) -> None:
    writer = SpoolWriter.open(place.spools / "proxy-0", buffer_bytes=5_000)
    writer.append(record("a0"), None)
    writer.append(record("bad", status_code="many"), None)
    with pytest.raises(SpoolFull, match="more than fit"):
        writer.append(record("huge", request=b"x" * 9_000), None)
    writer.close(10)
    place.drain()
    worker = only(audit(place))
    assert (worker.accepted, worker.in_table, worker.in_dead_letter, worker.dropped) == (3, 1, 1, 1)
    assert worker.dropped_by_reason == {"too_large": 1}


@pytest.mark.parametrize("collected", [False, True])
def test_damage_is_named_before_and_after_it_is_collected(place: Place, collected: bool) -> None:
    worker_id = place.spool([record(f"record-{number}") for number in range(5)])
    segment = place.segments()[0]
    data = bytearray(segment.read_bytes())
    data[data.index(b"record-2")] ^= 0xFF
    segment.write_bytes(bytes(data))
    if collected:
        place.drain()
    books = audit(place)
    assert books.adds_up
    assert only(books).damaged == 1
    (region,) = books.regions
    assert (region.worker_id, region.segment, region.first_missing, region.missing) == (
        worker_id,
        segment.name,
        2,
        1,
    )
    assert region.in_dead_letter is collected


@pytest.mark.parametrize("collected", [False, True])
def test_a_dead_writers_last_segment_cut_short_is_named(place: Place, collected: bool) -> None:
    place.spool(some(9))
    os.truncate(place.segments()[-1], place.segments()[-1].stat().st_size // 2)
    if collected:
        place.drain()
    books = audit(place)
    worker = only(books)
    assert books.adds_up
    assert worker.accepted == 9
    assert worker.damaged > 3
    assert sum(region.missing for region in books.regions) == worker.damaged


def test_damage_after_the_records_are_in_the_table_is_no_loss(place: Place) -> None:
    place.spool(some(9))
    place.drain()
    place.segments()[-1].write_bytes(b"")
    place.drain()
    books = audit(place)
    assert (books.adds_up, only(books).in_table, only(books).damaged) == (True, 9, 0)


def test_a_record_that_is_nowhere_is_a_gap(place: Place) -> None:
    collected(place)
    drop_rows(place, "chat", "spool_offset = 3")
    drop_rows(place, "code", "spool_offset IN (4, 16)")
    books = audit(place)
    worker = only(books)
    assert not books.adds_up
    assert (worker.in_table, worker.missing, worker.gaps) == (28, 3, [(3, 4), (16, 16)])


def test_a_lost_segment_is_a_gap(place: Place) -> None:
    place.spool(some(900), segment_bytes=65_536)
    lost, following = place.segments()[0], place.segments()[1]
    lost.unlink()
    books = audit(place)
    assert not books.adds_up
    assert only(books).gaps == [(0, int(following.stem) - 1)]


def test_rows_removed_on_purpose_are_no_gap_and_hide_none(place: Place) -> None:
    collected(place)
    (worker_id,) = (worker.worker_id for worker in audit(place).workers)
    remove(place, "chat", worker_id, "spool_offset >= 3 AND spool_offset <= 12", 4)
    books = audit(place)
    assert books.adds_up
    assert (only(books).in_table, only(books).removed) == (27, 4)
    drop_rows(place, "code", "spool_offset = 7")
    books = audit(place)
    assert not books.adds_up
    assert (only(books).removed, only(books).missing) == (4, 1)


def test_a_row_that_is_there_twice_is_seen(place: Place) -> None:
    place.spool(some(30))
    place.drain()
    tables = place.catalog()
    twice = tables.tables("chat").payload.scan().filter(pl.col("spool_offset") == 6).collect()
    tables.tables("code").payload.append(twice)
    books = audit(place)
    assert not books.adds_up
    assert only(books).duplicates == 1
    assert (books.duplicate_ids, books.duplicate_id_rows) == (["r6"], 1)
    again = twice.with_columns(spool_offset=pl.lit(29, pl.Int64) + 1, worker_id=pl.lit("elsewhere"))
    tables.tables("code").payload.append(again)
    assert repeated_ids([tables.tables(name).payload for name in NAMES], 40_000_000) == (["r6"], 2)


def test_workers_of_other_machines_are_not_accounted_for(place: Place) -> None:
    worker = place.spool(some(30))
    place.drain()
    drop_rows(place, "chat", "spool_offset = 3")
    shutil.rmtree(place.spools / "proxy-0")
    books = audit(place)
    assert books.adds_up
    assert only(books).worker_id == worker
    assert (only(books).directory, only(books).accepted, only(books).missing) == (None, 30, 1)


def test_a_spool_that_cannot_be_read_is_a_problem(place: Place) -> None:
    place.spool(some(3))
    place.spool(some(3), "proxy-1")
    (place.spools / "proxy-1" / "identity").write_text("somebody-else")
    (place.spools / "no-spool").mkdir()
    books = audit(place)
    assert not books.adds_up
    assert len(books.problems) == 1
    assert "was written by worker" in books.problems[0]


def test_with_everything_running_nothing_ever_seems_missing(place: Place) -> None:
    writer = SpoolWriter.open(place.spools / "proxy-0", segment_bytes=65_536)
    stop = threading.Event()
    collector = place.collector(commit_interval_s=0.05, max_rows=300)
    collecting = threading.Thread(target=collector.run, args=(stop,))
    collecting.start()

    def write() -> None:
        number = 0
        while not stop.wait(0.001):
            for _ in range(5):
                writer.append(record(f"r{number}", ("chat", "code")[number % 2]), None)
                number += 1

    writing = threading.Thread(target=write)
    writing.start()
    try:
        seen: list[int] = []
        while len(seen) < 8 or only(audit(place)).in_table < 500:
            books = audit(place)
            assert books.adds_up, books
            seen += [worker.accepted for worker in books.workers]
    finally:
        stop.set()
        writing.join()
        writer.close(10)
        collecting.join(60)
    assert seen == sorted(seen)
    assert not collecting.is_alive()


def test_a_writer_that_comes_back_meanwhile_is_no_alarm(place: Place) -> None:
    """It was down when its spool was looked at, and the table of one endpoint has more of it by the time it is read."""
    place.spool(some(3))
    place.drain()
    letters = LettersThatTakeTime(place.letters.directory, lambda: come_back(place))
    books = Audit(place.spools, place.catalog(), letters).run()
    assert books.adds_up, books
    assert only(books).accepted == 3


def come_back(place: Place) -> None:
    place.spool([record("b3", "code"), record("b4", "chat"), record("b5", "code")])
    place.drain()
    drop_rows(place, "code", "spool_offset = 3")  # as if its commit were still under way


class LettersThatTakeTime(DeadLetter):
    """Something happens while the dead letter is read."""

    def __init__(self, directory: Path, happens: Callable[[], None]) -> None:
        super().__init__(directory)
        self._happens = happens

    def entries(self) -> Iterator[Entry]:
        self._happens()
        yield from super().entries()


def test_the_catalog_is_asked_for_endpoints_that_nobody_has_looked_up(place: Place) -> None:
    place.spool(some(6))
    place.drain()
    books = Audit(place.spools, Catalog(str(place.lake), {}, more=lambda: NAMES), place.letters).run()
    assert books.rows == 6


def test_offsets_that_a_reader_has_seen_are_never_given_again(place: Place) -> None:
    """Also when the worker was killed and somebody cut its newest segment: its notes cannot have told."""
    place.spool(some(9))
    place.drain()
    directory = WorkerDirectory(place.spools / "proxy-0")
    directory.path.joinpath("counters").unlink()
    os.truncate(place.segments()[-1], 500)
    place.spool(some(3, 9))
    place.drain()
    books = audit(place)
    assert books.adds_up
    assert only(books).in_table == 12
