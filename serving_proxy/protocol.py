"""The server side: HTTP/1.1 on one client connection. Data-plane paths are handled here, everything else
by ASGI.

A subclass of uvicorn's httptools protocol, which keeps connection handling, ASGI and graceful shutdown in
well-worn code. The parser's callbacks only collect; work starts after the parser has returned, one
request at a time and in order, so that pipelined requests are answered in order and an error of ours
never looks like one of the client's.

A client that closes its sending side is taken to have left (nginx and Go do the same): there is no
telling the two apart, and a backend's time is dear. Upgrades to other protocols are ignored, as RFC 9110
§7.8 allows, because some HTTP clients offer HTTP/2 on every first request.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import Any, Final, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from serving_proxy.data_plane import DataPlane
from serving_proxy.failure import Failure
from serving_proxy.relay import Relay
from serving_proxy.request import Request
from serving_proxy.target import OPENAI, find_target

_LINGER_S: Final = 2.0
_LINGER_BYTES: Final = 4 << 20
_UPGRADE_HEADERS: Final = frozenset((b"upgrade", b"connection", b"http2-settings"))


class DataPlaneProtocol(HttpToolsProtocol):
    """One client connection. Subclass with ``data_plane`` set to serve it."""

    # CPython 3.11 loses its fast path for instances with more than 30 attributes in their dict.
    __slots__ = (
        *("deadline", "_limits", "_waiting", "_reading", "_relay", "_cycle", "_in_head", "_head_bytes"),
        *("_upgrade_offered", "_problem", "_lingering", "_lingered_bytes", "_stopping", "_advancing"),
    )
    data_plane: DataPlane

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.deadline = math.inf
        self._limits = self.data_plane.limits
        self._waiting: deque[Request | tuple[RequestResponseCycle, ASGI3Application]] = deque()
        self._reading: Request | None = None
        self._relay: Relay | None = None
        self._cycle: RequestResponseCycle | None = None
        self._in_head = False
        self._head_bytes = 0
        self._upgrade_offered = False
        self._problem: Failure | None = None
        self._lingering = False
        self._lingered_bytes = 0
        self._stopping = False
        self._advancing = False

    # What the transport tells.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self.deadline = self.data_plane.horizon_s + self._limits.keep_alive_s

    def connection_lost(self, exc: Exception | None) -> None:
        self.deadline = math.inf
        self._waiting.clear()
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.client_left()
        cycle, self._cycle = self._cycle, None
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._relay is not None:
            self._relay.client_paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._relay is not None:
            self._relay.client_resumed()

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            self._lingered_bytes += len(data)
            if self._lingered_bytes > _LINGER_BYTES:
                self.transport.abort()
            return
        if self._problem is not None:
            return
        was_in_head = self._in_head
        self._head_bytes = self._head_bytes + len(data) if was_in_head else len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_without_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._problem = Failure("invalid_request", 400, f"This is not a valid HTTP/1.1 request: {error}.")
        if was_in_head and self._in_head and self._head_bytes > self._limits.max_header_bytes:
            self._problem = self._headers_too_large()
        self._advance()

    # What the parser tells.
    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._in_head = True
        self.deadline = self.data_plane.horizon_s + self._limits.header_timeout_s

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self.deadline = math.inf
        fields = dict(self.headers)
        if b"transfer-encoding" in fields and fields[b"transfer-encoding"].lower() != b"chunked":
            # Nobody knows where such a body ends (RFC 9112 §6.1), so the next request may be part of it.
            self._problem = Failure("invalid_request", 400, "Use no Transfer-Encoding but 'chunked'.")
            return
        parser = self.parser
        if parser.should_upgrade():
            self._upgrade_offered = True
            return
        if self._head_bytes > self._limits.max_header_bytes and self._head_is_too_large():
            return
        if b"expect" in fields:
            self.expect_100_continue = fields[b"expect"].lower() == b"100-continue"
        target = find_target(self.url)
        if target is None:
            self._reading = None
            self._begin_asgi()
            return
        keep_alive = parser.should_keep_alive()
        # Only a request that asks to close, or names its connection, can be of HTTP/1.0.
        is_http10 = (not keep_alive or b"connection" in fields) and parser.get_http_version() == "1.0"
        request = Request(
            target,
            parser.get_method(),
            self.headers,
            fields,
            is_http10,
            keep_alive,
            self.expect_100_continue,
        )
        if b"content-length" in fields and int(fields[b"content-length"]) > self._limits.max_body_bytes:
            request.failure = self._body_too_large()
        self._reading = request
        self._waiting.append(request)

    def on_body(self, body: bytes) -> None:
        request = self._reading
        if request is None:
            if self._problem is None:
                super().on_body(body)
            return
        request.size += len(body)
        if request.failure is None:
            if request.size > self._limits.max_body_bytes:
                request.pieces.clear()
                request.failure = self._body_too_large()
            else:
                request.pieces.append(body)

    def on_message_complete(self) -> None:
        if self._upgrade_offered or self._problem is not None:
            return
        request = self._reading
        if request is None:
            super().on_message_complete()
            return
        self._reading = None
        request.finish()

    # What an answer asks for (request.Client).
    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():  # uvloop raises when it is closed, before connection_lost says so
            self.transport.write(data)

    def finished(self, *, close: bool) -> None:
        self._relay = None
        self.server_state.total_requests += 1
        self._next(close=close)

    def cut(self) -> None:
        relay, self._relay = self._relay, None
        if relay is not None and relay.request.is_http10:
            self.transport.abort()  # its only other sign of an end is the end of the connection
        else:
            self._close()

    def abort(self) -> None:
        self.transport.abort()

    # What uvicorn asks for.
    def on_response_complete(self) -> None:
        self._cycle = None
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self._next(close=False)

    def shutdown(self) -> None:
        """Finish what has begun, then close."""
        self._stopping = True
        if self._relay is not None:
            self._relay.request.keep_alive = False
        elif self._cycle is not None:
            self._cycle.keep_alive = False
        elif not self._waiting:
            self._close()

    def on_deadline(self) -> None:
        """The client was too slow, or idle for too long."""
        self.deadline = math.inf
        if self._lingering or self.transport.is_closing():
            self.transport.abort()
        elif self._in_head and self._relay is None and self._cycle is None:
            self._problem = Failure("invalid_request", 408, "The request's headers took too long to arrive.")
            self._advance()
        elif self._waiting and isinstance(request := self._waiting[0], Request):
            request.failure = Failure("invalid_request", 408, "The request's body took too long to arrive.")
            self._advance()
        elif self._relay is None and self._cycle is None:
            self._close()

    # One request after the other.
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._waiting.append((cycle, app))

    def _begin_asgi(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url = url
        self.headers.extend(headers)
        self.expect_100_continue = expects
        super().on_headers_complete()
        if self.pipeline:  # the base class queues behind its own requests only
            self._waiting.append(self.pipeline.pop())

    def _advance(self) -> None:
        if self._advancing:
            return
        self._advancing = True
        waiting = self._waiting
        while waiting and self._relay is None and self._cycle is None and not self.transport.is_closing():
            entry = waiting[0]
            if isinstance(entry, Request):
                if not entry.complete and entry.failure is None:
                    self._await_body(entry)
                    break
                waiting.popleft()
                self._start(entry)
            else:
                waiting.popleft()
                self._cycle = entry[0]
                super()._start_asgi_task(*entry)
        self._advancing = False
        if self._relay is None and self._cycle is None:
            if self._problem is not None and not waiting:
                self._refuse(self._problem)
            if self.flow.read_paused:
                self.flow.resume_reading()
        elif waiting:
            self.flow.pause_reading()

    def _start(self, request: Request) -> None:
        self.deadline = math.inf
        if self._stopping:
            request.keep_alive = False
        if request.method != b"POST":
            self._answer_method(request)
            return
        if not request.complete:
            request.keep_alive = False
        relay = self.data_plane.invoke(self, request)
        if relay.client is self:  # not answered already
            self._relay = relay

    def _await_body(self, request: Request) -> None:
        if self.deadline == math.inf:
            self.deadline = self.data_plane.horizon_s + self._limits.body_timeout_s
        if request.expects_continue and not request.size:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.expects_continue = False

    def _next(self, *, close: bool) -> None:
        if close or self._stopping:
            self._close()
            return
        self.deadline = self.data_plane.horizon_s + self._limits.keep_alive_s
        if self._waiting or self._problem is not None or self.flow.read_paused:
            self._advance()

    def _close(self) -> None:
        """Close; with input still on its way, after taking it in, or a reset could destroy the answer."""
        self._waiting.clear()
        if self._reading is None and self._problem is None:
            self.deadline = self.data_plane.horizon_s + self._limits.slow_reader_s
            self.transport.close()
            return
        self._lingering = True
        self.deadline = self.data_plane.horizon_s + _LINGER_S
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()

    def _read_without_upgrade(self, rest: bytes) -> None:
        """Read the request again as if no upgrade had been offered; the parser took its body for
        something else.
        """
        method = self.parser.get_method()
        self._upgrade_offered = False
        self._in_head = False
        self.parser = httptools.HttpRequestParser(self)
        if method == b"CONNECT":
            self._problem = Failure("invalid_request", 400, "CONNECT is not supported.", "method")
            self._advance()
            return
        lines = [b"%b: %b\r\n" % field for field in self.headers if field[0] not in _UPGRADE_HEADERS]
        self.data_received(b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, self.url, b"".join(lines), rest))

    def _answer_method(self, request: Request) -> None:
        """Only POST is an invocation; other methods are told so and leave no record."""
        if request.method == b"OPTIONS":
            self._write_plain(204, b"", close=not request.keep_alive, allow=True)
        else:
            text = f"Use POST here, not {request.method.decode()}."
            body = request.target.dialect.error(Failure("invalid_request", 405, text, "method"))
            close = not request.keep_alive or not request.complete
            self._write_plain(405, body, close=close, allow=True, bodiless=request.method == b"HEAD")
        self._next(close=not request.keep_alive or not request.complete)

    def _refuse(self, failure: Failure) -> None:
        """Answer what is not a request, and close."""
        if not self._lingering:
            self._write_plain(failure.status, OPENAI.error(failure), close=True)
            self._close()

    def _write_plain(
        self, status: int, body: bytes, *, close: bool, allow: bool = False, bodiless: bool = False
    ) -> None:
        parts = [STATUS_LINE[status]]
        parts += [b"%b: %b\r\n" % field for field in self.server_state.default_headers]
        if allow:
            parts.append(b"allow: POST, OPTIONS\r\n")
        if status != 204:
            parts.append(b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body))
        parts.append(b"connection: close\r\n\r\n" if close else b"\r\n")
        if not bodiless:
            parts.append(body)
        self.write(b"".join(parts))

    def _head_is_too_large(self) -> bool:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._limits.max_header_bytes:
            self._problem = self._headers_too_large()
        return self._problem is not None

    def _headers_too_large(self) -> Failure:
        limit = self._limits.max_header_bytes
        return Failure("invalid_request", 431, f"The request's headers are larger than {limit} bytes.")

    def _body_too_large(self) -> Failure:
        limit = self._limits.max_body_bytes
        return Failure("body_too_large", 413, f"The request body is larger than {limit} bytes.", "body")
