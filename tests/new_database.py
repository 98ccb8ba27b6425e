"""New SQLite databases for tests: copies of one that the real migrations made, once for each process of the run.

Migrating takes half a second and copying a few milliseconds. A copy is at the newest version, so that whoever opens it and
calls ``create_tables`` finds nothing to do. How a database comes to be is tested where nothing is copied:
``tests/conformance/test_migrations.py`` and all tests of whole systems.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from sqlalchemy import make_url

from servelens.database import Database


@cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory(prefix="servelens-new-database-") as folder:
        file = Path(folder) / "servelens.db"
        database = Database(f"sqlite:///{file}")
        database.create_tables()
        database.dispose()  # the last connection writes the log into the file
        assert [each.name for each in file.parent.iterdir()] == [file.name]
        return file.read_bytes()


def write_new_database(file: Path) -> None:
    """Make ``file``, which is not there yet or empty, a database with all tables and no rows."""
    assert not file.exists() or file.stat().st_size == 0, f"{file} has been used"
    file.write_bytes(_migrated())


def new_database(file: Path) -> Database:
    """The database of :func:`write_new_database`, opened."""
    write_new_database(file)
    return Database(f"sqlite:///{file}")


def create_tables_of(database: Database) -> None:
    """Do for a database on SQLite that nobody has used yet what its ``create_tables`` does."""
    name = make_url(database.engine.url).database
    assert name is not None
    write_new_database(Path(name))
