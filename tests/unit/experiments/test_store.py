from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.experiment import Variant
from experiments.store import ExperimentStore
from servelens.clock import ManualClock
from servelens.errors import Conflict, Missing
from tests.new_database import new_database
from tests.unit.experiments.records import START, experiment


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[ExperimentStore]:
    database = new_database(tmp_path / "servelens.db")
    yield ExperimentStore(database, clock)
    database.dispose()


def test_registering_twice_changes_nothing(store: ExperimentStore, clock: ManualClock) -> None:
    first = store.register(experiment())
    clock.advance(60)
    assert store.register(experiment()) == first
    assert first.state == "running"
    assert first.started_at == START
    assert store.all() == [first]


def test_an_unknown_experiment_is_missing(store: ExperimentStore) -> None:
    for look in (store.get, store.stop, store.history, store.latest):
        with pytest.raises(Missing):
            look("nobody")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"endpoint": "other"}, "experiments[tone].endpoint"),
        ({"unit": "session"}, "experiments[tone].unit"),
        ({"salt": "pepper"}, "experiments[tone].salt"),
        ({"primary_metric": "error_rate"}, "experiments[tone].primary_metric"),
        ({"secondary_metrics": ()}, "experiments[tone].secondary_metrics"),
        ({"alpha": 0.1}, "experiments[tone].alpha"),
        ({"planned_units": 401}, "experiments[tone].planned_units"),
        ({"control": Variant("champion", "other", 50)}, "experiments[tone].control"),
        ({"treatments": (Variant("newcomer", "smol-hot", 50),)}, "experiments[tone].treatments"),
        (
            {"treatments": (Variant("challenger", "smol-hot", 30), Variant("third", "smol", 20))},
            "experiments[tone].treatments",
        ),
    ],
)
def test_what_the_analysis_depends_on_is_frozen(
    store: ExperimentStore, changes: dict[str, Any], field: str
) -> None:
    store.register(experiment())
    with pytest.raises(Conflict) as refused:
        store.register(experiment(**changes, phase=1))
    assert refused.value.field == field
    assert store.get("tone").experiment == experiment()


def test_the_share_may_grow_within_a_phase(store: ExperimentStore) -> None:
    store.register(experiment(share=10))
    store.register(experiment(share=80))
    assert store.get("tone").experiment.share == 80
    assert store.weights("tone") == {0: {"champion": 50, "challenger": 50}}


def test_new_weights_need_a_new_phase_and_the_message_says_which(store: ExperimentStore) -> None:
    store.register(experiment())
    ramped = experiment().with_weights({"champion": 20, "challenger": 80})
    with pytest.raises(Conflict) as refused:
        store.register(replace(ramped, phase=0))
    assert refused.value.field == "experiments[tone].weight"
    assert "Raise phase to 1" in str(refused.value)
    store.register(ramped)
    assert store.weights("tone") == {
        0: {"champion": 50, "challenger": 50},
        1: {"champion": 20, "challenger": 80},
    }
    with pytest.raises(Conflict) as back:
        store.register(experiment())
    assert back.value.field == "experiments[tone].phase"


def test_a_stopped_experiment_stays_as_it_is(store: ExperimentStore, clock: ManualClock) -> None:
    store.register(experiment())
    clock.advance(3600)
    stopped = store.stop("tone")
    clock.advance(3600)
    assert store.stop("tone") == stopped
    assert stopped.stopped_at is not None
    assert (stopped.stopped_at - START).total_seconds() == 3600
    assert store.register(experiment()) == stopped
    with pytest.raises(Conflict):
        store.register(experiment(share=50))


def test_kappa_is_frozen_by_whoever_comes_first(store: ExperimentStore) -> None:
    store.register(experiment())
    assert store.kappa("tone", "latency_ms", "challenger") is None
    assert store.freeze_kappa("tone", "latency_ms", "challenger", 0.5) == 0.5
    assert store.freeze_kappa("tone", "latency_ms", "challenger", 9.0) == 0.5
    assert store.kappa("tone", "latency_ms", "challenger") == 0.5


def test_the_smallest_p_value_is_kept_with_its_difference(store: ExperimentStore, clock: ManualClock) -> None:
    store.register(experiment())
    assert store.lower_p("tone", "latency_ms", "challenger", 0.3, -0.1).p_value == 0.3
    clock.advance(60)
    assert store.lower_p("tone", "latency_ms", "challenger", 0.04, -0.2).p_value == 0.04
    clock.advance(60)
    kept = store.lower_p("tone", "latency_ms", "challenger", 0.5, 0.1)
    assert (kept.p_value, kept.difference) == (0.04, -0.2)
    assert (kept.reached_at - START).total_seconds() == 60
    assert store.running_p("tone", "latency_ms", "challenger") == kept


def test_many_threads_agree_on_kappa_and_the_smallest_p(store: ExperimentStore) -> None:
    store.register(experiment())
    with ThreadPoolExecutor(8) as pool:
        kappas = set(pool.map(lambda k: store.freeze_kappa("tone", "m", "t", k), range(1, 25)))
        list(pool.map(lambda k: store.lower_p("tone", "m", "t", k / 100, 0.0), range(1, 25)))
    assert len(kappas) == 1
    running = store.running_p("tone", "m", "t")
    assert running is not None
    assert running.p_value == 0.01


def test_a_look_at_unchanged_tables_takes_the_place_of_the_last(
    store: ExperimentStore, clock: ManualClock
) -> None:
    store.register(experiment())
    assert store.latest("tone") is None
    for versions, name in (((1, None), "a"), ((1, None), "b"), ((1, 0), "c"), ((2, 0), "d")):
        clock.advance(60)
        store.add_analysis("tone", clock.now(), *versions, {"name": name})
    assert [report["name"] for report in store.history("tone")] == ["d", "c", "b"]
    assert [report["name"] for report in store.history("tone", limit=1)] == ["d"]
    assert store.latest("tone") == {"name": "d"}
