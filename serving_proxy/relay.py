"""The answer on its way from the backend to the client, and the bounded copy of it that is kept.

Invariants. Exactly one record per invocation. The record is durable before the client can tell that the
answer is complete: a whole answer is held until then, of a longer one the last piece, of a stream the event
``[DONE]`` (clients stop reading there) or the end of the body. An answer that breaks off is never ended
properly, so a client notices. When the client does not read, the backend is not read either; when it has
left, the rest is taken in within ``drain_bytes`` and ``drain_s``, so that the record is as whole as can be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from servelens.errors import ServelensError
from serving_proxy.answer_head import answer_head, without_named
from serving_proxy.event_end import EventEnd
from serving_proxy.failure import ANSWER_TO, Failure, lateness
from serving_proxy.first_token import carries_token
from serving_proxy.invocation import Invocation, Origin
from serving_proxy.request import Client, Request
from serving_proxy.routing import Choice
from serving_proxy.upstream import Connection, Fields, Headers, Loss, Replica

if TYPE_CHECKING:
    from serving_proxy.data_plane import DataPlane

CLIENT_LEFT: Final = 499
DEFAULT_PAYLOAD_LIMIT: Final = 1 << 20
_HOLD_BYTES: Final = 64 * 1024
_AFTER_DONE_S: Final = 1.0
_WITHOUT_BODY: Final = (204, 304)
_JSON: Final[Headers] = [(b"content-type", b"application/json")]
_skim_json = msgspec.json.Decoder(msgspec.defstruct("_Anything", [])).decode


@dataclass(slots=True, eq=False)  # slots: class defaults and an instance dict cost microseconds here
class Relay:
    """One invocation from its first byte to its record. Listens to the backend and writes to the client."""

    _plane: DataPlane
    client: Client | None
    request: Request
    request_id: str
    origin: Origin
    started_s: float
    request_time_us: int
    drain_left: int
    invocation: Invocation | None = None
    choice: Choice | None = None
    replica: Replica | None = None
    tried: frozenset[str] = frozenset()
    operation: bytes = b""
    outgoing: bytes = b""
    attempts: int = 0
    deadline: float = math.inf
    total_deadline: float = math.inf
    payload_limit: int = DEFAULT_PAYLOAD_LIMIT
    status: int = 0
    error_type: str | None = None
    is_stream: bool = False
    client_disconnected: bool = False
    first_token_s: float | None = None
    recorded: bool = False
    kept: list[bytes] | None = field(default_factory=list)
    content_encoding: bytes | None = None  # of the kept copy, when the backend compressed it unasked
    _held: list[bytes] = field(default_factory=list)
    _held_bytes: int = 0
    _kept_bytes: int = 0
    _connection: Connection | None = None
    _headers: Headers = field(default_factory=list)
    _length: int | None = None
    _event_end: EventEnd | None = None
    _idle_s: float = math.inf
    _head_released: bool = False
    _released: bool = False
    _ended: bool = False
    _cut: bool = False
    _chunked: bool = False
    _paused: bool = False

    # What the backend does.
    def on_sent(self, connection: Connection) -> None:
        self._connection = connection
        assert self.choice is not None
        timeouts = self.choice.entity.backend.timeouts
        self._idle_s = timeouts.idle_s
        self.deadline = self._plane.horizon_s + timeouts.first_byte_s

    def on_head(self, status: int, headers: Headers, fields: Fields, length: int | None) -> None:
        self.status = status
        self._length = length
        connection = fields.get(b"connection")
        self._headers = headers if connection is None else without_named(headers, connection)
        self.content_encoding = fields.get(b"content-encoding")
        if status >= 400:
            self.error_type = "upstream_status"
        if fields.get(b"content-type", b"").lower().startswith(b"text/event-stream"):
            self.is_stream = True
            self._length = None  # so that the end is not visible before it is released
            self._event_end = EventEnd()
            self._release_head()

    def on_data(self, data: bytes) -> None:
        if self.kept is not None and not self.recorded:
            self._kept_bytes += len(data)
            if self._kept_bytes > self.payload_limit:
                self.kept = None
            else:
                self.kept.append(data)
        if self.client is None:
            self.drain_left -= len(data)
            if self.drain_left < 0:
                self.give_up()
            return
        if not self.recorded and not self._paused:
            self.deadline = self._plane.horizon_s + self._idle_s
        if self._event_end is not None:
            self._on_event_data(data)
        else:
            self._held.append(data)
            self._held_bytes += len(data)
            if self._held_bytes > _HOLD_BYTES and len(self._held) > 1:
                self._release_all_but_last()

    def on_end(self) -> None:
        self._connection = None
        self._ended = True
        if self.recorded:
            if self._released:
                self._release_end()
        elif self._is_garbage():
            start = b"".join(self._held)[:80].decode("utf-8", "replace")
            self.fail(
                self._upstream_failure("upstream_invalid", 502, f"answered 200 without JSON: {start!r}")
            )
        else:
            self._finish()

    def on_lost(self, loss: Loss, detail: str) -> None:
        self._connection = None
        if self.recorded:  # after [DONE]: nothing is missing
            self._ended = True
            if self._released:
                self._release_end()
        elif loss in (Loss.STALE, Loss.REFUSED, Loss.SLOW_CONNECT) and self._plane.retry(self, loss):
            return
        else:
            self.fail(self._upstream_failure(*ANSWER_TO[loss], f"{loss.value} ({detail})"))

    # What the client does.
    def client_left(self) -> None:
        """The client's connection is gone; the record is still owed."""
        self.client = None
        self._held.clear()
        if self.recorded:
            if self._connection is not None:
                self._abandon()
            self._plane.done(self)
            return
        self.client_disconnected = True
        self.error_type = self.error_type or "client_disconnected"
        if self._connection is not None:
            self._connection.resume()
        self._paused = False
        self.deadline = self._plane.horizon_s + self._plane.limits.drain_s

    def client_paused(self) -> None:
        """The client reads more slowly than the backend writes."""
        self._paused = True
        if self._connection is not None:
            self._connection.pause()
        if not self.recorded:
            self.deadline = self._plane.horizon_s + self._plane.limits.slow_reader_s

    def client_resumed(self) -> None:
        self._paused = False
        if self._connection is not None:
            self._connection.resume()
        if not self.recorded:
            self.deadline = self._plane.horizon_s + self._idle_s

    # What time does.
    def on_deadline(self) -> None:
        """The thing waited for did not happen."""
        self.deadline = math.inf
        if self.recorded:
            if not self._released:
                self._log_too_slow()
            elif not self._ended:  # a backend that goes on after [DONE]
                self._abandon()
                self._ended = True
                self._release_end()
        elif self.client is None:
            self.give_up()
        elif self._paused and self._plane.clock.monotonic() < self.total_deadline:
            self.client.abort()  # a reader that has stopped has left
        else:
            self._abandon()
            self.fail(self._late())

    def give_up(self) -> None:
        """Record what there is; nobody waits for the rest."""
        self._abandon()
        self._finish()

    def stop(self) -> None:
        """The worker stops and can wait no longer."""
        if self.recorded:
            return
        self._abandon()
        self.fail(Failure("internal", 503, "The proxy is shutting down. Try again."))

    # What follows from it.
    def fail(self, failure: Failure) -> None:
        """End with an error in the dialect's shape; when an answer has begun, cut it off so that it shows."""
        self.error_type = failure.error_type
        body = self.request.target.dialect.error(failure)
        self._ended = True
        if self._head_released:
            self._cut = True
            self._held = []
            if self.is_stream:
                event = b"data: %b\n\n" % body
                if self.kept is not None:
                    self.kept.append(event)
                self._held = [event]
        else:
            self.status = failure.status
            self._headers = [*_JSON, (b"retry-after", b"1")] if failure.status == 503 else _JSON
            self.is_stream = False
            self._event_end = None
            self.content_encoding = None
            self._held = [body]
            self.kept = [body]
        self._finish()

    def durable(self, _error: ServelensError | None) -> None:
        """The record is in the spool (or counted as dropped): let go of what was held back."""
        if self._released:
            return
        self._released = True
        self.deadline = math.inf
        client = self.client
        if client is None:
            self._plane.done(self)
        elif not self._head_released:
            body = b"".join(self._held)
            self._held.clear()
            self._head_released = True
            client.write(self._head(None if self.status in _WITHOUT_BODY else len(body)) + body)
            self._release_end()
        else:
            if self._held:
                client.write(self._framed(b"".join(self._held)))
                self._held.clear()
            if self._ended:
                self._release_end()
            else:
                self.deadline = self._plane.horizon_s + _AFTER_DONE_S

    @property
    def sent_status(self) -> int:
        """The status that the client was sent; 499 when it left before an answer began."""
        return CLIENT_LEFT if self.client_disconnected and not self._head_released else self.status

    def _on_event_data(self, data: bytes) -> None:
        assert self.client is not None
        assert self._event_end is not None
        if self.first_token_s is None and carries_token(data):
            self.first_token_s = self._plane.clock.monotonic() - self.started_s
        if self.recorded:
            if self._released:
                self.client.write(self._framed(data))
            else:
                self._held.append(data)
        elif self._event_end.seen_in(data):
            self._held.append(data)
            self._finish()
        else:
            self.client.write(self._framed(data))

    def _finish(self) -> None:
        if not self.recorded:
            self.recorded = True
            self.total_deadline = math.inf
            self.deadline = self._plane.horizon_s + self._plane.limits.log_timeout_s
            self._plane.record(self)

    def _release_head(self) -> None:
        self._head_released = True
        self._chunked = (
            self._length is None and not self.request.is_http10 and self.status not in _WITHOUT_BODY
        )
        if self.client is not None:
            self.client.write(self._head(self._length))

    def _release_all_but_last(self) -> None:
        if not self._head_released:
            self._release_head()
        last = self._held.pop()
        if self.client is not None:
            self.client.write(self._framed(b"".join(self._held)))
        self._held = [last]
        self._held_bytes = len(last)

    def _release_end(self) -> None:
        client = self.client
        if client is not None:
            self.client = None
            if self._cut:
                client.cut()
            else:
                if self._chunked:
                    client.write(b"0\r\n\r\n")
                close = self.request.is_http10 or not self.request.keep_alive
                client.finished(close=close)
        self._plane.done(self)

    def _log_too_slow(self) -> None:
        """The spool's disk stalls. What was promised decides whether the answer goes out without its
        record.
        """
        if self._plane.on_log_failure == "reject":
            self._cut = self._head_released
            self._held = []
            if not self._head_released:
                failure = Failure("spool_full", 503, "The record could not be written in time. Try again.")
                self.status, self._headers, self.is_stream = 503, _JSON, False
                self._held = [self.request.target.dialect.error(failure)]
        self._plane.log_stalled(self)
        self.durable(None)

    def _head(self, length: int | None) -> bytes:
        return answer_head(
            self.status,
            self._headers,
            self.request_id,
            None if self.choice is None else self.choice.entity.name,
            length=length,
            chunked=self._chunked,
            close=self.request.is_http10 or not self.request.keep_alive,
        )

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    def _is_garbage(self) -> bool:
        """Whether a whole answer that says 200 is not JSON, so that the client is told in plain words."""
        if self.status != 200 or self._head_released or self.client is None:
            return False
        if self.content_encoding is not None:
            return False
        body = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        try:
            _skim_json(body)
        except (msgspec.DecodeError, RecursionError):
            return True
        return False

    def _abandon(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()

    def _late(self) -> Failure:
        assert self.choice is not None
        is_over = self._plane.clock.monotonic() >= self.total_deadline
        what = lateness(self.choice.entity.backend.timeouts, is_over=is_over, has_begun=self.status != 0)
        return self._upstream_failure("upstream_timeout", 504, what)

    def _upstream_failure(self, error_type: str, status: int, what: str) -> Failure:
        name = self.choice.entity.name if self.choice is not None else "?"
        return Failure(error_type, status, f"The backend of served entity {name!r} {what}.")
