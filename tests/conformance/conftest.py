"""Every test here runs on SQLite and on PostgreSQL, and must not be able to tell which."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import relabel.models
from servelens.database import Database
from tests.postgresql import MISSING, PostgresqlServer, postgresql_binaries, postgresql_server
from tests.stored_note import create_notes

assert relabel.models.CaseRow.__tablename__ == "relabel_cases"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A PostgreSQL server for the whole session."""
    binaries = postgresql_binaries()
    if binaries is None:
        pytest.skip(MISSING)
    with postgresql_server(binaries) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a new database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'servelens.db'}"
        return
    with request.getfixturevalue("postgresql").database_url() as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A new database with all tables."""
    with ExitStack() as stack:
        opened = Database(database_url)
        stack.callback(opened.dispose)
        opened.create_tables()
        create_notes(opened)
        yield opened
