"""The hot path: read_invocation → choose_served_entity → forward → relay → record.

Runs on the event loop as plain callbacks, without a task per invocation: a task and its wake-ups cost
more than everything else here. The snapshot is immutable; whoever swaps it replaces one attribute.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from collector.record import Record
from collector.spool import SpoolWriter
from servelens.clock import Clock
from servelens.errors import Invalid, ServelensError, SpoolFull
from servelens.identifiers import RequestIds
from serving_proxy.failure import failure_of
from serving_proxy.invocation import Invocation, read_invocation, read_origin
from serving_proxy.limits import Limits, OnLogFailure
from serving_proxy.measurements import Measurements
from serving_proxy.recording import record_of
from serving_proxy.relay import Relay
from serving_proxy.request import Client, Request
from serving_proxy.rewriting import outgoing_body, outgoing_head, outgoing_operation
from serving_proxy.routing import Choice, Snapshot, choose_served_entity
from serving_proxy.upstream import Connection, Loss, Replica, Upstreams

logger = logging.getLogger(__name__)

SWEEP_S: Final = 0.1


class DataPlane:
    """All invocations of one worker. ``snapshot`` may be replaced at any time."""

    def __init__(
        self,
        snapshot: Snapshot,
        spool: SpoolWriter,
        upstreams: Upstreams,
        measurements: Measurements,
        limits: Limits,
        clock: Clock,
        *,
        on_log_failure: OnLogFailure = "pass",
        log_line: Callable[[Record], None] | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.spool = spool
        self.measurements = measurements
        self.limits = limits
        self.clock = clock
        self.on_log_failure = on_log_failure
        self.live: set[Relay] = set()
        self.horizon_s = clock.monotonic() + SWEEP_S
        """A time not before now, for deadlines: reading the clock for each chunk would cost more than it
        is worth.
        """
        self._upstreams = upstreams
        self._loop = upstreams.loop
        self._log_line = log_line
        self._ids = RequestIds()
        self._connecting: set[asyncio.Task[None]] = set()
        self._drained: asyncio.Event | None = None

    def invoke(self, client: Client, request: Request) -> Relay:
        """Answer one request and record it. Never raises; the relay is done when it is no longer ``live``."""
        request_id = self._ids.next()
        origin = read_origin(request.fields)
        clock = self.clock
        relay = Relay(
            self,
            client,
            request,
            request_id,
            origin,
            clock.monotonic(),
            clock.now_us(),
            self.limits.drain_bytes,
        )
        self.live.add(relay)
        try:
            if request.failure is not None:
                relay.fail(request.failure)
                return relay
            body = request.body or b""
            relay.invocation = invocation = read_invocation(
                request.target, origin, body, request_id, self.snapshot
            )
            relay.payload_limit = invocation.endpoint.payload_limit_bytes
            if self.on_log_failure == "reject" and not self.spool.healthy:
                raise SpoolFull("Calls are not served while they cannot be recorded.", fix="Try again later.")
            relay.choice = choose_served_entity(self.snapshot, invocation.endpoint, invocation.identity)
            self.forward(relay, relay.choice, invocation, body)
        except ServelensError as error:
            relay.fail(failure_of(error))
        return relay

    def forward(self, relay: Relay, choice: Choice, invocation: Invocation, body: bytes) -> None:
        """Send the request to a replica of the chosen entity; the relay hears the answer."""
        entity = choice.entity
        replica = self._upstreams.pick(entity.backend.urls)
        assert replica is not None
        relay.operation = outgoing_operation(entity, invocation)
        relay.outgoing = outgoing_body(entity, invocation, body)
        relay.total_deadline = relay.started_s + entity.backend.timeouts.total_s
        self._attempt(relay, replica, replica.take())

    def record(self, relay: Relay) -> None:
        """Append the invocation's one record; the relay releases its last byte when it is durable."""
        record = record_of(relay, self.clock.monotonic())
        self.measurements.observe(record)
        if self._log_line is not None:
            self._log_line(record)
        try:
            self.spool.append(record, relay.durable)
        except (SpoolFull, Invalid) as error:
            if isinstance(error, Invalid):
                logger.error("record not kept: request_id=%s reason=%s", record.request_id, error)
            relay.durable(error)

    def retry(self, relay: Relay, loss: Loss) -> bool:
        """Send again where nothing can have been answered: on a new connection once, or to another
        replica.
        """
        replica = relay.replica
        if replica is None or relay.choice is None:
            return False
        if loss is not Loss.STALE:
            relay.tried |= {replica.url}
            another = self._upstreams.pick(relay.choice.entity.backend.urls, relay.tried)
            if another is None or relay.client is None:
                return False
            self._attempt(relay, another, another.take())
        else:
            self._attempt(relay, replica, None)
        return True

    def log_stalled(self, relay: Relay) -> None:
        """An answer went out before its record was confirmed, because the spool's disk hangs."""
        self.measurements.log_stalls += 1
        logger.warning("spool too slow, answer released without it: request_id=%s", relay.request_id)

    def done(self, relay: Relay) -> None:
        """Nothing more will happen to this invocation."""
        self.live.discard(relay)
        if self._drained is not None and not self.live:
            self._drained.set()

    async def drained(self) -> None:
        """Wait until no invocation is live."""
        self._drained = asyncio.Event()
        if self.live:
            await self._drained.wait()

    def sweep(self) -> None:
        """Tell invocations whose deadline has passed. Called every SWEEP_S."""
        now = self.clock.monotonic()
        self.horizon_s = now + SWEEP_S
        late = [relay for relay in self.live if relay.deadline <= now or relay.total_deadline <= now]
        for relay in late:
            relay.on_deadline()

    def _attempt(self, relay: Relay, replica: Replica, connection: Connection | None) -> None:
        assert relay.choice is not None
        relay.attempts += 1
        relay.replica = replica
        entity = relay.choice.entity
        head = outgoing_head(
            relay.request.headers,
            relay.request.fields.get(b"connection"),
            replica.start_of(relay.operation, entity.backend.api_key),
            relay.request_id,
            len(relay.outgoing),
        )
        if connection is not None:
            connection.send(head + relay.outgoing, relay)
            return
        task = self._loop.create_task(
            self._connect(relay, replica, head + relay.outgoing, entity.backend.timeouts.connect_s)
        )
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, relay: Relay, replica: Replica, data: bytes, timeout_s: float) -> None:
        outcome = await replica.connect(timeout_s)
        if not isinstance(outcome, Connection):
            relay.on_lost(*outcome)
        elif relay.recorded or relay.client is None:  # nobody waits for it any more
            replica.put(outcome)
            relay.give_up()
        else:
            outcome.send(data, relay)
