"""A past period is scored once, beside a schedule, after a crash, and by a new version of the evaluator."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import polars as pl
import pytest

from collector.catalog import EndpointTables
from collector.maintenance_compaction import Compactor
from collector.maintenance_history import clean_log, purge
from evaluators.evaluator import Text
from evaluators.runs.backfill import Backfill
from evaluators.runs.run_history import RunHistory
from evaluators.runs.runner import EvaluationRunner
from evaluators.runs.sampling import Sampling
from servelens.clock import ManualClock
from servelens.errors import Conflict
from tests.unit.evaluators.inference_rows import ENDPOINT, payload_rows
from tests.unit.evaluators.scoring_evaluators import LengthEvaluator

START = datetime(2026, 3, 4, 10, tzinfo=UTC)
REPOSITORY = Path(__file__).parents[4]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START + timedelta(hours=5))


class Place:
    """One endpoint, its schedule and its backfills."""

    def __init__(self, tables: EndpointTables, history: RunHistory, clock: ManualClock) -> None:
        self.tables, self.history, self.clock = tables, history, clock
        self.alone = True

    def add(self, count: int, hour: int = 0) -> None:
        self.tables.payload.append(payload_rows(count, START + timedelta(hours=hour)))

    def schedule(self, evaluator: LengthEvaluator | None = None, **options: object) -> EvaluationRunner:
        return EvaluationRunner(
            self.tables,
            ENDPOINT,
            evaluator or LengthEvaluator(),
            self.history,
            self.clock,
            exclusive=self._exclusive,
            **options,  # type: ignore[arg-type]
        )

    def backfill(
        self,
        evaluator: LengthEvaluator | None = None,
        *,
        hours: tuple[int, int] = (0, 4),
        rescore: bool = False,
        stop: Event | None = None,
        fence: Callable[[], None] = lambda: None,
    ) -> int:
        self.clock.advance(1)
        totals = Backfill(
            self.tables,
            ENDPOINT,
            evaluator or LengthEvaluator(),
            self.history,
            self.clock,
            since=START + timedelta(hours=hours[0]),
            until=START + timedelta(hours=hours[1]),
            rescore=rescore,
            fence=fence,
            max_rows=5,
        ).run(self.note, stop)
        return totals.rows

    def note(self, done: int, total: int) -> None:
        self.progress = (done, total)

    @property
    def scores(self) -> pl.DataFrame:
        return self.tables.scores.scan().collect()

    def once_each(self) -> bool:
        expected = self.tables.payload.scan().collect()["databricks_request_id"].sort()
        return self.scores["databricks_request_id"].sort().equals(expected)

    def _exclusive(self) -> AbstractContextManager[bool]:
        return nullcontext(enter_result=self.alone)


@pytest.fixture
def place(tables: EndpointTables, history: RunHistory, clock: ManualClock) -> Place:
    return Place(tables, history, clock)


def version(number: str) -> LengthEvaluator:
    evaluator = LengthEvaluator()
    evaluator.version = number
    return evaluator


def test_the_period_and_nothing_else_is_scored_in_portions(place: Place) -> None:
    for hour in range(4):
        place.add(6, hour)
    assert place.backfill(hours=(1, 3)) == 12
    assert place.progress == (12, 12)
    assert sorted(set(place.scores["request_time"].dt.hour())) == [11, 12]
    run = place.history.recent()[0]
    assert (run.trigger, run.state, run.scored, run.waiting) == ("backfill", "succeeded", 12, 0)
    assert run.lag_max_s is not None
    assert place.backfill(hours=(1, 3)) == 0
    assert len(place.history.recent()) == 1


def test_a_schedule_that_begins_afterwards_takes_the_rest(place: Place) -> None:
    for hour in range(3):
        place.add(6, hour)
    place.backfill(hours=(0, 1))
    assert place.schedule().run().scored == 12
    place.add(4, 3)
    assert place.schedule().run().scored == 4
    assert place.once_each()


def test_what_the_schedule_left_out_is_filled_in_and_what_it_has_not_come_to_is_left_to_it(
    place: Place,
) -> None:
    place.add(40)
    first = place.schedule(sampling=Sampling(quota=10)).run()
    assert (first.scored, first.skipped) == (10, 30)
    place.add(8)  # not seen by the schedule yet

    def meanwhile(_: Sequence[Text]) -> None:
        place.add(3)
        place.schedule().run()

    assert place.backfill(LengthEvaluator(before=meanwhile)) == 30
    assert place.schedule().run().scored == 0
    assert place.once_each()


def test_while_a_backfill_runs_the_schedule_does_not_look_for_records(place: Place) -> None:
    place.add(12)
    place.alone = False
    seen = []

    def meanwhile(_: Sequence[Text]) -> None:
        seen.append(place.schedule().run().scored)  # its first run would take everything

    assert place.backfill(LengthEvaluator(before=meanwhile)) == 12
    assert seen == [0, 0, 0]
    place.alone = True
    place.schedule().run()
    assert place.once_each()


def test_it_finds_its_records_when_the_history_of_the_table_has_ended(place: Place) -> None:
    place.add(6)
    place.schedule(sampling=Sampling(quota=2)).run()
    place.add(6)
    place.add(6)
    Compactor(min_files=2, target_bytes=128 << 20).run(
        place.tables.payload, now=datetime.now(UTC) + timedelta(hours=2)
    )
    clean_log(place.tables.payload, 48)
    purge(place.tables.payload)
    place.alone = False
    seen = []
    backfill = LengthEvaluator(before=lambda _: seen.append(place.schedule().run().scored))
    assert place.backfill(backfill) == 16
    assert set(seen) == {0}
    place.alone = True
    assert place.schedule().run().scored == 0
    assert place.once_each()


def test_one_that_was_stopped_goes_on(place: Place) -> None:
    place.add(13)
    stop = Event()
    assert place.backfill(LengthEvaluator(before=lambda _: stop.set()), stop=stop) == 5
    assert place.progress == (5, 13)
    assert place.backfill() == 8
    assert place.once_each()


def test_a_new_version_replaces_the_scores_of_the_old_one(place: Place) -> None:
    place.add(12)
    place.add(3, 3)
    place.schedule().run()
    place.schedule(LengthEvaluator(target="request")).run()
    assert place.backfill(version("2"), hours=(0, 2)) == 12
    responses = place.scores.filter(pl.col("target") == "response")
    assert responses["evaluator_version"].value_counts().sort("evaluator_version").rows() == [
        ("1", 3),
        ("2", 12),
    ]
    assert responses["databricks_request_id"].n_unique() == responses.height == 15
    assert place.scores.height == 30  # the other target's stay
    assert place.backfill(version("2"), hours=(0, 2)) == 0


def test_what_this_version_has_scored_is_scored_again_when_asked_for(place: Place) -> None:
    place.add(7)
    place.schedule().run()
    assert place.backfill() == 0
    assert place.backfill(rescore=True) == 7
    assert place.once_each()


def test_rows_that_a_killed_backfill_left_double_are_settled_by_the_next(place: Place) -> None:
    place.add(4)
    place.schedule().run()
    calls = []

    def fence() -> None:  # the first time at the begin, then before each commit
        calls.append(1)

    place.backfill(version("2"), fence=fence)
    assert len(calls) == 2
    place.clock.advance(-2)
    older = place.scores.with_columns(
        pl.lit("1").alias("evaluator_version"), (pl.col("scored_at") - timedelta(hours=1)).alias("scored_at")
    )
    place.tables.scores.append(older)  # as if it had been killed between its two commits
    place.clock.advance(2)
    assert place.backfill(version("2")) == 0
    assert place.once_each()
    assert set(place.scores["evaluator_version"]) == {"2"}


def test_one_that_lost_its_lease_writes_nothing_any_more(place: Place) -> None:
    place.add(20)
    calls = []

    def fence() -> None:
        calls.append(1)
        if len(calls) > 3:
            raise Conflict("this process does not hold the lease any more")

    with pytest.raises(Conflict, match="lease"):
        place.backfill(fence=fence)
    assert place.scores.height == 10
    assert place.history.recent()[0].state == "failed"
    assert place.backfill() == 10


def test_killed_at_any_moment_it_neither_loses_nor_doubles_a_score(place: Place, tmp_path: Path) -> None:
    place.add(80)
    command = [sys.executable, "-m", "tests.unit.evaluators.runs.backfill_process", str(tmp_path)]
    log = Path(place.tables.scores.uri) / "_delta_log"
    with subprocess.Popen(command, cwd=REPOSITORY) as process:
        deadline = time.monotonic() + 60
        while len(list(log.glob("*.json"))) < 5:
            assert time.monotonic() < deadline, "no portion is kept"
            assert process.poll() is None
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
    done = place.scores.height
    assert 0 < done < 80
    assert place.history.recent()[0].state == "running"
    assert place.backfill() == 80 - done
    assert place.once_each()
    assert {run.state for run in place.history.recent()} == {"succeeded", "interrupted"}
