"""The writing end of the spool: records become durable without the event loop ever waiting for the disk.

:meth:`SpoolWriter.append` frames the record on the calling thread (a few microseconds) and hands it through
a bounded buffer to one writer thread, which writes what has gathered with one pwritev(2) and tells the loop
once per group.

Invariants. Offsets in the segments are dense and grow, across failures and restarts. ``accepted`` = records
in the segments + records waiting + ``dropped``. A callback without an error means that the durability asked
for is reached. Memory waiting for a stalled disk is bounded by ``buffer_bytes``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Final

from collector.gathering import Gathering
from collector.hand_over import DISK_FAILED, LOW_DISK, Callback, Group, HandOver
from collector.low_disk import LowDisk, Statvfs
from collector.record import Record, encode
from collector.segment import frame_marker
from collector.segment_file import Sync, Write
from collector.segment_log import SegmentLog
from collector.worker_directory import Counters, WorkerDirectory, recover_tail
from servelens.clock import Clock, SystemClock
from servelens.errors import Invalid, ServelensError, SpoolFull, Unavailable

logger = logging.getLogger(__name__)

_TICK_S: Final = 1.0
_BUSY_TICK_S: Final = 0.1
_STALL_S: Final = 5.0
_REPAIR: Final = "Free or repair the disk under the spool directory."


class Durability(StrEnum):
    """What has happened to a record when its callback fires."""

    PROCESS = "process"
    """Written with write(2): killing the process does not lose it."""
    DISK = "disk"
    """Also brought to the disk with fdatasync(2): a power failure does not lose it."""
    MEMORY = "memory"
    """Nothing yet; it is written within 50 ms."""


class SpoolWriter:
    """The one writer of a spool directory; made by :meth:`open`."""

    def __init__(
        self,
        log: SegmentLog,
        worker_id: str,
        *,
        counters: Counters,
        durability: Durability,
        max_bytes: int,
        buffer_bytes: int,
        low_disk: LowDisk,
        clock: Clock,
    ) -> None:
        self.worker_id = worker_id
        self.durability = durability
        self._at_once = durability is Durability.MEMORY
        self._log = log  # the writer thread's own from here on
        self._queue = HandOver(
            frame_marker(worker_id),
            limit=buffer_bytes,
            next_offset=log.next_offset,
            dropped=counters.dropped,
            reasons=counters.reasons,
        )
        self._low_disk = low_disk
        self._gathering = Gathering(self._queue, clock, lingers=self._at_once)
        self._max_bytes = max_bytes
        self._buffer_bytes = buffer_bytes
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._disk_failure: str | None = None
        self._closing = False
        self._busy_since: float | None = None
        self._maintained_at = clock.monotonic()
        self._low_disk.look()
        self._note_disk_state()
        self._queue.grant(self._room())
        self._thread = threading.Thread(target=self._run, name=f"spool-{worker_id}", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        durability: Durability = Durability.PROCESS,
        segment_bytes: int = 64 << 20,
        segment_age_s: float = 60.0,
        max_bytes: int = 8 << 30,
        buffer_bytes: int = 64 << 20,
        min_free_bytes: int | None = None,
        clock: Clock | None = None,
        write: Write = os.pwritev,
        sync: Sync = os.fdatasync,
        statvfs: Statvfs = os.statvfs,
    ) -> SpoolWriter:
        """Become the writer of ``directory``, cutting off what a killed writer left unfinished.

        A segment is closed at ``segment_bytes`` or ``segment_age_s`` seconds. ``max_bytes`` bounds the
        segments that wait for a reader, ``buffer_bytes`` the memory that waits for the disk, and nothing is taken
        while the disk has less than ``min_free_bytes`` free (:class:`~collector.low_disk.LowDisk`). ``write`` and
        ``sync`` have the signatures of :func:`os.pwritev` and :func:`os.fdatasync`.

        Raises :class:`Conflict` when another process writes there and :class:`Unavailable` when the
        directory cannot be used. A disk that is merely full gives a writer that is not :attr:`healthy`
        until there is space.
        """
        clock = clock or SystemClock()
        spool = WorkerDirectory(directory)
        lock = spool.lock_for_writing()
        with ExitStack() as on_error:
            on_error.callback(lock.release)
            try:
                worker_id = spool.ensure_identity()
                next_offset = recover_tail(spool, worker_id).next_offset
                counters = spool.usable_counters()
            except OSError as error:
                raise Unavailable(
                    f"the spool directory {directory} cannot be used: {error.strerror}",
                    field="spool.directory",
                    fix="Check its disk and its permissions.",
                ) from error
            log = SegmentLog(
                spool,
                lock,
                worker_id,
                next_offset=next_offset,
                segment_bytes=min(segment_bytes, max_bytes // 4),
                segment_age_s=segment_age_s,
                durable=durability is Durability.DISK,
                clock=clock,
                write=write,
                sync=sync,
            )
            on_error.pop_all()
        log.save_counters(counters.dropped, counters.reasons, always=True)
        return cls(
            log,
            worker_id,
            counters=counters,
            durability=durability,
            max_bytes=max_bytes,
            buffer_bytes=buffer_bytes,
            low_disk=LowDisk(directory, min_free_bytes, statvfs),
            clock=clock,
        )

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the loop on whose thread callbacks are called. Needed once, before the first callback."""
        self._loop = loop

    def append(self, record: Record, loop_callback: Callback | None) -> int:
        """Hand a record over; never waits for the disk.

        ``loop_callback`` is called on the loop's thread with ``None`` once the record is as durable as
        asked for, or with an error: :class:`SpoolFull` when the disk refused it and it is dropped,
        :class:`Unavailable` when it is in the spool but could not be confirmed on the disk. With
        ``Durability.MEMORY`` it is called before this returns.

        Returns the record's offset, provided that the disk takes it: the offset of a refused record goes to
        a later one. Raises :class:`SpoolFull` when the record is not taken (it counts as dropped) and
        :class:`Invalid` when it cannot be encoded (likewise).
        """
        if self._loop is None and loop_callback is not None:
            raise Invalid(
                "nobody would call the callback", field="loop_callback", fix="Call bind(loop) first."
            )
        try:
            payload = encode(record)
        except (TypeError, ValueError, OverflowError) as error:
            self._queue.refuse()
            raise Invalid(f"the record cannot be encoded: {error}", field="record") from error
        at_once = self._at_once
        offset = self._queue.put(payload, None if at_once else loop_callback)
        if offset < 0:
            raise self._refusal(len(payload))
        if at_once and loop_callback is not None:
            loop_callback(None)
        return offset

    @property
    def accepted(self) -> int:
        """Records ever handed to :meth:`append` in this directory's life, dropped ones among them."""
        return self._queue.accepted

    @property
    def dropped(self) -> int:
        """Records ever refused or lost to a failing disk in this directory's life."""
        return self._queue.dropped

    @property
    def pending(self) -> int:
        """Records that wait for the disk."""
        return self._queue.pending

    @property
    def next_offset(self) -> int:
        """The offset that the next record gets."""
        return self._queue.next_offset

    @property
    def size_bytes(self) -> int:
        """The size of the segments; what readers deleted is noticed within a second."""
        return self._log.size_bytes

    @property
    def healthy(self) -> bool:
        """Whether records are being taken and written."""
        return self.failure is None

    @property
    def failure(self) -> str | None:
        """What keeps the spool from taking or writing records now, in a sentence; ``None`` if nothing does."""
        if (refusal := self._disk_failure or self._low_disk.shortage) is not None:
            return refusal
        busy_since = self._busy_since
        if busy_since is not None and (waited_s := self._clock.monotonic() - busy_since) > _STALL_S:
            return f"the spool's disk has not answered for {waited_s:.0f} s"
        return self._strain

    def flush(self, timeout_s: float) -> None:
        """Wait (not on the event loop) until every record handed over before is written or dropped.

        Raises :class:`Unavailable` after ``timeout_s`` seconds.
        """
        if not self._queue.wait_until_settled(timeout_s):
            raise self._too_slow(timeout_s)

    def close(self, timeout_s: float) -> None:
        """Write what waits, save the counters, let the directory go. Later appends are refused.

        Raises :class:`Unavailable` when the disk does not answer within ``timeout_s`` seconds; the directory
        then stays locked until it does, or until the process ends.
        """
        self._closing = True
        self._queue.stop()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise self._too_slow(timeout_s)

    @property
    def _strain(self) -> str | None:
        if not self._queue.refused_bytes or self._closing:
            return None
        if self._queue.room < self._buffer_bytes:
            return f"the spool has reached its limit of {self._max_bytes} bytes"
        return f"the spool's disk is too slow: {self._queue.waiting_bytes} bytes wait in memory"

    def _refusal(self, size: int) -> SpoolFull:
        if self._closing:
            return SpoolFull("the spool is closed")
        if (refusal := self._disk_failure or self._low_disk.shortage) is not None:
            return SpoolFull(refusal, fix=_REPAIR)
        if size >= self._buffer_bytes:
            return SpoolFull(
                f"the record has {size} bytes, more than fit in memory", field="spool.buffer_bytes"
            )
        return SpoolFull(
            self._strain or "the spool was full a moment ago", fix="See whether the collector runs."
        )

    def _too_slow(self, timeout_s: float) -> Unavailable:
        return Unavailable(f"{self.pending} records still wait for the spool's disk after {timeout_s:g} s")

    # The writer thread

    def _run(self) -> None:
        try:
            while not self._queue.stopped:
                groups = self._gathering.groups(_BUSY_TICK_S if self._troubled else _TICK_S)
                self._busy_since = self._clock.monotonic()
                if groups:
                    self._store(groups)
                self._maintain(idle=not groups)
                self._busy_since = None
        finally:
            self._drop("the spool's writer has stopped", [])
            self._save_counters(always=True)
            self._log.close()

    @property
    def _troubled(self) -> bool:
        return self._log.failure is not None or self._queue.refused_bytes > 0

    def _save_counters(self, *, always: bool = False) -> None:
        self._log.save_counters(self.dropped, self._queue.dropped_by_reason, always=always)

    def _store(self, groups: deque[Group]) -> None:
        count = size = 0
        callbacks: list[Callback | None] = []
        while groups and self._log.failure is None:
            group = groups[0]
            stored = self._log.store(group.frames)
            count += stored
            size += group.size_of(stored)
            callbacks += group.callbacks[:stored]
            if stored == len(group.frames):
                groups.popleft()
            else:
                del group.callbacks[:stored]
        error = None
        if self.durability is Durability.DISK and count and not self._log.sync():
            error = Unavailable("the record is in the spool but could not be confirmed on its disk")
        self._note_disk_state()
        self._queue.settle(count, size, self._room())
        self._signal(callbacks, error)
        if self._log.failure is not None:
            self._drop(self._disk_failure or "", groups)

    def _drop(self, reason: str, groups: Iterable[Group]) -> None:
        self._disk_failure = reason
        taken = [callback for group in groups for callback in group.callbacks]
        lost = self._queue.abandon(taken, self._log.next_offset)
        self._signal(lost, SpoolFull(reason, fix=_REPAIR))

    def _maintain(self, *, idle: bool) -> None:
        now = self._clock.monotonic()
        is_due = now - self._maintained_at >= (_BUSY_TICK_S if self._troubled else _TICK_S)
        if not (idle or is_due or self._log.failure is not None):
            return  # what follows has just been done with the records
        if is_due:
            self._maintained_at = now
            if self._log.failure is not None:
                if self._log.reopen():
                    logger.warning("the spool's disk takes records again: worker=%s", self.worker_id)
            elif idle or self._troubled or self._log.size_bytes > self._max_bytes // 2:
                self._log.measure()  # many short system calls, each of which would wait for a busy loop's turn
            self._save_counters()
            self._low_disk.look()
        self._log.rotate_if_due()
        if self._log.failure is not None and self._disk_failure is None:
            self._note_disk_state()
            self._drop(self._disk_failure or "", [])
        self._note_disk_state()
        self._queue.grant(self._room())

    def _note_disk_state(self) -> None:
        failure = self._log.failure
        self._disk_failure = None if failure is None else f"the spool's disk failed: {failure}"
        self._queue.refusing = DISK_FAILED if failure is not None else LOW_DISK

    def _room(self) -> int:
        if self._log.failure is not None or self._low_disk.shortage is not None:
            return -1
        return min(self._buffer_bytes, self._max_bytes - self._log.size_bytes)

    def _signal(self, callbacks: list[Callback | None], error: ServelensError | None) -> None:
        called = [callback for callback in callbacks if callback is not None]
        loop = self._loop
        if not called or loop is None:
            return
        try:
            loop.call_soon_threadsafe(_call_all, loop, called, error)
        except RuntimeError:
            logger.debug("the loop is closed: nobody waits for %d records", len(called))


def _call_all(
    loop: asyncio.AbstractEventLoop, callbacks: Iterable[Callback], error: ServelensError | None
) -> None:
    rest = iter(callbacks)
    try:
        for callback in rest:
            callback(error)
    finally:  # one that raised goes to the loop's handler, the others still get called
        left = list(rest)
        if left:
            loop.call_soon(_call_all, loop, left, error)
