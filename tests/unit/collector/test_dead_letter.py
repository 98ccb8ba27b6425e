from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from collector.dead_letter import DeadLetter
from collector.reader import CorruptRegion
from servelens.clock import ManualClock
from servelens.errors import Unavailable

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def test_a_record_keeps_its_bytes_and_reason_and_is_there_once(tmp_path: Path) -> None:
    letters = DeadLetter(tmp_path / "dead", ManualClock(NOON))
    assert letters.put_record("w-1", 12, b"\x00raw", "not a record")
    assert not letters.put_record("w-1", 12, b"\x00raw", "not a record")
    assert letters.put_record("w-1", 3, b"", "empty")
    entries = list(DeadLetter(tmp_path / "dead").entries())
    assert [(entry.offset, entry.reason) for entry in entries] == [(3, "empty"), (12, "not a record")]
    assert letters.content(entries[1]) == b"\x00raw"
    assert entries[1].put_at == "2026-03-01T12:00:00+00:00"


def test_a_damaged_region_is_named_by_segment_and_bytes(tmp_path: Path) -> None:
    letters = DeadLetter(tmp_path / "dead")
    region = CorruptRegion("00000000000000000005.seg", 128, 140, "no record can be read here", 6, 1)
    assert letters.put_region("w-1", region, b"damaged bytes")
    assert not letters.put_region("w-1", region, b"damaged bytes")
    (entry,) = letters.entries()
    assert (entry.kind, entry.segment, entry.start, entry.end) == ("region", region.segment, 128, 140)
    assert (entry.first_missing, entry.missing) == (6, 1)
    assert letters.content(entry) == b"damaged bytes"


def test_what_a_crash_left_half_done_is_done_again(tmp_path: Path) -> None:
    folder = tmp_path / "dead" / "w-1"
    folder.mkdir(parents=True)
    (folder / f"{7:020d}.frame").write_bytes(b"half")
    letters = DeadLetter(tmp_path / "dead")
    assert list(letters.entries()) == []
    assert letters.put_record("w-1", 7, b"whole", "reason")
    (entry,) = letters.entries()
    assert letters.content(entry) == b"whole"


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "dead").write_text("a file")
    with pytest.raises(Unavailable, match="dead letter"):
        DeadLetter(tmp_path / "dead").put_record("w-1", 7, b"x", "reason")
