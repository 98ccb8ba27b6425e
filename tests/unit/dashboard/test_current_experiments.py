"""The console's list of experiments: it follows the database, and outlives it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from dashboard.current_experiments import CurrentExperiments
from dashboard.services import ConsoleServices
from experiments.experiment import Variant
from experiments.lifecycle import Lifecycle
from servelens.clock import ManualClock
from tests.new_database import new_database
from tests.unit.experiments.records import experiment


def test_the_list_follows_the_database_and_stays_while_it_is_away(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 5, 1, tzinfo=UTC))
    database = new_database(tmp_path / "servelens.db")
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


def test_live_experiments_come_first_and_split_the_traffic(empty_services: ConsoleServices) -> None:
    lifecycle, clock = empty_services.experiment_control.lifecycle, empty_services.clock
    assert isinstance(clock, ManualClock)
    assert empty_services.arms("support-chat") == ("champion", "challenger")
    lifecycle.stop("cooler-answers", "ann", "promoted")
    clock.advance(1)
    assert empty_services.arms("support-chat") == ("llama-small-t05", "llama-small-t16")
    ended = empty_services.experiment(None, "support-chat")
    assert ended is not None
    assert ended.name == "cooler-answers"
    arms = {
        "control": Variant("old", "llama-small-t05", 50),
        "treatments": (Variant("new", "llama-small-t16", 50),),
    }
    lifecycle.create(experiment(name="next", endpoint="support-chat", **arms), by="ann")
    lifecycle.create(experiment(name="elsewhere", endpoint="summaries", **arms), by="ann")
    clock.advance(1)
    here = [(each.experiment.name, each.outcome) for each in empty_services.experiments_on("support-chat")]
    assert here == [("next", None), ("cooler-answers", "promoted")]
    assert empty_services.arms("support-chat") == ("old", "new")
    for asked, found in (
        (None, "next"),
        ("nobody", "next"),
        ("elsewhere", "next"),
        ("cooler-answers", "cooler-answers"),
    ):
        chosen = empty_services.experiment(asked, "support-chat")
        assert chosen is not None
        assert chosen.name == found
    assert empty_services.experiment(None, "nowhere") is None
