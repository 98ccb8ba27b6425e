"""A worker's snapshots: the file reconciled, the database followed, and nothing wrong that takes the rest along."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.experiment import Experiment
from experiments.lifecycle import Lifecycle
from experiments.store import ExperimentStore
from servelens.assembly.endpoints import build_endpoint
from servelens.assembly.experiments import build_experiments
from servelens.clock import ManualClock
from servelens.control.proxy_workers import BEAT_S, ProxyWorkers, WorkerState
from servelens.control.snapshot_source import SnapshotSource
from servelens.control.store import EndpointStore
from servelens.control.stored_endpoint import StoredEndpoint
from servelens.database import Database
from servelens.endpoint_settings import EndpointSettings
from servelens.errors import InvalidSettings, Unavailable
from servelens.experiment_settings import ExperimentSettings
from servelens.secret_references import Secrets
from servelens.settings import Settings
from servelens.settings_file import load_settings
from serving_proxy.authentication import NO_KEYS, Keys
from serving_proxy.routing import Identity, Snapshot, choose_served_entity
from tests.new_database import new_database
from tests.unit.servelens.control_settings import REFERENCE, backend, openai_model, settings


@dataclass
class Worker:
    """A worker's source, with the file and the database that it follows."""

    file: Path
    database: Database
    clock: ManualClock
    environment: dict[str, str] = field(default_factory=dict)
    keys: Keys = NO_KEYS
    name: str = "a/proxy-0"

    def __post_init__(self) -> None:
        self.store = EndpointStore(self.database, self.clock)
        self.lifecycle = Lifecycle(self.database, self.clock)
        self.workers = ProxyWorkers(self.database, self.clock)
        self.source = SnapshotSource(
            self.file,
            load_settings,
            self.store,
            self.lifecycle,
            self.workers,
            build_endpoint,
            self._experiments,
            Secrets(self.environment),
            self.clock,
            worker=self.name,
            keys=lambda: self.keys,
        )
        self._writes = 0
        self.more: list[ExperimentSettings] = []

    def _experiments(self, loaded: Settings) -> tuple[Experiment, ...]:
        return build_experiments(loaded.model_copy(update={"experiments": [*loaded.experiments, *self.more]}))

    def write(self, *endpoints: dict[str, Any], **more: Any) -> None:
        self.file.write_text(yaml.safe_dump({"data_dir": "data", "endpoints": list(endpoints), **more}))
        self._writes += 1
        os.utime(self.file, (self._writes, self._writes))

    def next(self) -> Snapshot:
        snapshot = self.source()
        assert snapshot is not None
        return snapshot

    def change(self, name: str, *entities: dict[str, Any]) -> None:
        def to(old: StoredEndpoint) -> EndpointSettings:
            return settings(name, *entities)

        self.store.update(name, to, by="ann", action="config")


def block(name: str, *entities: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "config": {"served_entities": list(entities) or [backend()]}}


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    database = new_database(tmp_path / "servelens.db")
    worker = Worker(tmp_path / "servelens.yaml", database, ManualClock(datetime(2026, 5, 1, tzinfo=UTC)))
    worker.write(block("chat"))
    yield worker
    database.dispose()


def test_the_files_endpoints_are_served_and_then_nothing_is_new(worker: Worker) -> None:
    snapshot = worker.next()
    assert list(snapshot.endpoints) == ["chat"]
    assert snapshot.endpoints["chat"].config_version == 1
    assert worker.source() is None


def test_a_change_by_api_is_followed_and_what_did_not_change_is_the_same_object(worker: Worker) -> None:
    worker.write(block("chat"), block("embed"))
    first = worker.next()
    worker.change("chat", backend("other"))
    worker.store.create(settings("made"), by="ann")
    second = worker.next()
    assert list(second.endpoints) == ["chat", "embed", "made"]
    assert list(second.endpoints["chat"].entities) == ["other"]
    assert second.endpoints["chat"].config_version == 2
    assert second.endpoints["embed"] is first.endpoints["embed"]
    worker.store.delete("made", by="ann", check=lambda _: None)
    assert list(worker.next().endpoints) == ["chat", "embed"]


def test_a_change_of_the_file_is_followed(worker: Worker) -> None:
    worker.next()
    worker.write(block("embed"))
    assert list(worker.next().endpoints) == ["embed"]


def test_two_workers_see_the_same(worker: Worker) -> None:
    other = Worker(worker.file, worker.database, worker.clock, name="a/proxy-1")
    worker.next()
    other.next()
    worker.write(block("chat", backend("new")))
    assert worker.next().endpoints["chat"] == other.next().endpoints["chat"]
    assert other.store.get("chat").config_version == 2


def test_a_wrong_file_leaves_all_as_it_was_and_is_said_until_it_is_right(worker: Worker) -> None:
    worker.next()
    worker.write(block("chat", backend("a"), backend("b")))
    for _ in range(2):
        with pytest.raises(InvalidSettings, match="traffic_config"):
            worker.source()
    worker.change("chat", backend("by-api"))
    assert list(worker.next().endpoints["chat"].entities) == ["by-api"]
    with pytest.raises(InvalidSettings, match="traffic_config"):
        worker.source()
    worker.file.unlink()
    with pytest.raises(InvalidSettings, match="cannot be read"):
        worker.source()
    worker.write(block("chat", backend("right")))
    assert list(worker.next().endpoints["chat"].entities) == ["right"]


def test_a_wrong_file_at_the_start_is_the_end(worker: Worker) -> None:
    worker.file.write_text("endpoints: 5")
    with pytest.raises(InvalidSettings):
        worker.source()


def test_a_file_with_what_no_worker_could_serve_is_wrong(worker: Worker) -> None:
    worker.next()
    worker.write(block("chat", {**backend(), "overrides": {"body": {"stream": True}}}))
    with pytest.raises(InvalidSettings, match="stream"):
        worker.source()
    assert worker.store.get("chat").config_version == 1


def test_without_the_database_the_old_snapshot_stays(worker: Worker, tmp_path: Path) -> None:
    worker.next()
    worker.source()
    worker.database.dispose()
    files = [path for path in tmp_path.iterdir() if path.name.startswith("servelens.db")]
    away = tmp_path / "away"
    away.mkdir()
    for path in files:
        path.rename(away / path.name)
    (tmp_path / "servelens.db").mkdir()
    with pytest.raises(Unavailable):
        worker.source()
    assert list(worker.source.snapshot.endpoints) == ["chat"]
    (tmp_path / "servelens.db").rmdir()
    for path in files:
        (away / path.name).rename(path)
    worker.change("chat", backend("after"))
    assert list(worker.next().endpoints["chat"].entities) == ["after"]


def test_an_endpoint_that_cannot_be_built_stays_as_it_was_and_harms_no_other(worker: Worker) -> None:
    worker.next()
    locked = openai_model(openai_api_key_plaintext=REFERENCE)
    worker.change("chat", locked)
    worker.store.create(settings("lost", locked), by="ann")
    worker.store.create(settings("made"), by="ann")
    snapshot = worker.next()
    assert list(snapshot.endpoints) == ["chat", "made"]
    assert list(snapshot.endpoints["chat"].entities) == ["champion"]
    with pytest.raises(InvalidSettings, match=r"'lost'.*SERVELENS_SECRET_LLM_OPENAI"):
        worker.source()
    (state,) = worker.workers.live()
    assert set(state.failing) == {"chat", "lost"}


def test_a_reference_is_resolved_from_the_environment(worker: Worker) -> None:
    worker.environment["SERVELENS_SECRET_LLM_OPENAI"] = "sk-live"
    worker.write(block("chat", openai_model(openai_api_key_plaintext=REFERENCE)))
    (entity,) = worker.next().endpoints["chat"].served_entities
    assert entity.backend.api_key == "sk-live"
    assert "sk-live" not in str(worker.store.get("chat").settings)


def test_an_experiment_that_does_not_fit_does_not_run_and_harms_no_endpoint(worker: Worker) -> None:
    arms = {
        "control": {"served_entity": "champion", "weight": 50},
        "treatments": [{"served_entity": "challenger", "weight": 50}],
    }
    worker.more = [
        ExperimentSettings.model_validate({"name": "broken", "endpoint": "chat", **arms}),
        ExperimentSettings.model_validate({"name": "fine", "endpoint": "embed", **arms}),
    ]
    worker.write(block("chat"), {**block("embed"), "config": _both()})
    snapshot = worker.next()
    running = {name: [one.name for one in each.experiments] for name, each in snapshot.experiments.items()}
    assert running == {"embed": ["fine"]}
    with pytest.raises(InvalidSettings, match=r"'broken' does not run.*'challenger'"):
        worker.source()


def ab(name: str, endpoint: str = "chat", **more: Any) -> dict[str, Any]:
    """A block of the settings file that gives all units to ``challenger``."""
    return {
        "name": name,
        "endpoint": endpoint,
        "control": {"served_entity": "champion", "weight": 0},
        "treatments": [{"served_entity": "challenger", "weight": 100}],
        **more,
    }


def made(name: str, endpoint: str = "chat", **more: Any) -> Experiment:
    return ExperimentSettings.model_validate(ab(name, endpoint, **more)).build()


def chosen(snapshot: Snapshot, endpoint: str = "chat") -> tuple[str | None, str]:
    """The experiment and the served entity of some unit."""
    choice = choose_served_entity(snapshot, snapshot.endpoints[endpoint], Identity("r", user="ann"))
    return choice.experiment, choice.entity.name


def two(name: str = "chat") -> dict[str, Any]:
    return {"name": name, "config": _both()}


def test_experiments_of_the_database_are_followed(worker: Worker) -> None:
    worker.write(two())
    assert chosen(worker.next())[0] is None
    worker.lifecycle.create(made("ab"), by="ann", start=False)
    assert chosen(worker.next())[0] is None
    worker.lifecycle.start("ab", "ann")
    first = worker.next()
    assert chosen(first) == ("ab", "challenger")
    assert worker.source() is None
    worker.lifecycle.pause("ab", "ann")
    assert chosen(worker.next()) == ("ab", "challenger")
    worker.lifecycle.resume("ab", "ann")
    worker.lifecycle.begin_phase("ab", {"champion": 100, "challenger": 0}, by="ann")
    changed = worker.next()
    assert chosen(changed) == ("ab", "champion")
    assert changed.endpoints["chat"] is first.endpoints["chat"]
    worker.lifecycle.stop("ab", "ann")
    assert chosen(worker.next())[0] is None
    assert worker.source() is None


def test_experiments_of_the_file_are_started_and_ended(worker: Worker) -> None:
    worker.write(two(), experiments=[ab("ab")])
    assert chosen(worker.next()) == ("ab", "challenger")
    worker.lifecycle.begin_phase("ab", {"champion": 100, "challenger": 0}, by="ann")
    worker.next()
    worker.write(two(), two("embed"), experiments=[ab("ab")])
    assert chosen(worker.next()) == ("ab", "champion")
    worker.write(two())
    assert chosen(worker.next())[0] is None
    assert worker.lifecycle.standing("ab").outcome == "removed"


def test_a_block_that_is_refused_is_said_and_taken_once_there_is_room(worker: Worker) -> None:
    worker.lifecycle.create(made("own"), by="ann")
    worker.write(two(), two("embed"), experiments=[ab("ab"), ab("fine", "embed")])
    snapshot = worker.next()
    assert chosen(snapshot) == ("own", "challenger")
    assert chosen(snapshot, "embed") == ("fine", "challenger")
    for _ in range(2):
        with pytest.raises(InvalidSettings, match="'own' and 'ab' both want the units"):
            worker.source()
    generation = worker.lifecycle.generation()
    worker.lifecycle.stop("own", "ann")
    assert chosen(worker.next()) == ("ab", "challenger")
    assert worker.lifecycle.generation() == generation + 2
    assert worker.source() is None


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"primary_metric": "nonsense"}, "experiments[1].primary_metric"),
        ({"guardrails": [{"metric": "error_rate", "margin": 0}]}, "experiments[1].guardrails[0].margin"),
        ({"kind": "canary"}, "experiments[1].control.weight"),
        ({"endpoint": "chat"}, "experiments[1].share_from"),
    ],
)
def test_a_block_that_is_wrong_takes_nothing_along(
    worker: Worker, changes: dict[str, Any], place: str
) -> None:
    worker.write(two(), two("embed"), experiments=[ab("ab"), ab("fine", "embed")])
    worker.next()
    wrong = {**ab("fine", "embed"), **changes}
    worker.write(two(), two("embed"), two("more"), experiments=[ab("ab"), wrong])
    for _ in range(2):
        with pytest.raises(InvalidSettings, match=re.escape(f"servelens.yaml: {place}: ")):
            worker.source()
    assert chosen(worker.source.snapshot) == ("ab", "challenger")
    assert chosen(worker.source.snapshot, "embed") == ("fine", "challenger")
    assert [each.state for each in worker.lifecycle.standings()] == ["running", "running"]
    worker.write(two(), two("embed"), two("more"), experiments=[ab("ab"), ab("fine", "embed")])
    assert list(worker.next().endpoints) == ["chat", "embed", "more"]
    assert worker.source() is None
    assert [each.revision for each in worker.lifecycle.standings()] == [1, 1]


def test_all_that_is_wrong_is_said_at_once(worker: Worker) -> None:
    worker.lifecycle.create(made("lost", "nowhere"), by="ann")
    worker.write(two(), experiments=[ab("ab")])
    assert chosen(worker.next()) == ("ab", "challenger")
    worker.write(two(), experiments=[ab("ab", alpha=0.1)])
    with pytest.raises(InvalidSettings, match=r"'lost' does not run.*experiments\[ab\]\.alpha: it was 0\.05"):
        worker.source()


def test_of_two_that_an_older_release_let_start_the_earlier_runs(worker: Worker) -> None:
    older = ExperimentStore(worker.database, worker.clock)
    worker.write(two())
    worker.next()
    older.register(made("first"))
    worker.clock.advance(1)
    older.register(made("second"))
    worker.lifecycle.create(made("other", "nowhere"), by="ann")  # so that there is something to follow
    assert chosen(worker.next()) == ("first", "challenger")
    with pytest.raises(InvalidSettings, match=r"'second' does not run: 'first' and 'second' both want"):
        worker.source()


def _both() -> dict[str, Any]:
    split = [
        {"served_entity_name": "champion", "traffic_percentage": 50},
        {"served_entity_name": "challenger", "traffic_percentage": 50},
    ]
    return {
        "served_entities": [backend(), backend("challenger")],
        "traffic_config": {"routes": split},
    }


def test_new_keys_make_a_new_snapshot(worker: Worker) -> None:
    worker.next()
    assert worker.source() is None
    worker.keys = replace(NO_KEYS, required=True)
    worker.clock.advance(0.5)
    assert worker.next().keys.required
    assert worker.source() is None


def test_a_worker_says_what_it_serves_only_after_it_has_taken_it_over(worker: Worker) -> None:
    worker.next()
    assert worker.workers.live() == []
    worker.source()
    assert worker.workers.live() == [WorkerState("a/proxy-0", 1)]
    worker.change("chat", backend("new"))
    worker.next()
    assert worker.workers.live() == [WorkerState("a/proxy-0", 1)]
    worker.source()
    assert worker.workers.live() == [WorkerState("a/proxy-0", 2)]
    for _ in range(20):
        worker.clock.advance(BEAT_S)
        worker.source()
    assert worker.workers.live() == [WorkerState("a/proxy-0", 2)]
    worker.source.leave()
    assert worker.workers.live() == []
