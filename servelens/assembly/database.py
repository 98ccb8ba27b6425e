"""The SQL database, from the settings."""

from __future__ import annotations

from servelens.database import Database
from servelens.settings import Settings


def build_database(settings: Settings) -> Database:
    """Open the database. Create its tables after importing the modules that declare them."""
    if settings.database.url is not None:
        return Database(settings.database.url.get_secret_value())
    return Database(f"sqlite:///{settings.data_dir / 'servelens.db'}")
