"""Segments that end too early: what was in them is named, and no other record gets its offset."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from collector.reader import Batch, SpoolReader
from collector.segment import HEADER_BYTES, SegmentHeader, frame, frame_marker, segment_name
from collector.spool import SpoolWriter
from collector.worker_directory import WorkerDirectory
from servelens.errors import Unavailable
from tests.unit.collector.spool_worker import some_record


def written(directory: Path, *names: str) -> int:
    """Write these records as one run of a writer does; the size of each frame."""
    writer = SpoolWriter.open(directory)
    for name in names:
        writer.append(some_record(name), None)
    writer.close(10)
    newest = max(directory.glob("*.seg"))
    return (newest.stat().st_size - HEADER_BYTES) // len(names)


def read(directory: Path) -> Batch:
    return SpoolReader(directory).read(None, max_records=1_000, max_bytes=1 << 20)


def losses(batch: Batch) -> list[tuple[int, int]]:
    return [(region.first_missing, region.missing) for region in batch.corrupt]


@pytest.mark.parametrize("witness", ["counters", "read"])
def test_a_cut_between_two_frames_is_named_too(tmp_path: Path, witness: str) -> None:
    directory = tmp_path / "proxy-0"
    size = written(directory, "a", "b", "c", "d")
    if witness == "read":
        assert len(read(directory).frames) == 4
        (directory / "counters").unlink()
    os.truncate(directory / segment_name(0), HEADER_BYTES + 2 * size)
    batch = read(directory)
    assert [item.offset for item in batch.frames] == [0, 1]
    assert losses(batch) == [(2, 2)]
    assert batch.position is not None
    assert SpoolReader(directory).read(batch.position, max_records=9, max_bytes=1 << 20).corrupt == []
    written(directory, "e")
    after = SpoolReader(directory).read(batch.position, max_records=9, max_bytes=1 << 20)
    assert ([item.offset for item in after.frames], losses(after)) == ([4], [])


def test_a_live_writer_is_not_taken_for_cut_short(tmp_path: Path) -> None:
    directory = tmp_path / "proxy-0"
    written(directory, "a", "b")
    writer = SpoolWriter.open(directory)
    try:
        WorkerDirectory(directory).note_read(9)
        assert losses(read(directory)) == []
    finally:
        writer.close(10)


def test_how_far_was_read_never_goes_back(tmp_path: Path) -> None:
    directory = tmp_path / "proxy-0"
    written(directory, "a", "b", "c")
    read(directory)
    SpoolReader(directory).read(None, max_records=1, max_bytes=1 << 20)
    assert WorkerDirectory(directory).read_mark() == 3


def test_looking_notes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "proxy-0"
    written(directory, "a")
    assert len(SpoolReader(directory).peek(None, max_records=9, max_bytes=1 << 20).frames) == 1
    assert not (directory / "read").exists()


VERSION_1 = bytes.fromhex(
    "534c53504f4f4c0a010018000500000000000000004020464847060070726f78792d302d303132333435363738396162"
    "636465660000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000000004714d3be9801234f05000000ab462df205000000"
    "0000000066697273749801234f000000001ecac4a20600000000000000"
)
"""A segment as the first release wrote it: two records, ``first`` and an empty one, from offset 5 on."""


def test_every_later_release_reads_the_first_format(tmp_path: Path) -> None:
    (tmp_path / "identity").write_text("proxy-0-0123456789abcdef")
    (tmp_path / segment_name(5)).write_bytes(VERSION_1)
    batch = read(tmp_path)
    assert [tuple(item) for item in batch.frames] == [(5, b"first"), (6, b"")]
    assert batch.corrupt == []
    assert SegmentHeader.unpack(VERSION_1).created_us == 1_767_225_600_000_000


def test_a_segment_of_a_later_format_is_left_alone(tmp_path: Path) -> None:
    worker = "proxy-0-0123456789abcdef"
    (tmp_path / "identity").write_text(worker)
    header = later_header(SegmentHeader(worker, 0, 1).pack())
    content = header + b"whatever" + frame(frame_marker(worker), b"not for us", 0)
    (tmp_path / segment_name(0)).write_bytes(content)
    with pytest.raises(Unavailable, match="format version 2"):
        read(tmp_path)
    with pytest.raises(Unavailable, match="format version 2"):
        SpoolWriter.open(tmp_path)
    assert (tmp_path / segment_name(0)).read_bytes() == content


def later_header(header: bytes) -> bytes:
    """The same with format version 2."""
    fields = header[:8] + (2).to_bytes(2, "little") + header[10:-4]
    return fields + zlib.crc32(fields).to_bytes(4, "little")
