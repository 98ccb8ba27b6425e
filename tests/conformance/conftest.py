"""Every test here runs on SQLite and on PostgreSQL, and must not be able to tell which."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import relabel.models
from servelens.database import Database
from tests.new_database import write_new_database
from tests.postgresql import MISSING, PostgresqlServer, postgresql_binaries, postgresql_server

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
def backend(request: pytest.FixtureRequest) -> str:
    """Which database the test runs on."""
    return str(request.param)


@pytest.fixture
def empty_database_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a new database without tables."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'servelens.db'}"
        return
    with request.getfixturevalue("postgresql").database_url() as url:
        yield url


@pytest.fixture
def database_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a new database with all tables."""
    if backend == "sqlite":
        write_new_database(tmp_path / "servelens.db")
        yield f"sqlite:///{tmp_path / 'servelens.db'}"
        return
    with request.getfixturevalue("postgresql").migrated_database_url() as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A new database with all tables."""
    opened = Database(database_url)
    yield opened
    opened.dispose()
