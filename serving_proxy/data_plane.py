"""The hot path: read_invocation → choose_served_entity → forward → relay → record.

Runs on the event loop as plain callbacks, without a task per invocation: a task and its wake-ups cost
more than everything else here. The snapshot is immutable; whoever swaps it replaces one attribute.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from collector.record import Record
from collector.spool import SpoolWriter
from servelens.clock import Clock
from servelens.errors import Invalid, ServelensError, SpoolFull
from servelens.identifiers import RequestIds
from serving_proxy.admission import Admission
from serving_proxy.attempts import Attempts
from serving_proxy.authentication import Requester, authenticate
from serving_proxy.concurrency import Gates
from serving_proxy.dialects.kserve import json_part, require_plain_json
from serving_proxy.endpoint import Endpoint
from serving_proxy.failure import Failure, failure_of
from serving_proxy.guardrails.blocked import Blocked
from serving_proxy.guardrails.safety import SafetyChecks
from serving_proxy.guardrails.screening import screen_input
from serving_proxy.invocation import read_invocation, read_origin
from serving_proxy.limits import Limits, OnLogFailure
from serving_proxy.measurements import Measurements
from serving_proxy.recording import record_of
from serving_proxy.relay import Relay
from serving_proxy.request import Client, Request, RequestHead
from serving_proxy.routing import Snapshot, choose_served_entity
from serving_proxy.shadow import Shadows
from serving_proxy.upstreams import Upstreams
from serving_proxy.usage import Usage, estimate

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
        admission: Admission,
        safety: SafetyChecks,
        *,
        on_log_failure: OnLogFailure = "pass",
        log_line: Callable[[Record, Record | None, Usage | None], None] | None = None,
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
        self.admission = admission
        self.safety = safety
        self.attempts = Attempts(upstreams, clock)
        self._loop = upstreams.loop
        self.gates = Gates(upstreams.loop, clock, self._forward_in_turn)
        self._log_line = log_line
        self._ids = RequestIds()
        self._shadows = Shadows(self, self._ids, upstreams.loop)
        self._drained: asyncio.Event | None = None

    def admit(self, head: RequestHead) -> None:
        """Authenticate; done once for each head that a connection repeats, as long as the keys stay and the
        head's own does not expire.
        """
        keys = self.snapshot.keys
        caller = authenticate(keys, head.fields, self.clock.now_us())
        is_final = not isinstance(caller, Requester) or caller.key_id not in keys.expiring
        head.keys = keys if is_final else None
        head.refusal = caller if isinstance(caller, Failure) else None
        head.requester = caller.name if isinstance(caller, Requester) else None

    def invoke(self, client: Client, request: Request) -> Relay:
        """Answer one request and record it. Never raises; the relay is done when it is no longer ``live``."""
        head = request.head
        snapshot = self.snapshot
        if head.keys is not snapshot.keys:
            self.admit(head)
        if head.origin is None:
            head.origin = read_origin(head.fields)
        request_id = self._ids.next()
        clock = self.clock
        relay = Relay(
            self,
            client,
            request,
            request_id,
            clock.monotonic(),
            head.origin,
            self._ids.last_us,
            self.limits.drain_bytes,
        )
        self.live.add(relay)
        failure = head.refusal or request.failure
        if failure is not None:
            relay.fail(failure)
            return relay
        try:
            body = request.body or b""
            if head.target.api == "infer":
                body = json_part(body, head.fields)
            relay.invocation = invocation = read_invocation(
                head.target, head.origin, body, request_id, snapshot
            )
            endpoint = invocation.endpoint
            relay.payload_limit = endpoint.payload_limit_bytes
            if self.on_log_failure == "reject" and not self.spool.healthy:
                raise SpoolFull("Calls are not served while they cannot be recorded.", fix="Try again later.")
            if endpoint.is_screened:
                admission = self._screen(relay, endpoint)
                if admission is not None or endpoint.asks_scorer:
                    relay.waiting = self._loop.create_task(self._forward_when(admission, relay, snapshot))
                    return relay
            self.forward(relay, snapshot)
        except ServelensError as error:
            relay.fail(failure_of(error))
        return relay

    def forward(self, relay: Relay, snapshot: Snapshot) -> None:
        """Choose who answers and send the request there; the relay hears the answer."""
        invocation = relay.invocation
        assert invocation is not None
        endpoint = invocation.endpoint
        named = relay.request.head.target.entity
        relay.choice = choice = choose_served_entity(snapshot, endpoint, invocation.identity, named)
        limit = endpoint.gateway.max_concurrency
        if limit is None:
            self.attempts.begin(relay, choice.entity)
        else:
            self.gates.enter(relay, limit)

    def _screen(self, relay: Relay, endpoint: Endpoint) -> Awaitable[None] | None:
        """Guardrails and rate limits; something to wait for when it is another machine that counts."""
        gateway, request, invocation = endpoint.gateway, relay.request, relay.invocation
        assert invocation is not None
        if gateway.input_guardrails is not None:
            if invocation.kind == "infer":
                require_plain_json(request.head.fields)
            if gateway.input_guardrails.look_inside:
                try:
                    request.body = screen_input(
                        gateway.input_guardrails, invocation.kind, request.body or b""
                    )
                except Blocked as blocked:
                    request.body = blocked.masked or request.body
                    raise
        return self.admission.admit(endpoint, request.head.requester) if gateway.rate_limits else None

    async def _forward_when(
        self, admission: Awaitable[None] | None, relay: Relay, snapshot: Snapshot
    ) -> None:
        """Forward what has been admitted, and then looked at: a call over its limit costs the scorer nothing."""
        try:
            if admission is not None:
                await admission
            await self.safety.screen_input(relay)
            relay.waiting = None
            self.forward(relay, snapshot)
        except ServelensError as error:
            relay.waiting = None
            relay.fail(failure_of(error))

    def _forward_in_turn(self, relay: Relay) -> None:
        assert relay.choice is not None
        try:
            self.attempts.begin(relay, relay.choice.entity)
        except ServelensError as error:
            relay.fail(failure_of(error))

    def record(self, relay: Relay) -> None:
        """Append the invocation's one record; the relay releases its last byte when it is durable."""
        record = record_of(relay, self.clock.monotonic())
        self.measurements.observe(record, relay)
        kept: Record | None = record
        if relay.invocation is None:
            privacy = self.snapshot.unrouted_privacy
        else:
            endpoint = relay.invocation.endpoint
            if endpoint.gateway.rate_limits and relay.attempts and relay.shadow_of is None:
                tokens = estimate(record) if relay.usage is None else sum(relay.usage)
                self.admission.used(endpoint, record.requester, tokens)
            privacy = endpoint.privacy
        if not privacy.is_open:
            kept = privacy.kept(
                record, None if relay.invocation is None else relay.invocation.body, relay.answer
            )
            if (
                kept is not None and relay.marks is not None and not kept.tags
            ):  # the client's are not kept, ours are
                kept = msgspec.structs.replace(kept, tags=relay.marks)
        if self._log_line is not None:
            self._log_line(record, kept, relay.usage)
        if kept is None:
            relay.durable(None)
            return
        try:
            self.spool.append(kept, relay.durable)
        except (SpoolFull, Invalid) as error:
            if isinstance(error, Invalid):
                logger.error("record not kept: request_id=%s reason=%s", record.request_id, error)
            relay.durable(error)

    def log_stalled(self, request_id: str) -> None:
        """An answer went out before its record was confirmed, because the spool's disk hangs."""
        self.measurements.log_stalls += 1
        logger.warning("spool too slow, answer released without it: request_id=%s", request_id)

    def done(self, relay: Relay) -> None:
        """Nothing more will happen to this invocation."""
        if relay.gate is not None:
            self.gates.leave(relay)
        if relay not in self.live:
            return
        self.live.remove(relay)
        invocation = relay.invocation
        if invocation is not None and invocation.endpoint.shadows:
            self._shadows.after(relay)
        if self._drained is not None and not self.live:
            self._drained.set()

    async def drained(self) -> None:
        """Wait until no invocation is live."""
        self._drained = asyncio.Event()
        self._shadows.close()
        if self.live:
            await self._drained.wait()

    def sweep(self) -> None:
        """Tell invocations whose deadline has passed. Called every SWEEP_S."""
        now = self.clock.monotonic()
        self.horizon_s = now + SWEEP_S
        late = [relay for relay in self.live if relay.deadline <= now or relay.total_deadline <= now]
        for relay in late:
            relay.on_deadline()
