"""A database of every release comes to the newest version with its rows; a newer one is left alone.

``releases/`` holds what each release made, and two rows for each table: SQL as its ``create_all`` and its inserts said it
(the first release is commit d832910, the second 8fd6c1b; neither kept a version).
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, inspect, select, text

import collector.forgotten
import evaluators.alerts.models
import evaluators.runs.evaluation_store
import evaluators.runs.run_history
import experiments.models
import servelens.control.models
import servelens.keys.models
import servelens.lease
from servelens.database import SCHEMA_VERSION, Base, Database
from servelens.errors import Invalid
from servelens.migrations.upgrade import configuration

RELEASES = Path(__file__).parent / "releases"
NAMES = sorted({path.name.partition(".")[0] for path in RELEASES.glob("*.sql")})
DECLARED = [
    collector.forgotten.ForgottenRecordRow,
    evaluators.alerts.models.AlertStateRow,
    evaluators.runs.evaluation_store.EvaluationRow,
    evaluators.runs.run_history.EvaluationRun,
    experiments.models.ExperimentRow,
    servelens.control.models.EndpointRow,
    servelens.keys.models.KeyRow,
    servelens.lease.LeaseRow,
]


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Database]:
    opened = Database(empty_database_url)
    yield opened
    opened.dispose()


def load(database: Database, release: str) -> None:
    """Make the database what the release left behind."""
    script = (RELEASES / f"{release}.{database.engine.dialect.name}.sql").read_text(encoding="utf-8")
    if database.engine.dialect.name == "sqlite":
        with closing(sqlite3.connect(str(database.engine.url.database))) as connection:
            connection.executescript(
                script
            )  # its rows come in any order: the driver alone minds no foreign key
        return
    with database.engine.begin() as session:
        session.exec_driver_sql(script.replace("%", "%%"))


def columns(database: Database) -> dict[str, list[str]]:
    """The columns of all tables that are there, by table."""
    there = MetaData()
    there.reflect(database.engine)
    return {
        name: [column.name for column in table.columns]
        for name, table in there.tables.items()
        if name != "alembic_version"
    }


def rows(database: Database, of: dict[str, list[str]]) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of the columns ``of`` tables, by table."""
    there = MetaData()
    with database.engine.connect() as connection:
        there.reflect(connection)
        return {
            name: sorted(
                (
                    tuple(row)
                    for row in connection.execute(select(*(there.tables[name].c[each] for each in names)))
                ),
                key=repr,
            )
            for name, names in of.items()
        }


def differences(database: Database) -> list[Any]:
    """What alembic would change to make the database what the models say."""
    ours = {table.name for table in Base.metadata.sorted_tables if not table.name.startswith("test_")}
    options = {
        "compare_type": True,
        "compare_server_default": True,
        "include_object": lambda item, name, kind, *_: kind != "table" or name in ours,
    }
    with database.engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)


def version(database: Database) -> str | None:
    with database.engine.connect() as connection:
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return found


def test_the_newest_version_is_what_the_models_say(empty: Database) -> None:
    empty.create_tables()
    assert differences(empty) == []
    assert version(empty) == SCHEMA_VERSION
    assert ScriptDirectory.from_config(configuration()).get_heads() == [SCHEMA_VERSION]


@pytest.mark.parametrize("release", NAMES)
def test_a_database_of_each_release_keeps_its_rows(empty: Database, release: str) -> None:
    load(empty, release)
    there = columns(empty)
    before = rows(empty, there)
    assert before
    assert all(before.values())
    empty.create_tables()
    assert rows(empty, there) == before
    assert differences(empty) == []
    assert version(empty) == SCHEMA_VERSION
    after = rows(empty, columns(empty))
    empty.create_tables()
    assert rows(empty, columns(empty)) == after


@pytest.mark.parametrize("release", NAMES)
def test_its_rows_read_and_more_can_be_added(empty: Database, release: str) -> None:
    load(empty, release)
    empty.create_tables()
    with empty.session() as session:
        run = session.get_one(evaluators.runs.run_history.EvaluationRun, 2)
        assert run.unscored_reasons == {"n": 2, "naïve": None}
        assert run.started_at.utcoffset() is not None
        more = evaluators.runs.run_history.EvaluationRun(
            endpoint="chat", evaluator="toxicity", target=None, device="cpu", started_at=run.started_at
        )
        session.add(more)
        session.flush()
        assert more.id == 3


def test_a_database_that_has_only_some_tables_gets_the_others(empty: Database) -> None:
    only = [table for table in Base.metadata.sorted_tables if table.name.startswith(("serving_", "api_"))]
    with empty.engine.begin() as connection:
        Base.metadata.create_all(connection, tables=only)
    empty.create_tables()
    assert differences(empty) == []


def test_many_may_bring_it_up_at_the_same_time(empty_database_url: str, empty: Database) -> None:
    load(empty, NAMES[0])
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
    for database in databases:
        database.dispose()
    assert errors == []
    assert differences(empty) == []


def test_a_version_that_fails_leaves_the_database_as_it_was(empty: Database) -> None:
    load(empty, NAMES[0])
    with empty.engine.begin() as connection:  # in the way of what the second version makes
        connection.execute(text("CREATE TABLE serving_endpoint_versions (other INTEGER)"))
    before = inspect(empty.engine).get_table_names()
    with pytest.raises(Exception, match=r"no such column|has no column|does not exist"):
        empty.create_tables()
    assert inspect(empty.engine).get_table_names() == before


def test_a_newer_database_is_refused_and_left_alone(empty: Database) -> None:
    empty.create_tables()
    with empty.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Invalid, match=rf"^database\.url: .*9999.*{SCHEMA_VERSION}.*newer one"):
        empty.create_tables()
    assert version(empty) == "9999"


def test_a_version_that_never_was_is_said(empty: Database) -> None:
    empty.create_tables()
    with empty.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001x'"))
    with pytest.raises(Invalid, match=r"^database\.url: .*no version of servelens"):
        empty.create_tables()


def test_a_process_on_a_database_of_today_does_not_load_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'servelens.db'}"
    opened = Database(url)
    opened.create_tables()
    opened.dispose()
    code = (
        "import sys; from servelens.database import Database; "
        f"Database({url!r}).create_tables(); assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
