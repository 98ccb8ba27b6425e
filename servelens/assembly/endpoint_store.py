"""The endpoints in the database, from the settings."""

from __future__ import annotations

from servelens.assembly.endpoints import build_endpoint
from servelens.clock import Clock
from servelens.control.store import EndpointStore
from servelens.database import Database
from servelens.settings import Settings


def build_endpoint_store(settings: Settings, database: Database, clock: Clock) -> EndpointStore:
    """The store. Its tables are created with ``database.create_tables()``."""
    return EndpointStore(database, clock, catalog=settings.tables.catalog, schema=settings.tables.schema_name)


def open_endpoint_store(settings: Settings, database: Database, clock: Clock) -> EndpointStore:
    """The store with the endpoints of the settings file in it, whichever process comes first.

    Raises InvalidSettings when the file contradicts what is stored, and Unavailable.
    """
    database.create_tables()
    store = build_endpoint_store(settings, database, clock)
    for block in settings.endpoints:
        build_endpoint(block)  # what no proxy worker could serve is not stored
    store.apply_file(settings.endpoints, by="servelens.yaml")
    return store
