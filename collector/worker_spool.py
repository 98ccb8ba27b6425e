"""One worker's spool as the collector reads it: frames become records, and what cannot goes to the dead
letter.

Invariants: nothing is passed over before the dead letter has it. A run of unreadable records halts the worker
in front of the rest of the run, so that a mistake of ours (a newer record format, say) cannot empty a spool
into the dead letter. ``servelens collector skip`` lets it go on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from collector.dead_letter import DeadLetter
from collector.reader import Batch, Position, SpoolReader
from collector.record import Record, decode, encode
from servelens.errors import Unavailable

logger = logging.getLogger(__name__)

UNREADABLE_RUN: Final = 20
"""So many unreadable records in a row are taken for bad luck; one more halts the worker."""

_NO_RECORD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(slots=True)
class Reading:
    """Records in the order of their offsets, and the ``last_offset`` of all frames, readable or not."""

    records: list[Record]
    offsets: list[int]
    size: int
    last_offset: int | None
    position: Position


class WorkerSpool:
    """Reads the spool in ``directory``."""

    def __init__(self, directory: Path, dead_letter: DeadLetter) -> None:
        self.directory = directory
        self.reader = SpoolReader(directory)
        self.worker_id = self.reader.worker_id
        self.retry_at = 0.0
        self.unreadable = 0
        self.regions = 0
        self._dead_letter = dead_letter
        self._run = 0
        self._halted: str | None = None
        self._halted_at = -1
        self._skips_through = -1

    @property
    def halted(self) -> str | None:
        """Why the spool is not read any more; ``None`` while it is. Somebody may have said that it is to go on."""
        if self._halted is not None and self._dead_letter.skips_through(self.worker_id) >= self._halted_at:
            logger.warning("worker goes on: worker=%s", self.worker_id)
            self._halted = None
        return self._halted

    def read(
        self, position: Position | None, *, max_records: int, max_bytes: int, first: bool
    ) -> Reading | None:
        """Read on from ``position``; ``None`` when there is nothing new.

        ``first`` says that nobody has read here before, so that unreadable records and damaged regions go to
        the dead letter and count. Raises :class:`~servelens.errors.Unavailable` when the spool or the dead
        letter cannot be used (nothing is passed over then), and :class:`~servelens.errors.Conflict` or
        :class:`~servelens.errors.Missing` when the directory was wiped or removed.
        """
        batch = self.reader.read(position, max_records=max_records, max_bytes=max_bytes)
        frames = batch.frames
        if batch.position is None or not (frames or batch.corrupt):
            return None
        try:
            records = [decode(frame.payload) for frame in frames]
            offsets = [frame.offset for frame in frames]
        except _NO_RECORD:
            records, offsets = [], []
            keep = self._sift(batch, records, offsets, first)
            if keep is not None:
                # Read again up to the run, so that the position lies in front of it.
                return (
                    None
                    if keep == 0
                    else self.read(position, max_records=keep, max_bytes=max_bytes, first=first)
                )
        else:
            if first and frames:
                self._run = 0
        if first:
            self._keep_regions(batch)
        return Reading(
            records,
            offsets,
            sum([len(frame.payload) for frame in frames]),
            frames[-1].offset if frames else None,
            batch.position,
        )

    def _sift(self, batch: Batch, records: list[Record], offsets: list[int], first: bool) -> int | None:
        """Sort frames into records and dead letters; how many frames lie in front of a run that is too long."""
        run = self._run
        for number, frame in enumerate(batch.frames):
            try:
                records.append(decode(frame.payload))
            except _NO_RECORD as error:
                if not first:
                    continue
                run += 1
                if run > UNREADABLE_RUN and not self._is_skipped(frame.offset):
                    self._halted = (
                        f"{run} records in a row cannot be read, the last at offset {frame.offset}: {error}. "
                        f"'servelens collector skip --worker {self.worker_id}' puts them into the dead letter."
                    )
                    self._halted_at = frame.offset
                    logger.error("worker halted: worker=%s reason=%s", self.worker_id, self._halted)
                    return number
                if self._dead_letter.put_record(self.worker_id, frame.offset, frame.payload, str(error)):
                    self.unreadable += 1
                    logger.warning(
                        "record unreadable: worker=%s offset=%d reason=%s",
                        self.worker_id,
                        frame.offset,
                        error,
                    )
            else:
                offsets.append(frame.offset)
                run = 0
        self._run = run
        return None

    def _is_skipped(self, offset: int) -> bool:
        if offset > self._skips_through:
            self._skips_through = self._dead_letter.skips_through(self.worker_id)
        return offset <= self._skips_through

    def refuse(self, record: Record, offset: int, reason: str) -> None:
        """Put a record that fits no row into the dead letter."""
        if self._dead_letter.put_record(self.worker_id, offset, encode(record), reason):
            self.unreadable += 1
            logger.warning(
                "record fits no row: worker=%s offset=%d request=%s reason=%s",
                self.worker_id,
                offset,
                record.request_id,
                reason,
            )

    def _keep_regions(self, batch: Batch) -> None:
        for region in batch.corrupt:
            try:
                with (self.directory / region.segment).open("rb") as file:
                    file.seek(region.byte_start)
                    content = file.read(region.byte_end - region.byte_start)
            except FileNotFoundError:
                content = b""
            except OSError as error:
                raise Unavailable(f"{self.directory / region.segment} cannot be read: {error}") from error
            if self._dead_letter.put_region(self.worker_id, region, content):
                self.regions += 1
                logger.warning(
                    "spool damaged: worker=%s segment=%s bytes=%d-%d reason=%s",
                    self.worker_id,
                    region.segment,
                    region.byte_start,
                    region.byte_end,
                    region.reason,
                )
