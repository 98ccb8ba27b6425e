from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from collector.catalog import EndpointTables
from evaluators.evaluator import Text
from evaluators.judge.judge import Judge
from evaluators.judge.spending import Ledger
from evaluators.runs.run_history import RunHistory
from evaluators.runs.runner import EvaluationRunner
from servelens.clock import ManualClock
from tests.unit.evaluators.inference_rows import ENDPOINT, payload_rows
from tests.unit.evaluators.judge.judge_server import Asked, JudgeServer, Reply, completion, graded

MakeJudge = Callable[..., Judge]
START = datetime(2026, 3, 4, 10, tzinfo=UTC)
# An answer costs 20 tokens out of the 50 that it may have; tokens in cost nothing.
PRICES = {"price_per_million_input": 0.0, "price_per_million_output": 1e6, "max_tokens": 50}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


def texts(count: int) -> list[Text]:
    return [Text("Say a number.", f"number {index}.") for index in range(count)]


def test_a_limit_is_used_up_and_never_passed(server: JudgeServer, judge_for: MakeJudge) -> None:
    judge = judge_for(**PRICES, max_cost_per_run=200.0, concurrency=8)
    scores = judge.score(texts(20))
    # Eight answers are 160, and a ninth could cost 50. What is under way is waited for.
    scored = [score for score in scores if score.value is not None]
    assert len(scored) == len(server.asked) == 8
    assert {score.unscored_reason for score in scores} == {None, "cost_limit"}
    assert sum(float(score.details["cost"]) for score in scored) == 160


def test_each_run_has_its_own_limit(
    server: JudgeServer, judge_for: MakeJudge, tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    judge = judge_for(**PRICES, max_cost_per_run=60.0)
    runner = EvaluationRunner(tables, ENDPOINT, judge, history, clock, max_rows=2)
    for hour in range(2):
        for minute in range(2):
            tables.payload.append(payload_rows(2, START.replace(hour=10 + hour, minute=minute)))
        summary = runner.run()
        # 20 were spent, and 50 more would pass 60, also in the second batch of the run.
        assert (summary.scored, dict(summary.unscored_reasons)) == (1, {"cost_limit": 3})


def test_a_day_outlives_the_process_and_ends_at_midnight(
    server: JudgeServer, judge_for: MakeJudge, tmp_path: Path, clock: ManualClock
) -> None:
    ledger = Ledger(tmp_path / "spent.sqlite", "judge", clock)
    ledger.add(1.5)
    Ledger(tmp_path / "spent.sqlite", "judge.other", clock).add(7.0)
    assert Ledger(tmp_path / "spent.sqlite", "judge", clock).today() == 1.5
    clock.advance(14 * 3600)
    assert ledger.today() == 0.0

    options = {**PRICES, "max_cost_per_day": 100.0}
    assert [score.unscored_reason for score in judge_for(**options).score(texts(2))] == [None, None]
    again = judge_for(**options)
    again.begin_run()
    assert [score.unscored_reason for score in again.score(texts(2))] == [None, "cost_limit"]
    assert len(server.asked) == 3


def test_an_answer_that_does_not_say_is_taken_at_what_it_may_cost(
    server: JudgeServer, judge_for: MakeJudge
) -> None:
    server.answer = lambda asked: completion('{"explanation": "x", "score": 4}', usage=None)
    (score,) = judge_for(**PRICES).score(texts(1))
    assert score.details["cost"] == 50
    server.answer = lambda asked: completion(
        '{"explanation": "x", "score": 4}', usage={"prompt_tokens": "many"}
    )
    assert judge_for(**PRICES).score(texts(1))[0].details["cost"] == 50


def test_refusals_cost_nothing_and_silence_may(server: JudgeServer, judge_for: MakeJudge) -> None:
    server.answer = lambda asked: Reply(400, {}) if "number 0." in asked.data else graded(4)
    judge = judge_for(**PRICES, max_cost_per_run=110.0, concurrency=1)
    scores = judge.score(texts(2))
    assert [score.unscored_reason for score in scores] == ["judge_rejected", None]
    server.answer = lambda asked: Reply(hang=True) if "number 0." in asked.data else graded(4)
    judge = judge_for(**PRICES, max_cost_per_run=110.0, concurrency=1, retries=0, timeout_s=1.0)
    # 50 for the one that hung, 20 for the other; the probe may not cost 50 more.
    scores = judge.score(texts(2))
    assert [score.unscored_reason for score in scores] == ["cost_limit", None]


def test_each_request_that_timed_out_may_have_cost(server: JudgeServer, judge_for: MakeJudge) -> None:
    def second_time(asked: Asked) -> Reply:
        hang = "number 0." in asked.data and sum("number 0." in each.data for each in server.asked) < 2
        return Reply(hang=True) if hang else graded(4)

    server.answer = second_time
    judge = judge_for(**PRICES, max_cost_per_run=110.0, concurrency=1, retries=1, timeout_s=0.5)
    # 50 for the request that hung and 20 for the one that was answered; what is left is less than the 50 of another.
    scores = judge.score(texts(2))
    assert [score.unscored_reason for score in scores] == [None, "cost_limit"]
