"""A storage of tables that goes away, in the middle of whatever is being written to it, and comes back as it was.

The folder changes places with a file in one step (renameat2(2) with ``RENAME_EXCHANGE``), so that nobody can begin a new
table in between. That stops root too, whom permissions do not.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class Storage:
    """The folder ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_away = False
        self._other = path.with_name(f"{path.name}-away")
        self._libc = ctypes.CDLL(None, use_errno=True)
        path.mkdir(parents=True)
        self._other.write_text("the storage is away")

    def take_away(self) -> None:
        if not self.is_away:
            self._exchange()

    def bring_back(self) -> None:
        if self.is_away:
            self._exchange()

    def _exchange(self) -> None:
        ends = os.fsencode(self.path), os.fsencode(self._other)
        if self._libc.renameat2(_AT_FDCWD, ends[0], _AT_FDCWD, ends[1], _RENAME_EXCHANGE) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(self.path))
        self.is_away = not self.is_away
