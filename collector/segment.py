"""The spool's file format: segments of framed records, readable forward from any frame and across damage.

A segment is a file named after the offset of its first record. It starts with a fixed 128-byte header
(magic, format version, first offset, creation time, worker id, CRC-32); frames follow without padding, all
integers little-endian::

    marker u32 | length u32 | crc32 u32 | offset u64 | payload (length bytes)

A release reads every version up to its own; so far there is one. A segment of a later one is left alone, never taken
for damage.

``marker`` is drawn from the worker id, whose suffix is random: it lets a reader find the next frame behind
damage (the sync marker of Avro's container files,
https://avro.apache.org/docs/1.12.0/specification/#object-container-files), and a client cannot plant it in
a request body. The CRC covers payload and offset and starts from ``marker ^ length``, so that every header
field is checked.

Invariant: what is damaged is named, never returned. A frame is returned only if its marker and CRC hold and
its offset is the expected one, or, behind damage, a later one.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from isal import isal_zlib

from servelens.errors import CorruptFrame, Invalid, Unavailable

SEGMENT_SUFFIX: Final = ".seg"
HEADER_BYTES: Final = 128
FRAME_BYTES: Final = 20
MAX_PAYLOAD_BYTES: Final = 0xFFFF_FFFF
MAX_WORKER_ID_BYTES: Final = 96

_MAGIC: Final = b"SLSPOOL\n"
_VERSION: Final = 1
_HEADER = struct.Struct(
    "<8sHHQQ96s"
)  # magic, version, worker id length, first offset, created (µs), worker id
_CRC = struct.Struct("<I")
_FRAME = struct.Struct("<IIIQ")
_WINDOW_BYTES: Final = 1 << 20

_crc32 = isal_zlib.crc32  # zlib's values in a sixth of the time, by carry-less multiplication
_pack_frame = _FRAME.pack
_unpack_frame = _FRAME.unpack_from


class Frame(NamedTuple):
    """One record as it lies in a segment: ``offset`` is its ordinal in the worker's life, from 0."""

    offset: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes ``[start, end)`` of a segment that hold no record; ``missing`` offsets of written records lie in them."""

    start: int
    end: int
    missing: int
    reason: str


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """Who wrote a segment, from which offset on, and when (microseconds since the Unix epoch)."""

    worker_id: str
    first_offset: int
    created_us: int

    def pack(self) -> bytes:
        """The 128 bytes at the start of the file."""
        worker_id = self.worker_id.encode()
        if len(worker_id) > MAX_WORKER_ID_BYTES:
            raise Invalid(
                f"the worker id {self.worker_id!r} is longer than {MAX_WORKER_ID_BYTES} bytes",
                fix="Give the spool directory a shorter name.",
            )
        length = len(worker_id)
        fields = _HEADER.pack(_MAGIC, _VERSION, length, self.first_offset, self.created_us, worker_id)
        return fields + _CRC.pack(_crc32(fields))

    @classmethod
    def unpack(cls, data: bytes) -> SegmentHeader:
        """Read the header from the first bytes of a file.

        Raises :class:`CorruptFrame` if they are not one and :class:`Unavailable` if a later release wrote them.
        """
        if len(data) < HEADER_BYTES:
            raise CorruptFrame(f"the segment header ends after {len(data)} of {HEADER_BYTES} bytes")
        magic, version, id_length, first_offset, created_us, worker_id = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise CorruptFrame("the file does not start like a spool segment")
        if _CRC.unpack_from(data, _HEADER.size)[0] != _crc32(data[: _HEADER.size]):
            raise CorruptFrame("the segment header does not match its checksum")
        if version > _VERSION:
            raise Unavailable(
                f"a spool segment has format version {version}, and this release reads those up to {_VERSION}",
                field="spool.directory",
                fix="Run the release that wrote it; until then it stays as it is.",
            )
        if version < 1:
            raise CorruptFrame(f"there is no format version {version}")
        return cls(worker_id[:id_length].decode(), first_offset, created_us)


def segment_name(first_offset: int) -> str:
    """The file name of the segment that starts with this offset; names sort like offsets."""
    return f"{first_offset:020d}{SEGMENT_SUFFIX}"


def parse_segment_name(name: str) -> int | None:
    """The first offset that a file name stands for, or ``None`` when it is no segment's name."""
    stem = name.removesuffix(SEGMENT_SUFFIX)
    return int(stem) if len(stem) == 20 and stem != name and stem.isdecimal() and stem.isascii() else None


def frame_marker(worker_id: str) -> int:
    """The 32-bit mark that starts each frame of this worker; never zero, as holes in files are."""
    return _crc32(b"frame of " + worker_id.encode()) or 1


def frame(marker: int, payload: bytes, offset: int) -> bytes:
    """The bytes of a frame."""
    length = len(payload)
    crc = _crc32(offset.to_bytes(8, "little"), _crc32(payload, marker ^ length))
    return _pack_frame(marker, length, crc, offset) + payload


class SegmentCursor:
    """Reads one open segment forward, from ``byte`` (a frame's start) with ``next_offset`` expected there.

    Sees the file as long as it was when the cursor was made. Bytes are read with pread(2) in windows of
    about a mebibyte: a mapping would be killed by the writer cutting a torn frame off.
    """

    def __init__(self, descriptor: int, marker: int, *, byte: int = HEADER_BYTES, next_offset: int) -> None:
        self.byte = byte
        self.next_offset = next_offset
        self.size = os.fstat(descriptor).st_size
        self._descriptor = descriptor
        self._marker = marker
        self._window = b""
        self._window_start = byte

    @property
    def at_end(self) -> bool:
        """Whether no byte is left behind the last frame."""
        return self.byte >= self.size

    def frames(self, max_frames: int, max_bytes: int) -> list[Frame]:
        """The frames here that follow each other without fault and lie in one window; :meth:`advance` tells what comes
        after them.

        At most ``max_frames`` of together ``max_bytes`` payload. Does what :meth:`advance` does for each, at a third of
        the cost.
        """
        found: list[Frame] = []
        if max_frames <= 0 or (index := self._load(self.byte, FRAME_BYTES)) < 0:
            return found
        window, expected, marker = self._window, self.next_offset, self._marker
        last = len(window) - FRAME_BYTES
        begun = index
        while index <= last:
            mark, length, crc, offset = _unpack_frame(window, index)
            start = index + FRAME_BYTES
            max_bytes -= length
            if mark != marker or offset != expected or max_bytes < 0:
                break
            payload = window[start : start + length]
            if len(payload) != length or crc != _crc32(
                window[start - 8 : start], _crc32(payload, marker ^ length)
            ):
                break
            found.append(Frame(offset, payload))
            index = start + length
            expected += 1
            if len(found) == max_frames:
                break
        self.byte += index - begun
        self.next_offset = expected
        return found

    def advance(self) -> Frame | Damage | None:
        """The frame here; or, when the bytes here are not it, what lies between here and the next valid frame.

        ``None`` when no valid frame follows up to the end of the file; the cursor stays. The bytes left, if
        any, may be a frame that is still being written.
        """
        found: Frame | Damage | None = self._expected_frame()
        if found is None and not self.at_end:
            self._window = (
                b""  # judge bytes read in one piece: the writer may have cut a torn frame off meanwhile
            )
            found = self._expected_frame() or self._skip()
        return found

    def damaged_records(self) -> int:
        """How many frames from here on look complete by their headers: written once, but damaged since."""
        at, count = self.byte, 0
        while (index := self._load(at, FRAME_BYTES)) >= 0:
            marker, length, _, offset = _FRAME.unpack_from(self._window, index)
            at += FRAME_BYTES + length
            if marker != self._marker or offset != self.next_offset + count or at > self.size:
                break
            count += 1
        return count

    def _expected_frame(self) -> Frame | None:
        frame = self._frame_at(self.byte)
        if frame is None or frame.offset != self.next_offset:
            return None
        self.byte += FRAME_BYTES + len(frame.payload)
        self.next_offset += 1
        return frame

    def _skip(self) -> Damage | None:
        start = at = self.byte
        while (at := self._find_marker(at)) >= 0:
            frame = self._frame_at(at)
            if frame is not None and frame.offset >= self.next_offset:
                missing = frame.offset - self.next_offset
                self.byte, self.next_offset = at, frame.offset
                return Damage(start, at, missing, f"no record can be read here; {missing} missing")
            at += 1
        return None

    def _find_marker(self, at: int) -> int:
        mark = _CRC.pack(self._marker)
        while (index := self._load(at, FRAME_BYTES)) >= 0:
            found = self._window.find(mark, index)
            if found >= 0:
                return self._window_start + found
            at = self._window_start + len(self._window) - len(mark) + 1
        return -1

    def _frame_at(self, at: int) -> Frame | None:
        index = self._load(at, FRAME_BYTES)
        if index < 0:
            return None
        marker, length, crc, offset = _FRAME.unpack_from(self._window, index)
        if marker != self._marker:
            return None
        index = self._load(at, FRAME_BYTES + length)
        if index < 0:
            return None
        start = index + FRAME_BYTES
        payload = self._window[start : start + length]
        if crc != _crc32(self._window[start - 8 : start], _crc32(payload, marker ^ length)):
            return None
        return Frame(offset, payload)

    def _load(self, at: int, length: int) -> int:
        """Where the bytes from ``at`` on lie in the window, or -1 when the file has not ``length`` bytes there."""
        index = at - self._window_start
        if index >= 0 and index + length <= len(self._window):
            return index
        if at + length > self.size:
            return -1
        wanted = min(max(length, _WINDOW_BYTES), self.size - at)
        self._window = os.pread(self._descriptor, wanted, at)
        self._window_start = at
        return 0 if length <= len(self._window) else -1
