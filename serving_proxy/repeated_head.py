"""Recognises a message whose head is the same as the one before, so that it need not be parsed again.

Clients and backends on a kept connection send the same head over and over, but for the digits of
``Content-Length``. A message is recognised only when its head was accepted by the parser before, byte for
byte, and when the bytes at hand are exactly that head and the whole body that it announces; everything else,
pipelined or cut messages too, goes to the parser. So nothing is ever read in a way in which the parser would
not have read it.
"""

from __future__ import annotations

import re
from typing import Final, Generic, TypeVar

Head = TypeVar("Head")

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,15})\r\n", re.IGNORECASE)
_MAX_HEAD: Final = 8192
_MAX_DIGITS: Final = 15
_MOST_SIZES: Final = 64


class RepeatedHead(Generic[Head]):
    """The bytes of one head around its length, and what the parser made of it."""

    __slots__ = ("_after", "_before", "_by_size", "head")

    def __init__(self, before: bytes, after: bytes, head: Head) -> None:
        self._before = before
        self._after = after
        self._by_size: dict[int, bytes] = {}
        self.head = head

    @classmethod
    def of(cls, data: bytes, head: Head) -> RepeatedHead[Head] | None:
        """From bytes that the parser has taken for exactly one message with ``head``; ``None`` when they are
        something else, or too long to be worth it.
        """
        end = data.find(b"\r\n\r\n", 0, _MAX_HEAD) + 4
        if end < 4:
            return None
        found = _LENGTH.search(data, 0, end)
        if found is None or end + int(found[1]) != len(data):
            return None
        return cls(data[: found.start(1)], data[found.end(1) : end], head)

    def body_of(self, data: bytes) -> bytes | None:
        """The body, when ``data`` is exactly one message with this head; else ``None``."""
        size = len(data)
        head = self._by_size.get(size)
        if head is None:
            head = self._head_of(size)
        return data[len(head) :] if head and data.startswith(head) else None

    def _head_of(self, size: int) -> bytes:
        """The head that a message of ``size`` bytes has, since its size leaves but one length for the body; empty
        where it leaves none.
        """
        rest = size - len(self._before) - len(self._after)
        head = b""
        for digits in range(1, _MAX_DIGITS + 1):
            if rest >= digits and len(str(rest - digits)) == digits:
                head = b"%b%d%b" % (self._before, rest - digits, self._after)
                break
        if len(self._by_size) >= _MOST_SIZES:
            self._by_size.clear()
        self._by_size[size] = head
        return head
