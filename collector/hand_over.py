"""The bounded buffer between the thread that takes records and the thread that writes them.

Invariants. Waiting memory stays within the room the writing side grants. Offsets are given in the order of
handing over; when records are abandoned, all that wait are, so that the next record follows the last one
stored. Nobody does I/O or waits for more than memory while holding the lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from collector.segment import FRAME_BYTES, frame
from collector.segment_file import MAX_BUFFERS
from servelens.errors import ServelensError

Callback: TypeAlias = Callable[[ServelensError | None], None]

SPOOL_FULL: Final = "spool_full"
DISK_SLOW: Final = "disk_slow"
DISK_FAILED: Final = "disk_failed"
LOW_DISK: Final = "low_disk"
TOO_LARGE: Final = "too_large"
NOT_ENCODABLE: Final = "not_encodable"
CLOSED: Final = "closed"

_GROUP_BYTES: Final = 4 << 20
_OVERHEAD_BYTES: Final = (
    256  # beside its bytes, a waiting record has an object, places in lists, and a callback
)


class Group:
    """Frames that are written with one call, and the callback of each."""

    __slots__ = ("callbacks", "frames", "size")

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.callbacks: list[Callback | None] = []
        self.size = 0

    def size_of(self, count: int) -> int:
        """The memory that the first ``count`` records hold, in bytes."""
        if count == len(self.frames):
            return self.size
        return sum(map(len, self.frames[:count])) + _OVERHEAD_BYTES * count


class HandOver:
    """Frames on their way to the writer thread.

    ``room`` is how many bytes may wait now, ``-1`` refuses everything because of ``refusing`` (a word that drops are
    counted under), and ``limit`` is the most it ever is. ``refused_bytes`` is the size of the last record refused for
    want of room, until there is room for it.
    """

    def __init__(
        self,
        marker: int,
        *,
        limit: int,
        next_offset: int,
        dropped: int,
        reasons: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.limit = limit
        self.next_offset = next_offset
        self.dropped = dropped
        self.refusing = DISK_FAILED
        self._reasons = dict(reasons)
        self.pending = 0
        self.waiting_bytes = 0
        self.refused_bytes = 0
        self.room = -1
        self.hurry = threading.Event()
        self._marker = marker
        self._lock = threading.Lock()
        self._progress = threading.Condition(self._lock)
        self._group = Group()
        self._full_groups: deque[Group] = deque()
        self._settled = 0
        self._flushers = 0
        self._stopping = False
        self._sleeping = False
        self._wake = threading.Lock()
        self._wake.acquire()

    # The taking side

    def put(self, payload: bytes, callback: Callback | None) -> int:
        """Frame a payload and queue it: its offset, or ``-1`` when there is no room (it counts as dropped)."""
        size = FRAME_BYTES + len(payload) + _OVERHEAD_BYTES
        with self._lock:
            if self.waiting_bytes + size > self.room:
                self._count_dropped(1, self._why_refused(size))
                if not self.refused_bytes:
                    self._rouse()
                self.refused_bytes = min(size, self.limit)
                return -1
            offset = self.next_offset
            group = self._group
            group.frames.append(frame(self._marker, payload, offset))
            group.callbacks.append(callback)
            group.size += size
            self.next_offset = offset + 1
            self.waiting_bytes += size
            self.pending += 1
            if len(group.frames) == MAX_BUFFERS or group.size >= _GROUP_BYTES:
                self._full_groups.append(group)
                self._group = Group()
            if self._sleeping:
                self._rouse()
        return offset

    def refuse(self) -> None:
        """Count a record that could not even be framed."""
        with self._lock:
            self._count_dropped(1, NOT_ENCODABLE)

    @property
    def dropped_by_reason(self) -> dict[str, int]:
        """What :attr:`dropped` is made of; what was dropped before reasons were kept is in no part of it."""
        with self._lock:
            return dict(self._reasons)

    @property
    def accepted(self) -> int:
        """Records handed over or refused, ever."""
        with self._lock:
            return self.next_offset + self.dropped

    def wait_until_settled(self, timeout_s: float) -> bool:
        """Wait until what was handed over before is settled or abandoned; ``False`` after ``timeout_s`` seconds."""
        with self._lock:
            goal = self._settled + self.pending
            self._flushers += 1
            self.hurry.set()
            self._rouse()
            done = self._progress.wait_for(lambda: self._settled >= goal, timeout_s)
            self._flushers -= 1
            if not self._flushers and not self._stopping:
                self.hurry.clear()
        return done

    def stop(self) -> None:
        """Refuse what comes from now on; :attr:`stopped` once nothing waits any more."""
        with self._lock:
            self._stopping = True
            self.room = -1
            self.hurry.set()
            self._rouse()

    # The writing side

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called and nothing waits."""
        if not self._stopping:
            return False
        with self._lock:
            return not self.pending

    def wait(self, timeout_s: float) -> bool:
        """Sleep until there is something to take or to hurry for; ``False`` when the time passes without."""
        with self._lock:
            if self.pending or self._stopping:
                return True
            self._sleeping = True
        if self._wake.acquire(timeout=timeout_s):
            return True
        with self._lock:
            if self._sleeping:
                self._sleeping = False
                return False
            self._wake.acquire()  # released between the time-out and here
            return True

    def take(self) -> deque[Group]:
        """Everything that has gathered, in order. It keeps its room until it is settled or abandoned."""
        with self._lock:
            groups, self._full_groups = self._full_groups, deque()
            if self._group.frames:
                groups.append(self._group)
                self._group = Group()
        return groups

    def settle(self, count: int, size: int, room: int) -> None:
        """``count`` records are stored: give their ``size`` bytes back, and grant ``room`` from now on."""
        with self._lock:
            self._settled += count
            self.pending -= count
            self.waiting_bytes -= size
            self._grant(room)
            if self._flushers:
                self._progress.notify_all()

    def grant(self, room: int) -> None:
        """Change how many bytes may wait."""
        with self._lock:
            self._grant(room)

    def abandon(self, callbacks: Iterable[Callback | None], next_offset: int) -> list[Callback | None]:
        """Drop the taken frames that these callbacks belong to and all that wait, and refuse what comes.

        The next record gets ``next_offset``. Returns the callbacks of everything dropped.
        """
        with self._lock:
            lost = [*callbacks]
            for group in (*self._full_groups, self._group):
                lost += group.callbacks
            self._full_groups.clear()
            self._group = Group()
            self.next_offset = next_offset
            self._count_dropped(len(lost), CLOSED if self._stopping else DISK_FAILED)
            self._settled += self.pending
            self.pending = 0
            self.waiting_bytes = 0
            self.room = -1
            self._progress.notify_all()
        return lost

    def _grant(self, room: int) -> None:
        self.room = -1 if self._stopping else room
        if self.waiting_bytes + self.refused_bytes <= room:
            self.refused_bytes = 0

    def _count_dropped(self, count: int, reason: str) -> None:
        if count:
            self.dropped += count
            self._reasons[reason] = self._reasons.get(reason, 0) + count

    def _why_refused(self, size: int) -> str:
        if size > self.limit:
            return TOO_LARGE
        if self.room < 0:
            return CLOSED if self._stopping else self.refusing
        return SPOOL_FULL if self.room < self.limit else DISK_SLOW

    def _rouse(self) -> None:
        if self._sleeping:
            self._sleeping = False
            self._wake.release()
