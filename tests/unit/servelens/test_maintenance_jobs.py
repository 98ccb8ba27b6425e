"""Table maintenance as the scheduler runs it: settings, endpoints of the database, retention by endpoint."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml

from collector.catalog import UNROUTED
from collector.forgotten import ForgottenRecords
from evaluators.runs.schedule import Job
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.tables import build_catalog
from servelens.clock import SystemClock
from servelens.database import Database
from servelens.errors import InvalidSettings
from servelens.processes.scheduler import build_jobs
from servelens.settings import Settings
from servelens.settings_file import load_settings
from tests.unit.collector.maintained import records
from tests.unit.servelens.control_settings import backend, settings

NOW = datetime.now(UTC)


def written(folder: Path, **maintenance: object) -> Settings:
    config = folder / "servelens.yaml"
    file = {
        "data_dir": str(folder / "data"),
        "maintenance": maintenance,
        "endpoints": [
            {
                "name": "chat",
                "config": {"served_entities": [backend()]},
                "ai_gateway": {"inference_table_config": {"retention_days": 30}},
            }
        ],
    }
    config.write_text(yaml.safe_dump(file))
    return load_settings(config)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "data").mkdir()
    opened = build_database(written(tmp_path))
    yield opened
    opened.dispose()


def job(loaded: Settings, database: Database, name: str) -> Job:
    store = open_endpoint_store(loaded, database, SystemClock())
    jobs = build_jobs(loaded, build_catalog(loaded, store), database, SystemClock(), threading.Event())
    return next(each for each in jobs if each.name == name)


def test_retention_follows_the_endpoints_as_they_come_change_and_go(
    tmp_path: Path, database: Database
) -> None:
    loaded = written(tmp_path, unrouted_retention_days=7)
    maintain = job(loaded, database, "maintain tables")
    store = open_endpoint_store(loaded, database, SystemClock())
    store.create(settings("kept"), by="ann")
    short = settings("short", ai_gateway={"inference_table_config": {"retention_days": 2}})
    store.create(short, by="ann")
    catalog = build_catalog(loaded, store)
    for name in ("chat", "kept", "short", UNROUTED):
        for number, days in enumerate((0, 5, 40)):
            at = NOW - timedelta(days=days)
            catalog.tables(name).payload.append(records(number, 1, at))

    def ages(name: str) -> list[int]:
        days = catalog.tables(name).payload.scan().collect()["request_date"]
        return sorted((NOW.date() - day).days for day in days)

    maintain.action()
    assert [ages(name) for name in ("chat", "kept", "short", UNROUTED)] == [[0, 5], [0, 5, 40], [0], [0, 5]]
    store.update(
        "kept",
        lambda _: settings("kept", **{"ai_gateway": short.ai_gateway.model_dump(exclude_unset=True)}),
        by="ann",
        action="ai_gateway",
    )
    store.delete("short", by="ann", check=lambda _: None)
    catalog.tables("short").payload.append(records(9, 1, NOW - timedelta(days=5)))
    maintain.action()
    assert [ages("kept"), ages("short")] == [[0], [0]]


def test_rules_come_from_the_settings(tmp_path: Path, database: Database) -> None:
    loaded = written(tmp_path, compact_min_files=3, every_s=7, history_hours=5)
    maintain = job(loaded, database, "maintain tables")
    assert (maintain.every_s, maintain.group) == (7, "maintenance")
    payload = build_catalog(loaded).tables("chat").payload
    for number in range(3):
        payload.append(records(number, 1, NOW))
    assert "files_removed=3" in str(maintain.action())
    with payload.upkeep() as handle:
        assert handle is not None
        assert handle.metadata().configuration["delta.logRetentionDuration"] == "interval 5 hours"


def test_forgotten_records_are_swept_even_where_others_maintain_the_tables(
    tmp_path: Path, database: Database
) -> None:
    loaded = written(tmp_path, enabled=False)
    with pytest.raises(StopIteration):
        job(loaded, database, "maintain tables")
    sweep = job(loaded, database, "sweep forgotten records")
    tables = build_catalog(loaded).tables("chat")
    ForgottenRecords(database, SystemClock()).add("chat", ["id-000001"])
    late = records(0, 3).select("databricks_request_id", "request_date").with_columns(score=pl.lit(0.5))
    tables.scores.append(late)
    sweep.action()
    assert sorted(tables.scores.scan().collect()["databricks_request_id"]) == ["id-000000", "id-000002"]


def test_a_retention_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    config = tmp_path / "servelens.yaml"
    config.write_text(config.read_text().replace("retention_days: 30", "retention_days: 0"))
    with pytest.raises(InvalidSettings, match="retention_days"):
        load_settings(config)
