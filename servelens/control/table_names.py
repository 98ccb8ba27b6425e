"""The names of the endpoints' tables, followed as endpoints are created."""

from __future__ import annotations

from collections.abc import Mapping

from servelens.control.store import EndpointStore
from servelens.control.stored_endpoint import TablePlace


class StoredTableNames:
    """Table names of all endpoints that there ever were, deleted ones included: their records may still arrive."""

    def __init__(self, store: EndpointStore) -> None:
        self._store = store
        self._generation = -1

    def __call__(self) -> Mapping[str, TablePlace] | None:
        """All names, or ``None`` when nothing has changed since the last call. Raises Unavailable."""
        if self._store.generation() == self._generation:
            return None
        generation, endpoints = self._store.state(deleted=True)
        self._generation = generation
        return {endpoint.name: endpoint.table for endpoint in endpoints}
