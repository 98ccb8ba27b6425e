"""The reading end of the spool: tails a worker's directory, live or abandoned, from any position.

Invariants. A record is returned once, in offset order, and only after it is on the disk: a reader may
commit it elsewhere, and an offset that a power failure took back would be given to another record. Every
offset that no record can be read for is named in a :class:`CorruptRegion`. A segment is deleted only by
:meth:`SpoolReader.delete_through`.
"""

from __future__ import annotations

import logging
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from collector.segment import (
    FRAME_BYTES,
    HEADER_BYTES,
    Damage,
    Frame,
    SegmentCursor,
    frame_marker,
    segment_name,
)
from collector.worker_directory import Tail, WorkerDirectory, recover_tail, refuse_foreign
from servelens.errors import Conflict, Unavailable

logger = logging.getLogger(__name__)

_ANYWHERE: Final = -1
_SCAN_RECORDS: Final = 10_000
_SCAN_BYTES: Final = 16 << 20


class Position(msgspec.Struct, frozen=True):
    """Where to read on: the offset wanted next, and the segment (by first offset) and byte where it was expected."""

    next_offset: int
    segment: int = _ANYWHERE
    byte: int = HEADER_BYTES

    @classmethod
    def after(cls, offset: int) -> Position:
        """The position behind a record known only by its offset; the first read looks for it."""
        return cls(offset + 1)


@dataclass(frozen=True, slots=True)
class CorruptRegion:
    """Bytes of a segment file that hold no readable record; ``missing`` written records are lost in them.

    The region is empty when records are missing between two segments. The lost offsets are
    ``range(first_missing, first_missing + missing)``.
    """

    segment: str
    byte_start: int
    byte_end: int
    reason: str
    first_missing: int
    missing: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What one read found, in order of offsets, and where the next read goes on."""

    frames: list[Frame]
    corrupt: list[CorruptRegion]
    position: Position | None


class SpoolReader:
    """Reads one worker's spool; holds no file open between calls.

    Raises :class:`Missing` while the directory has no identity, :class:`Conflict` when it got another one
    since (it was wiped: open a new reader) and :class:`Unavailable` when it cannot be read.
    """

    def __init__(self, directory: Path, *, sync: Callable[[int], None] = os.fdatasync) -> None:
        self._directory = WorkerDirectory(directory)
        self._sync = sync
        self.worker_id = self._directory.identity()
        self._marker = frame_marker(self.worker_id)
        self._tail: Position | None = None
        self._entries_synced = _ANYWHERE
        self._noted: int | None = None
        self._end_checked: Position | None = None

    def read(self, position: Position | None, *, max_records: int, max_bytes: int) -> Batch:
        """Up to ``max_records`` records of ``max_bytes`` payload together, but at least one if there is one.

        ``None`` starts at the oldest segment. The unfinished last frame of a living writer is left for
        later; if its writer is gone, it is moved to a ``.torn`` file and named in ``corrupt``.
        """
        with _translated(self._directory.path):
            reading = self._read(position, max_records, max_bytes, act=True)
            if reading.frames:
                self._note(reading.position.next_offset)
        if reading.segment == _ANYWHERE:
            return Batch([], [], position)
        return Batch(reading.frames, reading.corrupt, reading.position)

    def peek(self, position: Position | None, *, max_records: int, max_bytes: int) -> Batch:
        """As :meth:`read`, but the directory stays as it is: nothing is synced, noted or moved aside."""
        with _translated(self._directory.path):
            reading = self._read(position, max_records, max_bytes, act=False)
        if reading.segment == _ANYWHERE:
            return Batch([], [], position)
        return Batch(reading.frames, reading.corrupt, reading.position)

    def writer_alive(self) -> bool:
        """Whether a process holds the directory's lock. A writer that starts at this moment waits for the probe."""
        with _translated(self._directory.path):
            lock = self._directory.lock_if_free()
        if lock is not None:
            lock.release()
        return lock is None

    def recover_if_abandoned(self) -> None:
        """Move the unfinished frame of a dead writer aside, as its successor would; nothing if a writer is alive."""
        with _translated(self._directory.path):
            self._recover()

    def delete_through(self, offset: int) -> int:
        """Delete the segments that hold no record behind ``offset``, never the newest; how many were deleted."""
        deleted = 0
        with _translated(self._directory.path):
            first_offsets = self._directory.first_offsets()
            for first, following in pairwise(first_offsets):
                if following > offset + 1:
                    break
                self._directory.segment_path(first).unlink(missing_ok=True)
                deleted += 1
        return deleted

    def dropped(self) -> int:
        """Records that the writer counted as dropped, as of its last note (a second old at most)."""
        with _translated(self._directory.path):
            return self._directory.read_counters().dropped

    def accepted(self) -> int:
        """Records that the writer was handed in this directory's life: those written and those dropped."""
        return self.written() + self.dropped()

    def backlog(self, position: Position | None) -> int:
        """Bytes of segments behind ``position``."""
        total = 0
        with _translated(self._directory.path):
            for first in self._directory.first_offsets():
                if position is not None and first < position.segment:
                    continue
                try:
                    size = self._directory.segment_path(first).stat().st_size
                except FileNotFoundError:
                    continue
                here = position is not None and first == position.segment
                total += max(0, size - (position.byte if position is not None and here else HEADER_BYTES))
        return total

    def _note(self, next_offset: int) -> None:
        if self._noted is None:
            self._noted = self._directory.read_mark()
        if next_offset > self._noted:
            try:
                self._directory.note_read(next_offset)
            except OSError as error:
                logger.debug("not noted how far was read: worker=%s reason=%s", self.worker_id, error)
            else:
                self._noted = next_offset

    def written(self) -> int:
        """Records that the writer has written in this directory's life: the next offset."""
        with _translated(self._directory.path):
            while True:
                if self._tail is None:
                    first_offsets = self._directory.first_offsets()
                    if not first_offsets:
                        return 0
                    self._tail = Position(first_offsets[-1], first_offsets[-1])
                reading = self._read(self._tail, _SCAN_RECORDS, _SCAN_BYTES, act=False)
                self._tail = reading.position
                if not reading.full:
                    return reading.position.next_offset

    def _read(self, position: Position | None, max_records: int, max_bytes: int, *, act: bool) -> _Reading:
        """Read on; ``act`` also syncs what is returned and recovers an abandoned tail."""
        if self._directory.identity() != self.worker_id:
            raise Conflict(
                f"the spool directory {self._directory.path} was wiped and has another identity",
                fix="Open a new reader.",
            )
        first_offsets = (
            self._directory.first_offsets()
        )  # before any file: what is not the newest now is complete
        reading = _Reading(
            position or Position(first_offsets[0] if first_offsets else 0), max_records, max_bytes
        )
        if not first_offsets:
            return reading
        for index in range(reading.locate(first_offsets), len(first_offsets)):
            following = first_offsets[index + 1] if index + 1 < len(first_offsets) else None
            reading.enter(first_offsets[index])
            self._read_segment(reading, following, act=act)
            if reading.full:
                return reading
        if reading.behind and reading.position.next_offset > self._directory.witnessed_offset():
            raise Conflict(
                f"the spool {self._directory.path} ends at offset {reading.expected}, before the one to read on from, "
                f"{reading.position.next_offset}: records written now would be taken for old ones",
                fix="Move the directory away, so that the worker starts a new one.",
            )
        return reading

    def _read_segment(self, reading: _Reading, following: int | None, *, act: bool) -> None:
        name = segment_name(reading.segment)
        try:
            descriptor = os.open(self._directory.path / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if following is not None:
                reading.finish(name, reading.byte, following)
            return
        try:
            size = self._take_frames(reading, descriptor, act=act)
            if following is not None:
                if not reading.full:
                    reading.finish(name, size, following)
            elif act and not reading.full and (reading.byte < size or self._ends_too_early(reading)):
                tail = self._recover()
                if tail is not None and tail.segment == reading.segment:
                    size = self._take_frames(reading, descriptor, act=act)
                    if tail.cut is not None:
                        reading.skip(name, tail.cut, tail.next_offset)
                    elif not reading.full and reading.expected < tail.next_offset:
                        reading.finish(name, size, tail.next_offset)
        finally:
            os.close(descriptor)

    def _take_frames(self, reading: _Reading, descriptor: int, *, act: bool) -> int:
        """Read up to the limits; returns the size of the segment at that moment."""
        refuse_foreign(descriptor, segment_name(reading.segment), self.worker_id)
        cursor = SegmentCursor(descriptor, self._marker, byte=reading.byte, next_offset=reading.expected)
        before = len(reading.frames)
        reading.take(cursor)
        if act and len(reading.frames) > before:
            self._sync(descriptor)
            if reading.segment > self._entries_synced:
                self._directory.sync_entries()
                self._entries_synced = reading.segment
        return cursor.size

    def _ends_too_early(self, reading: _Reading) -> bool:
        """Whether the newest segment lacks records that were once in it; asked once for each place."""
        if reading.position == self._end_checked:
            return False
        self._end_checked = reading.position
        return self._directory.witnessed_offset() > reading.expected

    def _recover(self) -> Tail | None:
        lock = self._directory.lock_if_free()
        if lock is None:
            return None
        try:
            return recover_tail(self._directory, self.worker_id)
        finally:
            lock.release()


class _Reading:
    """One read under way: where it is, what it has, and how much more it may take."""

    def __init__(self, position: Position, max_records: int, max_bytes: int) -> None:
        self.frames: list[Frame] = []
        self.corrupt: list[CorruptRegion] = []
        self.full = False
        self.segment = position.segment
        self.byte = position.byte
        self.expected = position.next_offset  # at `byte`; behind `_wanted` while looking for it
        self._wanted = position.next_offset
        self._records_left = max_records
        self._bytes_left = max_bytes

    @property
    def position(self) -> Position:
        return Position(max(self.expected, self._wanted), self.segment, self.byte)

    @property
    def behind(self) -> bool:
        """Whether the segments ended before the offset wanted."""
        return self.expected < self._wanted

    def locate(self, first_offsets: list[int]) -> int:
        """The index of the segment to start in; a gap in front of the oldest is named."""
        if self.segment in first_offsets:
            return first_offsets.index(self.segment)
        self.segment = _ANYWHERE
        oldest = first_offsets[0]
        if oldest > self._wanted:
            self._lose(segment_name(oldest), HEADER_BYTES, HEADER_BYTES, oldest, "older segments are missing")
        return max(0, bisect_right(first_offsets, self._wanted) - 1)

    def enter(self, first_offset: int) -> None:
        """Go to the start of a segment, unless already in it."""
        if first_offset != self.segment:
            self.segment, self.byte, self.expected = first_offset, HEADER_BYTES, first_offset

    def take(self, cursor: SegmentCursor) -> None:
        """Take frames until the segment gives no more or a limit is reached."""
        name = segment_name(self.segment)
        while True:
            if self.expected == self._wanted:
                self._take_all(cursor.frames(self._records_left, self._bytes_left), cursor)
            found = cursor.advance()
            if found is None:
                return
            if isinstance(found, Damage):
                self._lose(name, found.start, found.end, cursor.next_offset, found.reason)
            elif found.offset >= self._wanted:
                length = len(found.payload)
                if self.frames and (length > self._bytes_left or self._records_left <= 0):
                    self.full = True
                    return
                self.frames.append(found)
                self._wanted = cursor.next_offset
                self._records_left -= 1
                self._bytes_left -= length
            self.byte, self.expected = cursor.byte, cursor.next_offset

    def _take_all(self, frames: list[Frame], cursor: SegmentCursor) -> None:
        self.frames += frames
        self._records_left -= len(frames)
        self._bytes_left -= cursor.byte - self.byte - len(frames) * FRAME_BYTES
        self.byte, self._wanted = cursor.byte, cursor.next_offset
        self.expected = cursor.next_offset

    def finish(self, name: str, size: int, following: int) -> None:
        """Name what a complete segment lacks: bytes up to its ``size``, offsets up to the ``following`` segment's."""
        if self.byte < size or self._wanted < following:
            self._lose(name, min(self.byte, size), size, following, "the segment ends before its last record")

    def skip(self, name: str, cut: Damage, next_offset: int) -> None:
        """Name the bytes that were cut off the newest segment."""
        self._lose(name, cut.start, cut.end, self._wanted if self.full else next_offset, cut.reason)

    def _lose(self, name: str, start: int, end: int, next_offset: int, reason: str) -> None:
        """Name bytes without records in front of ``next_offset``, unless they lie before the wanted offset."""
        missing = max(0, next_offset - self._wanted)
        if missing or self.expected >= self._wanted:
            self.corrupt.append(CorruptRegion(name, start, end, reason, self._wanted, missing))
            self._wanted += missing
        self.expected = max(self.expected, next_offset)


@contextmanager
def _translated(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"the spool directory {directory} cannot be read: {error.strerror}",
            field="spool.directory",
            fix="Check its disk and its permissions.",
        ) from error
