"""The disk side of a spool writer: appends frames, rotates segments, comes back after a disk failure.

Knows nothing of threads; the writer thread is its only user. A failure of the disk is a state
(:attr:`failure`), not an exception, because the writer outlives it: nothing is stored until :meth:`reopen`
has proved on a new segment that the disk takes bytes again.

Invariant: ``next_offset`` is the offset behind the last whole frame in the segments.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence

from collector.segment import SegmentHeader
from collector.segment_file import SegmentFile, Sync, Write
from collector.worker_directory import Counters, DirectoryLock, WorkerDirectory
from servelens.clock import Clock

logger = logging.getLogger(__name__)


class SegmentLog:
    """Appends frames to the newest segment of one worker directory, whose ``lock`` it keeps until :meth:`close`.

    ``segment_bytes`` and ``segment_age_s`` (seconds since its first record) bound a segment; ``durable``
    also brings file names to the disk.
    """

    def __init__(
        self,
        directory: WorkerDirectory,
        lock: DirectoryLock,
        worker_id: str,
        *,
        next_offset: int,
        segment_bytes: int,
        segment_age_s: float,
        durable: bool,
        clock: Clock,
        write: Write,
        sync: Sync,
    ) -> None:
        self.next_offset = next_offset
        self.failure: str | None = None
        self._directory = directory
        self._lock = lock
        self._worker_id = worker_id
        self._segment_bytes = segment_bytes
        self._segment_age_s = segment_age_s
        self._durable = durable
        self._clock = clock
        self._write = write
        self._sync = sync
        self._segment: SegmentFile | None = None
        self._first_stored_at = 0.0
        self._unconfirmed = False
        self._sealed_bytes = 0
        self._saved: Counters | None = None
        self._start_segment(probe=False)

    @property
    def size_bytes(self) -> int:
        """The size of all segments, as far as known since the last :meth:`measure`."""
        return self._sealed_bytes + (self._segment.end if self._segment else 0)

    def store(self, frames: Sequence[bytes]) -> int:
        """Append up to ``MAX_BUFFERS`` frames; returns how many of them lie in the spool now.

        Fewer than given means that the disk refused: :attr:`failure` says why, and no part of a frame is
        left.
        """
        self.rotate_if_due()
        segment = self._segment
        if segment is None or self.failure is not None:
            return 0
        if segment.first_offset == self.next_offset:
            self._first_stored_at = self._clock.monotonic()
        start = segment.end
        stored = len(frames)
        try:
            segment.append(frames)
        except OSError as error:
            self._fail(error)
            stored, end = _whole_frames(frames, segment.end - start)
            segment.cut_back(start + end)
        self.next_offset += stored
        return stored

    def sync(self) -> bool:
        """Bring what was stored to the disk; ``False`` when that failed.

        After a failed fdatasync(2) the kernel may have given up the bytes, and a second call would lie
        (https://lwn.net/Articles/752063/): the segment gets no more records, and those in it stay
        unconfirmed.
        """
        if self._segment is None or self._unconfirmed:
            return False
        try:
            self._segment.sync()
        except OSError as error:
            self._unconfirmed = True
            self._fail(error)
            return False
        return True

    def rotate_if_due(self) -> None:
        """Start a new segment if the newest has records and is big or old enough, also when nothing comes in."""
        segment = self._segment
        if segment is None or self.failure is not None or segment.first_offset == self.next_offset:
            return
        age_s = self._clock.monotonic() - self._first_stored_at
        due = segment.end >= self._segment_bytes or age_s >= self._segment_age_s
        if due and (not self._durable or self.sync()):
            self._start_segment(probe=False)

    def reopen(self) -> bool:
        """After a failure: whether the disk takes records again, tried on a new segment."""
        self._start_segment(probe=True)
        return self.failure is None

    def measure(self) -> None:
        """Count the segments' bytes anew, since readers delete some."""
        try:
            self._require_our_directory()
            total = self._directory.segment_bytes()
        except OSError as error:
            self._fail(error)
        else:
            self._sealed_bytes = total - (self._segment.end if self._segment else 0)

    def save_counters(self, dropped: int, reasons: dict[str, int], *, always: bool = False) -> None:
        """Keep the number of dropped records if it changed; what the disk refuses is tried again with the next call."""
        counters = Counters(dropped=dropped, next_offset=self.next_offset, reasons=reasons)
        if self._saved is not None and self._saved.dropped == dropped and not always:
            return
        try:
            self._directory.write_counters(counters, durable=self._durable)
        except OSError as error:
            logger.warning("counters not saved: worker=%s reason=%s", self._worker_id, error)
        else:
            self._saved = counters

    def close(self) -> None:
        """Close the segment and let the directory go."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None
        self._lock.release()

    def _start_segment(self, *, probe: bool) -> None:
        header = SegmentHeader(self._worker_id, self.next_offset, self._clock.now_us())
        try:
            self._require_our_directory()
            segment = SegmentFile.create(
                self._directory,
                header,
                probe=probe,
                durable=self._durable,
                write=self._write,
                sync=self._sync,
            )
        except OSError as error:
            self._fail(error)
            return
        if self._segment is not None:
            self._segment.close()
        self._segment = segment
        self._unconfirmed = False
        self.failure = None
        self.measure()

    def _require_our_directory(self) -> None:
        if not self._lock.still_ours():
            raise OSError(errno.ESTALE, "the spool directory was moved or deleted under the writer")

    def _fail(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        if self.failure is None:
            logger.error("the spool's disk failed: worker=%s reason=%s", self._worker_id, reason)
        self.failure = reason


def _whole_frames(frames: Sequence[bytes], written: int) -> tuple[int, int]:
    """How many frames lie whole in the first ``written`` bytes, and where the last of them ends."""
    end = 0
    for count, frame in enumerate(frames):
        if end + len(frame) > written:
            return count, end
        end += len(frame)
    return len(frames), end
