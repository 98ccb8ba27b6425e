"""``servelens drift …`` as a user runs it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from collector.catalog import EndpointTables
from evaluators.drift.runner import DriftRunner
from evaluators.drift.windows import Granularity
from evaluators.runs.run_history import RunHistory
from servelens.assembly.tables import build_catalog
from servelens.cli import cli
from servelens.clock import ManualClock
from servelens.errors import Invalid, Missing
from servelens.settings_file import load_settings
from tests.new_database import new_database
from tests.unit.evaluators.inference_rows import payload_rows
from tests.unit.servelens.control_settings import backend

HOUR = Granularity.parse("1 hour")
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "servelens.yaml"
    endpoint = {"name": "chat", "config": {"served_entities": [backend("a")]}}
    file.write_text(yaml.safe_dump({"data_dir": "data", "endpoints": [endpoint]}))
    return file


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["drift", *arguments, "--config", str(config), "--endpoint", "chat"])


@pytest.fixture
def tables(config: Path, tmp_path: Path) -> EndpointTables:
    """Three hours of traffic, of which the last takes longer; drift of each hour and of five minutes."""
    tables = build_catalog(load_settings(config)).tables("chat")
    generator = np.random.default_rng(2)
    for hour, slower in ((9, 0), (10, 0), (11, 80)):
        start = NOON.replace(hour=hour)
        durations = (generator.normal(300, 40, size=120) + slower).astype(int).tolist()
        tables.payload.append(payload_rows(120, start, execution_duration_ms=durations))
    clock = ManualClock(NOON + timedelta(minutes=5))
    database = new_database(tmp_path / "history.db")
    history = RunHistory(database, clock)
    DriftRunner(tables, "chat", history, clock, granularity=HOUR).run()
    database.dispose()
    return tables


def test_the_newest_window_and_what_drifted_in_it(config: Path, tables: EndpointTables) -> None:
    result = run(config, "show")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if "execution_duration_ms" in line]
    assert len(lines) == 1
    for fact in ("2026-03-04 11:00 – 2026-03-04 12:00", "previous", "all", "ks", "ks_distance", "drifted"):
        assert fact in lines[0]
    assert "too few rows" in result.stdout
    assert "1 of " in result.stderr
    assert "drifted" in next(line for line in result.stdout.splitlines() if "2026-03-04" in line)


def test_more_windows_as_json_and_only_what_drifted(config: Path, tables: EndpointTables) -> None:
    def columns(*more: str) -> list[dict[str, Any]]:
        result = run(config, "show", "--json", *more)
        assert result.exit_code == 0, result.output
        found: list[dict[str, Any]] = json.loads(result.stdout)["columns"]
        return found

    both = columns("--last", "2", "--granularity", "1 hour")
    assert {row["window"]["start"][:16] for row in both} == {"2026-03-04T11:00", "2026-03-04T10:00"}
    drifted = columns("--drifted", "--last", "2")
    assert [(row["column_name"], row["drifted"]) for row in drifted] == [("execution_duration_ms", True)]
    assert drifted[0]["p_adjusted"] < 0.05
    assert columns("--drifted", "--alpha", "1e-300") == []


def test_windows_that_are_not_there_name_those_that_are(config: Path, tables: EndpointTables) -> None:
    missing = run(config, "show", "--granularity", "1 day")
    assert isinstance(missing.exception, Invalid)
    assert "Choose one of: 1 hour" in str(missing.exception)
    rows = tables.drift.scan().collect()
    tables.drift.append(rows.with_columns(granularity=rows["granularity"].str.replace("1 hour", "2 hours")))
    several = run(config, "show")
    assert isinstance(several.exception, Invalid)
    assert "1 hour, 2 hours" in str(several.exception)


def test_without_drift_the_way_to_it_is_named(config: Path) -> None:
    result = run(config, "show")
    assert isinstance(result.exception, Missing)
    assert "Set 'drift'" in str(result.exception)


def test_a_report_of_two_windows_is_written_where_the_dashboard_lists_it(
    config: Path, tables: EndpointTables
) -> None:
    windows = ("--window", "2026-03-04T11:00Z/2026-03-04T12:00Z")
    result = run(config, "report", *windows, "--against", "2026-03-04T09:00Z/2026-03-04T10:00Z")
    assert result.exit_code == 0, result.output
    path = Path(result.stdout.strip())
    assert path.parent == load_settings(config).reports_dir / "chat"
    assert "execution_duration_ms" in path.read_text()


def test_a_window_that_is_none_names_its_option(config: Path) -> None:
    result = run(config, "report", "--window", "today", "--against", "2026-03-04T09:00Z/2026-03-04T10:00Z")
    assert isinstance(result.exception, Invalid)
    assert result.exception.field == "--window"
