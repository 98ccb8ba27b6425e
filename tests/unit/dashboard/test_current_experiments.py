"""The console's list of experiments: it follows the database, and outlives it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from dashboard.current_experiments import CurrentExperiments
from experiments.lifecycle import Lifecycle
from servelens.clock import ManualClock
from servelens.database import Database
from tests.unit.experiments.records import experiment


def test_the_list_follows_the_database_and_stays_while_it_is_away(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 5, 1, tzinfo=UTC))
    database = Database(f"sqlite:///{tmp_path / 'servelens.db'}")
    database.create_tables()
    lifecycle = Lifecycle(database, clock)
    current = CurrentExperiments(lifecycle, clock)

    def seen() -> list[tuple[str, str]]:
        clock.advance(1)
        return [(each.experiment.name, each.outcome or each.state) for each in current]

    assert seen() == []
    for number in range(4):
        lifecycle.create(experiment(name=f"e{number}", endpoint=f"chat-{number}"), by="ann")
        clock.advance(1)
    lifecycle.create(experiment(name="draft"), by="ann", start=False)
    lifecycle.stop("e0", "ann", "promoted")
    lifecycle.pause("e2", "ann")
    clock.advance(1)
    lifecycle.stop("e1", "ann")
    expected = [("e2", "paused"), ("e3", "running"), ("e1", "stopped"), ("e0", "promoted")]
    assert seen() == expected

    database.dispose()
    (tmp_path / "away").mkdir()
    files = list(tmp_path.glob("servelens.db*"))
    for file in files:
        file.rename(tmp_path / "away" / file.name)
    (tmp_path / "servelens.db").mkdir()
    assert seen() == expected
    (tmp_path / "servelens.db").rmdir()
    for file in files:
        (tmp_path / "away" / file.name).rename(file)
    lifecycle.stop("e3", "ann")
    assert seen()[0] == ("e2", "paused")
    assert seen()[1] == ("e3", "stopped")
    database.dispose()
