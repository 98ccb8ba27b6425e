"""A filled data folder, shared by the tests that only read it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dashboard.console import Console
from dashboard.services import ConsoleServices
from servelens.clock import ManualClock
from tests.browser.filled_system import build

NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleServices]:
    """A day of traffic up to :data:`NOW`; do not write to it."""
    built = build(tmp_path_factory.mktemp("console"), ManualClock(NOW), records=500)
    yield built
    built.database.dispose()


@pytest.fixture(scope="session")
def console(services: ConsoleServices) -> Console:
    return Console(services)


@pytest.fixture
def empty_services(tmp_path: Path) -> Iterator[ConsoleServices]:
    """Everything but data."""
    built = build(tmp_path / "empty", ManualClock(NOW), records=0)
    yield built
    built.database.dispose()
