from __future__ import annotations

import json
import math
from typing import Any

import pytest

from experiments.decision_log import DecisionLog, Entry
from experiments.store import ExperimentStore
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Missing
from tests.unit.experiments.records import START
from tests.unit.experiments.rollout.canary import canary, guardrail

NAME = "v8-rollout"


class Scene:
    def __init__(self, database: Database) -> None:
        self.clock = ManualClock(START)
        ExperimentStore(database, self.clock).register(canary())
        self.log = DecisionLog(database, self.clock)


@pytest.fixture
def scene(database: Database) -> Scene:
    return Scene(database)


def entry(decision: str = "hold", cause: str = "time", **changes: Any) -> Entry:
    evidence = {"cause": cause, **changes.pop("evidence", {})}
    values: dict[str, Any] = {
        "decision": decision,
        "by": "rollout",
        "step": 0,
        "phase": 0,
        "dry_run": False,
        "applied": False,
        "reason": "it needs 6 minutes more",
        "evidence": evidence,
    }
    return Entry(**{**values, **changes})


def test_a_decision_is_kept_with_its_numbers(scene: Scene) -> None:
    numbers = {"guardrails": (guardrail(upper=math.inf, harm=math.nan),), "versions": {"payload": 12}}
    logged = scene.log.append(NAME, entry("advance", "complete", applied=True, evidence=numbers))
    assert scene.log.history(NAME) == [logged]
    assert logged.decided_at == START
    kept = logged.evidence["guardrails"][0]
    assert (kept["metric"], kept["upper"], kept["harm"]) == ("error_rate", None, None)
    assert json.loads(json.dumps(logged.to_dict(), allow_nan=False))["evidence"]["versions"] == {
        "payload": 12
    }


def test_waiting_adds_no_row_a_minute(scene: Scene) -> None:
    first = scene.log.append(NAME, entry(reason="it needs 6 minutes more"))
    for left in (5, 4, 3):
        scene.clock.advance(60)
        scene.log.append(NAME, entry(reason=f"it needs {left} minutes more", evidence={"step_events": left}))
    (row,) = scene.log.history(NAME)
    assert row.id == first.id
    assert row.reason == "it needs 3 minutes more"
    assert row.decided_at == scene.clock.now()
    assert row.evidence == {"cause": "time", "step_events": 3, "since": START.isoformat(), "looks": 4}


@pytest.mark.parametrize(
    "other",
    [
        entry("insufficient_data", "events"),
        entry(cause="paused"),
        entry(step=1),
        entry(phase=1),
        entry(by="alice"),
        entry(dry_run=True),
        entry(evidence={"wanted": "advance"}),
        entry(applied=True),
    ],
)
def test_what_says_something_else_is_a_row_of_its_own(scene: Scene, other: Entry) -> None:
    for each in (entry(), other, entry()):
        scene.log.append(NAME, each)
    newest_first = scene.log.history(NAME)
    assert len(newest_first) == 3
    assert [row.id for row in newest_first] == sorted((row.id for row in newest_first), reverse=True)
    assert scene.log.history(NAME, limit=1) == newest_first[:1]


def test_what_changed_something_is_never_taken_together(scene: Scene) -> None:
    for _ in range(2):
        row = scene.log.append(NAME, entry("advance", "complete", evidence={"progress": "begun"}))
        scene.log.settle(row.id, "applied")
        scene.log.settle(row.id, "told", webhooks=[])
    rows = scene.log.history(NAME)
    assert [(row.applied, row.progress) for row in rows] == [(True, "told")] * 2


def test_what_failed_and_is_tried_again_is_one_row(scene: Scene) -> None:
    for _ in range(3):
        row = scene.log.append(NAME, entry("promote", "cleared", evidence={"progress": "begun"}))
        scene.log.settle(row.id, "failed", failure="there is no endpoint 'chat'")
    (row,) = scene.log.history(NAME)
    assert (row.applied, row.progress, row.evidence["looks"]) == (False, "failed", 3)


def test_what_was_begun_is_found_until_it_is_told(scene: Scene) -> None:
    scene.log.append(NAME, entry())
    begun = scene.log.append(NAME, entry("advance", "complete", evidence={"progress": "begun"}))
    assert [row.id for row in scene.log.unsettled(NAME)] == [begun.id]
    again = scene.log.append(NAME, entry("advance", "complete", evidence={"progress": "begun"}))
    assert again.id != begun.id  # another process may be at the first one
    assert len(scene.log.unsettled()) == 2
    assert scene.log.unsettled("other") == []
    scene.log.settle(again.id, "failed")
    scene.log.settle(begun.id, "applied")
    assert [row.applied for row in scene.log.unsettled()] == [True]
    scene.log.settle(begun.id, "told")
    assert scene.log.unsettled() == []


def test_unknown_names_and_numbers_are_missing(scene: Scene) -> None:
    with pytest.raises(Missing, match="no experiment 'other'"):
        scene.log.append("other", entry())
    with pytest.raises(Missing):
        scene.log.history("other")
    with pytest.raises(Missing):
        scene.log.settle(7, "told")
