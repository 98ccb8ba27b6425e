from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from evaluators.runs.run_history import EvaluationRun, RunHistory
from servelens.clock import ManualClock
from servelens.database import Database
from tests.new_database import new_database

START = datetime(2026, 3, 4, 10, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = new_database(tmp_path / "history.db")
    yield database
    database.dispose()


@pytest.fixture
def history(database: Database, clock: ManualClock) -> RunHistory:
    return RunHistory(database, clock)


def run_once(history: RunHistory, evaluator: str = "toxicity", endpoint: str = "chat") -> None:
    with history.recorded(
        endpoint=endpoint, evaluator=evaluator, target="response", device="cpu", from_version=None
    ):
        pass


def test_a_run_is_kept_with_what_it_did(history: RunHistory, clock: ManualClock) -> None:
    with history.recorded(
        endpoint="chat", evaluator="toxicity", target="response", device="cuda:0", from_version=3
    ) as progress:
        running = history.recent()[0]
        clock.advance(12.5)
        progress.update(to_version=9, scored=40, unscored_reasons={"no_text": 2, "too_short": 1})
    assert (running.state, running.finished_at) == ("running", None)
    run = history.recent()[0]
    assert (run.endpoint, run.evaluator, run.target, run.device) == ("chat", "toxicity", "response", "cuda:0")
    assert (run.state, run.from_version, run.to_version) == ("succeeded", 3, 9)
    assert (run.scored, run.unscored, run.unscored_reasons) == (40, 3, {"no_text": 2, "too_short": 1})
    assert (run.started_at, run.finished_at) == (START, START + timedelta(seconds=12.5))
    assert (run.duration_s, run.error) == (12.5, None)


def test_an_error_is_kept_and_goes_on(history: RunHistory) -> None:
    def fail() -> None:
        with history.recorded(
            endpoint="chat", evaluator="x", target=None, device="cpu", from_version=None
        ) as progress:
            progress.update(to_version=1, scored=5, unscored_reasons={})
            raise ZeroDivisionError("no\0pe")

    with pytest.raises(ZeroDivisionError):
        fail()
    run = history.recent()[0]
    assert (run.state, run.error, run.scored, run.target) == ("failed", "ZeroDivisionError: nope", 5, None)


def test_what_a_dead_process_left_running_is_interrupted_when_it_runs_again(
    database: Database, history: RunHistory, clock: ManualClock
) -> None:
    with database.session() as session:
        for evaluator, target in (("toxicity", "response"), ("toxicity", "request"), ("drift", None)):
            session.add(
                EvaluationRun(
                    endpoint="chat", evaluator=evaluator, target=target, device="cpu", started_at=START
                )
            )
    clock.advance(1)
    run_once(history)
    states = {(run.evaluator, run.target, run.started_at == START): run.state for run in history.recent()}
    assert states == {
        ("toxicity", "response", True): "interrupted",
        ("toxicity", "request", True): "running",
        ("drift", None, True): "running",
        ("toxicity", "response", False): "succeeded",
    }


def test_recent_runs_are_the_newest_first_and_can_be_narrowed(
    history: RunHistory, clock: ManualClock
) -> None:
    for evaluator, endpoint in (("a", "one"), ("b", "one"), ("a", "two"), ("a", "one")):
        run_once(history, evaluator, endpoint)
        clock.advance(1)
    found = [(run.evaluator, run.endpoint) for run in history.recent()]
    assert found == [("a", "one"), ("a", "two"), ("b", "one"), ("a", "one")]
    assert len(history.recent(limit=2)) == 2
    assert len(history.recent(endpoint="one")) == 3
    assert len(history.recent(endpoint="one", evaluator="a")) == 2


def test_old_runs_can_be_forgotten(history: RunHistory, clock: ManualClock) -> None:
    run_once(history)
    clock.advance(60)
    run_once(history)
    assert history.forget(START + timedelta(seconds=30)) == 1
    assert [run.started_at for run in history.recent()] == [START + timedelta(seconds=60)]
