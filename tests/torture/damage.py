"""Damage to spool segments, and which records it destroyed."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

from collector.record import decode
from collector.segment import HEADER_BYTES, Damage, SegmentCursor, frame_marker
from collector.worker_directory import WorkerDirectory
from servelens.errors import Missing


@dataclass(frozen=True, slots=True)
class Destroyed:
    """A record that was in a segment at ``byte`` and cannot be read any more."""

    worker_id: str
    segment: str
    byte: int
    offset: int
    request_id: str


def worker_of(directory: Path) -> str | None:
    try:
        return WorkerDirectory(directory).identity()
    except Missing:
        return None


def segments(directory: Path) -> list[Path]:
    """Oldest first."""
    return sorted(directory.glob("*.seg"))


def flip(path: Path, worker_id: str, chance: random.Random) -> list[Destroyed]:
    """Flip one to eight bits anywhere in a segment; what that destroyed."""
    before = _records(path, worker_id)
    size = path.stat().st_size
    if size <= HEADER_BYTES:
        return []
    with path.open("r+b") as file:
        for _ in range(chance.choice((1, 1, 2, 8))):
            at = chance.randrange(size)
            file.seek(at)
            byte = file.read(1)
            if byte:  # a collector may have cut an unfinished frame off meanwhile
                file.seek(at)
                file.write(bytes([byte[0] ^ (1 << chance.randrange(8))]))
    return _difference(path, worker_id, before)


def truncate(path: Path, worker_id: str, chance: random.Random) -> list[Destroyed]:
    """Cut a segment off anywhere; what that destroyed."""
    before = _records(path, worker_id)
    os.truncate(path, chance.randrange(path.stat().st_size + 1))
    return _difference(path, worker_id, before)


def _difference(path: Path, worker_id: str, before: dict[int, tuple[int, str]]) -> list[Destroyed]:
    after = _records(path, worker_id)
    return [
        Destroyed(worker_id, path.name, byte, offset, request_id)
        for offset, (byte, request_id) in before.items()
        if offset not in after
    ]


def _records(path: Path, worker_id: str) -> dict[int, tuple[int, str]]:
    found: dict[int, tuple[int, str]] = {}
    descriptor = os.open(path, os.O_RDONLY)
    try:
        cursor = SegmentCursor(descriptor, frame_marker(worker_id), next_offset=int(path.stem))
        while True:
            at = cursor.byte
            frame = cursor.advance()
            if frame is None:
                return found
            if not isinstance(frame, Damage):
                found[frame.offset] = (at, decode(frame.payload).request_id)
    finally:
        os.close(descriptor)
