from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from experiments.decision_log import DecisionLog, Entry
from experiments.models import AnalysisRow
from experiments.store import ExperimentStore
from servelens.clock import ManualClock
from servelens.database import Database
from tests.unit.experiments.records import START, experiment

NAME = "tone"


class Scene:
    def __init__(self, database: Database) -> None:
        self.clock = ManualClock(START)
        self.store = ExperimentStore(database, self.clock)
        self.log = DecisionLog(database, self.clock)
        self.store.register(experiment())
        self.store.register(experiment(name="other"))

    def look(self, version: int, name: str = NAME) -> datetime:
        now = self.clock.now()
        self.store.add_analysis(name, now, version, None, {"as_of": now.isoformat(), "version": version})
        return now

    def decide(self, as_of: datetime, decision: str = "hold", **changes: Any) -> None:
        evidence = {"cause": "time", "as_of": as_of.isoformat()}
        values: dict[str, Any] = {"step": 0, "phase": 0, "dry_run": False, "applied": False, **changes}
        self.log.append(NAME, Entry(decision=decision, by="rollout", reason="", evidence=evidence, **values))

    def kept(self, name: str = NAME) -> list[datetime]:
        reports = self.store.history(name, limit=1000)
        return [datetime.fromisoformat(report["as_of"]) for report in reversed(reports)]


@pytest.fixture
def scene(database: Database) -> Scene:
    return Scene(database)


def test_reports_do_not_pile_up_and_those_that_decisions_rest_on_stay(scene: Scene) -> None:
    decided = []
    for number in range(220):
        as_of = scene.look(number)
        if number in (37, 38, 211):
            scene.decide(as_of, "advance", step=number, applied=True)
            decided.append(as_of)
        scene.clock.advance(60)
    scene.look(1, "other")
    kept = scene.kept()
    assert len(kept) < 60
    assert set(decided) <= set(kept)
    assert kept[0] == START
    assert kept[-1] == START + timedelta(minutes=219)
    assert scene.kept("other") == [START + timedelta(minutes=220)]


def test_what_only_waits_keeps_one_report(scene: Scene) -> None:
    for number in range(150):
        scene.decide(scene.look(number))
        scene.clock.advance(60)
    (row,) = scene.log.history(NAME)
    assert row.evidence["looks"] == 150
    assert len(scene.kept()) < 60


def test_a_report_that_a_decision_rests_on_is_not_replaced_by_one_on_the_same_tables(scene: Scene) -> None:
    first = scene.look(7)
    scene.decide(first, "advance", applied=True)
    scene.clock.advance(60)
    scene.look(7)
    scene.clock.advance(60)
    last = scene.look(7)
    assert scene.kept() == [first, last]


def test_the_many_reports_of_an_older_release_go_bit_by_bit(scene: Scene, database: Database) -> None:
    with database.session() as session:
        session.add_all(
            AnalysisRow(
                experiment=NAME,
                as_of=START + timedelta(seconds=15 * number),
                payload_version=number,
                scores_version=None,
                report={"as_of": (START + timedelta(seconds=15 * number)).isoformat()},
            )
            for number in range(1200)
        )
    scene.clock.advance(86_400)
    lengths = []
    for number in range(2000, 2005):
        scene.clock.advance(120)
        scene.look(number)
        lengths.append(len(scene.kept()))
    assert lengths[0] == 1200 + 1 - 500
    assert lengths[-1] < 60
