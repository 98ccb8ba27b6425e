"""The client side: pooled connections to backends, as callbacks on the event loop.

One connection carries one request at a time. It goes back to its pool only after a complete answer that
allows it, with nothing left over; whatever else happens, it is closed. A listener hears exactly one of
``on_end`` and ``on_lost``, and nothing after :meth:`Connection.abandon`.

Source: RFC 9112 (HTTP/1.1 messages; §6.3 message length, §9.3 persistence).
"""

from __future__ import annotations

import asyncio
import ssl
from enum import Enum
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

import httptools

Headers = list[tuple[bytes, bytes]]
Fields = dict[bytes, bytes]

_EMPTY_STATUS: Final = (204, 304)
_BARE_BASE: Final = {b"/invocations": b""}


class Loss(Enum):
    """How an attempt failed below HTTP, or by not being HTTP."""

    STALE = "a kept-alive connection turned out to be closed before the answer began"
    REFUSED = "did not accept a connection"
    SLOW_CONNECT = "did not accept a connection in time"
    RESET = "closed the connection before the end of its answer"
    INVALID = "sent something that is not HTTP"


class Listener(Protocol):
    """Who is told about one attempt's answer, always on the loop's thread."""

    def on_sent(self, connection: Connection) -> None: ...
    def on_head(self, status: int, headers: Headers, fields: Fields, length: int | None) -> None: ...
    def on_data(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
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
        self._status = 0
        self._headers: Headers = []
        self._length: int | None = None
        self._pieces: list[bytes] = []

    def send(self, request: bytes, listener: Listener) -> None:
        """Send a whole request; the connection must be idle."""
        assert self._transport is not None
        self._listener = listener
        self.replica.outstanding += 1
        listener.on_sent(self)
        self._transport.write(request)

    @property
    def is_open(self) -> bool:
        """Whether a request can be written: a transport closes some time before it says so."""
        return self._transport is not None and not self._transport.is_closing()

    def pause(self) -> None:
        """Take no more of the answer from the backend until :meth:`resume`."""
        if not self._paused and self._transport is not None and self.is_open:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._transport is not None and self.is_open:
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
        self._begun = True
        head_was_done = self._head_done
        problem = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            problem = str(error)
        except httptools.HttpParserUpgrade:
            problem = "it switched to another protocol"
        if self._head_done and not head_was_done:
            listener.on_head(self._status, self._headers, self._fields, self._length)
        pieces = self._pieces
        if pieces:
            self._pieces = []
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
        if not self._complete:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:  # an interim answer; the real one follows
            self._headers = []
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

    def on_message_complete(self) -> None:
        if self._head_done and not self._complete:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()

    def _take_listener(self) -> Listener | None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self.replica.outstanding -= 1
        return listener

    def _release(self, *, reusable: bool) -> None:
        self._take_listener()
        if reusable and self.is_open:
            self._reset()
            self._reused = True
            if self._paused:
                self.resume()
            self.replica.put(self)
        else:
            self.abandon()


class Replica:
    """One address of a backend with its idle connections and the number of requests outstanding."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop, max_idle: int) -> None:
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        host = parts.hostname or ""
        self.url = url
        self.authority = parts.netloc.rpartition("@")[2].encode()
        self.base_path = parts.path.rstrip("/").encode()
        self.outstanding = 0
        self._host = host
        self._port = parts.port or (443 if tls else 80)
        self._ssl = ssl.create_default_context() if tls else None
        self._loop = loop
        self._max_idle = max_idle
        self._starts: dict[tuple[bytes, str | None], bytes] = {}
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()

    def start_of(self, operation: bytes, api_key: str | None) -> bytes:
        """The head of a request up to what differs between invocations.

        An OpenAI-compatible server at a bare address serves below ``/v1``. Compression is refused, because chunks
        are passed on and kept as they come.
        """
        start = self._starts.get((operation, api_key))
        if start is None:
            path = (self.base_path or _BARE_BASE.get(operation, b"/v1")) + operation
            start = b"POST %b HTTP/1.1\r\nhost: %b\r\naccept-encoding: identity\r\n" % (path, self.authority)
            if api_key is not None:
                start += b"authorization: Bearer %b\r\n" % api_key.encode()
            self._starts[operation, api_key] = start
        return start

    def take(self) -> Connection | None:
        """The idle connection used last, which is the one least likely to have been closed over there."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.is_open:
                return connection
        return None

    async def connect(self, timeout_s: float) -> Connection | tuple[Loss, str]:
        """A new connection, or how it failed."""
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self), self._host, self._port, ssl=self._ssl
                )
        except TimeoutError:
            return Loss.SLOW_CONNECT, f"within {timeout_s:g} s"
        except OSError as error:
            return Loss.REFUSED, str(error)
        self._all.add(connection)
        return connection

    def put(self, connection: Connection) -> None:
        if len(self._idle) >= self._max_idle:
            connection.abandon()
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close_idle(self, before: float) -> None:
        """Close connections that have been idle since before that loop time."""
        for connection in [each for each in self._idle if each.idle_since < before]:
            connection.abandon()

    def close(self) -> None:
        """Close every connection, busy ones too."""
        for connection in list(self._all):
            connection.abandon()


class Upstreams:
    """All replicas by address. They outlive snapshots, so a change of routes keeps connections warm."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, max_idle: int = 512, idle_s: float = 60.0) -> None:
        self.loop = loop
        self._max_idle = max_idle
        self._idle_s = idle_s
        self._replicas: dict[str, Replica] = {}

    def pick(self, urls: tuple[str, ...], tried: frozenset[str] = frozenset()) -> Replica | None:
        """The replica with the fewest requests outstanding that has not been tried yet."""
        if len(urls) == 1:
            return None if tried else self._replica(urls[0])
        candidates = [self._replica(url) for url in urls if url not in tried]
        return min(candidates, key=lambda replica: replica.outstanding) if candidates else None

    def close_idle(self) -> None:
        """Close what nobody has used for a while. Called now and then."""
        before = self.loop.time() - self._idle_s
        for replica in self._replicas.values():
            replica.close_idle(before)

    def close(self) -> None:
        for replica in self._replicas.values():
            replica.close()

    def _replica(self, url: str) -> Replica:
        replica = self._replicas.get(url)
        if replica is None:
            replica = self._replicas[url] = Replica(url, self.loop, self._max_idle)
        return replica
