"""Bounded waiting lines: for a replica's turn, and for an endpoint's ``max_concurrency``.

A call that would not get its turn in time is refused when it comes, not after it has waited: the line is full, or
the expected wait, the line's length times the recent mean time from one turn to the next (which is the mean service
time over the capacity), is longer than anybody may wait. Invariant: first come, first served; a place that is given
up, because its client has left or its time is over, is free at once. Every step is O(1).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from servelens.clock import Clock
from serving_proxy.failure import Failure

if TYPE_CHECKING:
    from serving_proxy.relay import Relay

_WEIGHT: Final = 0.1


class Cancellable(Protocol):
    """Something waited for that can be given up."""

    def cancel(self) -> object: ...


class Place:
    """One call's place in a line."""

    __slots__ = ("_line", "_refusal", "relay")

    def __init__(self, line: Line, relay: Relay, refusal: Failure) -> None:
        self._line = line
        self.relay = relay
        self._refusal = refusal

    def cancel(self) -> None:
        """Leave the line."""
        self._line.places.pop(self, None)

    def expire(self) -> Failure:
        """Leave the line because the turn has not come in time; what the client is told."""
        self.cancel()
        self._line.refused += 1
        return self._refusal


class Line:
    """A waiting line; ``refused`` counts those who were turned away, when they came or after they had waited."""

    def __init__(self, clock: Clock) -> None:
        self.refused = 0
        self._clock = clock
        self.places: OrderedDict[Place, None] = OrderedDict()
        self._turn_s = 0.0
        self._last_turn_s = 0.0

    def enter(self, relay: Relay, what: str, *, max_queue: int, queue_s: float) -> Failure | None:
        """Wait at the end; or why not, with the time after which to come again. ``what`` is said to the client."""
        now_s = self._clock.monotonic()
        expected_s = self.expected_wait_s(now_s)
        refusal = Failure("overloaded", 429, f"{what} Try again later.", retry_after_s=max(1.0, expected_s))
        if len(self.places) >= max_queue or expected_s > queue_s:
            self.refused += 1
            return refusal
        if not self.places:
            self._last_turn_s = now_s
        place = Place(self, relay, refusal)
        self.places[place] = None
        relay.waiting = place
        relay.deadline = now_s + queue_s
        return None

    def expected_wait_s(self, now_s: float) -> float:
        """How long somebody who comes now will wait."""
        if not self.places:
            return 0.0
        return (len(self.places) + 1) * max(self._turn_s, now_s - self._last_turn_s)

    def next(self) -> Place | None:
        """It is the first one's turn."""
        if not self.places:
            return None
        place, _ = self.places.popitem(last=False)
        now_s = self._clock.monotonic()
        passed_s, self._last_turn_s = now_s - self._last_turn_s, now_s
        self._turn_s = self._turn_s + _WEIGHT * (passed_s - self._turn_s) if self._turn_s else passed_s
        return place


class Gate:
    """One endpoint's calls at once and those who wait."""

    def __init__(self, clock: Clock) -> None:
        self.inside = 0
        self.limit = 0
        self.line = Line(clock)


class Gates:
    """The endpoints' bounds on calls at once. ``forward`` sends a call on its way when its turn has come."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Clock, forward: Callable[[Relay], None]
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._forward = forward
        self._gates: dict[str, Gate] = {}

    @property
    def queued(self) -> int:
        """How many calls wait."""
        return sum(len(gate.line.places) for gate in self._gates.values())

    @property
    def refused(self) -> int:
        """How many calls have been turned away."""
        return sum(gate.line.refused for gate in self._gates.values())

    def enter(self, relay: Relay, limit: int) -> None:
        """Forward the call now or when its turn comes, or fail it as ``overloaded``."""
        assert relay.invocation is not None
        endpoint = relay.invocation.endpoint
        gate = self._gates.get(endpoint.name)
        if gate is None:
            gate = self._gates[endpoint.name] = Gate(self._clock)
        gate.limit = limit
        if gate.inside < limit and not gate.line.places:
            gate.inside += 1
            relay.gate = gate
            self._forward(relay)
            return
        gateway = endpoint.gateway
        what = f"Endpoint {endpoint.name!r} already serves the {limit} calls at once that it may."
        failure = gate.line.enter(relay, what, max_queue=gateway.max_queue, queue_s=gateway.queue_s)
        if failure is not None:
            relay.fail(failure)
        elif gate.inside < limit:
            self._admit(gate)

    def leave(self, relay: Relay) -> None:
        """The call is over; does nothing the second time."""
        gate, relay.gate = relay.gate, None
        if gate is not None:
            gate.inside -= 1
            self._admit(gate)

    def _admit(self, gate: Gate) -> None:
        while gate.inside < gate.limit and (place := gate.line.next()) is not None:
            relay = place.relay
            gate.inside += 1
            relay.gate = gate
            # Not at once: a call that fails immediately would admit the next one from within itself, and so on.
            relay.waiting = self._loop.call_soon(self._turn, relay)

    def _turn(self, relay: Relay) -> None:
        relay.waiting = None
        relay.deadline = inf
        self._forward(relay)
