"""The client's side of an answer: what it gets, and when.

Invariant: nothing that tells a client that its answer is complete leaves before the record is durable. A whole answer is
held until then, of a longer one the last piece, of a stream the event that ends it; an answer that breaks off is
never ended properly, so that a client notices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from servelens.errors import ServelensError
from serving_proxy.answer_head import JSON_LINES, answer_head, entity_lines, whole_answer
from serving_proxy.endpoint import ServedEntity
from serving_proxy.event_end import EventEnd, Sight
from serving_proxy.failure import Failure
from serving_proxy.first_token import carries_token
from serving_proxy.request import Client, Request

if TYPE_CHECKING:
    from serving_proxy.data_plane import DataPlane

CLIENT_LEFT: Final = 499
_AFTER_DONE_S: Final = 1.0
_WITHOUT_BODY: Final = (204, 304)


@dataclass(slots=True, eq=False)  # an instance dict, and a Struct's assignments, cost microseconds here
class Delivery:
    """The state of one answer on its way to the client; the other half of :class:`~serving_proxy.relay.Relay`."""

    _plane: DataPlane
    client: Client | None
    request: Request
    request_id: str
    started_s: float
    entity: ServedEntity | None = field(default=None, init=False)
    """Who answers: the chosen one, or the one it fell back to."""
    deadline: float = field(default=math.inf, init=False)
    total_deadline: float = field(default=math.inf, init=False)
    status: int = field(default=0, init=False)
    error_type: str | None = field(default=None, init=False)
    is_stream: bool = field(default=False, init=False)
    first_token_s: float | None = field(default=None, init=False)
    client_disconnected: bool = field(default=False, init=False)
    recorded: bool = field(default=False, init=False)
    kept: list[bytes] | None = field(default_factory=list, init=False)
    """What the client is sent, for the record; ``None`` when it is too much."""
    content_encoding: bytes | None = field(default=None, init=False)
    """That of the kept copy, when the backend compressed it unasked."""
    _lines: bytes = field(default=b"", init=False)
    _length: int | None = field(default=None, init=False)
    _event_end: EventEnd | None = field(default=None, init=False)
    _held: list[bytes] = field(default_factory=list, init=False)
    _held_bytes: int = field(default=0, init=False)
    _head_released: bool = field(default=False, init=False)
    _released: bool = field(default=False, init=False)
    _ended: bool = field(default=False, init=False)
    _cut: bool = field(default=False, init=False)
    _chunked: bool = field(default=False, init=False)

    @property
    def sent_status(self) -> int:
        """The status that the client was sent; 499 when it left before an answer began."""
        return CLIENT_LEFT if self.client_disconnected and not self._head_released else self.status

    @property
    def can_start_over(self) -> bool:
        """Whether there is a client, who has not seen anything of an answer."""
        return self.client is not None and not self._head_released

    def fail(self, failure: Failure) -> None:
        """End with an error in the dialect's shape; when an answer has begun, cut it off so that it shows."""
        self.error_type = failure.error_type
        dialect = self.request.head.target.dialect
        self._ended = True
        if self._head_released:
            self._cut = failure.error_type != "blocked"
            self._held = []
            if self.is_stream:
                event = dialect.error_event(failure)
                if self.kept is not None:
                    self.kept.append(event)
                self._held = [event]
        else:
            body = dialect.error(failure)
            self.status = failure.status
            self._lines = JSON_LINES + failure.head_lines
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
            self._done()
        elif not self._head_released:
            held = self._held
            body = held[0] if len(held) == 1 else b"".join(held)
            self._held = []
            self._head_released = True
            request = self.request
            if self.status in _WITHOUT_BODY or request.head.is_http10 or not request.keep_alive:
                client.write(self._head(None if self.status in _WITHOUT_BODY else len(body)) + body)
            else:
                client.write(whole_answer(self.status, self._lines, self._own_lines(), self.request_id, body))
            self._release_end()
        else:
            if self._held:
                client.write(self._framed(b"".join(self._held)))
                self._held.clear()
            if self._ended:
                self._release_end()
            else:
                self.deadline = self._plane.horizon_s + _AFTER_DONE_S

    def _on_event_data(self, data: bytes, framed: bytes | None) -> None:
        """A piece of a stream, and the chunk that it came as, if it did."""
        assert self.client is not None
        if self.first_token_s is None and carries_token(data):
            self.first_token_s = self._plane.clock.monotonic() - self.started_s
        if self.recorded and not self._released:
            self._held.append(data)
            return
        if not self.recorded and self._event_end is not None:
            sight = self._event_end.look(data)
            if sight is not None:
                self._held.append(data)
                if sight is Sight.COMPLETE:
                    self._finish()
                return
        if not self._chunked:
            self.client.write(data)
        elif framed is not None:
            self.client.write(framed)
        else:
            self.client.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _release_head(self) -> None:
        self._head_released = True
        self._chunked = (
            self._length is None and not self.request.head.is_http10 and self.status not in _WITHOUT_BODY
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
                close = self.request.head.is_http10 or not self.request.keep_alive
                client.finished(close=close)
        self._done()

    def _log_too_slow(self) -> None:
        """The spool's disk stalls. What was promised decides whether the answer goes out without its
        record.
        """
        if self._plane.on_log_failure == "reject":
            self._cut = self._head_released
            self._held = []
            if not self._head_released:
                failure = Failure("spool_full", 503, "The record could not be written in time. Try again.")
                self.status, self._lines, self.is_stream = 503, JSON_LINES, False
                self._held = [self.request.head.target.dialect.error(failure)]
        self._plane.log_stalled(self.request_id)
        self.durable(None)

    def _head(self, length: int | None) -> bytes:
        return answer_head(
            self.status,
            self._lines + self._own_lines(),
            self.request_id,
            length=length,
            chunked=self._chunked,
            close=self.request.head.is_http10 or not self.request.keep_alive,
        )

    def _own_lines(self) -> bytes:
        entity = self.entity
        return b"" if entity is None else entity_lines(entity.name, self.request.head.target.api)

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    def _done(self) -> None:
        """Nothing more will happen to this invocation."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Nothing more belongs to the record: write it."""
        raise NotImplementedError
