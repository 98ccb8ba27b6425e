"""servelens.database on SQLite: what holds on both databases is in tests/conformance/test_database.py."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import inspect, select, text

from servelens.database import Database
from servelens.errors import Invalid, Unavailable
from tests.new_database import new_database
from tests.stored_note import Note, create_notes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "servelens.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    opened = new_database(path)
    create_notes(opened)
    yield opened
    opened.dispose()


def test_sqlite_runs_in_wal_mode_with_foreign_keys(database: Database) -> None:
    with database.session() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA foreign_keys")) == 1


def test_a_second_writer_waits_for_the_first(database: Database) -> None:
    inside, order = threading.Event(), []

    def first() -> None:
        with database.session() as session:
            session.add(Note(text="first"))
            session.flush()
            inside.set()
            assert not second_done.wait(0.2)
            order.append("first")

    second_done = threading.Event()
    writer = threading.Thread(target=first)
    writer.start()
    assert inside.wait(10)
    with database.session() as session:
        assert session.scalars(select(Note.text)).all() == ["first"]
        order.append("second")
    second_done.set()
    writer.join()
    assert order == ["first", "second"]


def test_a_reader_waits_for_no_writer_and_sees_what_was_committed(database: Database) -> None:
    with database.session() as writing:
        writing.add(Note(text="not yet"))
        writing.flush()
        started = time.monotonic()
        with database.session(read_only=True) as reading:
            assert reading.scalars(select(Note)).all() == []
        assert time.monotonic() - started < 5


def test_a_connection_that_was_read_only_can_write_again(database: Database) -> None:
    for _ in range(3):
        with database.session(read_only=True) as session:
            session.scalars(select(Note)).all()
        with database.session() as session:
            session.add(Note(text="written"))


def test_times_in_another_zone_are_stored_as_utc(database: Database, path: Path) -> None:
    moment = datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=5)))
    with database.session() as session:
        session.add(Note(text="timed", at=moment))
    raw = sqlite3.connect(path)
    try:
        assert raw.execute("select at from test_notes").fetchone() == ("2026-02-28 20:30:00.000000",)
    finally:
        raw.close()
    with database.session() as session:
        stored = session.scalars(select(Note)).one().at
    assert stored == moment
    assert stored is not None
    assert stored.tzinfo is UTC


@pytest.mark.parametrize("url", ["nonsense", "nodatabase://x/y", "sqlite+nodriver:///x"])
def test_an_unusable_address_names_the_key(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        Database(url)
    assert caught.value.field == "database.url"
    assert "sqlite:///" in str(caught.value)


def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'missing' / 'servelens.db'}")
    with pytest.raises(Unavailable, match="unable to open database file"):
        database.create_tables()
    database.dispose()


def test_a_file_that_is_no_database_is_unavailable(path: Path) -> None:
    path.write_bytes(b"this is not a database, whatever its name says" * 100)
    database = Database(f"sqlite:///{path}")
    with pytest.raises(Unavailable, match="not a database"):
        database.create_tables()
    database.dispose()


def test_many_may_open_and_create_a_new_database_at_once(tmp_path: Path) -> None:
    errors: list[Exception] = []

    def create(url: str, start: threading.Barrier) -> None:
        database = Database(url)
        start.wait(10)
        try:
            database.create_tables()
        except Exception as error:  # noqa: BLE001 - a thread's error must reach the assertion below
            errors.append(error)
        finally:
            database.dispose()

    for number in range(20):
        url, start = f"sqlite:///{tmp_path / f'{number}.db'}", threading.Barrier(8)
        threads = [threading.Thread(target=create, args=(url, start)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    database = Database(f"sqlite:///{tmp_path / '0.db'}")
    assert "api_keys" in inspect(database.engine).get_table_names()
    database.dispose()
