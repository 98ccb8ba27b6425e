"""A promotion: the champion's share of an endpoint's traffic goes to the served entity that has won.

Whoever is killed half-way promotes again: each part finds that it is done, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from servelens.control.store import EndpointStore
from servelens.control.stored_endpoint import StoredEndpoint
from servelens.endpoint_settings import EndpointSettings
from servelens.errors import Conflict

MoveAlias = Callable[[str, str, str, str], None]
"""``(endpoint, from_entity, to_entity, by)``: moves what else says who is champion, such as the alias of a model
in a registry. Called again after a crash, so without effect when it is there already.
"""


class Promotion:
    """Moves the route, then everything in ``move_aliases``, in order. Nothing is there to be moved yet: served entities
    are addresses. When they come from a registry, its alias moves here too.
    """

    def __init__(self, store: EndpointStore, move_aliases: Sequence[MoveAlias] = ()) -> None:
        self._store = store
        self._move_aliases = move_aliases

    def __call__(self, endpoint: str, from_entity: str, to_entity: str, by: str = "rollout") -> None:
        """Raises what :func:`move_route` raises."""
        move_route(self._store, endpoint, from_entity, to_entity, by)
        for move in self._move_aliases:
            move(endpoint, from_entity, to_entity, by)


def move_route(
    store: EndpointStore, endpoint: str, from_entity: str, to_entity: str, by: str
) -> StoredEndpoint:
    """Give the whole route of ``from_entity`` to ``to_entity``, as an ordinary change of the configuration.

    ``from_entity`` stays as a served entity without a route, ``to_entity`` is a shadow no more, and everything else
    stays as it is. What is so already is no change. Raises :class:`~servelens.errors.Missing` for an endpoint, and
    :class:`~servelens.errors.Conflict` when the endpoint has no such served entity, or no route that could be moved.
    """

    def moved(stored: StoredEndpoint) -> EndpointSettings:
        settings = stored.settings
        config = _moved(settings["config"], endpoint, from_entity, to_entity)
        return EndpointSettings.model_validate({**settings, "config": config})

    return store.update(endpoint, moved, by=by, action="config")


def _moved(config: dict[str, Any], endpoint: str, from_entity: str, to_entity: str) -> dict[str, Any]:
    entities = [entity["name"] for entity in config["served_entities"]]
    if to_entity not in entities:
        raise Conflict(
            f"endpoint '{endpoint}' has no served entity '{to_entity}' any more.",
            field="served_entities",
            fix=f"Add it, or use one of: {', '.join(entities)}.",
        )
    changed = dict(config)
    shadows = [each for each in config.get("shadows", []) if each["served_entity_name"] != to_entity]
    if shadows != config.get("shadows", []):
        changed["shadows"] = shadows
    shares = _shares(config, entities)
    share = shares.get(from_entity, 0.0) if from_entity != to_entity else 0.0
    if share:
        # In the champion's place, so that the units of all other routes stay where they are.
        to = {from_entity: to_entity} if to_entity not in shares else {}
        kept = {
            to.get(name, name): each for name, each in shares.items() if name != from_entity or name in to
        }
        if to_entity in shares:
            kept[to_entity] += share
        changed["traffic_config"] = {
            "routes": [
                {"served_entity_name": name, "traffic_percentage": each} for name, each in kept.items()
            ]
        }
    elif not shares.get(to_entity):
        raise Conflict(
            f"served entity '{from_entity}' of endpoint '{endpoint}' has no traffic that could go to '{to_entity}'.",
            field="traffic_config.routes",
            fix=f"Give '{to_entity}' a route, and stop the experiment.",
        )
    return changed


def _shares(config: dict[str, Any], entities: Sequence[str]) -> dict[str, float]:
    """The routes, in percent by served entity; without any, all is answered by the only one that is no shadow."""
    traffic = config.get("traffic_config")
    if traffic is not None:
        return {route["served_entity_name"]: route["traffic_percentage"] for route in traffic["routes"]}
    mirrored = {shadow["served_entity_name"] for shadow in config.get("shadows", [])}
    return {name: 100.0 for name in entities if name not in mirrored}
