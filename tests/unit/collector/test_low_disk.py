"""The spool stops taking records before its disk is full, and says what it dropped and why."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import msgspec
import pytest

from collector.low_disk import LowDisk
from collector.spool import SpoolWriter
from collector.worker_directory import Counters, WorkerDirectory
from servelens.errors import Invalid, SpoolFull
from tests.unit.collector.spool_fixtures import Disk, ids_in, opened, put, until
from tests.unit.collector.spool_worker import some_record

MIB = 1 << 20


class FileSystem:
    """Answers statvfs(2) for a file system of ``size_mib`` with ``free_mib`` left."""

    def __init__(self, *, size_mib: int, free_mib: int) -> None:
        self.size_mib, self.free_mib = size_mib, free_mib

    def statvfs(self, _: Path) -> os.statvfs_result:
        # Reserved blocks count as free (f_bfree) but are not available to this user (f_bavail).
        blocks, reserved = MIB // 4096, 100
        free = self.free_mib * blocks
        return os.statvfs_result((4096, 4096, self.size_mib * blocks, free + reserved, free, 0, 0, 0, 0, 255))


async def test_a_low_disk_refuses_records_until_there_is_space_again(tmp_path: Path) -> None:
    disk = FileSystem(size_mib=100_000, free_mib=2_000)
    writer = opened(tmp_path / "proxy-0", min_free_bytes=1_000 * MIB, statvfs=disk.statvfs)
    assert await put(writer, "before") is None
    disk.free_mib = 999
    await until(lambda: not writer.healthy)
    assert "only 999 MiB free" in str(writer.failure)
    with pytest.raises(SpoolFull, match="999 MiB free"):
        writer.append(some_record("refused"), None)
    disk.free_mib = 1_200  # a little more does not do: it would come and go
    await until(lambda: "1200 MiB" in str(writer.failure))
    disk.free_mib = 1_300
    await until(lambda: writer.healthy)
    assert await put(writer, "after") is None
    writer.close(10)
    assert ids_in(tmp_path / "proxy-0") == ["before", "after"]
    assert json.loads((tmp_path / "proxy-0" / "counters").read_text()) == {
        "dropped": 1,
        "next_offset": 2,
        "reasons": {"low_disk": 1},
    }


async def test_a_writer_that_starts_on_a_low_disk_says_so_at_once(tmp_path: Path) -> None:
    disk = FileSystem(size_mib=100_000, free_mib=10)
    writer = opened(tmp_path / "proxy-0", statvfs=disk.statvfs)
    assert "only 10 MiB free" in str(writer.failure)
    with pytest.raises(SpoolFull):
        writer.append(some_record("refused"), None)
    writer.close(10)


@pytest.mark.parametrize(
    ("min_free_bytes", "size_mib", "free_mib", "low"),
    [
        (None, 100_000, 255, True),
        (None, 100_000, 257, False),
        (None, 1_000, 49, True),  # a twentieth of a small one
        (None, 1_000, 51, False),
        (MIB, 1_000, 2, False),
        (0, 1_000, 0, False),
    ],
)
def test_where_the_watermark_is(
    tmp_path: Path, min_free_bytes: int | None, size_mib: int, free_mib: int, low: bool
) -> None:
    watermark = LowDisk(tmp_path, min_free_bytes, FileSystem(size_mib=size_mib, free_mib=free_mib).statvfs)
    watermark.look()
    assert (watermark.shortage is not None) is low


def test_a_file_system_that_cannot_be_asked_is_not_low(tmp_path: Path) -> None:
    watermark = LowDisk(tmp_path / "gone", None)
    watermark.look()
    assert watermark.shortage is None


async def test_drops_are_counted_by_reason_across_restarts(tmp_path: Path) -> None:
    disk = Disk()
    writer = opened(tmp_path / "proxy-0", max_bytes=40_000, buffer_bytes=50_000, write=disk.write)
    with pytest.raises(Invalid):
        writer.append(msgspec.structs.replace(some_record("r"), request_id=object()), None)
    with pytest.raises(SpoolFull):
        writer.append(some_record("huge", 100_000), None)
    with pytest.raises(SpoolFull, match="limit"):  # noqa: PT012 - one of them is the first too many
        for number in range(100):
            await put(writer, f"r{number}")
    writer.close(10)
    with pytest.raises(SpoolFull, match="closed"):
        writer.append(some_record("late"), None)
    again = opened(tmp_path / "proxy-0", write=disk.write)
    assert again.dropped == 3
    disk.room = 0
    assert await put(again, "refused") is not None
    disk.room = None
    again.close(10)
    counters = WorkerDirectory(tmp_path / "proxy-0").read_counters()
    assert counters.reasons == {"not_encodable": 1, "too_large": 1, "spool_full": 1, "disk_failed": 1}
    assert counters.dropped == 4


def test_counters_of_an_older_release_are_read(tmp_path: Path) -> None:
    directory = tmp_path / "proxy-0"
    directory.mkdir()
    (directory / "counters").write_text('{"dropped":7,"next_offset":12}\n')
    writer = SpoolWriter.open(directory)
    assert (writer.dropped, writer.next_offset) == (7, 12)
    writer.close(10)
    assert WorkerDirectory(directory).read_counters() == Counters(dropped=7, next_offset=12)


class FullDirectory(WorkerDirectory):
    """On a disk without room for another file."""

    def replace_file(self, name: str, content: bytes, *, durable: bool) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_does_not_keep_the_counters_from_being_saved(tmp_path: Path) -> None:
    WorkerDirectory(tmp_path).write_counters(Counters(dropped=1_000, next_offset=12_000), durable=True)
    for counters in (Counters(dropped=3), Counters(dropped=1_001, next_offset=12, reasons={"low_disk": 5})):
        FullDirectory(tmp_path).write_counters(counters, durable=True)
        assert WorkerDirectory(tmp_path).read_counters() == counters
