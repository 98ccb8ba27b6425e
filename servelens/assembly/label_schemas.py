"""The label schemas in the database, with those of the settings file in them."""

from __future__ import annotations

from relabel.schema_definition import definition_of
from relabel.schema_store import SchemaStore
from servelens.clock import Clock
from servelens.database import Database
from servelens.settings import Settings


def open_schema_store(settings: Settings, database: Database, clock: Clock) -> SchemaStore:
    """The store, whichever process comes first. Its tables are there. Raises Unavailable."""
    store = SchemaStore(database, clock)
    store.apply_file({each.endpoint: definition_of(each.build()) for each in settings.relabel.schemas})
    return store
