"""The writing end in ordinary life: durability, rotation, counters, one writer, restarts and kills."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from collector.reader import SpoolReader
from collector.segment import HEADER_BYTES
from collector.spool import Durability, SpoolWriter
from servelens.clock import ManualClock
from servelens.errors import Conflict, Invalid, ServelensError, SpoolFull
from tests.unit.collector.spool_fixtures import ids_in, opened, put, until
from tests.unit.collector.spool_worker import some_record

REPOSITORY = Path(__file__).parents[3]


async def test_a_record_is_readable_when_its_callback_fires(tmp_path: Path) -> None:
    writer = opened(tmp_path / "proxy-0")
    for number in range(50):
        assert await put(writer, f"r{number}") is None
        assert ids_in(tmp_path / "proxy-0")[-1] == f"r{number}"
    writer.close(10)


async def test_offsets_and_counters_go_on_after_a_restart(tmp_path: Path) -> None:
    for start in (0, 3, 6):
        writer = opened(tmp_path / "proxy-0")
        assert writer.next_offset == start
        for number in range(3):
            await put(writer, f"r{start + number}")
        with pytest.raises(Invalid, match="cannot be encoded"):
            writer.append(some_record("\ud800"), None)
        writer.close(10)
        assert (writer.accepted, writer.dropped) == (start + 3 + start // 3 + 1, start // 3 + 1)
    assert ids_in(tmp_path / "proxy-0") == [f"r{number}" for number in range(9)]
    reader = SpoolReader(tmp_path / "proxy-0")
    assert (reader.accepted(), reader.dropped()) == (12, 3)


async def test_offsets_go_on_after_committed_segments_are_deleted(tmp_path: Path) -> None:
    for number in range(3):
        writer = opened(tmp_path / "proxy-0")
        await put(writer, f"r{number}")
        writer.close(10)
    reader = SpoolReader(tmp_path / "proxy-0")
    assert reader.delete_through(10) == 2
    writer = opened(tmp_path / "proxy-0")
    assert writer.next_offset == 3
    writer.close(10)


async def test_a_second_writer_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    writer = opened(tmp_path / "proxy-0")
    with pytest.raises(Conflict, match="another process"):
        await asyncio.to_thread(SpoolWriter.open, tmp_path / "proxy-0")
    writer.close(10)
    opened(tmp_path / "proxy-0").close(10)


async def test_probing_readers_do_not_keep_a_writer_from_starting(tmp_path: Path) -> None:
    opened(tmp_path / "proxy-0").close(10)
    stop = threading.Event()

    def probe() -> None:
        reader = SpoolReader(tmp_path / "proxy-0")
        while not stop.is_set():
            reader.writer_alive()

    probes = [threading.Thread(target=probe) for _ in range(2)]
    for thread in probes:
        thread.start()
    try:
        for _ in range(10):
            opened(tmp_path / "proxy-0").close(10)
    finally:
        stop.set()
        for thread in probes:
            thread.join()


def test_the_lock_does_not_pass_to_a_child_process(tmp_path: Path) -> None:
    writer = SpoolWriter.open(tmp_path / "proxy-0")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        writer.close(10)
        assert not SpoolReader(tmp_path / "proxy-0").writer_alive()
        child.communicate(b"\n")


async def test_a_wiped_directory_gets_a_new_identity_and_a_lost_identity_file_the_old_one(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "proxy-0"
    first = opened(directory)
    await put(first, "a")
    first.close(10)
    (directory / "identity").unlink()
    again = opened(directory)
    again.close(10)
    assert again.worker_id == first.worker_id
    for path in directory.iterdir():
        path.unlink()
    other = opened(directory)
    other.close(10)
    assert other.worker_id != first.worker_id
    assert other.worker_id.startswith("proxy-0-")
    assert other.next_offset == 0


async def test_a_directory_wiped_under_a_writer_is_not_written_any_more(tmp_path: Path) -> None:
    directory = tmp_path / "proxy-0"
    writer = opened(directory)
    for path in directory.iterdir():
        path.unlink()
    await until(lambda: not writer.healthy)
    assert "moved or deleted" in (writer.failure or "")
    with pytest.raises(SpoolFull):
        writer.append(some_record("a"), None)
    opened(directory).close(10)
    writer.close(10)


async def test_segments_rotate_by_size_and_by_age(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    writer = opened(tmp_path / "proxy-0", segment_bytes=5_000, segment_age_s=60.0, clock=clock)

    def segments() -> int:
        return len(list((tmp_path / "proxy-0").glob("*.seg")))

    for number in range(10):
        await put(writer, f"r{number}")
    by_size = segments()
    assert by_size == 3
    clock.advance(61)
    await until(lambda: segments() == by_size + 1)  # with nothing coming in
    clock.advance(61)
    await put(writer, "last")
    assert segments() == by_size + 1  # an empty segment has no age
    writer.close(10)
    assert len(ids_in(tmp_path / "proxy-0")) == 11


async def test_memory_answers_at_once_and_is_flushed_within_50_ms(tmp_path: Path) -> None:
    written: list[float] = []

    def write(descriptor: int, buffers: Sequence[bytes], position: int) -> int:
        count = os.pwritev(descriptor, buffers, position)
        written.append(time.monotonic())
        return count

    writer = opened(tmp_path / "proxy-0", durability=Durability.MEMORY, write=write)
    delays = []
    for number in range(10):
        written.clear()
        answers: list[ServelensError | None] = []
        start = time.monotonic()
        writer.append(some_record(f"r{number}"), answers.append)
        assert answers == [None]
        await until(lambda: bool(written))
        delays.append(written[0] - start)
    writer.append(some_record("last"), None)
    writer.flush(10)
    assert ids_in(tmp_path / "proxy-0")[-1] == "last"
    writer.close(10)
    assert sorted(delays)[len(delays) // 2] <= 0.05  # the median: a busy machine may be late now and then


async def test_a_callback_needs_a_loop(tmp_path: Path) -> None:
    writer = SpoolWriter.open(tmp_path / "proxy-0")
    with pytest.raises(Invalid, match="bind"):
        writer.append(some_record("a"), lambda _error: None)
    writer.close(10)


async def test_a_damaged_counter_file_is_kept_aside(tmp_path: Path) -> None:
    directory = tmp_path / "proxy-0"
    opened(directory).close(10)
    (directory / "counters").write_text("{")
    writer = opened(directory)
    assert writer.dropped == 0
    writer.close(10)
    assert (directory / "counters.damaged").read_text() == "{"


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_killing_the_writer_loses_and_repeats_nothing_acknowledged(tmp_path: Path, durability: str) -> None:
    directory = tmp_path / "proxy-0"
    command = [sys.executable, "-m", "tests.unit.collector.spool_worker", str(directory), durability]
    acknowledged: list[str] = []
    for count in (1, 30, 100, 300):
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            acknowledged += [process.stdout.readline().strip() for _ in range(count)]
            process.kill()
            acknowledged += process.stdout.read().splitlines()
        whole = [line for line in acknowledged if len(line) == 36]
        kept = ids_in(directory)  # dense offsets, nothing corrupt
        assert len(kept) == len(set(kept))
        assert set(whole) <= set(kept)
    assert len(acknowledged) >= 431
    assert SpoolReader(directory).accepted() == len(kept)


async def test_a_torn_frame_is_moved_aside_by_the_next_writer(tmp_path: Path) -> None:
    directory = tmp_path / "proxy-0"
    writer = opened(directory)
    await put(writer, "whole")
    writer.close(10)
    (segment,) = directory.glob("*.seg")
    size = segment.stat().st_size
    with segment.open("ab") as file:
        file.write(segment.read_bytes()[HEADER_BYTES : HEADER_BYTES + 100])
    again = opened(directory)
    assert again.next_offset == 1
    await put(again, "next")
    again.close(10)
    assert segment.stat().st_size == size
    (torn,) = directory.glob("*.torn")
    assert torn.stat().st_size == 100
    assert ids_in(directory) == ["whole", "next"]


async def test_the_offset_of_a_damaged_last_record_is_not_given_away(tmp_path: Path) -> None:
    directory = tmp_path / "proxy-0"
    writer = opened(directory)
    await put(writer, "a")
    await put(writer, "b")
    writer.close(10)
    (directory / "counters").unlink()
    (segment,) = directory.glob("*.seg")
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    segment.write_bytes(content)
    again = opened(directory)
    assert again.next_offset == 2
    await put(again, "c")
    again.close(10)
    batch = SpoolReader(directory).read(None, max_records=10, max_bytes=1 << 20)
    assert [frame.offset for frame in batch.frames] == [0, 2]
    assert [(region.first_missing, region.missing) for region in batch.corrupt] == [(1, 1)]
