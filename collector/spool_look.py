"""The spools as they are at one moment, read by somebody who is not their collector.

Invariant: nothing in a spool directory is changed, and a record that was in it when the look began is either among
the offsets found or has been deleted by the collector, which means that its table or the dead letter has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from collector.offset_set import OffsetSet
from collector.reader import CorruptRegion, Position, SpoolReader
from collector.segment import SegmentCursor, frame_marker, segment_name
from collector.worker_directory import WorkerDirectory
from servelens.errors import Conflict, CorruptFrame, Missing, ServelensError, Unavailable

_RECORDS: Final = 20_000
_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class DamagedRegion:
    """Bytes ``[start, end)`` of a segment in which ``missing`` records, from offset ``first_missing`` on, are lost."""

    worker_id: str
    segment: str
    start: int
    end: int
    reason: str
    first_missing: int
    missing: int
    in_dead_letter: bool


@dataclass(frozen=True, slots=True)
class SpoolLook:
    """What one worker's directory held: records by offset, damage that nobody has named yet, and its counters."""

    worker_id: str
    directory: Path
    writer_alive: bool
    next_offset: int
    offsets: OffsetSet
    regions: list[DamagedRegion]
    dropped: int
    dropped_by_reason: Mapping[str, int]


def look_at_spools(root: Path, problems: list[str]) -> Iterator[SpoolLook]:
    """Every worker's spool below ``root``; what cannot be read is named in ``problems``."""
    if not root.is_dir():
        return
    for directory in sorted(path for path in root.iterdir() if path.is_dir()):
        try:
            yield look_at(directory)
        except Missing:
            continue  # its writer is just making it, or it is no spool
        except Conflict:
            problems.append(f"the spool {directory} was wiped or cut short: it cannot be told what was in it")
        except ServelensError as error:
            problems.append(str(error))


def look_at(directory: Path) -> SpoolLook:
    """Read one worker's directory from end to end.

    Raises :class:`~servelens.errors.Missing` when it is no spool, :class:`~servelens.errors.Conflict` when it was wiped
    meanwhile and :class:`~servelens.errors.Unavailable` when it cannot be read.
    """
    reader = SpoolReader(directory)
    worker_id = reader.worker_id
    alive = reader.writer_alive()
    offsets = OffsetSet()
    regions: list[DamagedRegion] = []
    position: Position | None = None
    while True:
        batch = reader.peek(position, max_records=_RECORDS, max_bytes=_BYTES)
        _add_runs(offsets, [frame.offset for frame in batch.frames])
        regions += [_region(worker_id, region) for region in batch.corrupt]
        position = batch.position
        if not batch.frames and not batch.corrupt:
            break
    next_offset = 0 if position is None else position.next_offset
    folder = WorkerDirectory(directory)
    try:
        counters = folder.read_counters()
        if position is None:
            next_offset = folder.witnessed_offset()
        elif not alive:
            tail = _unnamed_tail(folder, worker_id, position)
            if tail is not None:
                regions.append(tail)
                next_offset = tail.first_missing + tail.missing
    except CorruptFrame as error:
        raise Unavailable(f"the count of dropped records cannot be read: {error}") from error
    except OSError as error:
        raise Unavailable(f"the spool directory {directory} cannot be read: {error}") from error
    return SpoolLook(
        worker_id,
        directory,
        alive,
        next_offset,
        offsets,
        regions,
        counters.dropped,
        counters.reasons,
    )


def _unnamed_tail(folder: WorkerDirectory, worker_id: str, position: Position) -> DamagedRegion | None:
    """Records that were once behind the last readable one of a spool that nobody writes."""
    found, name = position.next_offset, segment_name(position.segment)
    descriptor = os.open(folder.path / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        cursor = SegmentCursor(descriptor, frame_marker(worker_id), byte=position.byte, next_offset=found)
        missing = max(cursor.damaged_records(), folder.witnessed_offset() - found)
        if missing <= 0:
            return None
        reason = "the last records cannot be read"
        return DamagedRegion(worker_id, name, position.byte, cursor.size, reason, found, missing, False)
    finally:
        os.close(descriptor)


def _add_runs(offsets: OffsetSet, found: list[int]) -> None:
    for _, run in groupby(enumerate(found), key=lambda pair: pair[1] - pair[0]):
        members = list(run)
        offsets.add_range(members[0][1], members[-1][1] + 1)


def _region(worker_id: str, region: CorruptRegion) -> DamagedRegion:
    return DamagedRegion(
        worker_id,
        region.segment,
        region.byte_start,
        region.byte_end,
        region.reason,
        region.first_missing,
        region.missing,
        in_dead_letter=False,
    )
