"""A request's body, read within bounds of size, time and memory, and decompressed within the same."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from collector.intake.refusal import Refusal

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_ANY_FRAME: Final = zlib.MAX_WBITS | 32  # gzip and zlib, which HTTP calls deflate
_PACKED: Final = (b"gzip", b"x-gzip", b"deflate")
_PIECE: Final = 1 << 20


class Gone(Exception):
    """The client has left before its request was whole: nobody waits for an answer."""


class Memory:
    """Bytes of requests that are being read and recorded, together bounded by ``limit``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def take(self, size: int) -> None:
        """Raises Refusal 503 when too much is held already; one request alone is always let in."""
        if self.held and self.held + size > self._limit:
            raise Refusal(503, "too many bytes of other requests are being read.", retry_after_s=1.0)
        self.held += size

    def give_back(self, size: int) -> None:
        """They are recorded, or refused."""
        self.held -= size


class BodyReader:
    """Reads the bodies of requests: up to ``max_bytes`` each, also decompressed, and within ``patience_s`` seconds."""

    def __init__(self, memory: Memory, *, max_bytes: int, patience_s: float) -> None:
        self._memory = memory
        self._max_bytes = max_bytes
        self._patience_s = patience_s

    async def read(self, fields: Mapping[bytes, bytes], receive: Receive) -> tuple[bytes, int]:
        """The body, and how many bytes of memory are to be given back for it. Raises Refusal, and :class:`Gone`."""
        encoding = fields.get(b"content-encoding", b"").strip().lower()
        if encoding not in (b"", b"identity", *_PACKED):
            raise Refusal(
                415,
                "it is not understood.",
                field="content-encoding",
                fix="Send gzip or deflate, or the plain body.",
            )
        length = fields.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._max_bytes:
            raise self._too_large()
        held = 0
        try:
            chunks: list[bytes] = []
            async with asyncio.timeout(self._patience_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    chunk = message.get("body", b"")
                    if held + len(chunk) > self._max_bytes:
                        raise self._too_large()
                    self._memory.take(len(chunk))
                    held += len(chunk)
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        break
            body = b"".join(chunks)
            if encoding in _PACKED:
                packed, body = body, b""
                for piece in self._inflated(packed):
                    self._memory.take(len(piece))
                    held += len(piece)
                    body += piece
        except TimeoutError as error:
            self._memory.give_back(held)
            raise Refusal(408, f"the body did not come within {self._patience_s:g} s.") from error
        except BaseException:
            self._memory.give_back(held)
            raise
        return body, held

    def give_back(self, held: int) -> None:
        """The request that held so many bytes is over."""
        self._memory.give_back(held)

    def _inflated(self, packed: bytes) -> list[bytes]:
        """The content of a zlib stream, or of one or more gzip members."""
        pieces: list[bytes] = []
        total = 0
        try:
            while packed:
                inflater = zlib.decompressobj(_ANY_FRAME)
                while not inflater.eof:
                    piece = inflater.decompress(packed, min(_PIECE, self._max_bytes + 1 - total))
                    packed = inflater.unconsumed_tail
                    total += len(piece)
                    if total > self._max_bytes:
                        raise self._too_large()
                    pieces.append(piece)
                    if not piece and not packed and not inflater.eof:
                        raise Refusal(400, "the packed body ends too early.", field="content-encoding")
                packed = inflater.unused_data
        except zlib.error as error:
            raise Refusal(400, f"the body cannot be unpacked: {error}.", field="content-encoding") from error
        return pieces

    def _too_large(self) -> Refusal:
        return Refusal(
            413,
            f"the body has more than {self._max_bytes} bytes.",
            field="body",
            fix="Send fewer at once, or raise 'collector.intake.max_body_bytes'.",
        )
