from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import polars as pl
import pytest

from collector.catalog import SCORE_SCHEMA, EndpointTables
from evaluators.evaluator import Evaluator, Score, Text, unscored
from evaluators.runs.run_history import RunHistory, Trigger
from evaluators.runs.runner import EvaluationRunner
from servelens.clock import ManualClock
from servelens.errors import Conflict, Invalid, Unavailable
from tests.unit.evaluators.inference_rows import ENDPOINT, endpoint_tables, payload_rows
from tests.unit.evaluators.scoring_evaluators import LengthEvaluator

START = datetime(2026, 3, 4, 10, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START + timedelta(hours=1))


def runner_for(
    tables: EndpointTables, history: RunHistory, clock: ManualClock, evaluator: Evaluator, **options: Any
) -> EvaluationRunner:
    return EvaluationRunner(tables, ENDPOINT, evaluator, history, clock, **options)


def scores_of(tables: EndpointTables) -> pl.DataFrame:
    return tables.scores.scan().collect().sort("databricks_request_id", "evaluator", "target")


def test_every_record_gets_a_score_beside_what_identifies_it(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    payload = payload_rows(
        3, START, variant=["control", "hot", None], response_text=["Paris.", "x" * 30, "No idea."]
    )
    tables.payload.append(payload)
    summary = runner_for(tables, history, clock, LengthEvaluator()).run()
    scores = scores_of(tables)
    assert scores.columns == SCORE_SCHEMA.names
    kept = ["databricks_request_id", "request_date", "request_time", "endpoint", "served_entity", "variant"]
    assert scores.select(kept).equals(payload.sort("databricks_request_id").select(kept))
    assert scores["score"].to_list() == [6, 30, 8]
    assert scores["label"].to_list() == ["short", "long", "short"]
    assert scores["unscored_reason"].null_count() == 3
    about = (
        scores.select("evaluator", "evaluator_version", "model", "target", "scored_at").unique().to_dicts()
    )
    assert about == [
        {
            "evaluator": "length",
            "evaluator_version": "1",
            "model": "characters",
            "target": "response",
            "scored_at": clock.now(),
        }
    ]
    assert (summary.scored, summary.unscored, summary.device) == (3, 0, "cpu")
    assert (summary.endpoint, summary.evaluator, summary.target) == (ENDPOINT, "length", "response")
    assert (summary.from_version, summary.to_version) == (None, tables.payload.version())


def test_shadow_records_are_scored_too(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(2, START, is_shadow=True))
    assert runner_for(tables, history, clock, LengthEvaluator()).run().scored == 2


def test_a_record_without_text_has_a_reason_and_no_score(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(
        payload_rows(
            5,
            START,
            status_code=[200, 502, 200, 200, 200],
            response_text=["Paris.", None, "  \n", None, None],
            logging_error_codes=[
                [],
                [],
                None,
                ["MAX_RESPONSE_SIZE_EXCEEDED"],
                ["MAX_REQUEST_SIZE_EXCEEDED"],
            ],
        )
    )
    summary = runner_for(tables, history, clock, LengthEvaluator()).run()
    scores = scores_of(tables)
    assert scores["score"].to_list() == [6, None, None, None, None]
    assert scores["unscored_reason"].to_list() == [None, "no_text", "no_text", "payload_too_large", "no_text"]
    assert (summary.scored, summary.unscored) == (1, 4)
    assert summary.unscored_reasons == {"no_text": 3, "payload_too_large": 1}


def test_requests_are_scored_apart_from_responses(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(2, START, prompt_text=["Hi", None], response_text=["Hello", None]))
    for target in ("request", "response"):
        runner_for(tables, history, clock, LengthEvaluator(target=target)).run()
    scores = scores_of(tables).select("target", "score", "unscored_reason").rows()
    assert scores == [
        ("request", 2, None),
        ("response", 5, None),
        ("request", None, "no_text"),
        ("response", None, "no_text"),
    ]


def test_a_run_begins_where_the_last_one_ended(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    seen: list[int] = []
    evaluator = LengthEvaluator(before=lambda batch: seen.append(len(batch)))
    runner = runner_for(tables, history, clock, evaluator)
    assert runner.run().to_version is None  # no inference table yet
    tables.payload.append(payload_rows(3, START))
    assert runner.run().scored == 3
    assert runner.run().scored == 0
    tables.payload.append(payload_rows(2, START))
    # A new object, as after a restart.
    summary = runner_for(tables, history, clock, evaluator).run()
    assert (summary.scored, summary.to_version) == (2, tables.payload.version())
    assert seen == [3, 2]
    assert scores_of(tables)["databricks_request_id"].n_unique() == 5
    assert len(history.recent()) == 2  # a run with nothing to do leaves no trace


def test_batches_are_whole_commits_and_bounded(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    for rows in (4, 4, 4, 25, 1):
        tables.payload.append(payload_rows(rows, START))
    seen: list[int] = []
    evaluator = LengthEvaluator(before=lambda batch: seen.append(len(batch)))
    summary = runner_for(tables, history, clock, evaluator, max_rows=10).run()
    assert seen == [8, 4, 25, 1]
    assert summary.scored == 38
    assert tables.scores.scan().collect()["databricks_request_id"].n_unique() == 38


def test_stop_ends_a_run_after_the_batch_in_hand_and_the_next_goes_on(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    for _ in range(3):
        tables.payload.append(payload_rows(2, START))
    stop = Event()
    runner = runner_for(tables, history, clock, LengthEvaluator(before=lambda batch: stop.set()), max_rows=2)
    assert runner.run(stop).scored == 2
    assert runner.run().scored == 4
    assert scores_of(tables)["databricks_request_id"].n_unique() == 6


def test_compaction_brings_nothing_back(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    from deltalake import DeltaTable

    for _ in range(3):
        tables.payload.append(payload_rows(2, START))
    runner = runner_for(tables, history, clock, LengthEvaluator())
    runner.run()
    DeltaTable(tables.payload.uri).optimize.compact()
    assert runner.run().scored == 0
    tables.payload.append(payload_rows(1, START))
    assert runner.run().scored == 1
    assert scores_of(tables).height == 7
    assert len(history.recent()) == 2


def test_two_runs_at_once_do_not_double_a_score(
    tables: EndpointTables, history: RunHistory, clock: ManualClock, tmp_path: Path
) -> None:
    for _ in range(4):
        tables.payload.append(payload_rows(2, START))
    stop_after_one = Event()
    other_evaluator = LengthEvaluator(before=lambda batch: stop_after_one.set())
    other = runner_for(endpoint_tables(tmp_path), history, clock, other_evaluator, max_rows=2)
    # While the first scores three commits, the other scores and keeps the first of them.
    slow = LengthEvaluator(before=lambda batch: other.run(stop_after_one))
    with pytest.raises(Conflict, match="somebody else"):
        runner_for(tables, history, clock, slow, max_rows=6).run()
    assert runner_for(tables, history, clock, LengthEvaluator()).run().scored == 6
    assert scores_of(tables).height == scores_of(tables)["databricks_request_id"].n_unique() == 8


def test_an_evaluator_that_raises_fails_the_run_and_keeps_nothing_of_the_batch(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(2, START))
    tables.payload.append(payload_rows(2, START, response_text="boom"))

    def explode(batch: Sequence[Text]) -> None:
        if any(text.response == "boom" for text in batch):
            raise RuntimeError("CUDA error: an illegal memory access\0")

    broken = runner_for(tables, history, clock, LengthEvaluator(before=explode), max_rows=2)
    with pytest.raises(Unavailable, match=r"length@response.*RuntimeError.*illegal memory access"):
        broken.run()
    assert scores_of(tables).height == 2
    run = history.recent()[0]
    assert (run.state, run.scored, run.unscored) == ("failed", 2, 0)
    assert run.error is not None
    assert "illegal memory access" in run.error
    assert runner_for(tables, history, clock, LengthEvaluator()).run().scored == 2
    assert scores_of(tables)["databricks_request_id"].n_unique() == 4


@dataclass
class ForeignScore:
    """A score that was not built with our class, which would have refused it."""

    value: float | None
    label: str | None = None
    unscored_reason: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


class ForeignEvaluator(LengthEvaluator):
    def __init__(self, answers: Sequence[Any]) -> None:
        super().__init__()
        self.answers = answers

    def score(self, batch: Sequence[Text]) -> list[Score]:
        return list(self.answers)


def test_a_score_that_is_not_finite_is_no_score(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(3, START))
    answers = [ForeignScore(float("nan"), "odd"), ForeignScore(float("inf")), ForeignScore(2.0)]
    summary = runner_for(tables, history, clock, ForeignEvaluator(answers)).run()
    scores = scores_of(tables)
    assert scores["score"].to_list() == [None, None, 2]
    assert scores["unscored_reason"].to_list() == ["not_finite", "not_finite", None]
    assert scores["label"].to_list() == [None, None, None]
    assert (summary.scored, summary.unscored_reasons) == (1, {"not_finite": 2})


def test_reasons_and_details_of_the_evaluator_are_kept(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(2, START))
    answers = [
        Score(0.9, label="toxic", details={"insult": 0.8, "word": "né"}),
        unscored("too_short", tokens=1.0, bad=float("nan")),
    ]
    runner_for(tables, history, clock, ForeignEvaluator(answers)).run()
    scores = scores_of(tables)
    assert [json.loads(details) for details in scores["details"]] == [
        {"insult": 0.8, "word": "né"},
        {"tokens": 1.0, "bad": None},
    ]
    assert scores["unscored_reason"].to_list() == [None, "too_short"]


def test_a_wrong_number_of_scores_is_refused(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(2, START))
    with pytest.raises(Unavailable, match="1 scores for 2 texts"):
        runner_for(tables, history, clock, ForeignEvaluator([Score(1.0)])).run()
    assert not tables.scores.exists()


def test_a_replaced_inference_table_is_noticed(
    tables: EndpointTables, history: RunHistory, clock: ManualClock, tmp_path: Path
) -> None:
    for _ in range(3):
        tables.payload.append(payload_rows(1, START))
    runner_for(tables, history, clock, LengthEvaluator()).run()
    Path(tables.payload.uri).rename(tmp_path / "moved_away")
    replaced = endpoint_tables(tmp_path)
    replaced.payload.append(payload_rows(1, START))
    with pytest.raises(Conflict, match="replaced"):
        runner_for(replaced, history, clock, LengthEvaluator()).run()


class StatusEvaluator(LengthEvaluator):
    """Lives from a column; says itself what it cannot score."""

    columns = ("status_code", "tags")

    def score(self, batch: Sequence[Text]) -> list[Score]:
        return [
            unscored("no_status")
            if text.columns["status_code"] is None
            else Score(float(text.columns["status_code"]))
            for text in batch
        ]


def test_an_evaluator_with_columns_is_given_every_record_with_them(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(
        payload_rows(3, START, status_code=[200, 502, None], response_text=["Paris.", None, None])
    )
    runner_for(tables, history, clock, StatusEvaluator()).run()
    scores = scores_of(tables)
    assert scores["score"].to_list() == [200, 502, None]
    assert scores["unscored_reason"].to_list() == [None, None, "no_status"]


def test_a_column_that_no_table_has_is_an_error(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(1, START))
    evaluator = StatusEvaluator()
    evaluator.columns = ("mood",)  # type: ignore[assignment]
    with pytest.raises(Invalid, match=r"length@response: .*'mood'"):
        runner_for(tables, history, clock, evaluator).run()


def test_a_run_ends_at_its_limit_and_says_what_waits(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    for _ in range(5):
        tables.payload.append(payload_rows(3, START))
    runner = runner_for(tables, history, clock, LengthEvaluator(), max_rows=3, max_rows_per_run=5)
    assert [runner.run().scored for _ in range(3)] == [6, 6, 3]
    assert [run.waiting for run in history.recent()] == [0, 3, 9]


def test_the_history_has_version_trigger_tokens_and_lag(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    class Counting(LengthEvaluator):
        def score(self, batch: Sequence[Text]) -> list[Score]:
            clock.advance(2)
            return [Score(1.0, details={"tokens": 50.0}) for _ in batch]

    tables.payload.append(payload_rows(100, START, every=timedelta(seconds=1)))
    runner = runner_for(tables, history, clock, Counting(), evaluation="chat-length")
    runner.run(trigger=Trigger.MANUAL)
    run = history.recent(evaluation="chat-length")[0]
    assert (run.evaluation, run.trigger, run.evaluator_version) == ("chat-length", "manual", "1")
    assert (run.rows, run.skipped, run.waiting) == (100, 0, 0)
    assert (run.tokens, run.tokens_per_s) == (5_000, 2_500)
    assert run.lag_max_s == 3_602
    assert run.lag_p99_s == pytest.approx(3_602, rel=0.02)
    assert run.to_dict()["tokens_per_s"] == 2_500


def test_a_scheduler_that_leads_no_more_keeps_nothing(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(4, START))

    def fence() -> None:
        raise Conflict("this process does not hold the lease")

    with pytest.raises(Conflict, match="lease"):
        runner_for(tables, history, clock, LengthEvaluator(), fence=fence).run()
    assert scores_of(tables).is_empty()
    assert history.recent()[0].state == "failed"
