"""A clock that another process can step: the machine's own plus what a small file says.

Everything in servelens that asks its :class:`~servelens.clock.Clock` is stepped; the kernel's and delta-rs's own times
are not.
"""

from __future__ import annotations

import mmap
import struct
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

_STEP = struct.Struct("<q")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SteppedClock:
    """Reads the step (microseconds) in ``file`` whenever the time is asked for."""

    def __init__(self, file: Path) -> None:
        with file.open("rb") as opened:
            self._memory = mmap.mmap(opened.fileno(), _STEP.size, prot=mmap.PROT_READ)

    def now_us(self) -> int:
        return time.time_ns() // 1_000 + int(_STEP.unpack_from(self._memory)[0])

    def now(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.now_us())

    def monotonic(self) -> float:
        return time.monotonic()


def step(file: Path, microseconds: int) -> None:
    """Set all clocks that read ``file`` to so much after (or before) the machine's; makes the file."""
    file.touch()
    with file.open("r+b") as opened:
        opened.write(_STEP.pack(microseconds))
