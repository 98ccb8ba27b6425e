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
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from serving_proxy.data_plane import DataPlane
from serving_proxy.failure import Failure
from serving_proxy.plain_answer import body_too_large, headers_too_large, method_answer, plain_answer
from serving_proxy.relay import Relay
from serving_proxy.repeated_head import RepeatedHead
from serving_proxy.request import Request, RequestHead
from serving_proxy.request_framing import head_size, is_chunked_once
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
        *("_at_rest", "_repeatable", "_repeated", "_plane"),
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
        self._plane = self.data_plane
        self._limits = self._plane.limits
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
        self._at_rest = True  # the parser is between two messages
        self._repeatable: RequestHead | None = None
        self._repeated: RepeatedHead[RequestHead] | None = None

    # What the transport tells.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self.deadline = self._plane.horizon_s + self._limits.keep_alive_s

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
        repeated = self._repeated
        if repeated is not None and self._relay is None and self._at_rest and not self._waiting:
            body = repeated.body_of(data)
            if body is not None and len(body) <= self._limits.max_body_bytes:
                self._start(Request(repeated.head, True, None, True, False, len(body), body))
                return
        if self._lingering:
            self._lingered_bytes += len(data)
            if self._lingered_bytes > _LINGER_BYTES:
                self.transport.abort()
            return
        if self._problem is not None:
            return
        was_at_rest = self._at_rest
        self._head_bytes = len(data) if was_at_rest else self._head_bytes + len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_without_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            if self._problem is None:
                text = f"This is not a valid HTTP/1.1 request: {error}."
                self._break_off(Failure("invalid_request", 400, text))
        if self._repeatable is not None:
            if was_at_rest and self._at_rest and self._problem is None:
                self._repeated = RepeatedHead.of(data, self._repeatable)
            self._repeatable = None
        if self._head_bytes > self._limits.max_header_bytes and not (was_at_rest or self._at_rest):
            self._break_off(headers_too_large(self._limits.max_header_bytes))
        self._advance()

    # What the parser tells.
    def on_message_begin(self) -> None:
        if self._problem is not None:
            return
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._in_head = True
        self._at_rest = False
        self._repeated = None
        self.deadline = self._plane.horizon_s + self._limits.header_timeout_s

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else a trailer, which may not be taken for a header (RFC 9110 §6.5.1)
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._problem is not None:
            return
        self._in_head = False
        self.deadline = math.inf
        fields = dict(self.headers)
        if b"transfer-encoding" in fields and not is_chunked_once(self.headers):
            # Nobody knows where such a body ends (RFC 9112 §6.1), so the next request may be part of it.
            self._problem = Failure("invalid_request", 400, "Use no Transfer-Encoding but 'chunked'.")
            return
        parser = self.parser
        if parser.should_upgrade():
            self._upgrade_offered = True
            return
        limit = self._limits.max_header_bytes
        if self._head_bytes > limit and head_size(self.url, self.headers) > limit:
            self._problem = headers_too_large(limit)
            return
        if b"expect" in fields:
            self.expect_100_continue = fields[b"expect"].lower() == b"100-continue"
        target = find_target(self.url)
        if target is None:
            self._reading = None
            self._begin_asgi()
            self.deadline = self._plane.horizon_s + self._limits.body_timeout_s
            return
        keep_alive = parser.should_keep_alive()
        # Only a request that asks to close, or names its connection, can be of another version.
        version = parser.get_http_version() if not keep_alive or b"connection" in fields else "1.1"
        if version not in ("1.0", "1.1"):
            self._problem = Failure("invalid_request", 400, f"Use HTTP/1.1, not HTTP/{version}.")
            return
        head = RequestHead(target, parser.get_method(), self.headers, fields, version == "1.0", keep_alive)
        request = Request(head, keep_alive, expects_continue=self.expect_100_continue)
        if b"content-length" in fields and int(fields[b"content-length"]) > self._limits.max_body_bytes:
            request.failure = body_too_large(self._limits.max_body_bytes)
        self._reading = request
        self._waiting.append(request)

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0  # what counts is what comes without a body: heads, chunk extensions, trailers
        request = self._reading
        if request is None:
            if self._problem is None:
                super().on_body(body)
            return
        request.size += len(body)
        if request.failure is None:
            if request.size > self._limits.max_body_bytes:
                request.pieces.clear()
                request.failure = body_too_large(self._limits.max_body_bytes)
            else:
                pieces = request.pieces
                pieces.append(body)
                if len(pieces) > 1024 + (request.size >> 6):  # a body of tiny chunks
                    request.pieces = [b"".join(pieces)]

    def on_message_complete(self) -> None:
        if self._upgrade_offered or self._problem is not None:
            return
        self._at_rest = True
        request = self._reading
        if request is None:
            super().on_message_complete()
            if self._cycle is not None:
                self.deadline = math.inf
            return
        self._reading = None
        request.finish()
        head = request.head
        if request.failure is None and head.keep_alive and b"expect" not in head.fields:
            self._repeatable = head

    # What an answer asks for (request.Client).
    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():  # uvloop raises when it is closed, before connection_lost says so
            self.transport.write(data)

    def finished(self, *, close: bool) -> None:
        self._relay = None
        self._next(close=close)

    def cut(self) -> None:
        relay, self._relay = self._relay, None
        if relay is not None and relay.request.head.is_http10:
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
        elif self._relay is not None:
            return
        elif self._cycle is not None:
            if self._cycle.more_body:
                self._close()
        elif self._in_head:
            self._problem = Failure("invalid_request", 408, "The request's headers took too long to arrive.")
            self._advance()
        elif self._waiting and isinstance(request := self._waiting[0], Request):
            request.failure = Failure("invalid_request", 408, "The request's body took too long to arrive.")
            self._advance()
        else:
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
        if request.head.method != b"POST":
            self._answer_method(request)
            return
        if not request.complete:
            request.keep_alive = False
        relay = self._plane.invoke(self, request)
        if relay.client is self:  # not answered already
            self._relay = relay

    def _await_body(self, request: Request) -> None:
        if self.deadline == math.inf:
            self.deadline = self._plane.horizon_s + self._limits.body_timeout_s
        if request.expects_continue and not request.size:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.expects_continue = False

    def _next(self, *, close: bool) -> None:
        if close or self._stopping:
            self._close()
            return
        self.deadline = self._plane.horizon_s + self._limits.keep_alive_s
        if self._waiting or self._problem is not None or self.flow.read_paused:
            self._advance()

    def _close(self) -> None:
        """Close; with input still on its way, after taking it in, or a reset could destroy the answer."""
        self._waiting.clear()
        if self._at_rest and self._problem is None:
            self.deadline = self._plane.horizon_s + self._limits.slow_reader_s
            self.transport.close()
            return
        self._lingering = True
        self.deadline = self._plane.horizon_s + _LINGER_S
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()

    def _break_off(self, failure: Failure) -> None:
        """What is being read will have no end: it is no request, nor is anything behind it."""
        in_body = not (self._at_rest or self._in_head)
        waiting = self._waiting
        self._at_rest = False
        self._problem = failure
        if in_body and waiting and (waiting[-1] is self._reading or self._reading is None):
            waiting.pop()
        elif in_body and self._cycle is not None:
            self.transport.close()  # its answer may have begun

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
        close = not request.keep_alive or not request.complete
        self.write(method_answer(request, self.server_state.default_headers, close=close))
        self._next(close=close)

    def _refuse(self, failure: Failure) -> None:
        """Answer what is not a request, and close."""
        if not self._lingering:
            headers = self.server_state.default_headers
            self.write(plain_answer(failure.status, OPENAI.error(failure), headers, close=True))
            self._close()
