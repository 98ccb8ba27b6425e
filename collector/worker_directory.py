"""The directory of one worker's spool: whose it is, who writes it, its segments, what was dropped.

::

    <slot>/identity              the worker id: slot and a random suffix, made with the directory
    <slot>/lock                  flock(2) held by the writing process; ends with the process
    <slot>/counters              records dropped so far and the next offset at that moment, as JSON
    <slot>/read                  the offset up to which a reader has found records: no other record may get these
    <slot>/{first_offset}.seg    segments
    <slot>/{...}.torn            bytes of an unfinished frame, cut off a segment and kept

Invariants: a worker id never stands for two histories (a wiped directory gets a new one); nothing is cut
off a segment unless a copy is on disk; an offset that a reader may have carried elsewhere is never given again;
files appear whole, by rename.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from collector.segment import (
    HEADER_BYTES,
    MAX_WORKER_ID_BYTES,
    Damage,
    SegmentCursor,
    SegmentHeader,
    frame_marker,
    parse_segment_name,
    segment_name,
)
from servelens.errors import Conflict, CorruptFrame, Invalid, Missing, Unavailable

logger = logging.getLogger(__name__)

TORN_SUFFIX: Final = ".torn"
_PART_SUFFIX: Final = ".part"
_LOCK_PATIENCE_S: Final = 1.0
_LOCK_RETRY_S: Final = 0.01


class Counters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Records handed over but not kept, by reason as far as known, and the offset the next record was to get when
    this was written.
    """

    dropped: int = 0
    next_offset: int = 0
    reasons: dict[str, int] = {}


class DirectoryLock:
    """An exclusive flock(2) on the directory's ``lock`` file; it ends with the process or with :meth:`release`."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path

    @classmethod
    def take(cls, directory: Path, *, patience_s: float) -> DirectoryLock | None:
        """The lock, or ``None`` when another process still holds it after ``patience_s`` seconds."""
        path = directory / "lock"
        deadline = time.monotonic() + patience_s
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES) or time.monotonic() >= deadline:
                    os.close(descriptor)
                    if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                        raise
                    return None
                time.sleep(_LOCK_RETRY_S)
            else:
                return cls(descriptor, path)

    def still_ours(self) -> bool:
        """Whether the path still leads to the locked file: not if somebody wiped the directory."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let go. The file stays: deleting it would let two processes lock two files of one name."""
        os.close(self._descriptor)


class WorkerDirectory:
    """Paths and small files of one worker's spool."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lock_for_writing(self) -> DirectoryLock:
        """Become the one writer; creates the directory, readable by its owner only, for it will hold prompts.

        Waits up to a second, since readers hold the lock for moments. Raises :class:`Conflict` when another
        process writes here, :class:`Unavailable` when the directory cannot be made or written.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = DirectoryLock.take(self.path, patience_s=_LOCK_PATIENCE_S)
        except OSError as error:
            raise Unavailable(
                f"the spool directory {self.path} cannot be written: {error.strerror}",
                field="spool.directory",
                fix="Create it and give this user write access.",
            ) from error
        if lock is None:
            raise Conflict(
                f"another process writes the spool directory {self.path}",
                fix="Stop it, or give each proxy worker a directory of its own.",
            )
        return lock

    def lock_if_free(self) -> DirectoryLock | None:
        """The lock if no writer is alive, at once; ``None`` if one is. Hold it for moments only."""
        return DirectoryLock.take(self.path, patience_s=0.0)

    def identity(self) -> str:
        """The worker id; :class:`Missing` while there is none."""
        try:
            worker_id = (self.path / "identity").read_text().strip()
        except FileNotFoundError:
            raise Missing(f"{self.path} is not a spool directory (yet): it has no identity") from None
        if not worker_id:
            raise Missing(f"the file {self.path / 'identity'} is empty")
        return worker_id

    def ensure_identity(self) -> str:
        """The worker id, made if missing. Only the lock's holder may call this.

        A directory that lost only the identity file gets its old id back from a segment header.
        """
        try:
            return self.identity()
        except Missing:
            worker_id = self._worker_id_of_segments() or f"{self.path.name}-{secrets.token_hex(8)}"
        if len(worker_id.encode()) > MAX_WORKER_ID_BYTES:
            raise Invalid(
                f"the name of the spool directory {self.path} is too long",
                field="spool.directory",
                fix=f"Use a last part of at most {MAX_WORKER_ID_BYTES - 17} bytes.",
            )
        self.replace_file("identity", worker_id.encode() + b"\n", durable=True)
        return worker_id

    def first_offsets(self) -> list[int]:
        """The first offsets of the segments there are, ascending."""
        with os.scandir(self.path) as entries:
            found = (parse_segment_name(entry.name) for entry in entries)
            return sorted(offset for offset in found if offset is not None)

    def segment_path(self, first_offset: int) -> Path:
        """Where the segment with this first offset lies."""
        return self.path / segment_name(first_offset)

    def segment_bytes(self) -> int:
        """The size of all segments together."""
        total = 0
        with os.scandir(self.path) as entries:
            for entry in entries:
                if parse_segment_name(entry.name) is not None:
                    try:
                        total += entry.stat().st_size
                    except FileNotFoundError:
                        continue  # a reader deleted it since the listing
        return total

    def read_counters(self) -> Counters:
        """What was last written to ``counters``; zeros before anything was. :class:`CorruptFrame` if damaged."""
        path = self.path / "counters"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Counters)
        except FileNotFoundError:
            return Counters()
        except msgspec.DecodeError as error:
            raise CorruptFrame(f"{path} is damaged: {error}") from error

    def usable_counters(self) -> Counters:
        """The counters; a damaged file is kept beside and counting starts anew. Only the lock's holder may call this.

        Refusing to start would lose records in order to save a count.
        """
        try:
            return self.read_counters()
        except CorruptFrame as error:
            logger.error("the count of dropped records is lost: %s", error)
            (self.path / "counters").replace(self.path / "counters.damaged")
            return Counters()

    def write_counters(self, counters: Counters, *, durable: bool) -> None:
        """Replace ``counters``; raises :class:`OSError` when the disk refuses.

        A full disk has no room for a new file: then the old one's bytes are written over, which needs none.
        """
        content = msgspec.json.encode(counters) + b"\n"
        try:
            self.replace_file("counters", content, durable=durable)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            self._overwrite("counters", content)

    def read_mark(self) -> int:
        """The offset behind the last record that a reader has found here; 0 when there is no such note."""
        try:
            note = (self.path / "read").read_bytes()
        except FileNotFoundError:
            return 0
        return int(note) if note.strip().isdigit() else 0

    def note_read(self, next_offset: int) -> None:
        """Keep :meth:`read_mark`. Written over in place, which a full disk allows too; raises :class:`OSError`."""
        descriptor = os.open(self.path / "read", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, b"%020d\n" % next_offset, 0)
        finally:
            os.close(descriptor)

    def witnessed_offset(self) -> int:
        """The next offset by the notes beside the segments, whatever the segments themselves still show."""
        return max(self.read_counters().next_offset, self.read_mark())

    def replace_file(self, name: str, content: bytes, *, durable: bool) -> None:
        """Write a small file so that others see the old one or the new one, never a part."""
        part = self.path / f"{name}{_PART_SUFFIX}"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            written = os.write(descriptor, content)
            if written != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.replace(self.path / name)
        if durable:
            self.sync_entries()

    def _overwrite(self, name: str, content: bytes) -> None:
        descriptor = os.open(self.path / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            padding = b" " * (os.fstat(descriptor).st_size - len(content))  # JSON may end in spaces
            os.pwrite(descriptor, content + padding, 0)
        finally:
            os.close(descriptor)

    def sync_entries(self) -> None:
        """Make file names survive a power failure."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _worker_id_of_segments(self) -> str | None:
        for first_offset in reversed(self.first_offsets()):
            try:
                with self.segment_path(first_offset).open("rb") as file:
                    return SegmentHeader.unpack(file.read(HEADER_BYTES)).worker_id
            except CorruptFrame as error:
                logger.warning("segment header unreadable: segment=%s reason=%s", first_offset, error)
        return None


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a spool that nobody writes: its newest segment, the next free offset, and what was cut off."""

    segment: int | None
    next_offset: int
    cut: Damage | None = None


def recover_tail(directory: WorkerDirectory, worker_id: str) -> Tail:
    """Cut an unfinished frame off the newest segment. Only the lock's holder may call this.

    Bytes behind the last valid frame move to a ``.torn`` file; if the disk has no room for that they stay
    for a reader to name. Frames among them that were once complete keep their offsets, noted in
    ``counters``: a table may already hold those records, so no other record may get their offsets. Raises
    :class:`OSError`.
    """
    counters = directory.usable_counters()
    witnessed = max(counters.next_offset, directory.read_mark())
    first_offsets = directory.first_offsets()
    if not first_offsets:
        return Tail(None, witnessed)
    first_offset = first_offsets[-1]
    path = directory.segment_path(first_offset)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        refuse_foreign(descriptor, path.name, worker_id)
        cursor = SegmentCursor(descriptor, frame_marker(worker_id), next_offset=first_offset)
        while cursor.advance() is not None:
            pass
        damaged = cursor.damaged_records()
        next_offset = max(cursor.next_offset + damaged, witnessed)
        keep = cursor.byte if cursor.size >= HEADER_BYTES else 0
        if cursor.size <= keep:
            return Tail(first_offset, next_offset)
        torn = os.pread(descriptor, cursor.size - keep, keep)
        name = f"{path.stem}.{keep}.{secrets.token_hex(4)}{TORN_SUFFIX}"
        try:
            if damaged:
                kept = msgspec.structs.replace(counters, next_offset=next_offset)
                directory.write_counters(kept, durable=True)
            directory.replace_file(name, torn, durable=True)
            os.ftruncate(descriptor, keep)
        except OSError as error:
            logger.warning("torn frame left in place: segment=%s reason=%s", path.name, error)
            return Tail(first_offset, next_offset)
        logger.warning("torn frame moved aside: segment=%s bytes=%d file=%s", path.name, len(torn), name)
        cut = Damage(keep, cursor.size, next_offset - cursor.next_offset, f"unfinished, moved to {name}")
        return Tail(first_offset, next_offset, cut)
    finally:
        os.close(descriptor)


def refuse_foreign(descriptor: int, name: str, worker_id: str) -> None:
    """Raise :class:`Unavailable` if an open segment was written by another worker."""
    try:
        found = SegmentHeader.unpack(os.pread(descriptor, HEADER_BYTES, 0)).worker_id
    except CorruptFrame:
        return  # a damaged header says nothing; the frames carry the worker's marker
    if found != worker_id:
        raise Unavailable(
            f"the segment {name} was written by worker {found}, not by {worker_id}",
            field="spool.directory",
            fix="Move the other worker's segments and identity file to a spool directory of their own.",
        )
