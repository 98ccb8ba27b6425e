"""The endpoints as the console names them, followed as they are created, changed and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from dashboard.followed_list import FollowedList
from dashboard.services import EndpointSummary, EntitySummary
from servelens.clock import Clock
from servelens.control.store import EndpointStore
from servelens.control.stored_endpoint import StoredEndpoint


class EndpointSummaries(FollowedList[EndpointSummary]):
    """All endpoints, oldest first."""

    def __init__(self, store: EndpointStore, clock: Clock) -> None:
        super().__init__("endpoints", store.generation, partial(_read, store), clock)


def _read(store: EndpointStore) -> tuple[int, list[EndpointSummary]]:
    generation, endpoints = store.state()
    return generation, [_summary(endpoint) for endpoint in endpoints]


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
