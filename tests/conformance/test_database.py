"""servelens.database: transactions, times and errors, the same on every database."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import func, select, text, update

from servelens.database import Base, Database
from servelens.errors import Conflict, Invalid, Unavailable
from tests.stored_note import Note, create_notes


@pytest.fixture
def database(database: Database) -> Database:
    """A new database with all tables, and one for notes."""
    create_notes(database)
    return database


def _texts(database: Database) -> list[str]:
    with database.session(read_only=True) as session:
        return list(session.scalars(select(Note.text).order_by(Note.id)))


def test_a_block_that_ends_is_committed(database: Database) -> None:
    with database.session() as session:
        session.add(Note(text="kept"))
    assert _texts(database) == ["kept"]


def test_a_block_that_raises_is_rolled_back(database: Database) -> None:
    def add_and_fail() -> None:
        with database.session() as session:
            session.add(Note(text="gone"))
            session.flush()
            raise LookupError

    with pytest.raises(LookupError):
        add_and_fail()
    assert _texts(database) == []


def test_what_was_read_stays_readable_after_the_session(database: Database) -> None:
    with database.session() as session:
        note = Note(text="read later")
        session.add(note)
    assert (note.id, note.text) == (1, "read later")


def test_a_read_only_session_cannot_write(database: Database) -> None:
    with pytest.raises(Unavailable, match=r"read-?only"), database.session(read_only=True) as session:
        session.add(Note(text="no"))
    assert _texts(database) == []
    with database.session() as session:
        session.add(Note(text="yes"))
    assert _texts(database) == ["yes"]


def test_a_violated_constraint_is_a_conflict(database: Database) -> None:
    with database.session() as session:
        session.add(Note(text="first", key="same"))
    with pytest.raises(Conflict, match="refused"), database.session() as session:
        session.add(Note(text="second", key="same"))
    assert _texts(database) == ["first"]


def test_a_row_that_went_away_is_a_conflict(database: Database) -> None:
    with database.session() as session:
        note = Note(text="short-lived")
        session.add(note)

    def change_what_is_gone() -> None:
        with database.session() as session:
            held = session.get_one(Note, note.id)
            session.execute(text("delete from test_notes"))
            held.text = "changed"

    with pytest.raises(Conflict, match="first"):
        change_what_is_gone()


def test_a_naive_time_is_invalid(database: Database) -> None:
    with pytest.raises(Invalid, match="without a zone"), database.session() as session:
        session.add(Note(text="when?", at=datetime(2026, 1, 1)))  # noqa: DTZ001 - that is the point


def test_text_that_is_not_unicode_is_invalid(database: Database) -> None:
    with pytest.raises(Invalid, match="Unicode"), database.session() as session:
        session.add(Note(text="half a pair: \ud800"))


def test_a_nul_in_a_text_is_stored_or_invalid_but_no_failure(database: Database) -> None:
    try:
        with database.session() as session:
            session.add(Note(text="a\x00b"))
    except Invalid:
        assert _texts(database) == []
    else:
        assert _texts(database) == ["a\x00b"]


def test_a_number_over_64_bits_is_refused(database: Database) -> None:
    with pytest.raises((Invalid, Unavailable)), database.session() as session:
        session.execute(update(Note).where(Note.id == 2**80).values(text="x"))


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=-7))),
    ],
)
def test_a_time_comes_back_exactly_and_in_utc(database: Database, moment: datetime) -> None:
    with database.session() as session:
        session.add(Note(text="timed", at=moment))
    with database.session() as session:
        stored = session.scalars(select(Note.at)).one()
    assert stored == moment
    assert stored is not None
    assert stored.tzinfo is UTC


def test_times_compare_in_the_database(database: Database) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    with database.session() as session:
        session.add_all(Note(text=str(hour), at=noon + timedelta(hours=hour)) for hour in range(3))
    there = timezone(timedelta(hours=9))
    with database.session() as session:
        later = session.scalars(select(Note.text).where(Note.at > noon.astimezone(there)).order_by(Note.at))
        assert later.all() == ["1", "2"]


def test_creating_tables_again_changes_nothing(database: Database) -> None:
    with database.session() as session:
        session.add(Note(text="kept"))
    database.create_tables()
    assert _texts(database) == ["kept"]


def test_tables_are_created_once_by_many_at_the_same_time(empty_database_url: str) -> None:
    databases = [Database(empty_database_url) for _ in range(6)]
    start, errors = threading.Barrier(len(databases)), []

    def create(database: Database) -> None:
        start.wait(10)
        try:
            database.create_tables()
        except Exception as error:  # noqa: BLE001 - a thread's error must reach the assertion below
            errors.append(error)

    threads = [threading.Thread(target=create, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert databases[0].scalar("SELECT count(*) FROM api_keys") == 0
    for database in databases:
        database.dispose()


def test_no_increment_is_lost_between_threads(database: Database) -> None:
    with database.session() as session:
        session.add(Note(text="0"))

    def count() -> None:
        for _ in range(20):
            with database.session() as session:
                note = session.scalars(select(Note).with_for_update()).one()
                note.text = str(int(note.text) + 1)

    threads = [threading.Thread(target=count) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _texts(database) == ["120"]


def test_two_transactions_that_wait_for_each_other_end_in_a_conflict(database: Database) -> None:
    if database.engine.dialect.name == "sqlite":
        # One writer at a time: the second transaction begins after the first, which waits for nobody.
        with database.session() as session:
            assert session.scalar(text("PRAGMA busy_timeout")) == 10_000
        return
    with database.session() as session:
        session.add_all([Note(id=1, text="a"), Note(id=2, text="b")])
    both, outcomes = threading.Barrier(2), []

    def change(first: int, second: int) -> None:
        try:
            with database.session() as session:
                session.execute(update(Note).where(Note.id == first).values(text="x"))
                both.wait(10)
                session.execute(update(Note).where(Note.id == second).values(text="y"))
            outcomes.append("done")
        except Conflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=change, args=order) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict", "done"]


def test_a_statement_that_fails_is_unavailable_and_the_next_session_works(database: Database) -> None:
    with pytest.raises(Unavailable, match="no_such_table"), database.session() as session:
        session.execute(text("select 1 from no_such_table"))
    with database.session() as session:
        assert session.scalar(select(func.count()).select_from(Note)) == 0


def test_constraints_have_names(database: Database) -> None:
    unnamed = [
        (table.name, type(constraint).__name__)
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
        if constraint.name is None
    ]
    assert unnamed == []
