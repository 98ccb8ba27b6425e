"""Shadows: a share of an endpoint's invocations, sent once more to a served entity that nobody hears.

A mirror begins when the invocation is over and its answer written, so nothing of it comes before the user. It is an
invocation of its own (own id, same code, same record) with a client that reads everything at once and throws it
away. Invariants: at most ``max_concurrency`` mirrors of a shadow are live in a worker, and what would be more is
dropped and counted; a mirror is asked once, waits in no line, and takes in no more than can be recorded; no choice of
the user's is in its record but the unit, so it is never an exposure.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from experiments.assignment import bucket
from servelens.errors import ServelensError
from servelens.identifiers import RequestIds
from serving_proxy.endpoint import Endpoint, Shadow
from serving_proxy.failure import failure_of
from serving_proxy.relay import Relay
from serving_proxy.request import Request
from serving_proxy.routing import Choice

if TYPE_CHECKING:
    from serving_proxy.data_plane import DataPlane

DRAIN_S: Final = 5.0
"""How long a mirror may go on when the worker stops."""

_NOT_MIRRORED: Final = ("blocked", "overloaded", "rate_limited", "internal")


class Shadows:
    """The mirrors of one worker."""

    def __init__(self, plane: DataPlane, ids: RequestIds, loop: asyncio.AbstractEventLoop) -> None:
        self._plane = plane
        self._ids = ids
        self._loop = loop
        self._live: dict[tuple[str, str], int] = {}
        self._closed = False

    def after(self, relay: Relay) -> None:
        """An invocation of an endpoint with shadows is over. Never raises."""
        if relay.shadow_of is not None:
            self._over(relay)
        elif relay.attempts and relay.error_type not in _NOT_MIRRORED:
            self._loop.call_soon(self._mirror, relay)  # the loop writes the answer first

    def close(self) -> None:
        """Mirror nothing more; what is under way has ``DRAIN_S`` to finish."""
        self._closed = True
        until = self._plane.clock.monotonic() + DRAIN_S
        for relay in self._plane.live:
            if relay.shadow_of is not None:
                relay.total_deadline = min(relay.total_deadline, until)

    def _mirror(self, primary: Relay) -> None:
        assert primary.invocation is not None
        endpoint = primary.invocation.endpoint
        for shadow in endpoint.shadows:
            if not is_mirrored(endpoint, shadow, primary.request_id):
                continue
            key = (endpoint.name, shadow.served_entity)
            is_large = len(primary.request.body or b"") > endpoint.payload_limit_bytes
            is_full = self._live.get(key, 0) >= shadow.max_concurrency
            if self._closed or is_full or is_large or not self._plane.spool.healthy:
                self._plane.measurements.count_shadow(*key, "dropped")
            else:
                self._live[key] = self._live.get(key, 0) + 1
                self._begin(primary, shadow)

    def _begin(self, primary: Relay, shadow: Shadow) -> None:
        plane = self._plane
        assert primary.invocation is not None
        assert primary.choice is not None
        endpoint = primary.invocation.endpoint
        nobody = _Nobody(self._loop)
        body = primary.request.body
        relay = Relay(
            plane,
            nobody,
            Request(
                primary.request.head, keep_alive=True, complete=True, size=primary.request.size, body=body
            ),
            self._ids.next(),
            origin=primary.origin,
            started_s=plane.clock.monotonic(),
            request_time_us=plane.clock.now_us(),
            drain_left=0,  # what cannot be kept is not read
        )
        nobody.relay = relay
        relay.shadow_of = primary.request_id
        relay.invocation = primary.invocation
        relay.payload_limit = endpoint.payload_limit_bytes
        entity = endpoint.entities[shadow.served_entity]
        relay.choice = Choice(entity, primary.choice.unit, shadow.percentage / 100.0)
        plane.live.add(relay)
        try:
            plane.attempts.begin(relay, entity)
        except ServelensError as error:
            relay.fail(failure_of(error))
        if not relay.recorded:
            relay.total_deadline = min(relay.total_deadline, relay.started_s + shadow.timeout_s)

    def _over(self, relay: Relay) -> None:
        assert relay.invocation is not None
        assert relay.choice is not None
        key = (relay.invocation.endpoint.name, relay.choice.entity.name)
        left = self._live.get(key, 0) - 1
        if left > 0:
            self._live[key] = left
        else:
            self._live.pop(key, None)


def is_mirrored(endpoint: Endpoint, shadow: Shadow, request_id: str) -> bool:
    """Whether the invocation falls into the shadow's share: a hash of its id, independent of routes and
    experiments, and the same wherever it is asked.
    """
    share = shadow.percentage
    return (
        share >= 100.0 or bucket(f"shadow:{endpoint.name}:{shadow.served_entity}", request_id) * 100.0 < share
    )


class _Nobody:
    """The client of a mirror: takes in as much as can be kept, then leaves as a client does."""

    __slots__ = ("_loop", "relay")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.relay: Relay | None = None

    def write(self, data: bytes) -> None:
        if self.relay is not None and self.relay.kept is None:
            self._loop.call_soon(self._leave)  # not from within the relay's own step

    def finished(self, *, close: bool) -> None:
        self.relay = None

    def cut(self) -> None:
        self.relay = None

    def abort(self) -> None:
        self._leave()

    def _leave(self) -> None:
        relay, self.relay = self.relay, None
        if relay is not None:
            relay.client_left()
