"""A promotion moves the champion's route, as a change like any other, and only once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from servelens.assembly.endpoints import build_endpoint
from servelens.clock import ManualClock
from servelens.control.promotion import Promotion, move_route
from servelens.control.store import EndpointStore
from servelens.database import Database
from servelens.endpoint_settings import EndpointSettings
from servelens.errors import Conflict, Missing

START = datetime(2026, 5, 1, 12, tzinfo=UTC)


def endpoint(entities: str, config: dict[str, Any] | None = None, **more: Any) -> EndpointSettings:
    """``chat`` with the served entities named by single letters."""
    served = [
        {"name": name, "backend": {"urls": ["http://gpu:1"], "api_key": f"sk-{name}"}} for name in entities
    ]
    return EndpointSettings.model_validate(
        {"name": "chat", "config": {"served_entities": served, **(config or {})}, **more}
    )


def routes(**shares: float) -> dict[str, Any]:
    return {
        "traffic_config": {
            "routes": [
                {"served_entity_name": name, "traffic_percentage": share} for name, share in shares.items()
            ]
        }
    }


def shares(store: EndpointStore) -> dict[str, float]:
    """The split as a worker would serve it, in order."""
    served = build_endpoint(store.get("chat").parsed())
    return {route.served_entity: route.traffic_percentage for route in served.routes}


@pytest.fixture
def store(database: Database) -> EndpointStore:
    return EndpointStore(database, ManualClock(START))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": 100}, {"b": 100}),
        ({"a": 90, "b": 10}, {"b": 100}),
        ({"b": 0, "a": 100}, {"b": 100}),
        ({"c": 20, "a": 70, "d": 10}, {"c": 20, "b": 70, "d": 10}),
        ({"c": 20, "a": 30, "b": 50}, {"c": 20, "b": 80}),
    ],
)
def test_the_champions_share_goes_to_the_promoted_in_its_place(
    store: EndpointStore, before: dict[str, float], after: dict[str, float]
) -> None:
    gateway = {
        "usage_tracking_config": {"enabled": False},
        "inference_table_config": {"sampling_fraction": 0.5},
    }
    store.create(endpoint("abcd", routes(**before), ai_gateway=gateway, payload_limit_bytes=7), by="ann")
    moved = move_route(store, "chat", "a", "b", by="rollout")
    assert shares(store) == after
    assert list(shares(store)) == list(after)
    assert [entity.name for entity in moved.parsed().config.served_entities] == list("abcd")
    assert moved.settings["config"]["served_entities"][0]["backend"]["api_key"] == "sk-a"
    assert (moved.settings["ai_gateway"], moved.settings["payload_limit_bytes"]) == (gateway, 7)
    assert moved.config_version == 2
    change = store.history("chat")[-1]
    assert (change.action, change.changed_by, change.config_version) == ("config", "rollout", 2)
    assert "sk-a" not in str(change.settings)
    assert move_route(store, "chat", "a", "b", by="rollout") == moved
    assert len(store.history("chat")) == 2


def test_without_routes_one_is_made_and_the_promoted_is_a_shadow_no_more(store: EndpointStore) -> None:
    mirrored = [{"served_entity_name": "b", "percentage": 50}, {"served_entity_name": "c"}]
    store.create(endpoint("abc", {"shadows": mirrored}), by="ann")
    assert shares(store) == {"a": 100}
    moved = move_route(store, "chat", "a", "b", by="ann")
    assert shares(store) == {"b": 100}
    assert moved.settings["config"]["shadows"] == [{"served_entity_name": "c"}]
    assert move_route(store, "chat", "a", "b", by="ann") == moved


def test_a_single_entity_that_has_the_traffic_keeps_it(store: EndpointStore) -> None:
    created = store.create(endpoint("b"), by="ann")
    assert move_route(store, "chat", "a", "b", by="ann") == created


def test_what_cannot_be_moved_is_said_and_changes_nothing(store: EndpointStore) -> None:
    with pytest.raises(Missing, match="chat"):
        move_route(store, "chat", "a", "b", by="ann")
    created = store.create(endpoint("abc", routes(c=100)), by="ann")
    with pytest.raises(Conflict, match="'a' of endpoint 'chat' has no traffic that could go to 'b'"):
        move_route(store, "chat", "a", "b", by="ann")
    with pytest.raises(Conflict, match="no served entity 'x' any more") as refused:
        move_route(store, "chat", "c", "x", by="ann")
    assert refused.value.fix == "Add it, or use one of: a, b, c."
    assert store.get("chat") == created


def test_whatever_else_names_the_champion_moves_after_the_route_and_again_after_a_crash(
    store: EndpointStore,
) -> None:
    store.create(endpoint("ab", routes(a=100)), by="ann")
    moves: list[tuple[str, str, str, str, dict[str, float]]] = []

    def move(name: str, from_entity: str, to_entity: str, by: str) -> None:
        moves.append((name, from_entity, to_entity, by, shares(store)))
        if len(moves) == 1:
            raise Conflict("the registry is away")

    promote = Promotion(store, [move])
    with pytest.raises(Conflict, match="registry"):
        promote("chat", "a", "b")
    promote("chat", "a", "b", "ann")
    assert moves == [("chat", "a", "b", "rollout", {"b": 100}), ("chat", "a", "b", "ann", {"b": 100})]
    assert store.get("chat").config_version == 2
