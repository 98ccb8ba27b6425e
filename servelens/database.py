"""The SQL database: one engine, one declarative base, and foreign errors translated at the boundary.

SQLite (one machine) runs in WAL mode with every writing transaction begun IMMEDIATE, so that two writers wait
for each other instead of failing half-way (https://sqlite.org/lang_transaction.html); a read-only one begins
deferred and waits for nobody. PostgreSQL needs nothing special. All times are stored in UTC and come back
aware, whichever database holds them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, MetaData, create_engine, event, inspect, text
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.types import TypeDecorator

from servelens.errors import Conflict, Invalid, ServelensError, Unavailable

SCHEMA_VERSION = "0007"  # the newest in servelens/migrations/versions
_BUSY_TIMEOUT_S = 10.0
_READ_ONLY = "servelens_read_only"
_MIGRATION_LOCK = 7_345_110_925  # any number that nobody else uses for an advisory lock
# SQLSTATEs after which the same transaction may succeed: serialization failure, deadlock, lock not available.
_RETRYABLE = frozenset({"40001", "40P01", "55P03"})


class Base(DeclarativeBase):
    """Declarative base of every table in the SQL database."""

    # Named constraints, so that a later migration can name what it changes.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, stored in UTC; a naive one is refused, since nobody could say what it means."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise Invalid("a time without a zone cannot be stored", fix="Pass an aware datetime.")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Database:
    """Opens sessions on the database at ``url`` (``sqlite:///folder/servelens.db``, ``postgresql+psycopg://…``)."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    def create_tables(self) -> None:
        """Bring the database to :data:`SCHEMA_VERSION`: the tables of a new one are made, those of an older one changed.

        Several processes may call it at once: the later ones wait and then find nothing to do. A database that needs
        nothing costs two queries. Raises :class:`~servelens.errors.Invalid` when a newer servelens has been here, and
        :class:`~servelens.errors.Unavailable`.
        """
        with _translated(), self.engine.connect() as connection:
            current = connection.execution_options(**{_READ_ONLY: True, "postgresql_readonly": True})
            if _schema_version(current) == SCHEMA_VERSION:
                return
        from servelens.migrations.upgrade import upgrade  # takes half a second, and seldom needed

        with _translated(), self.engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)").bindparams(key=_MIGRATION_LOCK))
            if _schema_version(connection) != SCHEMA_VERSION:
                upgrade(connection)

    @contextmanager
    def session(self, *, read_only: bool = False) -> Iterator[Session]:
        """A session that commits when the block ends and rolls back when it raises.

        ``read_only``: the database refuses changes, and on SQLite the session waits for no writer.

        Raises :class:`~servelens.errors.Conflict` on a violated constraint or a deadlock,
        :class:`~servelens.errors.Invalid` on a value that the database cannot hold, and
        :class:`~servelens.errors.Unavailable` when it cannot be reached or stays locked.
        """
        with _translated(), self._sessions() as session, session.begin():
            if read_only:
                session.connection(execution_options={_READ_ONLY: True, "postgresql_readonly": True})
            yield session

    def scalar(self, query: str) -> Any:
        """The first value of a query in plain SQL, read-only: for what is asked many times a second, since a session and
        a built query cost three times as much. ``None`` without a row. Raises what :meth:`session` raises.
        """
        with _translated(), self.engine.connect() as connection:
            read_only = connection.execution_options(**{_READ_ONLY: True, "postgresql_readonly": True})
            return read_only.exec_driver_sql(query).scalar()

    def dispose(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()


def _schema_version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if version is not None and version > SCHEMA_VERSION:
        raise Invalid(
            f"the database is at version {version}, and this servelens knows versions up to {SCHEMA_VERSION}",
            field="database.url",
            fix="Use the servelens that it was last used with, or a newer one, or another database.",
        )
    return None if version is None else str(version)


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return create_engine(parsed, pool_pre_ping=True, connect_args=_bounded_waits(parsed))
        engine = create_engine(parsed, connect_args={"timeout": _BUSY_TIMEOUT_S})
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise Invalid(
            f"the database address is not usable: {error}",
            field="database.url",
            fix="Use sqlite:///folder/file.db or postgresql+psycopg://user@host/name.",
        ) from error

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions behind our back
        _enter_wal_mode(connection)
        for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        read_only = bool(connection.get_execution_options().get(_READ_ONLY, False))
        connection.exec_driver_sql(f"PRAGMA query_only={int(read_only)}")
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _bounded_waits(url: URL) -> dict[str, Any]:
    """Libpq waits for ever by itself; what the address says wins."""
    if url.get_backend_name() != "postgresql":
        return {}
    waits = {"connect_timeout": 5, "tcp_user_timeout": 10_000}
    return {name: value for name, value in waits.items() if name not in url.query}


def _enter_wal_mode(connection: sqlite3.Connection) -> None:
    # The busy timeout does not cover the change of mode, which several may try on a new file at once.
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                connection.close()
                raise
            time.sleep(0.005)
        else:
            return


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise Conflict(f"the database refused the change: {error.orig}") from error
    except StaleDataError as error:
        raise Conflict(f"somebody else changed the row first: {error}") from error
    except DataError as error:
        raise Invalid(f"the database cannot hold a value: {error.orig}") from error
    except UnicodeEncodeError as error:
        raise Invalid(f"the database cannot hold a text that is not valid Unicode: {error.reason}") from error
    except OverflowError as error:  # SQLite's driver, for an integer of more than 64 bits
        raise Invalid(f"the database cannot hold a number: {error}") from error
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) in _RETRYABLE:
            raise Conflict(f"two transactions were in each other's way: {error.orig}") from error
        raise Unavailable(f"the database did not answer: {error.orig}") from error
    except StatementError as error:  # raised while binding a value, before the database saw it
        if isinstance(error.orig, ServelensError):
            raise error.orig from error
        raise Invalid(f"the database cannot hold a value: {error.orig}") from error
    except PoolTimeout as error:
        raise Unavailable(f"all connections to the database are in use: {error}") from error
