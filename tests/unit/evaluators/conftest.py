"""Tables and run history that the tests of runs share; each file sets its own ``clock``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.catalog import EndpointTables
from evaluators.runs.run_history import RunHistory
from servelens.clock import ManualClock
from tests.new_database import new_database
from tests.unit.evaluators.inference_rows import endpoint_tables


@pytest.fixture
def history(tmp_path: Path, clock: ManualClock) -> Iterator[RunHistory]:
    database = new_database(tmp_path / "history.db")
    yield RunHistory(database, clock)
    database.dispose()


@pytest.fixture
def tables(tmp_path: Path) -> EndpointTables:
    return endpoint_tables(tmp_path)
