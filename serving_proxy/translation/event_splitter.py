"""Server-sent events out of bytes that are cut anywhere.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation. Invariants: how
the bytes are cut makes no difference, and no more than one event is held, of at most ``MAX_EVENT_BYTES``.
"""

from __future__ import annotations

from typing import Final

from servelens.errors import Unavailable

MAX_EVENT_BYTES: Final = 1 << 20
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class EventSplitter:
    """Looks at the pieces of one stream in their order."""

    __slots__ = ("_after_cr", "_begun", "_rest", "_searched")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._searched = 0
        self._begun = False
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """The data of each event that is complete with these bytes. Raises Unavailable for an event that is too
        large; what came before it is given first.
        """
        if self._after_cr or b"\r" in data:
            data = self._with_newlines(data)
        rest = self._rest
        if not rest and data.endswith(b"\n\n") and len(data) <= MAX_EVENT_BYTES and self._begun:
            return [found for event in data.split(b"\n\n") if (found := event_data(event)) is not None]
        rest += data
        events: list[bytes] = []
        start = 0
        while (end := rest.find(b"\n\n", max(start, self._searched - 1))) >= 0:
            if end - start > MAX_EVENT_BYTES:
                break
            self._searched = 0
            found = event_data(self._without_mark(bytes(rest[start:end])))
            if found is not None:
                events.append(found)
            start = end + 2
        if start:
            del rest[:start]
        self._searched = len(rest)
        if len(rest) > MAX_EVENT_BYTES and not events:
            raise _too_large()
        return events

    def last(self) -> bytes | None:
        """The data of an event that lacks only its closing blank line at the end of the stream."""
        rest, self._rest = bytes(self._rest), bytearray()
        if len(rest) > MAX_EVENT_BYTES:
            raise _too_large()
        return event_data(self._without_mark(rest))

    def _without_mark(self, event: bytes) -> bytes:
        if self._begun:
            return event
        self._begun = True
        return event.removeprefix(_BYTE_ORDER_MARK)

    def _with_newlines(self, data: bytes) -> bytes:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _too_large() -> Unavailable:
    return Unavailable(f"The backend sent an event of more than {MAX_EVENT_BYTES} bytes.")


def event_data(event: bytes) -> bytes | None:
    """The data of one event's lines (ended by newlines); ``None`` for a comment or an event without data."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = []
    for line in event.split(b"\n"):
        if line.startswith(b"data:"):
            lines.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line == b"data":
            lines.append(b"")
    return b"\n".join(lines) if lines else None
