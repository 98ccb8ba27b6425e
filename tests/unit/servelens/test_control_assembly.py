"""What the processes make of the stored endpoints: summaries for the console, a catalog, a private database file."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.endpoint_summaries import EndpointSummaries
from servelens.assembly.tables import build_catalog
from servelens.clock import ManualClock
from servelens.control.store import EndpointStore
from servelens.database import Database
from servelens.errors import InvalidSettings
from servelens.settings import Settings
from servelens.settings_file import secrets_of_environment
from tests.unit.servelens.control_settings import backend, routes, settings


@pytest.fixture
def loaded(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "data_dir": tmp_path,
            "tables": {"schema": "serving"},
            "endpoints": [{"name": "filed", "config": {"served_entities": [backend()]}}],
        }
    )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 5, 1, tzinfo=UTC))


@pytest.fixture
def database(loaded: Settings) -> Iterator[Database]:
    opened = build_database(loaded)
    yield opened
    opened.dispose()


@pytest.fixture
def store(loaded: Settings, database: Database, clock: ManualClock) -> EndpointStore:
    return open_endpoint_store(loaded, database, clock)


def test_only_its_owner_can_read_the_database_file(
    loaded: Settings, store: EndpointStore, database: Database
) -> None:
    store.create(settings("made", backend(api_key="sk-secret")), by="ann")
    for file in loaded.data_dir.glob("servelens.db*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


def test_a_file_that_others_could_read_is_closed_to_them(loaded: Settings) -> None:
    file = loaded.data_dir / "servelens.db"
    file.touch(0o644)
    build_database(loaded).dispose()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_catalog_knows_endpoints_of_the_file_and_of_the_api(
    loaded: Settings, store: EndpointStore
) -> None:
    catalog = build_catalog(loaded, store)
    store.create(settings("made"), by="ann")
    root = f"{loaded.tables_root}/servelens/serving"
    assert catalog.tables("filed").payload.uri == f"{root}/filed_payload"
    assert catalog.tables("made").payload.uri == f"{root}/made_payload"
    assert build_catalog(loaded).tables("filed").payload.uri == f"{root}/filed_payload"


def test_what_no_worker_could_serve_is_not_stored_by_any_process(
    loaded: Settings, database: Database, clock: ManualClock
) -> None:
    broken = settings("broken", {**backend(), "overrides": {"body": {"model": "x"}}})
    wrong = loaded.model_copy(update={"endpoints": [*loaded.endpoints, broken]})
    with pytest.raises(InvalidSettings):
        open_endpoint_store(wrong, database, clock)
    assert EndpointStore(database, clock).all() == []


def test_the_console_follows_endpoints_and_keeps_them_while_the_database_is_away(
    loaded: Settings, store: EndpointStore, database: Database, clock: ManualClock
) -> None:
    summaries = EndpointSummaries(store, clock)
    assert [summary.name for summary in summaries] == ["filed"]
    store.create(
        settings("made", backend("a"), backend("b"), config={"traffic_config": routes(a=70, b=30)}), by="ann"
    )
    clock.advance(1)
    shares = {entity.name: entity.traffic_percentage for entity in summaries[1].entities}
    assert shares == {"a": 70, "b": 30}
    assert [entity.traffic_percentage for entity in summaries[0].entities] == [100.0]
    database.dispose()
    for file in loaded.data_dir.glob("servelens.db*"):
        file.unlink()
    (loaded.data_dir / "servelens.db").mkdir()
    clock.advance(1)
    assert len(summaries) == 2


def test_only_the_variables_of_secrets_are_taken() -> None:
    environment = {"SERVELENS_SECRET_LLM_KEY": "k", "SERVELENS_DATA_DIR": "d", "HOME": "/"}
    assert secrets_of_environment(environment) == {"SERVELENS_SECRET_LLM_KEY": "k"}
