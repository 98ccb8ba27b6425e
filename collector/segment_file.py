"""The segment that is being written: whole frames or nothing.

Invariant: a file under a segment's name starts with a whole header. What a failed write left behind the last
whole frame is cut off; where even that fails, the caller goes on in a new segment and readers name the rest.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from collector.segment import HEADER_BYTES, SegmentHeader
from collector.worker_directory import WorkerDirectory

logger = logging.getLogger(__name__)

Write: TypeAlias = Callable[[int, Sequence[bytes], int], int]
Sync: TypeAlias = Callable[[int], None]

MAX_BUFFERS: Final = 1024  # IOV_MAX on Linux
_PART: Final = "segment.part"
_PROBE = bytes(64 * 1024)


class SegmentFile:
    """One open segment. Every method may raise :class:`OSError`; all of them run on the writer thread."""

    def __init__(self, descriptor: int, *, first_offset: int, end: int, write: Write, sync: Sync) -> None:
        self.first_offset = first_offset
        self.end = end
        self._descriptor = descriptor
        self._write = write
        self._sync = sync

    @classmethod
    def create(
        cls,
        directory: WorkerDirectory,
        header: SegmentHeader,
        *,
        probe: bool,
        durable: bool,
        write: Write = os.pwritev,
        sync: Sync = os.fdatasync,
    ) -> SegmentFile:
        """Make the segment under another name and rename it, so that readers find it with its header.

        ``probe`` writes 64 KiB first and cuts them off again, to see whether the disk takes records once
        more.
        """
        part = directory.path / _PART
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        segment = cls(descriptor, first_offset=header.first_offset, end=0, write=write, sync=sync)
        try:
            segment.append([header.pack()])
            if probe:
                segment.append([_PROBE])
                os.ftruncate(descriptor, HEADER_BYTES)
                segment.end = HEADER_BYTES
            if durable:
                segment.sync()
            part.replace(directory.segment_path(header.first_offset))
            if durable:
                directory.sync_entries()
        except OSError:
            os.close(descriptor)
            part.unlink(missing_ok=True)
            raise
        return segment

    def append(self, buffers: Sequence[bytes]) -> None:
        """Write whole buffers behind the last ones, at most ``MAX_BUFFERS`` of them.

        When the disk refuses, :attr:`end` tells how far it came; call :meth:`cut_back` to get to a frame's
        end.
        """
        written = self._write(self._descriptor, buffers, self.end)
        self.end += written
        if written == sum(map(len, buffers)):
            return
        rest = b"".join(buffers)[written:]
        while rest:  # the kernel took a part: the next attempt says why, or takes more
            written = self._write(self._descriptor, [rest], self.end)
            if written == 0:
                raise OSError(errno.EIO, "the disk takes no bytes")
            self.end += written
            rest = rest[written:]

    def cut_back(self, end: int) -> None:
        """Cut what lies behind ``end``, or say in the log that the disk refuses even that."""
        self.end = end
        try:
            os.ftruncate(self._descriptor, end)
        except OSError as error:
            logger.warning("torn frame could not be cut off: segment=%d reason=%s", self.first_offset, error)

    def sync(self) -> None:
        """Bring the written bytes to the disk."""
        self._sync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)
