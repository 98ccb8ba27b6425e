"""The answer on its way from the backend to the client, and the bounded copy of it that is kept.

Invariants. Exactly one record per invocation. The record is durable before the client can tell that the
answer is complete: a whole answer is held until then, of a longer one the last piece, of a stream the event
``[DONE]`` (clients stop reading there) or the end of the body. An answer that breaks off is never ended
properly, so a client notices. When the client does not read, the backend is not read either; when it has
left, the rest is taken in within ``drain_bytes`` and ``drain_s``, so that the record is as whole as can be.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from collector.record import Attempt
from servelens.errors import ServelensError
from serving_proxy.answer_head import header_lines
from serving_proxy.concurrency import Place
from serving_proxy.event_end import EventEnd
from serving_proxy.failure import ANSWER_TO, Failure, lateness
from serving_proxy.filtered_delivery import FilteredDelivery
from serving_proxy.invocation import Invocation, Origin
from serving_proxy.replicas import Replica
from serving_proxy.routing import Choice
from serving_proxy.upstream import AnswerHead, Connection, Loss
from serving_proxy.usage import Answer, Usage, read_answer, read_stream_usage, read_usage

if TYPE_CHECKING:
    from serving_proxy.concurrency import Cancellable, Gate
    from serving_proxy.replica_group import ReplicaGroup

DEFAULT_PAYLOAD_LIMIT: Final = 1 << 20
_HOLD_BYTES: Final = 64 * 1024
_TAIL_PIECES: Final = 4


@dataclass(slots=True, eq=False)
class Relay(FilteredDelivery):
    """One invocation from its first byte to its record. Listens to the backend and writes to the client."""

    origin: Origin
    request_time_us: int
    drain_left: int
    invocation: Invocation | None = None
    choice: Choice | None = None
    replica: Replica | None = None
    group: ReplicaGroup | None = None
    tried: frozenset[str] = frozenset()
    tries: int = 0  # attempts at this entity that count as tries
    fallen: frozenset[str] = frozenset()  # entities that could not answer
    waiting: Cancellable | None = None  # for a turn, for a connection, for the next try
    gate: Gate | None = None
    operation: bytes = b""
    outgoing: bytes = b""
    attempts: int = 0
    attempt_log: list[Attempt] = field(default_factory=list)
    attempt_started_s: float = 0.0
    shadow_of: str | None = None
    payload_limit: int = DEFAULT_PAYLOAD_LIMIT
    usage: Usage | None = None
    answer: Answer | None = None  # what was read of a whole one
    _kept_bytes: int = 0
    _tail: deque[bytes] | None = None  # of an answer too long to be kept: its usage stands at the end
    _connection: Connection | None = None
    _idle_s: float = math.inf
    _paused: bool = False

    # What the backend does.
    def on_sent(self, connection: Connection) -> None:
        self._connection = connection
        assert self.entity is not None
        timeouts = self.entity.backend.timeouts
        self._idle_s = timeouts.idle_s
        self.deadline = self._plane.horizon_s + timeouts.first_byte_s

    def on_whole(self, head: AnswerHead, body: bytes) -> None:
        """A complete answer with status 200 at once, as most are."""
        if self.filter is not None or head.is_event_stream or not body or len(body) > self.payload_limit:
            self.on_head(head, len(body))
            self.on_data(body)
            self.on_end()
            return
        self._connection = None
        attempts = self._plane.attempts
        attempts.answered(self, head)
        assert self.replica is not None
        if self.replica.health.suspect:
            attempts.completed(self)
        self.status = 200
        self.content_encoding = head.content_encoding
        self._lines = head.lines
        self._ended = True
        self.kept = [body]
        self._held = [body]
        is_seen = self.client is not None and head.content_encoding is None
        if not (is_seen and self.request.head.target.answers_json) or self._is_understood(body):
            self._finish()

    def on_head(self, head: AnswerHead, length: int | None) -> None:
        status = head.status
        if self._plane.attempts.answered(self, head):
            return
        self.status = status
        self._length = length
        self.content_encoding = head.content_encoding
        if status >= 400:
            self.error_type = "upstream_status"
        if head.is_event_stream:
            self.is_stream = True
            self._length = None  # so that the end is not visible before it is released
            end = self.request.head.target.stream_end
            self._event_end = None if end is None else EventEnd(end)
        if self.filter is None:
            self._lines = head.lines
        else:
            try:
                headers = self.filter.begin(status, head.headers, is_stream=self.is_stream)
            except ServelensError as error:
                self.break_off(error)
                return
            self._lines = header_lines(headers)
            self._length = None
            self.hold = self._plane.safety.hold(self)
        if self.is_stream:
            self._release_head()

    def on_data(self, data: bytes) -> None:
        filtering = self.filter
        if filtering is not None:
            if not self.is_stream:
                self._gather(data)
                return
            try:
                data = filtering.chunk(data)
            except ServelensError as error:
                self.break_off(error)
                return
            if not data:
                self._wait_on()
                return
            if self.hold is not None:
                self._wait_on()
                self.hold.chunk(data)
                return
        self._take(data)

    def on_chunk(self, data: bytes, framed: bytes) -> None:
        if self.filter is None:
            self._take(data, framed)
        else:
            self.on_data(data)

    def _take(self, data: bytes, framed: bytes | None = None) -> None:
        """Bytes as the client is to get them."""
        if self.kept is not None and not self.recorded:
            self._kept_bytes += len(data)
            if self._kept_bytes > self.payload_limit:
                self.kept = None
                self._tail = deque((data,), _TAIL_PIECES)
            else:
                self.kept.append(data)
        elif self._tail is not None:
            self._tail.append(data)
        if self.client is None:
            self.drain_left -= len(data)
            if self.drain_left < 0:
                self.give_up()
            return
        self._wait_on()
        if self.is_stream:
            self._on_event_data(data, framed)
        else:
            self._held.append(data)
            self._held_bytes += len(data)
            if self._held_bytes > _HOLD_BYTES and len(self._held) > 1:
                self._release_all_but_last()

    def _wait_on(self) -> None:
        if not self.recorded and not self._paused:
            self.deadline = self._plane.horizon_s + self._idle_s

    def on_end(self) -> None:
        self._connection = None
        if self.replica is not None and self.replica.health.suspect:
            self._plane.attempts.completed(self)
        if self.filter is not None and not self.recorded and not self._end_filter(self.filter):
            return
        self._complete()

    def _complete(self) -> None:
        self._ended = True
        if self.recorded:
            if self._released:
                self._release_end()
        elif not self._is_garbage():
            self._finish()

    def hold_full(self) -> None:
        """So much waits for the scorer that the backend is not read."""
        if self._connection is not None:
            self._connection.pause()
            if self.client is not None and not self._paused:
                self.deadline = math.inf

    def hold_eased(self) -> None:
        if self._connection is not None and not self._paused:
            self._connection.resume()
            if self.client is not None:
                self._wait_on()

    def _wait_for_hold(self) -> None:
        self._idle_s = math.inf
        if self.client is not None:
            self._wait_on()

    def on_lost(self, loss: Loss, detail: str) -> None:
        self._connection = None
        if self.recorded:  # after [DONE]: nothing is missing
            self._ended = True
            if self._released:
                self._release_end()
        elif not self._plane.attempts.lost(self, loss):
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
        if self.waiting is not None:
            self.give_up()
            return
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
                self._plane.attempts.completed(self)
                self._abandon()
                self._ended = True
                self._release_end()
        elif isinstance(self.waiting, Place):
            refusal = self.waiting.expire()
            self.waiting = None
            self._plane.attempts.waited_out(self, refusal)
        elif self.client is None:
            self.give_up()
        elif self._paused and self._plane.clock.monotonic() < self.total_deadline:
            self.client.abort()  # a reader that has stopped has left
        elif self._connection is not None and self._plane.clock.monotonic() < self.total_deadline:
            late = self._late()
            self._connection.abandon()
            self._connection = None
            if not self._plane.attempts.lost(self, Loss.SILENT):
                self.fail(late)
        else:
            self._abandon()
            self.fail(self._late())

    def give_up(self) -> None:
        """Record what there is; nobody waits for the rest."""
        self._abandon("client_disconnected")
        self._finish()

    def stop(self) -> None:
        """The worker stops and can wait no longer."""
        if self.recorded:
            return
        self._abandon("internal")
        self.fail(Failure("internal", 503, "The proxy is shutting down. Try again."))

    def forget(self) -> None:
        """Somebody else is asked: what has come of an answer does not count."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()
        self._drop_hold()
        if self.status:
            self.status = 0
            self.error_type = None
            self.content_encoding = None
            self.kept = []
            self._kept_bytes = 0
            self._held = []
            self._held_bytes = 0

    # What follows from it.
    def _done(self) -> None:
        self._plane.done(self)

    def _finish(self) -> None:
        if not self.recorded:
            self.recorded = True
            if self.hold is not None:
                self.hold.close()
            if self.is_stream:
                if self.kept:
                    self.kept = [b"".join(self.kept)]
                self.usage = read_stream_usage(self.kept or self._tail or ())
            elif self._head_released and self.kept:
                self.usage = read_usage(b"".join(self.kept))
            self.total_deadline = math.inf
            self.deadline = self._plane.horizon_s + self._plane.limits.log_timeout_s
            self._plane.record(self)

    def _is_garbage(self) -> bool:
        """Whether a whole answer that says 200 is not JSON."""
        if self.status != 200 or self._head_released or self.client is None:
            return False
        if self.content_encoding is not None or not self.request.head.target.answers_json:
            return False
        return not self._is_understood(b"".join(self._held))

    def _is_understood(self, body: bytes) -> bool:
        """Read the answer; when it is not JSON, the client is told in plain words."""
        assert self.invocation is not None
        try:
            self.answer, self.usage = read_answer(body, self.invocation.endpoint.privacy.read_answer)
        except (msgspec.DecodeError, RecursionError):
            what = f"answered 200 without JSON: {body[:80].decode('utf-8', 'replace')!r}"
            self.fail(self._upstream_failure("upstream_invalid", 502, what))
            return False
        return True

    def _abandon(self, error_type: str = "upstream_timeout") -> None:
        """Wait for nothing more. ``error_type``: why, for an attempt that has not been answered."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.cancel()
        self._drop_hold()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()
        if len(self.attempt_log) < self.attempts:
            self._plane.attempts.give_up(self, error_type)

    def _late(self) -> Failure:
        assert self.entity is not None
        is_over = self._plane.clock.monotonic() >= self.total_deadline
        total_s = self.total_deadline - self.started_s
        timeouts = self.entity.backend.timeouts
        what = lateness(timeouts, total_s, is_over=is_over, has_begun=self.status != 0)
        return self._upstream_failure("upstream_timeout", 504, what)

    def _upstream_failure(self, error_type: str, status: int, what: str) -> Failure:
        name = self.entity.name if self.entity is not None else "?"
        return Failure(error_type, status, f"The backend of served entity {name!r} {what}.")
