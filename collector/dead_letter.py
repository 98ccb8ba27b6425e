"""The dead letter: what could not become a row keeps its raw bytes and says why, in a folder of plain files.

::

    <root>/<worker id>/<offset>.frame          the record as it was spooled
    <root>/<worker id>/<offset>.json           reason, time, length
    <root>/<worker id>/<segment>.<start>-<end>.bytes    a damaged region of a segment
    <root>/<worker id>/<segment>.<start>-<end>.json     its place and reason
    <root>/<worker id>/replayed/<offset>.json           the same note of a record that is in its table by now
    <root>/<worker id>/skip                             up to which offset no run of unreadable records halts the worker

Invariant: the same record or region is there once, replayed or not, however often it is put, and an entry counts only when its
``.json`` is there, which is written last. Files appear whole, by rename, and are on the disk when a method
returns.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from collector.reader import CorruptRegion
from collector.worker_directory import DirectoryLock
from servelens.clock import Clock, SystemClock
from servelens.errors import Conflict, Missing, Unavailable

_REPLAYED: Final = "replayed"
_SKIP: Final = "skip"


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a ``.json`` file says.

    ``start`` and ``end`` are byte positions in the segment, the end not included; ``missing`` records were
    written there, the first at offset ``first_missing``, and are lost.
    """

    kind: Literal["record", "region"]
    worker_id: str
    reason: str
    put_at: str
    length: int
    offset: int | None = None
    segment: str | None = None
    start: int | None = None
    end: int | None = None
    first_missing: int | None = None
    missing: int | None = None
    replayed_at: str | None = None


class DeadLetter:
    """The folder at ``directory``; made when the first thing is put there."""

    def __init__(self, directory: Path, clock: Clock | None = None) -> None:
        self.directory = directory
        self._clock = clock or SystemClock()

    def put_record(self, worker_id: str, offset: int, payload: bytes, reason: str) -> bool:
        """Keep a record that cannot be read. False when it was there. Raises :class:`Unavailable`."""
        entry = Entry(
            kind="record",
            worker_id=worker_id,
            reason=reason,
            put_at=self._clock.now().isoformat(),
            length=len(payload),
            offset=offset,
        )
        return self._put(worker_id, f"{offset:020d}", ".frame", payload, entry)

    def put_region(self, worker_id: str, region: CorruptRegion, content: bytes) -> bool:
        """Keep bytes of a segment that hold no record. False when they were there. Raises :class:`Unavailable`."""
        entry = Entry(
            kind="region",
            worker_id=worker_id,
            reason=region.reason,
            put_at=self._clock.now().isoformat(),
            length=len(content),
            segment=region.segment,
            start=region.byte_start,
            end=region.byte_end,
            first_missing=region.first_missing,
            missing=region.missing,
        )
        name = f"{region.segment}.{region.byte_start}-{region.byte_end}"
        return self._put(worker_id, name, ".bytes", content, entry)

    def entries(self) -> Iterator[Entry]:
        """All entries, by worker, records in the order of their offsets."""
        for path in sorted(self.directory.glob("*/*.json")):
            with self._translated():
                try:
                    content = path.read_bytes()
                except FileNotFoundError:
                    continue  # replayed since the listing
            try:
                entry = msgspec.json.decode(content, type=Entry)
            except msgspec.DecodeError as error:
                raise Unavailable(f"{path} is damaged: {error}", field="dead_letter") from error
            yield entry

    def content(self, entry: Entry) -> bytes:
        """The raw bytes of an entry. Raises :class:`Missing` when somebody has deleted them."""
        path = self.path(entry)
        with self._translated():
            try:
                return path.read_bytes()
            except FileNotFoundError:
                raise Missing(f"the bytes of {path.name} have been deleted") from None

    def path(self, entry: Entry) -> Path:
        """The file of an entry's raw bytes."""
        name = (
            f"{entry.offset:020d}.frame"
            if entry.kind == "record"
            else f"{entry.segment}.{entry.start}-{entry.end}.bytes"
        )
        return self.directory / entry.worker_id / name

    def mark_replayed(self, entry: Entry) -> None:
        """Put a record's note aside and let its bytes go: it is in its table. Raises :class:`Unavailable`."""
        folder = self.directory / entry.worker_id
        name = f"{entry.offset:020d}"
        aside = folder / _REPLAYED
        marked = msgspec.structs.replace(entry, replayed_at=self._clock.now().isoformat())
        with self._translated():
            aside.mkdir(exist_ok=True, mode=0o700)
            _write(aside / f"{name}.json", msgspec.json.format(msgspec.json.encode(marked)))
            _sync_entries(aside)
            (folder / f"{name}.json").unlink(missing_ok=True)
            (folder / f"{name}.frame").unlink(missing_ok=True)

    def replayed(self) -> int:
        """How many records have been marked as replayed."""
        return sum(1 for _ in self.directory.glob(f"*/{_REPLAYED}/*.json"))

    def skips_through(self, worker_id: str) -> int:
        """The offset up to which a run of unreadable records does not halt the worker; -1 for none."""
        with self._translated():
            try:
                return int((self.directory / worker_id / _SKIP).read_text())
            except FileNotFoundError:
                return -1

    def skip_through(self, worker_id: str, offset: int) -> None:
        """Let unreadable records up to ``offset`` come here, however many in a row. Raises :class:`Unavailable`."""
        folder = self.directory / worker_id
        with self._translated():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(folder / _SKIP, f"{offset}\n".encode())

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Be the only process that replays from here. Raises :class:`Conflict` and :class:`Unavailable`."""
        with self._translated():
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = DirectoryLock.take(self.directory, patience_s=0.0)
        if lock is None:
            raise Conflict(
                f"another process replays the dead letter at {self.directory}", fix="Wait for its end."
            )
        try:
            yield
        finally:
            lock.release()

    def _put(self, worker_id: str, name: str, suffix: str, content: bytes, entry: Entry) -> bool:
        folder = self.directory / worker_id
        with self._translated():
            if (folder / f"{name}.json").exists() or (folder / _REPLAYED / f"{name}.json").exists():
                return False
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(folder / f"{name}{suffix}", content)
            _write(folder / f"{name}.json", msgspec.json.format(msgspec.json.encode(entry)))
            _sync_entries(folder)
        return True

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable(
                f"the dead letter at {self.directory} cannot be used: {error}", field="dead_letter"
            ) from error


def _sync_entries(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
