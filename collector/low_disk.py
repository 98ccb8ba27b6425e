"""The spool's low-disk watermark: stop taking records while the rest of the machine can still write.

Asked by the spool's writer thread once a second, a tenth of one while anything is refused; never on the event loop.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

logger = logging.getLogger(__name__)

Statvfs: TypeAlias = Callable[[Path], os.statvfs_result]

_DEFAULT_BYTES: Final = 256 << 20
_DEFAULT_PART: Final = 20
_BACK: Final = 1.25


class LowDisk:
    """Whether the file system of ``directory`` has less than ``min_free_bytes`` left for this user.

    ``None`` stands for 256 MiB (what a fast disk takes in a second or less of writing at full speed), or a twentieth of
    a file system of less than 5 GiB; 0 for never. Once low, it stays so until a quarter more is free, so that it does
    not come and go with every segment.
    """

    def __init__(self, directory: Path, min_free_bytes: int | None, statvfs: Statvfs = os.statvfs) -> None:
        self.shortage: str | None = None
        self._directory = directory
        self._min_free_bytes = min_free_bytes
        self._statvfs = statvfs

    def look(self) -> None:
        """Ask the file system, and keep the answer in :attr:`shortage`: a sentence, ``None`` while there is space."""
        if self._min_free_bytes == 0:
            return
        try:
            found = self._statvfs(self._directory)
        except OSError:
            return  # a directory that is gone or hangs is the disk's failure, which the writing itself finds
        free = found.f_bavail * found.f_frsize
        total = found.f_blocks * found.f_frsize
        least = self._min_free_bytes
        if least is None:
            least = min(_DEFAULT_BYTES, total // _DEFAULT_PART)
        was_low = self.shortage is not None
        if free < least * (_BACK if was_low else 1.0):
            self.shortage = (
                f"the spool's disk has only {free >> 20} MiB free, and {least >> 20} MiB are left to others"
            )
            if not was_low:
                logger.error("%s: %s", self.shortage, self._directory)
        else:
            self.shortage = None
            if was_low:
                logger.warning("the spool's disk has space again: %s", self._directory)
