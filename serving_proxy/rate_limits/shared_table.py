"""Counts that the workers of one machine share: a memory-mapped file with a region for each worker.

A worker writes only into its own region and reads all, in 64-bit words that are read and written whole, so there is no
lock and no system call while calls are counted. A region is a hash table: the full 64-bit hash of a key, the
second at which the entry's last count is out of date, and a ring of counts by tick (the tick's number in the upper
half of a word, its count in the lower, so that one store changes both). A lookup compares the full hash, so keys whose
places collide never share a count. An entry that is out of date may be given to another key, by its owner alone.

A worker that is started again finds its region by its slot and goes on counting in it; what a killed one left
behind is right as far as it goes, and out of date after a window. The file is best on a memory file
system (:func:`counts_path`): a page of a disk file may have to wait for the disk before it can be written.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from servelens.errors import Unavailable

ENTRIES: Final = 4096
RING: Final = 64
TICKS: Final = 60
"""A window's length in ticks; a count is kept for one tick more, so that no window holds more than is allowed."""

_MAGIC: Final = 0x5365_7276_4C6D_7431
_REGIONS: Final = 256
_HEADER_WORDS: Final = 1024
_MAGIC_AT, _ENTRIES_AT, _USED_AT, _SLOTS_AT, _PIDS_AT = 0, 1, 2, 256, 512
_PROBES: Final = 32
_MEMORY: Final = Path("/dev/shm")


class TableFull(Exception):
    """No entry is free near a key's place: more keys were counted within a window than the table is made for."""


class SharedTable:
    """The mapped file. ``words`` and ``regions`` (where each region begins) change when a worker joins."""

    def __init__(self, descriptor: int, entries: int, own: int, path: Path | None = None) -> None:
        self.entries = entries
        self.path = path
        self._descriptor = descriptor
        self._own = own
        self.words = memoryview(b"").cast("Q")
        self.regions: tuple[int, ...] = ()
        self._map()

    @classmethod
    def open(cls, path: Path, slot: str, *, entries: int = ENTRIES) -> Self:
        """Join the table at ``path`` as the worker ``slot``, which no other process may be at the time (the lock
        on its spool sees to that). ``entries`` is a power of two. Raises Unavailable when the file cannot be had.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path) as descriptor:
                own = _join(descriptor, slot, entries)
                return cls(os.dup(descriptor), entries, own, path)
        except OSError as error:
            raise Unavailable(
                f"the workers' shared counts at {path} cannot be used: {error.strerror}.",
                fix="Make room there, or make the folder writable.",
            ) from error

    @classmethod
    def private(cls, *, entries: int = ENTRIES) -> Self:
        """A table that nobody else sees."""
        descriptor = os.memfd_create("servelens-counts", os.MFD_CLOEXEC)
        return cls(descriptor, entries, _join(descriptor, "", entries))

    def refresh(self) -> None:
        """Take in the regions of workers that have joined."""
        if self.words[_USED_AT] != len(self.regions):
            self._map()

    def find(self, region: int, key: int, mask: int) -> int:
        """The place of ``key`` among the region's entries; where a new key would be looked for first, if it is not
        there.
        """
        words = self.words
        for place in range(key, key + _PROBES):
            found = words[region + (place & mask)]
            if found == key:
                return place & mask
            if not found:
                break
        return key & mask

    def claim(self, key: int, now_s: int) -> int:
        """The place of ``key`` in the own region, taken if it has none. Raises TableFull."""
        words, mask, region = self.words, self.entries - 1, self.regions[self._own]
        free = -1
        for probe in range(key, key + _PROBES):
            place = probe & mask
            found = words[region + place]
            if found == key:
                return place
            if free < 0 and (not found or words[region + self.entries + place] < now_s):
                free = place
            if not found:
                break
        if free < 0:
            raise TableFull
        words[region + free] = key
        return free

    @property
    def own(self) -> int:
        """Where the own region begins."""
        return self.regions[self._own]

    def close(self, now_s: int) -> None:
        """Leave. The last one to leave removes the file, unless it holds counts that still matter."""
        if self.path is not None:
            with suppress(OSError), _locked(self.path) as descriptor:
                if os.path.sameopenfile(descriptor, self._descriptor):
                    self.refresh()
                    self.words[_PIDS_AT + self._own] = 0
                    if not self._is_needed(now_s):
                        self.path.unlink()
        self.words.release()
        os.close(self._descriptor)

    def _is_needed(self, now_s: int) -> bool:
        words, used = self.words, len(self.regions)
        if any(_lives(pid) for pid in words[_PIDS_AT : _PIDS_AT + used]):
            return True
        entries = self.entries
        return any(max(words[at + entries : at + 2 * entries]) >= now_s for at in self.regions)

    def _map(self) -> None:
        size, used = region_words(self.entries), 0
        while len(self.words) < _HEADER_WORDS + size * used or not used:  # more may join meanwhile
            mapped = mmap.mmap(self._descriptor, os.fstat(self._descriptor).st_size)
            self.words = memoryview(mapped).cast("Q")  # the old one is unmapped when nobody looks any more
            used = self.words[_USED_AT]
        self.regions = tuple(_HEADER_WORDS + size * each for each in range(used))


def counts_path(spool_root: Path) -> Path:
    """Where the workers that spool below ``spool_root`` keep their counts: in memory, if the system has a place."""
    if not os.access(_MEMORY, os.W_OK | os.X_OK):
        return spool_root / "rate-limits"
    name = hashlib.sha256(bytes(spool_root.resolve())).hexdigest()[:16]
    return _MEMORY / f"servelens-{os.geteuid()}-{name}"


def region_words(entries: int) -> int:
    """The size of a region: hashes, expiries and rings."""
    return entries * (2 + RING)


def _join(descriptor: int, slot: str, entries: int) -> int:
    """Give ``slot`` a region in the file, which nobody else changes now; its number."""
    size = os.fstat(descriptor).st_size
    with (
        mmap.mmap(descriptor, _grown(descriptor, _HEADER_WORDS * 8)) as header,
        memoryview(header) as view,
        view.cast("Q") as words,
    ):
        if words[_MAGIC_AT] != _MAGIC or words[_ENTRIES_AT] != entries:
            if size:
                raise OSError(0, "another version of servelens made it")
            words[_MAGIC_AT], words[_ENTRIES_AT] = _MAGIC, entries
        used = words[_USED_AT]
        known = int.from_bytes(hashlib.blake2b(slot.encode(), digest_size=8).digest(), "little")
        slots = list(words[_SLOTS_AT : _SLOTS_AT + used])
        own = slots.index(known) if known in slots else used
        if own == used and used == _REGIONS:
            raise OSError(0, f"it has had {_REGIONS} different workers already; remove it")
        # The room is taken now: a write into a hole of a full disk would kill the process.
        _grown(descriptor, (_HEADER_WORDS + region_words(entries) * (own + 1)) * 8)
        words[_SLOTS_AT + own] = known
        words[_PIDS_AT + own] = os.getpid()
        words[_USED_AT] = max(used, own + 1)
    return own


def _grown(descriptor: int, size: int) -> int:
    if os.fstat(descriptor).st_size < size:
        os.posix_fallocate(descriptor, 0, size)
    return os.fstat(descriptor).st_size


def _lives(pid: int) -> bool:
    if pid in (0, os.getpid()):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file at ``path``, made if there is none, for this process alone while the block runs."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_uid != os.geteuid():
                raise PermissionError(0, "it belongs to somebody else")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(descriptor)):  # else somebody removed it meanwhile
                    yield descriptor
                    return
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a duplicate would hold it on
            os.close(descriptor)
