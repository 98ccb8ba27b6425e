"""The scheduler's round: every live experiment is looked at, canaries and bandits act, and nobody stands in another's way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collector.catalog import Catalog, TableName
from experiments.analysis.analyzer import Analyzer
from experiments.analysis.code_version import code_version
from experiments.assignment import assign
from experiments.bandit_controller import BanditController
from experiments.decision_log import DecisionLog
from experiments.experiment import Variant
from experiments.guardrail import Guardrail
from experiments.lifecycle import Lifecycle
from experiments.ramp import Bandit, Ramp, Step
from experiments.replay_decisions import replay_decision
from experiments.rollout.controller import Controller
from experiments.rollout.webhooks import Webhooks
from experiments.runner import ExperimentRunner
from experiments.store import ExperimentStore
from servelens.clock import ManualClock
from servelens.errors import Unavailable
from tests.new_database import new_database
from tests.unit.experiments.records import START, experiment, payload, payload_frame

CANARY = experiment(
    name="v8",
    kind="canary",
    unit="request",
    control=Variant("champion", "smol", 90),
    treatments=(Variant("challenger", "smol-hot", 10),),
    primary_metric="error_rate",
    secondary_metrics=(),
    guardrails=(Guardrail("error_rate", 0.04),),
    rollout=Ramp((Step(10, 60, 50), Step(50, 60, 300))),
)
BANDIT = experiment(
    name="warmth",
    endpoint="summaries",
    kind="bandit",
    unit="request",
    primary_metric="success_rate",
    secondary_metrics=(),
    bandit=Bandit(0.1, 120, beta=1.0),
)


class Round:
    """A scheduler's parts over real tables and a real database; promotions are written down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock(START + timedelta(hours=1))
        self.database = new_database(folder / "servelens.db")
        names = {name: TableName("main", "default", name) for name in ("chat", "summaries")}
        self.catalog = Catalog(str(folder / "tables"), names)
        self.lifecycle = Lifecycle(self.database, self.clock)
        self.store = ExperimentStore(self.database, self.clock)
        self.log = DecisionLog(self.database, self.clock)
        self.promoted: list[tuple[str, str, str]] = []
        controller = Controller(
            self.lifecycle,
            self.log,
            lambda endpoint, old, new, _by: self.promoted.append((endpoint, old, new)),
            self.clock,
            webhooks=Webhooks(),
            code_version=code_version(),
        )
        self._controller = controller
        self.runner = self.with_analyzers(
            lambda endpoint: Analyzer(self.catalog.tables(endpoint), self.store, self.clock, folder / "state")
        )
        self._rng = np.random.default_rng(2)
        self._calls = 0

    def with_analyzers(self, analyzer_for: Callable[[str], Analyzer]) -> ExperimentRunner:
        bandits = BanditController(self.lifecycle, self.log, self.clock)
        return ExperimentRunner(
            self.lifecycle, self.store, analyzer_for, self._controller, bandits, self.clock
        )

    def traffic(self, name: str, calls: int, failing: dict[str, float]) -> None:
        """Calls as the proxy would answer and record them now."""
        definition = self.lifecycle.standing(name).experiment
        rows: list[dict[str, Any]] = []
        for _ in range(calls):
            self._calls += 1
            assignment = assign(definition, f"call-{self._calls}")
            assert assignment is not None
            failed = bool(self._rng.random() < failing[assignment.variant.name])
            rows.append(
                payload(
                    f"call-{self._calls}",
                    assignment.variant.name,
                    experiment=name,
                    endpoint=definition.endpoint,
                    phase=definition.phase,
                    propensity=assignment.propensity,
                    request_time=self.clock.now(),
                    status_code=500 if failed else 200,
                    error_type="upstream_status" if failed else None,
                )
            )
        self.catalog.tables(definition.endpoint).payload.append(payload_frame(rows).collect())

    def weight(self, name: str, variant: str) -> float:
        definition = self.lifecycle.standing(name).experiment
        return next(each.weight for each in definition.variants if each.name == variant)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Round]:
    found = Round(tmp_path)
    yield found
    found.database.dispose()


def test_a_good_canary_goes_up_and_takes_the_champions_place(scene: Round) -> None:
    scene.lifecycle.create(CANARY, by="ann")
    equal = {"champion": 0.02, "challenger": 0.02}
    assert "insufficient_data" not in scene.runner.run()
    weights = []
    for _ in range(12):
        scene.clock.advance(61)
        scene.traffic("v8", 800, equal)
        scene.runner.run()
        weights.append(scene.weight("v8", "challenger"))
        if not scene.lifecycle.standing("v8").is_live:
            break
    assert weights[:2] == [50, 50]
    assert scene.lifecycle.standing("v8").outcome == "promoted"
    assert scene.promoted == [("chat", "smol", "smol-hot")]
    promoted, *_ = scene.log.history("v8")
    assert promoted.decision == "promote"
    assert promoted.evidence["versions"]["payload"] is not None
    assert promoted.evidence["code_version"] == code_version()
    for each in scene.log.history("v8"):
        again = replay_decision(each, scene.store.history("v8", limit=1000))
        assert (again.outcome, again.differences) == ("agrees", ())
    assert scene.runner.run() == "", "its last records may still be on their way"
    assert list((scene.folder / "state").iterdir())
    scene.clock.advance(61)
    assert scene.runner.run().startswith("v8: ")
    latest = scene.store.latest("v8")
    assert latest is not None
    assert latest["state"] == "stopped"
    assert list((scene.folder / "state").iterdir()) == [], "nothing that a later look could go on from"
    assert scene.runner.run() == "", "what has ended is looked at no more"


def test_a_bad_canary_is_taken_back_before_its_step_is_over(scene: Round) -> None:
    scene.lifecycle.create(CANARY, by="ann")
    scene.traffic("v8", 1500, {"champion": 0.02, "challenger": 0.2})
    line = scene.runner.run()
    assert line.startswith("v8: roll_back: ")
    standing = scene.lifecycle.standing("v8")
    assert (standing.state, standing.outcome) == ("stopped", "rolled_back")
    assert scene.promoted == []
    assert scene.lifecycle.assigned()[1] == []


def test_a_bandit_moves_when_it_is_time_and_says_why(scene: Round) -> None:
    scene.lifecycle.create(BANDIT, by="ann")
    rates = {"champion": 0.4, "challenger": 0.1}
    scene.traffic("warmth", 400, rates)
    scene.clock.advance(60)
    scene.runner.run()
    assert scene.weight("warmth", "challenger") == 50, "it is not time yet"
    scene.clock.advance(61)
    assert scene.runner.run().startswith("warmth: moved its weights; ")
    assert scene.weight("warmth", "challenger") == pytest.approx(90)
    assert scene.lifecycle.standing("warmth").experiment.phase == 1
    (moved,) = scene.log.history("warmth")
    assert (moved.decision, moved.by, moved.applied) == ("reweight", "bandit", True)
    assert "challenger 50 → " in moved.reason
    again = replay_decision(moved, scene.store.history("warmth"))
    assert (again.outcome, again.with_report) == ("agrees", True)
    assert replay_decision(moved, []).outcome == "gone"
    scene.lifecycle.pause("warmth", by="ann")
    scene.traffic("warmth", 400, rates)
    scene.clock.advance(500)
    scene.runner.run()
    assert scene.lifecycle.standing("warmth").experiment.phase == 1, "a pause holds the weights"


def test_a_decision_that_does_not_follow_from_its_numbers_is_noticed(scene: Round) -> None:
    scene.lifecycle.create(CANARY, by="ann")
    scene.traffic("v8", 1500, {"champion": 0.02, "challenger": 0.2})
    scene.runner.run()
    (decided,) = scene.log.history("v8")
    reports = scene.store.history("v8")
    assert replay_decision(decided, reports).outcome == "agrees"
    invented = replace(decided, decision="promote")
    assert [each.path for each in replay_decision(invented, reports).differences] == ["decision"]
    numbers = {**decided.evidence["guardrails"][0], "harm": 0.5}
    changed = replace(decided, evidence={**decided.evidence, "guardrails": [numbers]})
    assert [each.path for each in replay_decision(changed, reports).differences] == ["guardrails[0].harm"]
    assert replay_decision(replace(decided, by="ann"), reports).outcome == "person"


def test_one_that_cannot_be_looked_at_stands_in_nobody_elses_way(scene: Round) -> None:
    scene.lifecycle.create(CANARY, by="ann")
    scene.lifecycle.create(replace(BANDIT, name="other"), by="ann")
    scene.traffic("v8", 100, {"champion": 0.0, "challenger": 0.0})
    scene.traffic("other", 100, {"champion": 0.0, "challenger": 0.0})
    for file in Path(scene.catalog.tables("summaries").payload.uri).rglob("*.parquet"):
        file.unlink()
    with pytest.raises(Unavailable, match="other"):
        scene.runner.run()
    assert scene.store.latest("v8") is not None
    assert scene.store.latest("other") is None


def test_a_fault_in_one_look_does_not_hide_harm_in_another(scene: Round) -> None:
    for name in ("a", "z"):
        scene.lifecycle.create(replace(BANDIT, name=name, share=50, share_from=50 * (name == "z")), by="ann")
    scene.lifecycle.create(CANARY, by="ann")
    scene.traffic("v8", 1500, {"champion": 0.02, "challenger": 0.2})

    def analyzer_for(endpoint: str) -> Analyzer:
        if endpoint == "summaries":
            raise ZeroDivisionError("float division by zero")
        return Analyzer(scene.catalog.tables(endpoint), scene.store, scene.clock)

    with pytest.raises(Unavailable, match=r"a: ZeroDivisionError.*z: ZeroDivisionError"):
        scene.with_analyzers(analyzer_for).run()
    assert scene.lifecycle.standing("v8").outcome == "rolled_back"


def test_a_stop_ends_the_round(scene: Round) -> None:
    scene.lifecycle.create(CANARY, by="ann")
    stop = threading.Event()
    stop.set()
    assert scene.runner.run(stop) == ""
    assert scene.store.latest("v8") is None


def test_drafts_are_left_alone(scene: Round) -> None:
    scene.lifecycle.create(CANARY, by="ann", start=False)
    assert scene.runner.run() == ""
