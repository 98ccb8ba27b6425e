"""The frame format: everything written is read back, nothing else ever is."""

from __future__ import annotations

import os
import tempfile
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.segment import (
    FRAME_BYTES,
    HEADER_BYTES,
    Damage,
    Frame,
    SegmentCursor,
    SegmentHeader,
    frame,
    frame_marker,
    parse_segment_name,
    segment_name,
)
from servelens.errors import CorruptFrame, Invalid

WORKER = "proxy-0-0123456789abcdef"
MARKER = frame_marker(WORKER)
FIRST = 1_000

payload_lists = st.lists(st.binary(max_size=300), min_size=1, max_size=12)


def framed(payload: bytes, offset: int, marker: int = MARKER) -> bytes:
    return frame(marker, payload, offset)


def segment_of(payloads: list[bytes]) -> bytes:
    frames = [framed(payload, FIRST + number) for number, payload in enumerate(payloads)]
    return SegmentHeader(WORKER, FIRST, 1).pack() + b"".join(frames)


def read(content: bytes, *, byte: int = HEADER_BYTES, next_offset: int = FIRST) -> list[Frame | Damage]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        cursor = SegmentCursor(file.fileno(), MARKER, byte=byte, next_offset=next_offset)
        found = []
        while (item := cursor.advance()) is not None:
            found.append(item)
        return found


def read_in_runs(content: bytes, most: int, max_bytes: int) -> list[Frame | Damage]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        cursor = SegmentCursor(file.fileno(), MARKER, next_offset=FIRST)
        found: list[Frame | Damage] = []
        while True:
            run = cursor.frames(most, max_bytes)
            assert len(run) <= most
            assert sum(len(item.payload) for item in run) <= max_bytes
            found += run
            if (item := cursor.advance()) is None:
                return found
            found.append(item)


def frames_in(found: list[Frame | Damage]) -> list[Frame]:
    return [item for item in found if isinstance(item, Frame)]


def expected(payloads: list[bytes]) -> list[Frame]:
    return [Frame(FIRST + number, payload) for number, payload in enumerate(payloads)]


@given(payload_lists)
def test_any_bytes_come_back_with_their_offsets(payloads: list[bytes]) -> None:
    assert read(segment_of(payloads)) == expected(payloads)


@given(payload_lists, st.data())
def test_a_truncated_segment_gives_exactly_its_whole_frames(
    payloads: list[bytes], data: st.DataObject
) -> None:
    content = segment_of(payloads)
    length = data.draw(st.integers(HEADER_BYTES, len(content)))
    ends = list(accumulate((FRAME_BYTES + len(payload) for payload in payloads), initial=HEADER_BYTES))[1:]
    whole = sum(end <= length for end in ends)
    assert read(content[:length]) == expected(payloads)[:whole]


@given(payload_lists, st.data())
def test_a_flipped_bit_costs_one_record_and_is_named(payloads: list[bytes], data: st.DataObject) -> None:
    content = bytearray(segment_of(payloads))
    bit = data.draw(st.integers(HEADER_BYTES * 8, len(content) * 8 - 1))
    content[bit // 8] ^= 1 << bit % 8
    starts = list(accumulate((FRAME_BYTES + len(payload) for payload in payloads), initial=HEADER_BYTES))
    hit = max(number for number, start in enumerate(starts[:-1]) if start <= bit // 8)

    found = read(bytes(content))

    assert frames_in(found) == [item for item in expected(payloads) if item.offset != FIRST + hit]
    damage = [item for item in found if isinstance(item, Damage)]
    if hit == len(payloads) - 1:
        assert damage == []  # at the end it may still be written: the reader decides what it is
    else:
        assert [(item.start, item.end, item.missing) for item in damage] == [
            (starts[hit], starts[hit + 1], 1)
        ]


@given(payload_lists, st.binary(max_size=200), st.data())
def test_inserted_bytes_are_skipped(payloads: list[bytes], rubbish: bytes, data: st.DataObject) -> None:
    starts = list(accumulate((FRAME_BYTES + len(payload) for payload in payloads), initial=HEADER_BYTES))[:-1]
    at = data.draw(st.sampled_from(starts))
    content = segment_of(payloads)
    assert frames_in(read(content[:at] + rubbish + content[at:])) == expected(payloads)


@given(payload_lists, st.data(), st.integers(0, 13), st.integers(0, 2_000))
def test_reading_in_runs_finds_what_reading_one_by_one_finds(
    payloads: list[bytes], data: st.DataObject, most: int, max_bytes: int
) -> None:
    content = bytearray(segment_of(payloads))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(HEADER_BYTES, len(content) - 1))] ^= data.draw(st.integers(0, 255))
    end = data.draw(st.integers(HEADER_BYTES, len(content)))
    assert read_in_runs(bytes(content[:end]), most, max_bytes) == read(bytes(content[:end]))


@given(st.integers(0, 127), st.integers(0, 7))
def test_a_damaged_segment_header_costs_no_record(byte: int, bit: int) -> None:
    content = bytearray(segment_of([b"one", b"two"]))
    content[byte] ^= 1 << bit
    with pytest.raises(CorruptFrame):
        SegmentHeader.unpack(bytes(content[:HEADER_BYTES]))
    assert read(bytes(content)) == expected([b"one", b"two"])


def test_a_missing_frame_between_others_is_named_with_an_empty_range() -> None:
    content = SegmentHeader(WORKER, FIRST, 1).pack() + framed(b"a", FIRST) + framed(b"d", FIRST + 3)
    _, damage, last = read(content)
    at = HEADER_BYTES + FRAME_BYTES + 1
    assert isinstance(damage, Damage)
    assert (damage.start, damage.end, damage.missing) == (at, at, 2)
    assert last == Frame(FIRST + 3, b"d")


def test_a_repeated_frame_is_not_returned_twice() -> None:
    content = segment_of([b"a", b"b"]) + framed(b"a", FIRST) + framed(b"c", FIRST + 2)
    assert frames_in(read(content)) == expected([b"a", b"b", b"c"])


def test_frames_of_another_worker_inside_a_damaged_payload_are_not_believed() -> None:
    planted = framed(b"forged", FIRST + 1, marker=frame_marker("proxy-0-fedcba9876543210"))
    content = bytearray(segment_of([b"x" + planted + b"y", b"b"]))
    content[HEADER_BYTES + FRAME_BYTES] ^= 1
    assert frames_in(read(bytes(content))) == [Frame(FIRST + 1, b"b")]


def test_a_payload_larger_than_the_read_window_comes_back() -> None:
    payloads = [b"small", os.urandom(3 << 20), b"last"]
    assert read(segment_of(payloads)) == expected(payloads)


def test_reading_starts_at_any_frame() -> None:
    payloads = [b"one", b"two", b"three"]
    byte = HEADER_BYTES + FRAME_BYTES + 3
    assert read(segment_of(payloads), byte=byte, next_offset=FIRST + 1) == expected(payloads)[1:]


def test_headers_and_names_come_back() -> None:
    header = SegmentHeader("slot-ü", 17, 1_767_225_600_000_000)
    assert SegmentHeader.unpack(header.pack()) == header
    assert len(header.pack()) == HEADER_BYTES
    assert parse_segment_name(segment_name(17)) == 17


@pytest.mark.parametrize("name", ["lock", "17.seg", f"{0:020d}", f"{0:020d}.seg.part", f"{0:020d}.128.torn"])
def test_other_names_are_no_segments(name: str) -> None:
    assert parse_segment_name(name) is None


def test_a_header_of_a_later_version_and_a_long_worker_id_are_refused() -> None:
    with pytest.raises(CorruptFrame, match="ends after 5"):
        SegmentHeader.unpack(b"SLSPO")
    with pytest.raises(Invalid, match="longer than 96"):
        SegmentHeader("w" * 97, 0, 0).pack()
