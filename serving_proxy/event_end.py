"""Finds the event that ends a stream, ``data: [DONE]``, also when chunks cut through it.

Clients stop reading at that event and not at the end of the body, so it is what the record has to be
ahead of. Only a whole line counts: inside an event's JSON a line break is always escaped, so a text that
talks about ``[DONE]`` is no end.
"""

from __future__ import annotations

import re
from typing import Final

_MARK: Final = b"[DONE]"
_LINE: Final = re.compile(rb"(?:[\r\n])data: ?\[DONE\]")
_OVERLAP: Final = 16  # a line break and 'data: [DONE]', with room to spare


class EventEnd:
    """Looks at the chunks of one stream in their order."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b"\n"

    def seen_in(self, data: bytes) -> bool:
        """Whether the end is complete with this chunk."""
        if data.endswith(b"\n") and self._tail.endswith(b"\n"):  # whole lines, as nearly always
            self._tail = b"\n"
            return _MARK in data and _LINE.search(b"\n" + data) is not None
        window = self._tail + data
        self._tail = window[-_OVERLAP:]
        return _MARK in window and _LINE.search(window) is not None
