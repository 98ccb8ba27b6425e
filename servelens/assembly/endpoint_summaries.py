"""The endpoints as the console names them, followed as they are created, changed and deleted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any, overload

from dashboard.services import EndpointSummary, EntitySummary
from servelens.clock import Clock
from servelens.control.store import EndpointStore
from servelens.control.stored_endpoint import StoredEndpoint
from servelens.errors import ServelensError

logger = logging.getLogger(__name__)

_FRESH_S = 1.0


class EndpointSummaries(Sequence[EndpointSummary]):
    """All endpoints, at most a second old; while the database is away, as they were. Any thread may read."""

    def __init__(self, store: EndpointStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._known: tuple[EndpointSummary, ...] = ()
        self._generation = -1
        self._fresh_until = clock.monotonic()

    @overload
    def __getitem__(self, index: int) -> EndpointSummary: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[EndpointSummary]: ...
    def __getitem__(self, index: int | slice) -> EndpointSummary | Sequence[EndpointSummary]:
        return self._now()[index]

    def __len__(self) -> int:
        return len(self._now())

    def _now(self) -> tuple[EndpointSummary, ...]:
        with self._lock:
            now = self._clock.monotonic()
            if now >= self._fresh_until:
                self._fresh_until = now + _FRESH_S
                try:
                    self._refresh()
                except ServelensError as error:
                    logger.warning("list of endpoints not refreshed: %s", error)
            return self._known

    def _refresh(self) -> None:
        if self._store.generation() != self._generation:
            self._generation, endpoints = self._store.state()
            self._known = tuple(_summary(endpoint) for endpoint in endpoints)


def _summary(endpoint: StoredEndpoint) -> EndpointSummary:
    config = endpoint.shown["config"]
    shares = _shares(config)
    return EndpointSummary(
        endpoint.name,
        tuple(
            EntitySummary(entity["name"], entity.get("entity_version", "1"), shares.get(entity["name"]))
            for entity in config["served_entities"]
        ),
    )


def _shares(config: Mapping[str, Any]) -> dict[str, float]:
    traffic = config.get("traffic_config")
    if traffic is not None:
        return {route["served_entity_name"]: route["traffic_percentage"] for route in traffic["routes"]}
    mirrored = {shadow["served_entity_name"] for shadow in config.get("shadows", [])}
    return {entity["name"]: 100.0 for entity in config["served_entities"] if entity["name"] not in mirrored}
