"""Who is asked, and who next: the attempts of one invocation.

An attempt that failed is made again, up to ``retries.attempts`` in all and within the retry budget, when the replica
did not connect, reset the connection, kept silent past its deadline, or answered 429, 502, 503 or 504: at once at
another usable replica that has not been asked yet, else at the same ones after a delay (never after silence), and the
last time, rather than there again, at one that is out. What is then still a failure, or any 5xx, goes to the
endpoint's next entity where ``gateway.fallback`` says so. What is left when nobody else can be asked is what the
client gets: the last answer unchanged, or an error of ours.

Invariants: an invocation is sent again only where the client has seen nothing of an answer; every attempt is on its
record; a call waits for its turn, and for its next try, with a deadline.

Sending a completion again is safe in effect (RFC 9110 §9.2.2 leaves that judgement to whoever knows the resource):
nothing was answered, and a backend changes nothing by answering.
"""

from __future__ import annotations

import asyncio
from math import inf
from random import Random
from typing import Final

from collector.record import Attempt
from servelens.clock import Clock
from servelens.errors import ServelensError
from serving_proxy.endpoint import ServedEntity
from serving_proxy.failure import ANSWER_TO, Failure
from serving_proxy.relay import Relay
from serving_proxy.replica_group import ReplicaGroup
from serving_proxy.replicas import Replica
from serving_proxy.retry_delay import retry_after, retry_delay
from serving_proxy.rewriting import outgoing_call, passed_on
from serving_proxy.upstream import AnswerHead, Connection, Loss
from serving_proxy.upstreams import Upstreams

_RETRIED: Final = (429, 502, 503, 504)
_REPLICA_FAILED: Final = (502, 503, 504)
_MICROSECONDS: Final = 1e6
_MOST_STARTS: Final = 32


class Attempts:
    """The attempts of all invocations of one worker. ``retries`` and ``fallbacks`` count them."""

    def __init__(self, upstreams: Upstreams, clock: Clock) -> None:
        self.retries = 0
        self.fallbacks = 0
        self._upstreams = upstreams
        self._clock = clock
        self._random = Random()
        self._connecting: set[asyncio.Task[None]] = set()

    def begin(self, relay: Relay, entity: ServedEntity) -> None:
        """Send the request to a replica of ``entity``, now or when it is its turn; the relay hears the answer.
        Raises Invalid when the entity cannot be asked such a thing.
        """
        group = self._prepare(relay, entity)
        failure = self._dispatch(relay, group)
        if failure is not None and not self._fall_back(relay):
            relay.fail(failure)

    def answered(self, relay: Relay, head: AnswerHead) -> bool:
        """An answer has begun. Whether it is to be forgotten, because somebody else is asked."""
        replica, group, entity = relay.replica, relay.group, relay.entity
        assert replica is not None
        assert group is not None
        assert entity is not None
        status = head.status
        now_s = self._clock.monotonic()
        took_s = now_s - relay.attempt_started_s
        took_us = round(took_s * _MICROSECONDS)
        relay.attempt_log.append(Attempt(entity.name, replica.url, status, None, took_us))
        if status >= 429 and (status >= 500 or status == 429):
            return self._answered_badly(relay, group, replica, head)
        health = replica.health
        if took_s > group.slow_over_s:
            group.answered_slowly(replica, took_s)
        else:
            health.begun(took_s, now_s)
        return False

    def completed(self, relay: Relay) -> None:
        """A suspect replica's answer has come to its end."""
        if relay.replica is not None and relay.group is not None and relay.status not in _REPLICA_FAILED:
            relay.replica.health.succeeded()
            relay.group.breaker.answered()

    def lost(self, relay: Relay, loss: Loss) -> bool:
        """An attempt ended without a whole answer. Whether another one is under way."""
        self.give_up(relay, ANSWER_TO[loss][0])
        replica, group = relay.replica, relay.group
        assert replica is not None
        assert group is not None
        if loss is Loss.STALE:
            self._attempt(relay, group, replica, None, self._clock.monotonic())
            return True
        group.failed(replica)
        if relay.can_start_over:
            if loss is not Loss.INVALID and self._again(relay, group, replica, None, loss):
                return True
            if self._fall_back(relay):
                return True
        group.unanswered()
        return False

    def give_up(self, relay: Relay, error_type: str) -> None:
        """Put the attempt under way on the record: it ends without a whole answer."""
        log = relay.attempt_log
        status = log.pop().status if len(log) == relay.attempts else None
        assert relay.entity is not None
        assert relay.replica is not None
        took_us = round((self._clock.monotonic() - relay.attempt_started_s) * _MICROSECONDS)
        log.append(Attempt(relay.entity.name, relay.replica.url, status, error_type, took_us))

    def waited_out(self, relay: Relay, refusal: Failure) -> None:
        """Its turn has not come in time."""
        if relay.group is None or not self._fall_back(relay):
            relay.fail(refusal)

    def _answered_badly(self, relay: Relay, group: ReplicaGroup, replica: Replica, head: AnswerHead) -> bool:
        group.breaker.answered()
        if head.status in _REPLICA_FAILED:
            group.failed(replica)
        if not relay.can_start_over:
            return False
        if head.status in _RETRIED:
            asked_s = retry_after(head.fields.get(b"retry-after"), self._clock.now_us())
            if self._again(relay, group, replica, asked_s, None):
                return True
        return self._fall_back(relay)

    def _prepare(self, relay: Relay, entity: ServedEntity) -> ReplicaGroup:
        """Put the call as the entity wants it."""
        invocation = relay.invocation
        assert invocation is not None
        endpoint = invocation.endpoint
        relay.entity = entity
        relay.total_deadline = relay.started_s + entity.backend.timeouts.total_s
        relay.group = group = self._upstreams.group(endpoint.name, entity)
        body = relay.request.body or b""
        operation = group.unchanged.get(invocation.kind)
        if operation is not None and endpoint.gateway.output_guardrails is None:
            relay.operation, relay.outgoing, relay.filter = operation, body, None
        else:
            call = outgoing_call(entity, invocation, body, relay.request_id)
            relay.operation, relay.outgoing, relay.filter = call
        return group

    def _dispatch(self, relay: Relay, group: ReplicaGroup) -> Failure | None:
        """Send the call, or let it wait for its turn; else why not."""
        group.budget.calls += 1
        if not group.line.places:
            if group.breaker.is_open and (failure := _refusal(group)) is not None:
                return failure
            now_s = self._clock.monotonic()
            replica = group.pick(now_s)
            assert replica is not None
            if replica.outstanding < group.max_connections:
                relay.tries += 1
                self._attempt(relay, group, replica, replica.take(), now_s)
                return None
        return self._queue(relay, group)

    def _queue(self, relay: Relay, group: ReplicaGroup) -> Failure | None:
        pool = group.entity.backend.pool
        max_queue = (
            0 if relay.shadow_of is not None else pool.max_queue
        )  # users' calls do not wait behind those
        what = f"All replicas of served entity {group.entity.name!r} are busy."
        failure = group.line.enter(relay, what, max_queue=max_queue, queue_s=pool.queue_s)
        if failure is None:
            relay.forget()
            group.await_turns(self._pump)
        return failure

    def _pump(self, group: ReplicaGroup) -> None:
        """A replica may have room for those who wait."""
        line = group.line
        while line.places:
            failure = _refusal(group) if group.breaker.is_open else None
            now_s = self._clock.monotonic()
            replica = group.pick(now_s)
            assert replica is not None
            if failure is None and replica.outstanding >= group.max_connections:
                break
            place = line.next()
            assert place is not None
            relay = place.relay
            relay.waiting = None
            if failure is None:
                self._try(relay, group, replica, now_s)
            else:
                self.waited_out(relay, failure)
        group.await_turns(self._pump)

    def _again(
        self, relay: Relay, group: ReplicaGroup, replica: Replica, asked_s: float | None, loss: Loss | None
    ) -> bool:
        """Try once more, now or later, when that is allowed. ``asked_s``: what Retry-After says."""
        retries = group.entity.backend.retries
        now_s = self._clock.monotonic()
        if relay.shadow_of is not None or relay.tries >= retries.attempts:
            return False
        if not group.budget.allows(retries.budget, now_s):
            return False
        relay.tried |= {replica.url}
        another = group.pick(now_s, relay.tried)
        if another is None and (loss is Loss.SILENT or relay.tries + 1 == retries.attempts):
            another = group.pick_untried(relay.tried)
        if another is not None:
            if another.outstanding >= group.max_connections:
                return False
            self._count_retry(relay, group)
            self._try(relay, group, another, now_s)
            return True
        delay_s = retry_delay(retries, relay.tries, asked_s, self._random)
        if loss is Loss.SILENT or delay_s is None or now_s + delay_s >= relay.total_deadline:
            return False
        self._count_retry(relay, group)
        relay.forget()
        relay.deadline = inf
        relay.waiting = self._upstreams.loop.call_later(delay_s, self._resume, relay, group)
        return True

    def _count_retry(self, relay: Relay, group: ReplicaGroup) -> None:
        self.retries += 1
        group.budget.spend()
        if relay.filter is not None and relay.status:  # it has already seen a part of an answer
            self._prepare(relay, group.entity)

    def _resume(self, relay: Relay, group: ReplicaGroup) -> None:
        relay.waiting = None
        failure = self._dispatch(relay, group)
        if failure is not None:
            self.waited_out(relay, failure)

    def _fall_back(self, relay: Relay) -> bool:
        """Ask the next of the endpoint's entities that can be asked; when there is none, nothing has changed."""
        invocation, failed = relay.invocation, relay.entity
        if invocation is None or failed is None or not invocation.endpoint.gateway.fallback:
            return False
        named = relay.request.head.target.entity is not None
        if named or relay.shadow_of is not None or not relay.can_start_over:
            return False
        before = relay.group, relay.operation, relay.outgoing, relay.filter, relay.total_deadline
        relay.fallen |= {failed.name}
        for entity in invocation.endpoint.served_entities:
            if entity.name in relay.fallen:
                continue
            relay.fallen |= {entity.name}
            try:
                group = self._prepare(relay, entity)
            except ServelensError:  # it cannot be asked such a thing
                continue
            relay.tries = 0
            relay.tried = frozenset()
            if self._dispatch(relay, group) is None:
                self.fallbacks += 1
                return True
        relay.entity = failed
        relay.group, relay.operation, relay.outgoing, relay.filter, relay.total_deadline = before
        return False

    def _try(self, relay: Relay, group: ReplicaGroup, replica: Replica, now_s: float) -> None:
        relay.tries += 1
        self._attempt(relay, group, replica, replica.take(), now_s)

    def _attempt(
        self,
        relay: Relay,
        group: ReplicaGroup,
        replica: Replica,
        connection: Connection | None,
        now_s: float,
    ) -> None:
        if relay.attempts:
            relay.forget()
        relay.attempts += 1
        relay.attempt_started_s = now_s
        relay.replica = replica
        starts = relay.request.head.starts
        key = (replica, group.configuration, relay.operation)
        start = starts.get(key)
        if start is None:
            start = _start(relay, group, replica)
            if len(starts) >= _MOST_STARTS:
                starts.clear()
            starts[key] = start
        body = relay.outgoing
        request = b"%bcontent-length: %d\r\nx-request-id: %b\r\n\r\n%b" % (
            start,
            len(body),
            relay.request_id.encode(),
            body,
        )
        if connection is not None:
            connection.send(request, relay)
            return
        relay.deadline = inf  # connecting has its own
        replica.outstanding += 1
        task = self._upstreams.loop.create_task(
            self._connect(relay, replica, request, group.entity.backend.timeouts.connect_s)
        )
        relay.waiting = task
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, relay: Relay, replica: Replica, data: bytes, timeout_s: float) -> None:
        try:
            outcome = await replica.connect(timeout_s)
        finally:
            replica.outstanding -= 1
            replica.freed()
        relay.waiting = None
        if isinstance(outcome, Connection):
            outcome.send(data, relay)
        else:
            relay.on_lost(*outcome)


def _start(relay: Relay, group: ReplicaGroup, replica: Replica) -> bytes:
    """The part of a request's head that is the same for all requests with the client's head."""
    backend = group.entity.backend
    start = replica.start_of(relay.operation, backend.api, backend.api_key)
    return start + passed_on(relay.request.head, backend.api)


def _refusal(group: ReplicaGroup) -> Failure | None:
    """What a call is told while the entity's circuit breaker is open."""
    wait_s = group.refuses()
    if wait_s is None:
        return None
    what = f"No replica of served entity {group.entity.name!r} answers at present."
    return Failure("overloaded", 503, f"{what} Try again later.", retry_after_s=wait_s)
