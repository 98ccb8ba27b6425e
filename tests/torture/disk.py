"""A spool disk that can be filled: a tmpfs of its own where that may be mounted, else a limit on the size of files.

Either way it is the kernel that refuses to write. The limit (``RLIMIT_FSIZE``, set from outside with prlimit(2)) makes
every file of a process stop growing, not only the spool's.
"""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

_SIZE_BYTES = 64 << 20
_LIMIT_BYTES = 2_000
_BLOCK = bytes(1 << 16)


class SpoolDisk:
    """The folder ``path`` while the block runs; ``kind`` is ``tmpfs`` or ``rlimit``, the latter also if ``may_mount`` is
    false.
    """

    def __init__(self, path: Path, *, may_mount: bool = True) -> None:
        self.path = path
        self._may_mount = may_mount and os.geteuid() == 0
        self.kind = "rlimit"
        self._limited: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True)
        if not self._may_mount:
            return self
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE_BYTES}", "tmpfs", str(self.path)]
        try:
            if subprocess.run(mount, check=False, capture_output=True).returncode == 0:
                self.kind = "tmpfs"
        except FileNotFoundError:
            return self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.kind == "tmpfs":
            # What is in it is kept for whoever looks for the cause of a failure.
            kept = self.path.with_name(f"{self.path.name}-kept")
            subprocess.run(["cp", "-a", str(self.path), str(kept)], check=error is None)
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    def fill(self, process_ids: Iterable[int], *, leave_bytes: int) -> None:
        """Leave ``leave_bytes`` of space; with limits it is never any."""
        if self.kind == "rlimit":
            for process_id in process_ids:
                self._limited[process_id] = resource.prlimit(process_id, resource.RLIMIT_FSIZE)
                hard = self._limited[process_id][1]
                resource.prlimit(process_id, resource.RLIMIT_FSIZE, (_LIMIT_BYTES, hard))
            return
        with self._filler.open("wb", buffering=0) as file:
            try:
                while True:
                    found = os.statvfs(self.path)
                    free = found.f_bavail * found.f_frsize - leave_bytes
                    if free < 4096 and leave_bytes:
                        return
                    file.write(_BLOCK[: max(4096, min(free, len(_BLOCK)))])
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        for process_id, limits in self._limited.items():
            try:
                resource.prlimit(process_id, resource.RLIMIT_FSIZE, limits)
            except ProcessLookupError:
                continue
        self._limited.clear()
        self._filler.unlink(missing_ok=True)

    @property
    def _filler(self) -> Path:
        return self.path / "filler"
