"""Evaluations of the database as the scheduler follows them, with real workers."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from collector.catalog import EndpointTables
from evaluators.registry import EvaluatorSpec
from evaluators.runs.evaluation import Evaluation
from evaluators.runs.evaluation_store import EvaluationStore
from evaluators.runs.follow import FollowedEvaluations
from evaluators.runs.run_history import RunHistory
from evaluators.runs.schedule import Schedule
from evaluators.runs.scheduled import Surroundings
from evaluators.workers.placement import evaluator_of
from servelens.clock import Clock, SystemClock
from servelens.database import Database
from servelens.errors import Conflict, Invalid, Missing
from tests.unit.evaluators.inference_rows import ENDPOINT, payload_rows
from tests.unit.evaluators.workers import misbehaving


@pytest.fixture
def clock() -> Clock:
    return SystemClock()


class Following:
    """A store, and a schedule that follows it until :meth:`end`."""

    def __init__(self, root: Path, tables: EndpointTables, history: RunHistory) -> None:
        self.tables, self.history = tables, history
        self.database = Database(f"sqlite:///{root}/history.db")
        clock = SystemClock()
        self.store = EvaluationStore(self.database, clock)
        self.surroundings = Surroundings(
            tables=self._tables_of,
            evaluator=partial(evaluator_of, models_dir=root),
            history=history,
            clock=clock,
            fence=lambda: None,
            exclusive=lambda endpoint, application_id: nullcontext(enter_result=True),
        )
        self.stop = threading.Event()
        self.followed = FollowedEvaluations(
            self.store, self.surroundings, self.stop, look_s=0.05, abort_after_s=0.3
        )
        self.schedule = Schedule([])

    def begin(self) -> None:
        self.schedule.start()
        self.followed.follow(self.schedule)

    def end(self) -> None:
        self.stop.set()
        self.followed.close(self.schedule.stop)
        self.database.dispose()

    def scored(self) -> int:
        return self.tables.scores.scan().collect().height

    def _tables_of(self, endpoint: str) -> EndpointTables:
        if endpoint != ENDPOINT:
            raise Missing(f"there is no endpoint '{endpoint}'")
        return self.tables


@pytest.fixture
def following(tmp_path: Path, tables: EndpointTables, history: RunHistory) -> Iterator[Following]:
    before = list(sys.path)
    misbehaving.install(tmp_path / "site")
    made = Following(tmp_path, tables, history)
    yield made
    made.end()
    sys.path[:] = before


def evaluation(
    name: str = "one", *, endpoint: str = ENDPOINT, every_s: float = 0.05, **options: Any
) -> Evaluation:
    return Evaluation(name, endpoint, EvaluatorSpec("misbehaving", options), every_s=every_s)


def await_that(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def workers() -> list[psutil.Process]:
    """Of this process, which has other children as well: tests before this one leave a database server."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if any("evaluators.workers" in part for part in child.cmdline()):
                found.append(child)
    return found


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def test_an_evaluation_is_taken_up_held_asked_for_changed_and_removed_without_a_restart(
    following: Following,
) -> None:
    following.begin()
    following.tables.payload.append(payload_rows(3, ago(60)))
    following.store.create(evaluation(), by="ann")
    await_that(lambda: following.scored() == 3, "it is not taken up")
    (scheduled,) = following.followed.current
    assert scheduled.labels == ("one", ENDPOINT, "misbehaving", "response")
    await_that(lambda: scheduled.tally.scored == 3, "it is not counted")
    assert scheduled.lag_s() == 0.0

    following.store.pause("one", paused=True, by="ann")
    await_that(lambda: not following.schedule.status(), "it is not held")
    following.tables.payload.append(payload_rows(2, ago(50)))
    assert 50 <= scheduled.lag_s() < 80
    following.store.request_run("one", by="ann")
    await_that(lambda: following.scored() == 5, "it does not run when it is asked for")
    assert following.history.recent(evaluation="one")[0].trigger == "manual"

    following.store.pause("one", paused=False, by="ann")
    following.store.replace(evaluation(every_s=0.1), by="bob")
    following.tables.payload.append(payload_rows(1, ago(40)))
    await_that(lambda: following.scored() == 6, "it does not go on")
    following.store.delete("one")
    await_that(lambda: not following.followed.current, "it is not removed")
    await_that(lambda: not workers(), "its workers are left")


def test_what_cannot_run_is_seen_and_the_lag_grows(following: Following) -> None:
    following.tables.payload.append(payload_rows(3, ago(100)))
    following.store.create(evaluation("crashing", load="crash"), by="ann")
    following.store.create(evaluation("nowhere", endpoint="chatt"), by="ann")
    following.begin()
    (crashing, nowhere) = following.followed.current
    await_that(lambda: crashing.tally.failures > 2 and nowhere.tally.failures > 2, "they do not fail")
    errors = {run.evaluation: run.error for run in following.history.recent() if run.state == "failed"}
    assert "SIGSEGV while the evaluator was loaded" in str(errors["crashing"])
    assert "'chatt'" in str(errors["nowhere"])
    assert len(following.history.recent()) == 2  # once for each error
    assert crashing.lag_s() >= 100
    failing = {status.name for status in following.schedule.status() if status.last_error}
    assert failing == {"score crashing", "score nowhere"}


def test_two_evaluations_of_one_position_are_refused(following: Following) -> None:
    following.store.create(evaluation("one"), by="ann")
    following.store.create(evaluation("two", device="elsewhere"), by="ann")
    following.begin()

    def refused() -> bool:
        return any("already" in (status.last_error or "") for status in following.schedule.status())

    await_that(refused, "both score")


def test_stopping_does_not_wait_for_what_hangs(following: Following) -> None:
    following.tables.payload.append(payload_rows(1, ago(1), response_text="hang"))
    following.store.create(
        Evaluation("slow", ENDPOINT, EvaluatorSpec("misbehaving", {}), timeout_s=600), by="a"
    )
    following.begin()
    await_that(lambda: bool(following.history.recent()), "it does not begin")
    began = time.monotonic()
    following.end()
    assert time.monotonic() - began < 20
    assert following.scored() == 0
    assert not workers()


def test_a_file_is_applied_and_only_paused_by_api(following: Following) -> None:
    store = following.store
    store.apply_file([evaluation("a"), evaluation("b")])
    store.create(evaluation("mine"), by="ann")
    store.pause("a", paused=True, by="ann")
    with pytest.raises(Invalid, match="settings file"):
        store.delete("a")
    with pytest.raises(Invalid, match="settings file"):
        store.replace(evaluation("a"), by="ann")
    with pytest.raises(Invalid, match=r"evaluations\[0\]\.name: .*'mine'.*by API"):
        store.apply_file([evaluation("mine")])
    store.apply_file([evaluation("a", every_s=7)])
    assert [(each.evaluation.name, each.source, each.paused) for each in store.all()] == [
        ("a", "file", True),
        ("mine", "api", False),
    ]
    assert store.get("a").evaluation.every_s == 7


def test_nobody_is_overwritten(following: Following) -> None:
    store = following.store
    read = store.create(evaluation(), by="ann").revision
    store.pause("one", paused=True, by="bob")
    with pytest.raises(Conflict, match="revision 2, not 1"):
        store.replace(evaluation(), by="ann", expected_revision=read)
    with pytest.raises(Conflict, match="named 'one' already"):
        store.create(evaluation(), by="ann")
    with pytest.raises(Missing, match=r"'two'.*one"):
        store.get("two")


def test_two_evaluations_of_one_evaluator_have_scores_of_their_own_names(following: Following) -> None:
    following.store.create(evaluation("one"), by="test")
    following.store.create(replace(evaluation("two"), scores_as="again"), by="test")
    following.store.create(evaluation("three"), by="test")
    following.begin()
    following.tables.payload.append(payload_rows(3, ago(60)))
    await_that(lambda: following.scored() == 6, "both have scored")
    await_that(
        lambda: any("'scores_as'" in (run.error or "") for run in following.history.recent()),
        "the third is told what to do",
    )
    scores = following.tables.scores.scan().collect()
    assert dict(scores["evaluator"].value_counts().iter_rows()) == {"misbehaving": 3, "again": 3}
    for name in ("misbehaving", "again"):
        assert following.tables.scores.transaction_version(f"{name}@response") is not None


def test_an_evaluator_that_cannot_be_placed_is_a_failed_run(following: Following) -> None:
    following.store.create(replace(evaluation("one"), engine="local", timeout_s=1), by="test")
    raised = Invalid("the secret is not known here.", field="options")

    def refuse(_: Evaluation) -> Any:
        raise raised

    following.surroundings = replace(following.surroundings, evaluator=refuse)
    following.followed = FollowedEvaluations(
        following.store, following.surroundings, following.stop, look_s=0.05, abort_after_s=0.3
    )
    following.begin()
    await_that(
        lambda: any(str(raised) in (run.error or "") for run in following.history.recent()),
        "the failed run is in the history",
    )


def test_a_model_that_is_loading_at_the_stop_has_not_failed(
    following: Following, caplog: pytest.LogCaptureFixture
) -> None:
    following.store.create(evaluation("one", load="hang"), by="test")
    following.begin()
    await_that(lambda: bool(workers()), "it is loading")
    following.stop.set()
    following.followed.close(following.schedule.stop)
    assert following.history.recent() == []
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    (one,) = following.followed.current
    assert one.tally.failures == 0
