"""The client side: pooled connections to backends, as callbacks on the event loop.

One connection carries one request at a time. It goes back to its pool only after a complete answer that
allows it, with nothing left over; whatever else happens, it is closed. A listener hears exactly one of
``on_end`` and ``on_lost``, and nothing after :meth:`Connection.abandon`.

Source: RFC 9112 (HTTP/1.1 messages; §6.3 message length, §9.3 persistence).
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol, cast

import httptools

from serving_proxy.answer_head import header_lines
from serving_proxy.plain_chunk import chunk_data
from serving_proxy.repeated_head import RepeatedHead

if TYPE_CHECKING:
    from serving_proxy.replicas import Replica

Headers = list[tuple[bytes, bytes]]
Fields = dict[bytes, bytes]

_EMPTY_STATUS: Final = (204, 304)
_MAX_WITHOUT_BODY: Final = 256 * 1024


class Loss(Enum):
    """How an attempt failed below HTTP, or by not being HTTP."""

    STALE = "a kept-alive connection turned out to be closed before the answer began"
    REFUSED = "did not accept a connection"
    SLOW_CONNECT = "did not accept a connection in time"
    SILENT = "sent nothing for too long"
    RESET = "closed the connection before the end of its answer"
    INVALID = "sent something that is not HTTP"


class AnswerHead:
    """Status and fields of an answer. A connection's next answer with the same head, but for its length, uses
    the object again.
    """

    __slots__ = ("content_encoding", "fields", "headers", "is_event_stream", "lines", "status")

    def __init__(self, status: int, headers: Headers, fields: Fields) -> None:
        self.status = status
        self.headers = headers
        self.fields = fields
        self.content_encoding = fields.get(b"content-encoding")
        self.is_event_stream = fields.get(b"content-type", b"").lower().startswith(b"text/event-stream")
        self.lines = header_lines(headers)
        """The fields as they go to a client."""


class Listener(Protocol):
    """Who is told about one attempt's answer, always on the loop's thread."""

    def on_sent(self, connection: Connection) -> None: ...
    def on_head(self, head: AnswerHead, length: int | None) -> None: ...
    def on_data(self, data: bytes) -> None: ...
    def on_chunk(self, data: bytes, framed: bytes) -> None:
        """The same as ``on_data``, of a chunk that is also given as it came."""
        ...

    def on_end(self) -> None: ...
    def on_whole(self, head: AnswerHead, body: bytes) -> None:
        """All three at once, for an answer with status 200 that came in one piece."""
        ...

    def on_lost(self, loss: Loss, detail: str) -> None: ...


class Connection(asyncio.Protocol):
    """One connection to a backend."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._listener: Listener | None = None
        self._reused = False
        self._paused = False
        self._fields: Fields = {}
        self._reset()

    def _reset(self) -> None:
        self._begun = False
        self._head_done = False
        self._complete = False
        self._keep_alive = False
        self._left_over = False
        self._until_close = False
        self._interim = False
        self._without_body = 0  # bytes since the last of a body: heads, chunk extensions, trailers
        self._status = 0
        self._headers: Headers = []
        self._length: int | None = None
        self._pieces: list[bytes] = []
        self._chunk_ended = False
        self._between_chunks = False

    def send(self, request: bytes, listener: Listener) -> None:
        """Send a whole request; the connection must be idle."""
        assert self._transport is not None
        self._listener = listener
        self.replica.outstanding += 1
        listener.on_sent(self)
        self._transport.write(request)

    def is_open(self) -> bool:
        """Whether a request can be written: a transport closes some time before it says so."""
        return self._transport is not None and not self._transport.is_closing()

    def pause(self) -> None:
        """Take no more of the answer from the backend until :meth:`resume`."""
        if not self._paused and self._transport is not None and self.is_open():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._transport is not None and self.is_open():
            self._paused = False
            self._transport.resume_reading()

    def abandon(self) -> None:
        """Close at once; the listener hears nothing more."""
        self._take_listener()
        if self._transport is not None:
            self._transport.abort()

    # The transport's callbacks.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        listener = self._listener
        if listener is None:  # bytes that nobody asked for
            self.abandon()
            return
        if self._between_chunks:
            chunk = chunk_data(data)
            if chunk is not None:
                listener.on_chunk(chunk, data)
                return
        if not self._begun:
            repeated = self.replica.repeated
            if repeated is not None:
                body = repeated.body_of(data)
                if body is not None:
                    self._take_whole(listener, repeated.head, body)
                    return
        was_begun = self._begun
        self._begun = True
        head_was_done = self._head_done
        problem = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            problem = str(error)
        except httptools.HttpParserUpgrade:
            problem = "it switched to another protocol"
        self._between_chunks = self._chunk_ended and data.endswith(b"\r\n")  # not in the next one's size
        if not self._pieces and not self._complete:
            self._without_body += len(data)
            if self._without_body > _MAX_WITHOUT_BODY and problem is None:
                problem = f"its headers are larger than {_MAX_WITHOUT_BODY} bytes"
        if self._head_done and not head_was_done:
            head = AnswerHead(self._status, self._headers, self._fields)
            if not was_begun and self._complete and problem is None and self._may_repeat():
                self.replica.repeated = RepeatedHead.of(data, head)
            listener.on_head(head, self._length)
        pieces = self._pieces
        if pieces:
            self._pieces = []
            self._without_body = 0
            if self._listener is listener:
                listener.on_data(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._listener is not listener:
            return
        if self._complete:
            self._release(reusable=self._keep_alive and not self._left_over and problem is None)
            listener.on_end()
        elif problem is not None:
            self.abandon()
            listener.on_lost(Loss.INVALID, problem)

    def _take_whole(self, listener: Listener, head: AnswerHead, body: bytes) -> None:
        """A complete answer whose head is known. The parser has seen nothing of it: there is nothing to reset."""
        self._listener = None
        replica = self.replica
        replica.outstanding -= 1
        if replica.awaited_by:
            replica.freed()
        if self._has_sent_all():
            self._reused = True
            if self._paused:
                self.resume()
            replica.put(self)
        else:
            self.abandon()
        listener.on_whole(head, body)

    def _may_repeat(self) -> bool:
        return self._status == 200 and self._keep_alive and not (self._left_over or self._interim)

    def connection_lost(self, exc: Exception | None) -> None:
        self.replica.forget(self)
        listener = self._take_listener()
        if listener is None:
            return
        if self._until_close and exc is None:
            listener.on_end()
        elif self._reused and not self._begun:
            listener.on_lost(Loss.STALE, str(exc or "closed"))
        else:
            listener.on_lost(Loss.RESET, str(exc or "closed"))

    # The parser's callbacks.
    def on_message_begin(self) -> None:
        if self._complete:
            self._left_over = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # else a trailer, which may not be taken for a header (RFC 9110 §6.5.1)
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:  # an interim answer; the real one follows
            self._headers = []
            self._interim = True
            return
        self._status = status
        self._head_done = True
        self._fields = fields = dict(self._headers)
        if b"content-length" in fields:
            self._length = int(fields[b"content-length"])
        elif b"transfer-encoding" not in fields and status not in _EMPTY_STATUS:
            self._until_close = True

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._pieces.append(body)

    def on_chunk_header(self) -> None:
        self._chunk_ended = False

    def on_chunk_complete(self) -> None:
        self._chunk_ended = True

    def on_message_complete(self) -> None:
        self._chunk_ended = False
        if self._head_done and not self._complete:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()

    def _take_listener(self) -> Listener | None:
        listener, self._listener = self._listener, None
        if listener is not None:
            replica = self.replica
            replica.outstanding -= 1
            if replica.awaited_by:
                replica.freed()
        return listener

    def _has_sent_all(self) -> bool:
        """Whether the connection is open and carries nothing more: an answer can come before its request has
        been read.
        """
        transport = self._transport
        return transport is not None and not transport.is_closing() and not transport.get_write_buffer_size()

    def _release(self, *, reusable: bool) -> None:
        self._take_listener()
        if reusable and self._has_sent_all():
            self._reset()
            self._reused = True
            if self._paused:
                self.resume()
            self.replica.put(self)
        else:
            self.abandon()
