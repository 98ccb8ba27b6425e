"""The folder of all workers' spools: which there are, and the lock that makes one process their collector."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from collector.dead_letter import DeadLetter
from collector.worker_directory import DirectoryLock
from collector.worker_spool import WorkerSpool
from servelens.errors import Conflict, Missing, ServelensError, Unavailable

logger = logging.getLogger(__name__)

_LOCK_PATIENCE_S = 1.0


class SpoolRoot:
    """The worker directories below ``path``, found as they appear and forgotten when they are wiped."""

    def __init__(self, path: Path, dead_letter: DeadLetter) -> None:
        self.path = path
        self._dead_letter = dead_letter
        self._workers: dict[str, WorkerSpool] = {}
        self._lock: DirectoryLock | None = None
        self._past_unreadable = 0
        self._past_regions = 0

    def __iter__(self) -> Iterator[WorkerSpool]:
        return iter(list(self._workers.values()))

    @property
    def unreadable(self) -> int:
        """Records that went to the dead letter since the start."""
        return self._past_unreadable + sum(worker.unreadable for worker in self)

    @property
    def regions(self) -> int:
        """Damaged regions that went to the dead letter since the start."""
        return self._past_regions + sum(worker.regions for worker in self)

    def lock(self) -> None:
        """Become the collector of this root; nothing when this already is it.

        Raises :class:`~servelens.errors.Conflict` when another process is, and
        :class:`~servelens.errors.Unavailable` when the folder cannot be made or written.
        """
        if self._lock is not None:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = DirectoryLock.take(self.path, patience_s=_LOCK_PATIENCE_S)
        except OSError as error:
            raise Unavailable(
                f"the folder {self.path} cannot be used: {error.strerror}", field="spool.directory"
            ) from error
        if self._lock is None:
            raise Conflict(
                f"another collector works on {self.path}",
                fix="Stop it, or give this one another spool folder.",
            )

    def release(self) -> None:
        """Let another process become the collector."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def discover(self) -> None:
        """Look for worker directories that are new."""
        known = {worker.directory for worker in self}
        for directory in sorted(path for path in self.path.iterdir() if path.is_dir()):
            if directory in known:
                continue
            try:
                worker = WorkerSpool(directory, self._dead_letter)
            except Missing:
                continue  # its writer is just making it
            except ServelensError as error:
                logger.warning("spool unusable: directory=%s reason=%s", directory, error)
                continue
            self._workers[worker.worker_id] = worker
            logger.info("spool found: worker=%s", worker.worker_id)

    def forget(self, worker: WorkerSpool, reason: object) -> None:
        """The directory was removed, or wiped and begun anew; the new one is found as any other."""
        logger.warning("spool gone: worker=%s reason=%s", worker.worker_id, reason)
        self._past_unreadable += worker.unreadable
        self._past_regions += worker.regions
        self._workers.pop(worker.worker_id, None)
