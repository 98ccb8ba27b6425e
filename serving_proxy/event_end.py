"""Finds the event after which a client stops reading a stream, also when chunks cut through it.

Clients stop at that event and not at the end of the body, so it is what the record has to be ahead of. Only a
whole line counts: inside an event's JSON a line break is always escaped, so a text that talks about ``[DONE]``
is no end. OpenAI's chat streams end with ``data: [DONE]``; its Responses streams and Anthropic's end with an
event of a certain type, whose data (usage, the whole response) still belongs to the record.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

_OVERLAP: Final = 64  # longer than any of the lines looked for, with its line break
_BLANK_LINE: Final = re.compile(rb"\n\r?\n|\r\r")


class StreamEnd:
    """Which line ends a stream. ``mark`` is a part of it that is quick to look for; ``whole`` says that the
    event goes on to its blank line.
    """

    __slots__ = ("line", "mark", "whole")

    def __init__(self, mark: bytes, line: bytes, *, whole: bool) -> None:
        self.mark = mark
        self.line = re.compile(line)
        self.whole = whole


DONE: Final = StreamEnd(b"[DONE]", rb"[\r\n]data: ?\[DONE\]", whole=False)
MESSAGE_STOP: Final = StreamEnd(b"message_stop", rb"[\r\n]event: ?message_stop(?=[\r\n])", whole=True)
RESPONSE_END: Final = StreamEnd(
    b"response.", rb"[\r\n]event: ?response\.(?:completed|failed|incomplete)(?=[\r\n])", whole=True
)


class Sight(Enum):
    """What a chunk brings of the last event: its beginning, or all of it."""

    BEGUN = auto()
    COMPLETE = auto()


class EventEnd:
    """Looks at the chunks of one stream in their order."""

    __slots__ = ("_end", "_found", "_tail")

    def __init__(self, end: StreamEnd) -> None:
        self._end = end
        self._found = False
        self._tail = b"\n"

    def look(self, data: bytes) -> Sight | None:
        """What this chunk has of the end."""
        end = self._end
        if self._found:
            window = self._tail + data
            self._tail = window[-3:]
            return Sight.COMPLETE if _BLANK_LINE.search(window) else Sight.BEGUN
        if self._tail == b"\n" and data.endswith(b"\n"):  # whole lines, as nearly always
            if end.mark not in data:
                return None
            window = b"\n" + data
        else:
            window = self._tail + data
            self._tail = b"\n" if window.endswith(b"\n") else window[-_OVERLAP:]
            if end.mark not in window:
                return None
        match = end.line.search(window)
        if match is None:
            return None
        if not end.whole:
            return Sight.COMPLETE
        self._found = True
        rest = window[match.end() :]
        self._tail = rest[-3:]
        return Sight.COMPLETE if _BLANK_LINE.search(rest) else Sight.BEGUN
