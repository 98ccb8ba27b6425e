from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from collector.catalog import EndpointTables
from collector.maintenance_compaction import Compactor
from collector.maintenance_history import clean_log, purge
from collector.table import Table
from evaluators.ground_truth.options import read_options
from evaluators.ground_truth.runner import GroundTruthRunner
from evaluators.runs.run_history import RunHistory, RunState
from servelens.clock import ManualClock
from servelens.errors import Conflict, Missing, Unavailable
from tests.unit.evaluators.ground_truth.feedback_rows import truth_rows
from tests.unit.evaluators.inference_rows import ENDPOINT, payload_rows

START = datetime(2026, 3, 4, 10, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START + timedelta(hours=1))


def runner_for(
    tables: EndpointTables, history: RunHistory, clock: ManualClock, *, max_rows: int = 2_000, **options: Any
) -> GroundTruthRunner:
    return GroundTruthRunner(tables, ENDPOINT, read_options(options), history, clock, max_rows=max_rows)


def rows_of(tables: EndpointTables) -> list[dict[str, Any]]:
    return tables.scores.scan().sort("scored_at", "databricks_request_id").collect().to_dicts()


def test_every_truth_gives_a_score_beside_its_record(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    payload = payload_rows(4, START, variant=["a", "b", None, "a"], response_text=["Cat.", "dog", None, "7"])
    tables.payload.append(payload)
    assert runner_for(tables, history, clock).run().to_version is None
    tables.feedback.append(truth_rows(payload, ["cat", "Cat", "cat", 10.0]))
    tables.feedback.append(truth_rows(payload[:1], [1.0], name="thumbs"))
    summary = runner_for(tables, history, clock).run()
    rows = rows_of(tables)
    assert [(row["score"], row["label"], row["unscored_reason"]) for row in rows] == [
        (1.0, "correct", None),
        (0.0, "incorrect", None),
        (None, None, "no_prediction"),
        (3.0, None, None),
    ]
    kept = ["databricks_request_id", "request_date", "request_time", "endpoint", "served_entity", "variant"]
    assert [{name: row[name] for name in kept} for row in rows] == payload.select(kept).to_dicts()
    details = json.loads(rows[3]["details"])
    assert {name: details[name] for name in ("task", "expected", "predicted", "error")} == {
        "task": "regression",
        "expected": 10.0,
        "predicted": 7.0,
        "error": -3.0,
    }
    assert {(row["evaluator"], row["target"], row["model"]) for row in rows} == {
        ("ground_truth", "response", "feedback:ground_truth")
    }
    assert (summary.scored, dict(summary.unscored_reasons), summary.waiting) == (3, {"no_prediction": 1}, 0)
    (run,) = history.recent()
    assert (run.state, run.scored, run.unscored, run.evaluator) == (RunState.SUCCEEDED, 3, 1, "ground_truth")


def test_a_truth_is_taken_once(tables: EndpointTables, history: RunHistory, clock: ManualClock) -> None:
    payload = payload_rows(3, START)
    tables.payload.append(payload)
    truths = truth_rows(payload, ["paris"] * 3)
    tables.feedback.append(truths)
    runner = runner_for(tables, history, clock)
    assert [runner.run().scored, runner.run().scored, runner_for(tables, history, clock).run().scored] == [
        3,
        0,
        0,
    ]
    # The same feedback sent again (by a client that got no answer) is no other truth.
    tables.feedback.append(truths)
    assert runner.run().scored == 0
    assert len(rows_of(tables)) == 3


def test_a_truth_that_comes_before_its_record_waits(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    payload = payload_rows(2, START)
    tables.feedback.append(truth_rows(payload, ["paris", "rome"]))
    runner = runner_for(tables, history, clock)
    summary = runner.run()
    assert (summary.scored, summary.waiting) == (0, 2)
    assert {row["unscored_reason"] for row in rows_of(tables)} == {"waiting_for_record"}
    assert runner.run().waiting == 2
    assert len(rows_of(tables)) == 2
    clock.advance(60)
    tables.payload.append(payload[:1])
    assert runner.run().scored == 1
    clock.advance(60)
    tables.payload.append(payload[1:])
    # Another process knows what waits from the scores table alone.
    summary = runner_for(tables, history, clock).run()
    assert (summary.scored, summary.waiting) == (1, 0)
    assert [row["score"] for row in rows_of(tables)] == [None, None, 1.0, 0.0]
    assert (runner.run().scored, runner.run().waiting) == (0, 0)


def test_a_record_that_never_comes_is_given_up(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    payload = payload_rows(1, START)
    tables.feedback.append(truth_rows(payload, ["paris"]))
    runner = runner_for(tables, history, clock, wait_days=2)
    runner.run()
    clock.advance(47 * 3600)
    assert runner.run().waiting == 1
    clock.advance(3600)
    summary = runner.run()
    assert (dict(summary.unscored_reasons), summary.waiting) == ({"no_record": 1}, 0)
    last = rows_of(tables)[-1]
    assert json.loads(last["details"])["expected"] == "paris"
    assert runner.run().unscored_reasons == {}


def test_a_wrong_time_in_the_feedback_does_not_lose_it(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    payload = payload_rows(1, START)
    tables.payload.append(payload)
    wrong = START - timedelta(days=40)
    tables.feedback.append(truth_rows(payload, ["paris"], request_time=wrong, request_date=wrong.date()))
    runner = runner_for(tables, history, clock, wait_days=1)
    assert runner.run().waiting == 1
    clock.advance(24 * 3600)
    assert runner.run().scored == 1


def test_the_newest_truth_counts_in_whatever_order_they_come(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    payload = payload_rows(2, START)
    tables.payload.append(payload)
    runner = runner_for(tables, history, clock)
    second = truth_rows(payload, ["rome"] * 2, feedback_time=START + timedelta(minutes=5))
    third = truth_rows(payload[:1], ["paris"], feedback_time=START + timedelta(minutes=9))
    tables.feedback.append(pl.concat([third, second]))
    runner.run()
    clock.advance(60)
    tables.feedback.append(truth_rows(payload, ["paris"] * 2, feedback_time=START + timedelta(minutes=1)))
    assert runner.run().scored == 0
    assert [row["score"] for row in rows_of(tables)] == [1.0, 0.0]
    clock.advance(60)
    tables.feedback.append(truth_rows(payload[1:], ["paris"], feedback_time=START + timedelta(hours=1)))
    assert runner.run().scored == 1
    assert rows_of(tables)[-1]["score"] == 1.0


def test_a_feedback_that_says_nothing_has_a_reason(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    payload = payload_rows(2, START)
    tables.payload.append(payload)
    tables.feedback.append(truth_rows(payload, [None, "paris"]))
    tables.feedback.append(truth_rows(payload[:1], ["x"], databricks_request_id=None))
    summary = runner_for(tables, history, clock).run()
    assert (summary.scored, dict(summary.unscored_reasons)) == (1, {"no_truth": 1})


def test_another_truth_has_scores_of_its_own(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    payload = payload_rows(1, START)
    tables.payload.append(payload)
    tables.feedback.append(truth_rows(payload, ["paris"]))
    tables.feedback.append(truth_rows(payload, ["rome"], name="topic"))
    runner_for(tables, history, clock).run()
    runner_for(tables, history, clock, truth="topic").run()
    assert {row["evaluator"]: row["score"] for row in rows_of(tables)} == {
        "ground_truth": 1.0,
        "ground_truth.topic": 0.0,
    }


class CrashingTable(Table):
    """A table whose process dies around the commit number ``at``: before it, or with it done."""

    def __init__(self, table: Table, *, at: int, done: bool) -> None:
        super().__init__(table.uri, table.schema)
        self._at, self._done = at, done

    def append(
        self,
        rows: pa.Table | pl.DataFrame,
        *,
        transactions: Mapping[str, int] | None = None,
        after: Mapping[str, int | None] | None = None,
    ) -> int:
        self._at -= 1
        if self._at != -1:
            return super().append(rows, transactions=transactions, after=after)
        if self._done:
            super().append(rows, transactions=transactions, after=after)
        raise Unavailable("the process died here")


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_crash_around_a_commit_neither_loses_nor_doubles(
    tables: EndpointTables, history: RunHistory, clock: ManualClock, at: int, done: bool
) -> None:
    payload = payload_rows(9, START)
    tables.payload.append(payload[3:])
    for begin in (0, 3, 6):
        tables.feedback.append(truth_rows(payload[begin : begin + 3], ["paris"] * 3))
    crashing = replace(tables, scores=CrashingTable(tables.scores, at=at, done=done))
    runner = runner_for(crashing, history, clock, max_rows=3)
    with pytest.raises(Unavailable, match="died here"):
        runner.run()
    clock.advance(1)
    tables.payload.append(payload[:3])
    # The object that failed goes on, as the scheduler's would, and then that of another process.
    runner.run()
    assert runner_for(tables, history, clock).run().scored == 0
    scored = [row["databricks_request_id"] for row in rows_of(tables) if row["score"] is not None]
    assert sorted(scored) == payload["databricks_request_id"].sort().to_list()


def test_two_of_them_do_not_score_twice(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    payload = payload_rows(2, START)
    tables.payload.append(payload)
    first, second = (runner_for(tables, history, clock) for _ in range(2))
    first.run()
    second.run()
    tables.feedback.append(truth_rows(payload, ["paris"] * 2))

    class Racing(Table):
        def scan(self, **options: Any) -> pl.LazyFrame:
            second.run()
            return super().scan(**options)

    racing = Racing(tables.payload.uri, tables.payload.schema)
    lost = runner_for(replace(tables, payload=racing), history, clock)
    with pytest.raises(Conflict, match="somebody else"):
        lost.run()
    assert first.run().scored == 0
    assert len(rows_of(tables)) == 2


def test_feedback_of_other_names_costs_few_commits(
    tables: EndpointTables, history: RunHistory, clock: ManualClock, tmp_path: Path
) -> None:
    payload = payload_rows(1, START)
    tables.payload.append(payload)
    runner = runner_for(tables, history, clock)
    for _ in range(5):
        tables.feedback.append(truth_rows(payload, [1.0], name="thumbs"))
        runner.run()
    assert not tables.scores.exists()
    tables.feedback.append(truth_rows(payload, ["paris"]))
    assert runner.run().scored == 1
    assert tables.scores.transaction_version("ground_truth@feedback") == tables.feedback.version()


def test_feedback_whose_history_has_ended_is_read_whole_and_taken_once(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    payload = payload_rows(12, START)
    tables.payload.append(payload)
    tables.feedback.append(truth_rows(payload[:2], ["paris"] * 2))
    tables.feedback.append(truth_rows(payload[2:4], ["paris"] * 2))
    runner = runner_for(tables, history, clock, max_rows=3)
    assert runner.run().scored == 4
    tables.feedback.append(truth_rows(payload[4:9], ["rome"] * 5))
    # Of another day, so that the whole is more than one read.
    late = (START + timedelta(days=1)).date()
    tables.feedback.append(truth_rows(payload[9:], ["rome"] * 3, request_date=late))
    later = datetime.now(UTC) + timedelta(hours=2)
    Compactor(min_files=2, target_bytes=128 << 20).run(tables.feedback, now=later)
    clean_log(tables.feedback, 48)
    purge(tables.feedback)
    with pytest.raises(Missing):
        tables.feedback.read_since(1)
    clock.advance(60)
    summary = runner.run()
    assert (summary.scored, summary.to_version) == (8, tables.feedback.version())
    assert sorted(row["score"] for row in rows_of(tables)) == [0.0] * 8 + [1.0] * 4
    assert runner_for(tables, history, clock).run().scored == 0
