"""Brings a database to the newest version. Imported only when there is something to do: alembic takes long to load."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.engine import Connection

from servelens.errors import Invalid


def upgrade(connection: Connection) -> None:
    """Carry out all versions that the database does not have, in the transaction of ``connection``.

    Raises :class:`~servelens.errors.Invalid` when it is at a version that never was.
    """
    try:
        command.upgrade(configuration(connection), "head")
    except CommandError as error:
        raise Invalid(
            f"the database is at no version of servelens: {error}",
            field="database.url",
            fix="Is it the database of another program? Name another, or restore a copy.",
        ) from error


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's settings for the versions of this package."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
