"""The intake on disks that fail: what is not confirmed has not happened, and what comes again comes once."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from collector.intake.arrival import Arrival, Kind, arrival, key_of
from collector.intake.counts import Counts
from collector.intake.intake import Intake
from collector.intake.journal import Journal, Step
from collector.record import Record
from collector.spool import SpoolWriter
from servelens.clock import SystemClock
from servelens.errors import Backpressure, SpoolFull, Unavailable
from tests.unit.collector.spool_fixtures import Disk, ids_in, until


class WatchedDisk(Disk):
    """One that says when it was asked to write."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    def write(self, descriptor: int, buffers: Sequence[bytes], position: int) -> int:
        self.asked.set()
        return super().write(descriptor, buffers, position)


def event(name: str, kind: Kind = Kind.WHOLE, size: int = 10) -> Arrival:
    record = Record(f"{name}", 1_777_636_800_000_000, 200, 0, "chat", "chat", request=b"x" * size)
    return arrival(key_of(name), kind, record)


@asynccontextmanager
async def intake(folder: Path, disk: Disk, **options: int) -> AsyncIterator[Intake]:
    spool = SpoolWriter.open(folder / "spool", write=disk.write, segment_age_s=3_600)
    journal = Journal.open(folder / "journal.db", worker_id=spool.worker_id, next_offset=spool.next_offset)
    made = Intake(journal, spool, Counts(), SystemClock(), join_timeout_s=60, window_s=60, **options)
    working = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        made.stop()
        await working
        await asyncio.to_thread(spool.close, 10)
        journal.close()


async def insist(made: Intake, arrivals: Sequence[Arrival]) -> list[Step]:
    for _ in range(2_000):
        try:
            return await made.take(arrivals)
        except SpoolFull:
            await asyncio.sleep(0.01)
    raise AssertionError("the spool does not take records again")


async def test_what_a_full_disk_refused_is_new_when_it_comes_again(tmp_path: Path) -> None:
    disk = Disk()
    async with intake(tmp_path, disk) as made:
        half = event("half", Kind.REQUEST)
        assert await made.take([event("a"), half]) == [Step.SPOOL, Step.WAITS]
        disk.room = 0
        late = [event("b"), event("half", Kind.RESPONSE), event("a")]
        with pytest.raises(SpoolFull, match="No space left"):
            await made.take(late)
        with pytest.raises(SpoolFull):
            await made.take([event("c")])
        disk.room = None
        assert await insist(made, late) == [Step.SPOOL, Step.JOINED, Step.DUPLICATE]
        assert await made.take([*late, half]) == [Step.DUPLICATE] * 4
        assert await made.take([event("c")]) == [Step.SPOOL]
    assert ids_in(tmp_path / "spool") == ["a", "b", "half", "c"]


async def test_a_disk_that_fills_in_the_middle_of_a_group(tmp_path: Path) -> None:
    disk = Disk()
    async with intake(tmp_path, disk) as made:
        await made.take([event("first")])
        disk.room = 3_000
        group = [event(str(number), size=500) for number in range(10)]
        with pytest.raises(SpoolFull):
            await made.take(group)
        disk.room = None
        steps = await insist(made, group)
        assert set(steps) == {Step.SPOOL, Step.DUPLICATE}
    assert ids_in(tmp_path / "spool") == ["first", *(str(number) for number in range(10))]


async def test_a_journal_that_fails_takes_nothing_and_recovers(tmp_path: Path) -> None:
    async with intake(tmp_path, Disk()) as made:
        await made.take([event("a")])
        other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(FAIL, 'disk full'); END"
        )
        with pytest.raises(Unavailable, match="disk full"):
            await made.take([event("b")])
        other.execute("DROP TRIGGER full")
        other.close()
        assert await made.take([event("a"), event("b")]) == [Step.DUPLICATE, Step.SPOOL]
    assert ids_in(tmp_path / "spool") == ["a", "b"]


async def test_a_disk_that_hangs_bounds_what_waits(tmp_path: Path) -> None:
    disk = Disk()
    async with intake(tmp_path, disk, max_waiting_bytes=5_000) as made:
        await made.take([event("a")])
        disk.open.clear()
        waiting = [asyncio.create_task(made.take([event(str(number), size=2_000)])) for number in range(6)]
        await until(lambda: sum(task.done() for task in waiting) == 4)
        refused = [task for task in waiting if task.done()]
        assert all(isinstance(task.exception(), Backpressure) for task in refused)
        disk.open.set()
        taken = [await task for task in waiting if task not in refused]
        assert taken == [[Step.SPOOL]] * 2
        assert await made.take([]) == []
    with pytest.raises(Backpressure, match="stopping"):
        await made.take([event("z")])


async def test_one_who_left_is_not_recorded_after_all_unless_it_was_under_way(tmp_path: Path) -> None:
    disk = WatchedDisk()
    async with intake(tmp_path, disk) as made:
        await made.take([event("a")])
        disk.open.clear()
        disk.asked.clear()
        first = asyncio.create_task(made.take([event("under way")]))
        await until(disk.asked.is_set)
        gone = asyncio.create_task(made.take([event("gone")]))
        await asyncio.sleep(0)
        gone.cancel()
        first.cancel()
        disk.open.set()
        await asyncio.wait([first, gone])
        assert await made.take([event("under way"), event("gone")]) == [Step.DUPLICATE, Step.SPOOL]
    assert ids_in(tmp_path / "spool") == ["a", "under way", "gone"]
