"""Server-sent events out of bytes that are cut anywhere, and back into bytes.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, Final

import msgspec

from servelens.errors import Unavailable

DONE: Final = b"[DONE]"
MAX_EVENT_BYTES: Final = 1 << 20
_END: Final = re.compile(rb"(?>\r\n|\n|\r){2}")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_encode = msgspec.json.Encoder().encode


class EventSplitter:
    """Gives whole events as they are, comments too, each with the blank line that ends it."""

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are complete now. Raises Unavailable for an event of more than MAX_EVENT_BYTES."""
        self._pieces.append(data)
        if b"\n" not in data and b"\r" not in data:  # inside a long line
            self._size += len(data)
            self._check()
            return []
        rest = b"".join(self._pieces)
        if b"\r" in rest:
            ends = [match.end() for match in _END.finditer(rest)]
            events = [rest[start:end] for start, end in pairwise([0, *ends])]
            rest = rest[ends[-1] :] if ends else rest
        else:
            *whole, rest = rest.split(b"\n\n")
            events = [event + b"\n\n" for event in whole]
        self._pieces = [rest]
        self._size = len(rest)
        self._check()
        return events

    def rest(self) -> bytes:
        """What came after the last whole event; it is gone afterwards."""
        rest = b"".join(self._pieces)
        self._pieces = []
        return rest

    def _check(self) -> None:
        if self._size > MAX_EVENT_BYTES:
            raise Unavailable(f"The backend sent an event of more than {MAX_EVENT_BYTES} bytes.")


def data_of(event: bytes) -> bytes | None:
    """The event's data; ``None`` when it has none, as a comment."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[6:-2]  # as nearly always
    lines = [line[5:].removeprefix(b" ") for line in _LINE_END.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def with_data(event: bytes, value: Any) -> bytes:
    """The event with other data; its other fields stay."""
    if event.startswith(b"data:"):
        fields: list[bytes] = []
    else:
        fields = [line for line in _LINE_END.split(event) if line and not line.startswith(b"data:")]
    return b"%bdata: %b\n\n" % (b"".join(line + b"\n" for line in fields), _encode(value))


def named_event(name: str, value: Any) -> bytes:
    """An event with a name, as Anthropic's and the Responses API have them."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode(value))
