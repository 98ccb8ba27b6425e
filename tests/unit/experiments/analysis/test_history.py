"""CUPED over real tables: what the users did before takes variance out of the difference."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.assignment import assign
from experiments.replay import replay
from tests.unit.experiments.analysis.test_analyzer import Scene
from tests.unit.experiments.records import experiment, payload


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    found = Scene(tmp_path)
    yield found
    found.database.dispose()


def _write(scene: Scene, users: int, *, slower: float) -> None:
    """Users with a pace of their own, which they had before as well; the newest have no past."""
    definition = experiment(cuped_days=7.0)
    paces = scene.rng.normal(5.0, 0.6, users)
    rows: list[dict[str, Any]] = []
    started = scene.clock.now()
    for user, pace in enumerate(paces):
        assignment = assign(definition, f"user-{user}")
        assert assignment is not None
        treated = assignment.variant is not definition.control

        def call(
            when: timedelta, factor: float, *, user: int = user, pace: float = pace, **more: Any
        ) -> None:
            duration = float(np.exp(pace + scene.rng.normal(0, 0.2))) * factor
            rows.append(
                payload(
                    f"user-{user}",
                    more.pop("variant", None),
                    request_time=started + when,
                    execution_duration_ms=max(round(duration), 1),
                    **more,
                )
            )

        if user % 10:
            for day in (1, 2, 3):
                call(timedelta(days=-day), 1.0, experiment=None)
        call(
            timedelta(minutes=user % 50),
            slower if treated else 1.0,
            variant=assignment.variant.name,
            propensity=0.5,
        )
    scene.write(rows)


def test_history_makes_the_interval_narrower_and_finds_more(scene: Scene) -> None:
    scene.store.register(experiment(cuped_days=7.0))
    _write(scene, 300, slower=1.12)
    scene.clock.advance(3_600)
    with_history = scene.look(experiment(cuped_days=7.0))
    (adjusted,) = with_history.metrics[0].comparisons
    assert adjusted.variance_removed is not None
    assert 0.6 < adjusted.variance_removed < 0.99
    assert adjusted.verdict == "worse"
    assert adjusted.relative_lift.low is not None
    assert adjusted.relative_lift.high is not None
    assert adjusted.relative_lift.low < 0.12 < adjusted.relative_lift.high
    assert with_history.basis.history is not None
    assert replay(with_history.to_dict(), scene.tables).outcome == "agrees"


def test_without_it_the_same_traffic_says_nothing(scene: Scene) -> None:
    scene.store.register(experiment())
    _write(scene, 300, slower=1.12)
    scene.clock.advance(3_600)
    (plain,) = scene.look(experiment()).metrics[0].comparisons
    assert (plain.variance_removed, plain.verdict) == (None, "inconclusive")


def test_a_rate_without_what_history_explains_is_no_count(scene: Scene) -> None:
    definition = experiment(
        primary_metric="latency_ms:over:150", secondary_metrics=(), cuped_days=7.0, planned_units=600
    )
    scene.store.register(definition)
    _write(scene, 300, slower=1.12)
    scene.clock.advance(3_600)
    (found,) = scene.look(definition).metrics[0].comparisons
    assert found.variance_removed is not None
    assert found.variance_removed > 0.1
    assert found.fixed.method == "Welch"
    assert found.fixed.low is not None
    assert found.fixed.high is not None
    assert found.difference == pytest.approx((found.fixed.low + found.fixed.high) / 2)
