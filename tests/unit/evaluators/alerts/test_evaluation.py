"""evaluators.alerts.evaluation: whole rules on real tables and a real database, with a clock that is moved."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from collector.catalog import EndpointTables
from evaluators.alerts.evaluation import RuleEvaluator
from evaluators.alerts.overview import AlertOverview
from evaluators.alerts.rule import (
    Aggregate,
    AlertRule,
    Anomaly,
    Change,
    LagMeasure,
    ScoreMeasure,
    Threshold,
    TrafficMeasure,
)
from evaluators.alerts.store import AlertStore
from servelens.clock import ManualClock
from servelens.errors import Unavailable
from tests.new_database import new_database
from tests.unit.evaluators.alerts.rules import START, rule
from tests.unit.evaluators.inference_rows import endpoint_tables, payload_rows, score_rows

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
WEEK = timedelta(weeks=1)


class Scene:
    """Tables, a database and a clock; records come just before now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock(START)
        self.database = new_database(folder / "alerts.db")
        self.store = AlertStore(self.database, self.clock)
        self.overview = AlertOverview(self.database, self.clock)
        self.tables: EndpointTables = endpoint_tables(folder / "tables")

    def evaluator(self, **changes: Any) -> RuleEvaluator:
        self.rule: AlertRule = rule(**changes)
        return RuleEvaluator(self.rule, self.tables, self.store, self.clock)

    def scores(self, scores: list[float | None], **columns: Any) -> list[str]:
        rows = payload_rows(len(scores), self.clock.now() - 60 * SECOND, every=SECOND, **columns)
        self.tables.payload.append(rows)
        self.tables.scores.append(score_rows(rows, "toxicity", scores))
        return rows["databricks_request_id"].to_list()

    def shown(self) -> dict[str | None, str]:
        (alert,) = self.overview.alerts([self.rule])
        return {each["slice"]: each["status"] for each in alert["slices"]}

    def reason(self, slice_: str | None = None) -> str:
        (alert,) = self.overview.alerts([self.rule])
        return next(str(each["reason"]) for each in alert["slices"] if each["slice"] == slice_)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.database.dispose()


def test_an_alert_fires_with_examples_and_ends(scene: Scene) -> None:
    look = scene.evaluator(hold=timedelta(minutes=2))
    ids = scene.scores([0.9] * 3 + [0.1] * 7)
    assert look.run() == "nothing new"
    assert scene.shown() == {None: "pending"}
    scene.clock.advance(120)
    assert look.run() == "fire"
    (incident,) = scene.overview.incidents()
    assert (incident["state"], incident["value"], incident["reference"]) == ("firing", 0.3, 0.1)
    assert incident["breached_at"] == START.isoformat()
    assert set(incident["examples"][:3]) == set(ids[:3])
    assert len(incident["examples"]) == 5
    scene.clock.advance(600)
    scene.scores([0.1] * 10)
    assert look.run() == "resolve"
    (incident,) = scene.overview.incidents()
    assert (incident["state"], incident["resolution"]) == (
        "resolved",
        "share of toxicity above 0.5 is 0, not above 0.1 (10 values)",
    )


def test_a_restart_neither_forgets_nor_repeats(scene: Scene) -> None:
    scene.scores([0.9] * 10)
    wait = {"hold": timedelta(minutes=2)}
    scene.evaluator(**wait).run()
    scene.clock.advance(120)
    assert scene.evaluator(**wait).run() == "fire"
    assert scene.evaluator(**wait).run() == "nothing new"
    assert len(scene.overview.incidents()) == 1


def test_each_variant_has_its_own_state(scene: Scene) -> None:
    look = scene.evaluator(sliced=True)
    scene.scores([0.1] * 5 + [0.9] * 5, variant=["a"] * 5 + ["b"] * 5)
    assert look.run() == "fire b"
    assert scene.shown() == {"a": "ok", "b": "firing"}
    scene.clock.advance(900)
    scene.scores([0.1] * 5, variant="a")
    look.run()
    assert scene.shown() == {"a": "ok", "b": "firing"}  # without data it goes on
    assert "no score of toxicity" in scene.reason("b")


def test_a_variant_that_is_gone_ends_and_says_so(scene: Scene) -> None:
    look = scene.evaluator(sliced=True)
    scene.scores([0.9] * 5, variant="b")
    look.run()
    for _ in range(25):
        scene.clock.advance(3600)
        look.run()
    assert scene.shown() == {}
    (incident,) = scene.overview.incidents()
    assert incident["state"] == "resolved"
    assert "no data since 2026-03-02 12:00 UTC" in incident["resolution"]


def test_a_rule_without_variants_any_more_lets_go_of_them(scene: Scene) -> None:
    scene.scores([0.9] * 5, variant="b")
    scene.evaluator(sliced=True).run()
    scene.evaluator().run()
    assert scene.shown() == {None: "firing"}
    assert [each["slice"] for each in scene.overview.incidents(open_only=True)] == [None]


def test_without_records_it_is_no_data(scene: Scene) -> None:
    look = scene.evaluator()
    assert look.run() == "nothing new"
    assert scene.shown() == {None: "no_data"}
    assert scene.reason() == "there is no score of toxicity in the window"
    assert scene.evaluator(no_data="alert").run() == "fire"


def test_too_few_are_insufficient(scene: Scene) -> None:
    look = scene.evaluator(min_samples=30, no_data="alert")
    scene.scores([0.9] * 29)
    look.run()
    assert scene.shown() == {None: "no_data"}
    assert "insufficient data: 29 values" in scene.reason()


def test_a_table_that_cannot_be_read_is_no_data_and_a_failed_job(scene: Scene) -> None:
    look = scene.evaluator(no_data="alert")
    broken = Path(scene.tables.scores.uri)
    broken.parent.mkdir(parents=True)
    broken.write_text("not a table")
    with pytest.raises(Unavailable):
        look.run()
    assert scene.shown() == {None: "firing"}
    assert "could not be measured" in scene.reason()


def test_a_change_against_the_window_before(scene: Scene) -> None:
    look = scene.evaluator(
        measure=ScoreMeasure("toxicity", aggregate=Aggregate("mean")),
        condition=Change(relative=0.2),
        min_samples=30,
    )
    scene.scores([0.1, 0.12] * 20)
    look.run()
    assert scene.shown() == {None: "no_data"}
    assert "reference has no values" in scene.reason()
    scene.clock.advance(600)
    scene.scores([0.11, 0.1] * 20)
    look.run()
    assert scene.shown() == {None: "ok"}
    scene.clock.advance(600)
    scene.scores([0.4, 0.5] * 20)
    assert look.run() == "fire"
    assert scene.overview.incidents()[0]["reference"] == pytest.approx(0.105)


def test_totals_are_compared_per_time(scene: Scene) -> None:
    """Four windows before together are four times as many calls, and that is no change."""
    scene.tables.payload.append(payload_rows(3_000, START - 5 * 10 * 60 * SECOND, every=SECOND))
    traffic = {"measure": TrafficMeasure("requests"), "min_samples": 30}
    trailing = Change(against="trailing", relative=0.2, direction="both")
    scene.evaluator(condition=trailing, **traffic).run()
    assert scene.shown() == {None: "ok"}
    assert "went from 600 to 600" in scene.reason()
    baseline = Change(
        against="baseline",
        relative=0.2,
        direction="both",
        baseline_start=START - 50 * 60 * SECOND,
        baseline_end=START - 20 * 60 * SECOND,
    )
    scene.evaluator(name="other", condition=baseline, **traffic).run()
    assert scene.shown() == {None: "ok"}
    scene.clock.advance(900)
    assert scene.evaluator(condition=trailing, **traffic).run() == "fire"


def test_an_unusual_hour(scene: Scene) -> None:
    for number in range(1, 5):
        start = START - HOUR - number * WEEK
        scene.tables.payload.append(payload_rows(100 + number, start, every=30 * SECOND))
    scene.tables.payload.append(payload_rows(900, START - HOUR, every=SECOND))
    look = scene.evaluator(
        measure=TrafficMeasure("requests"),
        condition=Anomaly(neighbours=0, min_weeks=3),
        window=HOUR,
        min_samples=2,
    )
    scene.clock.advance(300)
    assert look.run() == "fire"
    (incident,) = scene.overview.incidents()
    assert (incident["value"], incident["evidence"]["weeks"]) == (900, 4)
    assert look.window(scene.clock.now()).end == START


def test_past_weeks_are_read_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.tables.payload.append(payload_rows(50, START - HOUR, every=SECOND))
    look = scene.evaluator(
        measure=TrafficMeasure("requests"), condition=Anomaly(), window=HOUR, min_samples=2
    )
    scanned: list[Any] = []
    original = scene.tables.payload.scan

    def counted(**arguments: Any) -> Any:
        scanned.append(arguments["since"])
        return original(**arguments)

    monkeypatch.setattr(scene.tables.payload, "scan", counted)
    look.run()
    assert len(scanned) == 1 + 6 * 3
    scanned.clear()
    look.run()
    assert len(scanned) == 1
    scanned.clear()
    scene.clock.advance(3600)
    look.run()
    assert len(scanned) == 1 + 6  # the newest neighbour of each week
    assert "insufficient data: 0 past weeks" in scene.reason() or "0 values" in scene.reason()


def test_scoring_that_lags_behind(scene: Scene) -> None:
    look = scene.evaluator(
        measure=LagMeasure("toxicity"), condition=Threshold(above=60), min_samples=0, window=HOUR
    )
    look.run()
    assert scene.shown() == {None: "no_data"}  # there is no table yet
    scene.scores([0.1] * 10)
    look.run()
    assert scene.shown() == {None: "ok"}
    scene.tables.payload.append(payload_rows(1, START))
    scene.clock.advance(61)
    assert look.run() == "fire"


def test_the_window_ends_a_delay_ago(scene: Scene) -> None:
    scene.tables.payload.append(payload_rows(10, START - 5 * SECOND, every=SECOND / 10))
    look = scene.evaluator(
        measure=TrafficMeasure("requests"), condition=Threshold(above=1), delay=10 * SECOND
    )
    assert look.run() == "nothing new"
    scene.clock.advance(10)
    assert look.run() == "fire"
