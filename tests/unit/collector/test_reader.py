"""The reading end: tailing, limits, positions, damage, abandoned and deleted segments."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from collector.reader import Batch, Position, SpoolReader
from collector.segment import (
    HEADER_BYTES,
    Frame,
    SegmentHeader,
    frame,
    frame_marker,
    segment_name,
)
from collector.worker_directory import Counters, WorkerDirectory
from servelens.errors import Conflict, Missing, Unavailable
from tests.unit.collector.spool_fixtures import opened, put
from tests.unit.collector.spool_worker import some_record

WORKER = "proxy-0-0123456789abcdef"


def framed(offset: int, payload: bytes = b"payload") -> bytes:
    marker = frame_marker(WORKER)
    return frame(marker, payload, offset)


def spool_of(directory: Path, *segments: range, worker: str = WORKER) -> Path:
    """A spool as an ended writer leaves it, with these offsets in its segments."""
    directory.mkdir()
    (directory / "identity").write_text(worker)
    for offsets in segments:
        header = SegmentHeader(worker, offsets.start, 1).pack()
        content = header + b"".join(framed(offset) for offset in offsets)
        (directory / segment_name(offsets.start)).write_bytes(content)
    return directory


def read(directory: Path, position: Position | None = None, **limits: int) -> Batch:
    return SpoolReader(directory).read(position, **{"max_records": 1_000, "max_bytes": 1 << 20} | limits)


def offsets_of(batch: Batch) -> list[int]:
    return [item.offset for item in batch.frames]


def lost(batch: Batch) -> list[tuple[str, int, int]]:
    return [(region.segment, region.first_missing, region.missing) for region in batch.corrupt]


async def test_a_live_spool_is_tailed_without_repeating_or_missing(tmp_path: Path) -> None:
    directory = tmp_path / "proxy-0"
    writer = opened(directory, segment_bytes=4_000)
    reader = SpoolReader(directory)
    position, found = None, []
    for number in range(40):
        await put(writer, f"r{number}")
        if number % 3 == 0:
            batch = reader.read(position, max_records=100, max_bytes=1 << 20)
            assert batch.corrupt == []
            found += offsets_of(batch)
            position = batch.position
            assert found == list(range(number + 1))
            assert reader.backlog(position) == 0
            assert reader.accepted() == number + 1
    assert reader.writer_alive()
    writer.close(10)
    assert not reader.writer_alive()


def test_limits_bound_a_batch_but_one_record_always_comes(tmp_path: Path) -> None:
    directory = spool_of(tmp_path / "proxy-0", range(0, 5), range(5, 12))
    by_count = read(directory, max_records=7)
    assert offsets_of(by_count) == list(range(7))
    by_bytes = read(directory, by_count.position, max_bytes=15)
    assert offsets_of(by_bytes) == [7, 8]
    too_small = read(directory, by_bytes.position, max_bytes=1)
    assert offsets_of(too_small) == [9]
    rest = read(directory, too_small.position)
    assert offsets_of(rest) == [10, 11]
    assert offsets_of(read(directory, rest.position)) == []


@pytest.mark.parametrize("offset", [-1, 0, 3, 4, 5, 10])
def test_a_position_is_found_from_an_offset_alone(tmp_path: Path, offset: int) -> None:
    directory = spool_of(tmp_path / "proxy-0", range(0, 5), range(5, 12))
    batch = read(directory, Position.after(offset))
    assert offsets_of(batch) == list(range(offset + 1, 12))
    assert batch.corrupt == []


def test_a_position_ahead_of_the_spool_is_refused(tmp_path: Path) -> None:
    directory = spool_of(tmp_path / "proxy-0", range(0, 5))
    assert offsets_of(read(directory, Position.after(4))) == []
    with pytest.raises(Conflict, match="taken for old ones"):
        read(directory, Position.after(5))
    WorkerDirectory(directory).write_counters(Counters(next_offset=6), durable=False)
    assert offsets_of(read(directory, Position.after(5))) == []


def test_damage_in_a_segment_costs_its_record_only(tmp_path: Path) -> None:
    directory = spool_of(tmp_path / "proxy-0", range(0, 5), range(5, 8))
    segment = directory / segment_name(0)
    content = bytearray(segment.read_bytes())
    frame_size = len(framed(0))
    content[HEADER_BYTES + 2 * frame_size + 1] ^= 0xFF
    segment.write_bytes(content)
    batch = read(directory)
    assert offsets_of(batch) == [0, 1, 3, 4, 5, 6, 7]
    (region,) = batch.corrupt
    assert (region.byte_start, region.byte_end) == tuple(
        HEADER_BYTES + count * frame_size for count in (2, 3)
    )
    assert lost(batch) == [(segment.name, 2, 1)]
    assert read(directory, Position.after(2)).corrupt == []


def test_damage_at_the_end_of_a_sealed_segment_is_named(tmp_path: Path) -> None:
    directory = spool_of(tmp_path / "proxy-0", range(0, 5), range(5, 8))
    segment = directory / segment_name(0)
    os.truncate(segment, segment.stat().st_size - 3)
    batch = read(directory)
    assert offsets_of(batch) == [0, 1, 2, 3, 5, 6, 7]
    assert lost(batch) == [(segment.name, 4, 1)]
    assert read(directory, batch.position).corrupt == []


def test_torn_bytes_of_no_record_are_named_without_a_loss(tmp_path: Path) -> None:
    directory = spool_of(tmp_path / "proxy-0", range(0, 5), range(5, 8))
    with (directory / segment_name(0)).open("ab") as file:
        file.write(framed(5)[:10])
    batch = read(directory)
    assert offsets_of(batch) == list(range(8))
    assert lost(batch) == [(segment_name(0), 5, 0)]


def test_missing_segments_are_named(tmp_path: Path) -> None:
    directory = spool_of(tmp_path / "proxy-0", range(5, 8), range(10, 12))
    assert lost(read(directory)) == [(segment_name(5), 8, 2)]
    batch = read(directory, Position.after(2))
    assert offsets_of(batch) == [5, 6, 7, 10, 11]
    assert lost(batch) == [(segment_name(5), 3, 2), (segment_name(5), 8, 2)]


async def test_the_unfinished_frame_of_a_living_writer_is_left_for_later(tmp_path: Path) -> None:
    directory = tmp_path / "proxy-0"
    writer = opened(directory)
    await put(writer, "a")
    (segment,) = directory.glob("*.seg")
    whole = segment.read_bytes()
    with segment.open("ab") as file:
        file.write(whole[HEADER_BYTES : HEADER_BYTES + 500])
    reader = SpoolReader(directory)
    batch = reader.read(None, max_records=10, max_bytes=1 << 20)
    assert (offsets_of(batch), batch.corrupt) == ([0], [])
    await put(writer, "b")  # lands where the unfinished bytes are
    batch = reader.read(batch.position, max_records=10, max_bytes=1 << 20)
    assert (offsets_of(batch), batch.corrupt) == ([1], [])
    writer.close(10)


def test_the_unfinished_frame_of_a_dead_writer_is_moved_aside_and_named_once(tmp_path: Path) -> None:
    directory = spool_of(tmp_path / "proxy-0", range(0, 3))
    torn = framed(3)[:-2]
    with (directory / segment_name(0)).open("ab") as file:
        file.write(torn)
    batch = read(directory)
    assert offsets_of(batch) == [0, 1, 2]
    assert lost(batch) == [(segment_name(0), 3, 0)]
    assert [path.read_bytes() for path in directory.glob("*.torn")] == [torn]
    assert read(directory, batch.position).corrupt == []
    assert read(directory).corrupt == []


async def test_a_damaged_last_record_of_a_dead_writer_is_counted_once(tmp_path: Path) -> None:
    directory = spool_of(tmp_path / "proxy-0", range(0, 3))
    segment = directory / segment_name(0)
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    segment.write_bytes(content)
    batch = read(directory)
    assert lost(batch) == [(segment.name, 2, 1)]
    writer = opened(directory)
    assert writer.next_offset == 3
    await put(writer, "next")
    writer.close(10)
    batch = read(directory, batch.position)
    assert (offsets_of(batch), batch.corrupt) == ([3], [])


def test_recovery_cuts_an_abandoned_spool_only(tmp_path: Path) -> None:
    directory = spool_of(tmp_path / "proxy-0", range(0, 3))
    segment = directory / segment_name(0)
    size = segment.stat().st_size
    with segment.open("ab") as file:
        file.write(b"rest")
    lock = WorkerDirectory(directory).lock_for_writing()
    SpoolReader(directory).recover_if_abandoned()
    assert segment.stat().st_size == size + 4
    lock.release()
    SpoolReader(directory).recover_if_abandoned()
    assert segment.stat().st_size == size


def test_deleting_keeps_what_is_not_committed_and_the_newest_segment(tmp_path: Path) -> None:
    directory = spool_of(tmp_path / "proxy-0", range(0, 5), range(5, 8), range(8, 10))
    reader = SpoolReader(directory)
    before = reader.read(None, max_records=2, max_bytes=1 << 20).position
    assert reader.delete_through(3) == 0
    assert reader.delete_through(4) == 1
    assert reader.delete_through(6) == 0
    assert reader.delete_through(99) == 1
    assert [path.name for path in directory.glob("*.seg")] == [segment_name(8)]
    batch = reader.read(before, max_records=100, max_bytes=1 << 20)
    assert offsets_of(batch) == [8, 9]
    assert lost(batch) == [(segment_name(8), 2, 6)]
    assert offsets_of(reader.read(Position.after(7), max_records=100, max_bytes=1 << 20)) == [8, 9]


def test_records_are_on_the_disk_before_they_are_returned(tmp_path: Path) -> None:
    directory = spool_of(tmp_path / "proxy-0", range(0, 5), range(5, 8))
    synced: list[str] = []
    reader = SpoolReader(
        directory, sync=lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
    )
    batch = reader.read(None, max_records=100, max_bytes=1 << 20)
    assert len(batch.frames) == 8
    assert synced == [segment_name(0), segment_name(5)]
    reader.read(batch.position, max_records=100, max_bytes=1 << 20)
    assert len(synced) == 2

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(Unavailable, match="Input/output error"):
        SpoolReader(directory, sync=fail).read(None, max_records=100, max_bytes=1 << 20)


def test_a_directory_without_identity_is_missing_and_a_wiped_one_a_conflict(tmp_path: Path) -> None:
    (tmp_path / "proxy-0").mkdir()
    with pytest.raises(Missing, match="no identity"):
        SpoolReader(tmp_path / "proxy-0")
    directory = spool_of(tmp_path / "proxy-1", range(0, 2))
    reader = SpoolReader(directory)
    (directory / "identity").write_text("proxy-1-another")
    with pytest.raises(Conflict, match="was wiped"):
        reader.read(None, max_records=1, max_bytes=1)


def test_segments_of_another_worker_are_refused(tmp_path: Path) -> None:
    directory = spool_of(tmp_path / "proxy-0", range(0, 2))
    stranger = SegmentHeader("proxy-7-0011223344556677", 2, 1).pack()
    (directory / segment_name(2)).write_bytes(stranger)
    with pytest.raises(Unavailable, match="written by worker proxy-7"):
        read(directory)


def test_a_spool_without_segments_gives_nothing(tmp_path: Path) -> None:
    directory = spool_of(tmp_path / "proxy-0")
    reader = SpoolReader(directory)
    assert reader.read(None, max_records=10, max_bytes=100) == Batch([], [], None)
    assert (reader.accepted(), reader.dropped(), reader.backlog(None), reader.delete_through(5)) == (
        0,
        0,
        0,
        0,
    )


async def test_a_reader_beside_a_fast_writer_sees_every_record_once(tmp_path: Path) -> None:
    directory = tmp_path / "proxy-0"
    writer = opened(directory, segment_bytes=100_000)
    total = 3_000
    frames: list[Frame] = []

    def follow() -> None:
        reader = SpoolReader(directory)
        position = None
        while len(frames) < total:
            batch = reader.read(position, max_records=500, max_bytes=1 << 20)
            assert batch.corrupt == []
            frames.extend(batch.frames)
            position = batch.position
            if frames:
                reader.delete_through(frames[-1].offset)

    following = asyncio.create_task(asyncio.to_thread(follow))
    for number in range(total):
        writer.append(some_record(f"r{number}"), None)
        if number % 10 == 0:
            await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await following
    assert [item.offset for item in frames] == list(range(total))
    assert len(list(directory.glob("*.seg"))) <= 2
    writer.close(10)
