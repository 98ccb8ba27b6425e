"""What a text can do to a model in its own process: hang it, kill it, exhaust it. Everybody else is scored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from evaluators.evaluator import (
    MODEL_ERROR,
    NOT_FINITE,
    OUT_OF_MEMORY,
    TIMED_OUT,
    WORKER_DIED,
    Text,
)
from evaluators.workers.isolated import IsolatedEvaluator
from servelens.errors import Invalid, Unavailable

Isolate = Callable[..., IsolatedEvaluator]
REPOSITORY = Path(__file__).parents[4]
SHORT_S = 1.0


def texts(*responses: str) -> list[Text]:
    return [Text("?", response) for response in responses]


def outcome(evaluator: IsolatedEvaluator, batch: list[Text]) -> list[float | str | None]:
    return [
        score.value if score.unscored_reason is None else score.unscored_reason
        for score in evaluator.score(batch)
    ]


def gone(process_id: int) -> bool:
    try:
        return psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def await_that(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_details_come_as_json_has_them(isolate: Isolate) -> None:
    (score,) = isolate().score(texts("numpy"))
    assert json.dumps(dict(score.details)) == '{"share": 0.5, "count": 3.0, "which": "None", "half": "?"}'


def test_scores_come_whole_and_in_order_from_another_process(isolate: Isolate) -> None:
    evaluator = isolate()
    assert (evaluator.name, evaluator.version, evaluator.model) == ("misbehaving", "7", "rules")
    assert (evaluator.target, evaluator.device, evaluator.columns) == ("response", "cpu", ())
    scores = evaluator.score(texts(*("x" * length for length in range(100))))
    assert [score.value for score in scores] == list(range(100))
    assert (scores[3].details, scores[3].vectors) == ({"tokens": 2.0}, {"response": [0.5, 1.0]})
    (process_id,) = evaluator.score(texts("pid"))
    assert process_id.value == evaluator.process_ids[0] != os.getpid()
    assert evaluator.score([]) == []


def test_what_a_text_does_to_the_process_costs_only_that_text(isolate: Isolate) -> None:
    evaluator = isolate()
    bad = ["segfault", "oom-killed", "memory", "raise", "nan"]
    batch = texts(*(bad[index // 20] if index % 20 == 7 else "fine" for index in range(100)))
    found = outcome(evaluator, batch)
    assert found[7::20] == [WORKER_DIED, WORKER_DIED, OUT_OF_MEMORY, MODEL_ERROR, NOT_FINITE]
    assert found.count(4.0) == 95
    assert outcome(evaluator, batch) == found  # and again, by what is known now


def test_one_hanging_text_among_many_costs_few_time_limits(isolate: Isolate) -> None:
    evaluator = isolate(timeout_s=SHORT_S)
    assert evaluator.name  # loaded
    batch = texts(*("hang" if index == 1_234 else "fine" for index in range(2_000)))
    began = time.monotonic()
    found = outcome(evaluator, batch)
    assert found[1_234] == TIMED_OUT
    assert found.count(4.0) == 1_999
    assert time.monotonic() - began < 60  # 2,000 texts, four starts, and no more than four time limits
    began = time.monotonic()
    assert outcome(evaluator, texts("fine", "hang")) == [4.0, TIMED_OUT]  # known by now
    assert time.monotonic() - began < SHORT_S


def test_what_holds_the_interpreter_is_ended_all_the_same(isolate: Isolate) -> None:
    assert outcome(isolate(timeout_s=SHORT_S), texts("backtrack", "fine")) == [TIMED_OUT, 4.0]


def test_a_text_that_is_alone_and_kills_the_process_gets_a_second_chance_and_a_reason(
    isolate: Isolate,
) -> None:
    (score,) = isolate().score(texts("segfault"))
    assert score.unscored_reason == WORKER_DIED
    assert "SIGSEGV" in str(score.details["error"])


def test_a_process_that_is_killed_from_outside_costs_no_score(isolate: Isolate) -> None:
    evaluator = isolate()
    assert outcome(evaluator, texts("fine")) == [4.0]
    os.kill(evaluator.process_ids[0], signal.SIGKILL)
    assert outcome(evaluator, texts("fine")) == [4.0]


def test_an_error_of_ours_is_nobody_elses_fault(isolate: Isolate) -> None:
    evaluator = isolate()
    with pytest.raises(Unavailable, match="the judge is away"):
        evaluator.score(texts("fine", "away"))
    assert outcome(evaluator, texts("fine")) == [4.0]


def test_an_evaluator_that_raises_at_everything_is_broken_until_it_is_tried_thrice(isolate: Isolate) -> None:
    evaluator = isolate()
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"at every text: RuntimeError: I do not like it"):
            evaluator.score(texts("raise", "raise"))
    assert outcome(evaluator, texts("raise", "raise")) == [MODEL_ERROR, MODEL_ERROR]
    assert outcome(evaluator, texts("raise", "fine")) == [MODEL_ERROR, 4.0]


def test_a_process_that_is_lost_again_and_again_ends_the_run_and_a_later_one_gets_further(
    isolate: Isolate,
) -> None:
    evaluator = isolate(lost_in_a_row=3)
    batch = [Text(str(index), "segfault") for index in range(3)]
    with pytest.raises(Unavailable, match=r"lost 3 times in a row.*SIGSEGV"):
        evaluator.score(batch)
    assert outcome(evaluator, [*batch, Text("?", "fine")]) == [*([WORKER_DIED] * 3), 4.0]


@pytest.mark.parametrize(
    ("load", "error", "message"),
    [
        ("crash", Unavailable, "SIGSEGV while"),
        ("hang", Unavailable, "not loaded within"),
        ("wrong", Invalid, "load is wrong"),
    ],
)
def test_an_evaluator_that_cannot_be_loaded_is_an_error(
    isolate: Isolate, load: str, error: type[Exception], message: str
) -> None:
    evaluator = isolate(load=load, start_timeout_s=1.0 if load == "hang" else 60.0)
    with pytest.raises(error, match=message):
        evaluator.score(texts("fine"))
    assert evaluator.process_ids == []


def test_a_batch_is_shared_out_over_devices(isolate: Isolate) -> None:
    evaluator = isolate(devices=("first", "second"), pause_s=0.1)
    assert evaluator.device == "first,second"
    assert len(set(evaluator.process_ids)) == 2
    used = {score.value for score in evaluator.score(texts(*["pid"] * 200))}
    assert used == {float(each) for each in evaluator.process_ids}


def test_columns_reach_the_evaluator(isolate: Isolate) -> None:
    evaluator = isolate(columns=["status_code"])
    assert evaluator.columns == ("status_code",)
    assert evaluator.score([Text(None, None, {"status_code": 502})])[0].value == 502.0


def test_a_call_can_be_given_up(isolate: Isolate) -> None:
    evaluator = isolate(timeout_s=300)
    assert evaluator.name
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            evaluator.score(texts("hang"))
        except Unavailable as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    evaluator.abort()
    thread.join(20)
    assert "stopped" in str(raised[0])


def test_closing_ends_the_process_and_a_later_call_starts_another(isolate: Isolate) -> None:
    evaluator = isolate()
    first = evaluator.score(texts("pid"))[0].value
    evaluator.close()
    assert first is not None
    assert gone(int(first))
    assert evaluator.score(texts("pid"))[0].value not in (first, None)


PARENT = """
import sys
from pathlib import Path
from evaluators.evaluator import Text
from evaluators.registry import EvaluatorSpec
from evaluators.workers.isolated import IsolatedEvaluator
sys.path.insert(0, sys.argv[1])
evaluator = IsolatedEvaluator(EvaluatorSpec("misbehaving"), Path("."), timeout_s=600)
print(int(evaluator.score([Text("?", "pid")])[0].value), flush=True)
evaluator.score([Text("?", sys.argv[2])])
"""


@pytest.mark.parametrize("doing", ["hang", "backtrack"])
def test_a_worker_does_not_outlive_a_parent_that_is_killed(
    isolate: Isolate, tmp_path: Path, doing: str
) -> None:
    isolate()
    command = [sys.executable, "-c", PARENT, str(tmp_path / "site"), doing]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert psutil.pid_exists(worker)
        parent.kill()
        await_that(lambda: gone(worker), "the worker lives on")
