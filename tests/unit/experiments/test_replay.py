"""A report is computed again from the table versions that it names, over real tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.analysis.analyzer import Analyzer
from experiments.guardrail import Guardrail
from experiments.replay import replay
from tests.unit.experiments.analysis.test_analyzer import Scene
from tests.unit.experiments.records import experiment, score


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    found = Scene(tmp_path)
    found.analyzer = Analyzer(found.tables, found.store, found.clock, tmp_path / "state")
    yield found
    found.database.dispose()


DEFINITION = experiment(
    secondary_metrics=("success_rate", "score:perplexity", "latency_ms:p90"),
    guardrails=(Guardrail("error_rate", 0.05),),
)


def _looks(scene: Scene) -> list[dict[str, Any]]:
    """Three looks at growing traffic, each from what the one before has left."""
    for users in (range(60), range(60, 150), range(150, 260)):
        rows = scene.traffic(DEFINITION, users, slower=1.3)
        scene.write(rows, [score(row, float(scene.rng.lognormal(3, 0.5))) for row in rows])
        scene.clock.advance(60)
        scene.look(DEFINITION)
    return [json.loads(json.dumps(report)) for report in scene.store.history("tone")]


def test_every_look_comes_out_the_same_from_its_own_versions(scene: Scene) -> None:
    reports = _looks(scene)
    found = [replay(report, scene.tables) for report in reports]
    assert [each.outcome for each in found] == ["agrees"] * 3
    assert [each.differences for each in found] == [()] * 3
    assert len({report["payload_version"] for report in reports}) == 3
    assert found[0].reported_by == found[0].replayed_by
    assert [report["units"] for report in reports] == [260, 150, 60]


def test_a_number_that_was_tampered_with_is_named(scene: Scene) -> None:
    newest, *_ = _looks(scene)
    newest["metrics"][0]["comparisons"][0]["difference"] += 0.01
    newest["guardrails"][0]["state"] = "breached"
    found = replay(newest, scene.tables)
    assert found.outcome == "differs"
    assert [each.path for each in found.differences] == [
        "guardrails[0].state",
        "metrics[0].comparisons[0].difference",
    ]


def test_records_that_were_lost_afterwards_are_noticed(scene: Scene) -> None:
    newest, *_ = _looks(scene)
    files = sorted(Path(scene.tables.payload.uri).rglob("*.parquet"))
    files[-1].unlink()
    found = replay(newest, scene.tables)
    assert found.outcome == "gone"
    assert found.reason is not None
    assert "no longer reach back" in found.reason


def test_a_report_of_an_older_release_cannot_be_replayed(scene: Scene) -> None:
    newest, *_ = _looks(scene)
    del newest["basis"]
    found = replay(newest, scene.tables)
    assert (found.outcome, found.reported_by) == ("gone", None)


def test_a_replay_leaves_nothing_behind(scene: Scene) -> None:
    newest, *_ = _looks(scene)
    before = scene.store.running_p("tone", "latency_ms", "challenger"), scene.store.history("tone")
    replay(newest, scene.tables)
    assert (scene.store.running_p("tone", "latency_ms", "challenger"), scene.store.history("tone")) == before
