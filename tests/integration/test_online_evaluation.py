"""Everything that happens to an answer after it was given, in the whole system as users start it: evaluators side by side,
a judge on our own proxy, ground truth, tabular features, an alert, cases; and workers and a scheduler that are killed.

Only evaluators that are rules, so that it needs no model.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from evaluators.drift.payload_features import PayloadFeatures
from evaluators.drift.windows import Window
from tests.integration.backend_process import backend_process, endpoint
from tests.integration.scoring_servers import scoring_endpoint
from tests.integration.system import System, free_port, wait_until
from tests.unit.evaluators.alerts.receivers import HttpSink, http_sink
from tests.unit.evaluators.ground_truth.feedback_rows import truth_rows
from tests.unit.evaluators.judge.judge_server import JudgeServer, judge_server

PATIENCE_S = 90.0
SECRET = "sk-swordfish"
PLAIN = "sk-hunter2"
RULES = ("length", "language", "refusal", "json_schema", "personal_data", "latency", "error")
NAMES = ("no-parentheses", "pattern", "judge", "terse", *RULES)
CALLS = [
    {"content": "There you are: an ordinary answer to it."},
    {"content": "I'm sorry, but I cannot help with that request."},
    {"content": "Write to john.doe@example.com, or call him (at night)."},
    {"content": '{"answer": 42}'},
    {"content": ""},
    {"status": 500},
]


def _judge(proxy: str, **keys: Any) -> dict[str, Any]:
    block = {"endpoint": "chat", "evaluator": "judge", "every_s": 0.5, **keys}
    options = {"url": f"{proxy}/v1", "model": "judging", "rubric": "Is it good?", "backoff_s": 0.1}
    return block | {"options": options | keys.get("options", {})}


def _settings(proxy_port: int, hook: str) -> dict[str, Any]:
    options = {"json_schema": {"schema": {"type": "object"}}, "language": {"expected": ["en"]}}
    rules = [
        {"endpoint": "chat", "evaluator": name, "every_s": 0.5, "options": options.get(name, {})}
        for name in RULES
    ]
    patterns = [
        {"scores_as": "no-parentheses", "options": {"must_not_match": r"[()]"}},
        {"options": {"must_match": r"\.$"}},
    ]
    reference = {"options": {"api_key": "{{secrets/judge/key}}"}}
    proxy = f"http://127.0.0.1:{proxy_port}"
    leaks = {"score": "personal_data", "aggregate": "share_above", "limit": 0, "above": 0.01, "delay": 0}
    return {
        "proxy": {"port": proxy_port},
        "evaluations": [
            *rules,
            *({"endpoint": "chat", "evaluator": "pattern", "every_s": 0.5, **each} for each in patterns),
            _judge(proxy, **reference),
            _judge(proxy, **reference, endpoint="judging"),
        ],
        "ground_truth": [{"endpoint": "chat", "every_s": 0.5, "options": {"match": "exact"}}],
        "channels": [{"name": "team", "webhook": {"url": hook}}],
        "alerts": [
            {"name": "leaks", "endpoint": "chat", "every_s": 1, "window": "1h", "channels": ["team"], **leaks}
        ],
        "relabel": {
            "every_s": 0.5,
            "rules": [
                {"endpoint": "chat", "evaluator": "no-parentheses", "below": 1},
                {"endpoint": "chat", "evaluator": "ground_truth", "below": 1},
            ],
        },
    }


class Lens:
    """The running system, and what people see of it."""

    def __init__(self, system: System, judge: JudgeServer, sink: HttpSink) -> None:
        self.system, self.judge, self.sink = system, judge, sink

    def ask(self, number: int) -> None:
        body = {"model": "chat", "messages": [{"role": "user", "content": f"Question {number}"}]}
        fault = CALLS[number % len(CALLS)]
        httpx.post(f"{self.system.proxy_url}/v1/chat/completions", json={**body, "fault": fault}, timeout=30)

    def rows(self, name: str) -> int:
        return self.system.tables(name).payload.scan().collect().height

    def await_scores(self, records: int) -> None:
        """Every record has a row of each evaluation, and only one."""
        tables = self.system.tables("chat")

        def done() -> bool:
            if self.rows("chat") < records or not tables.scores.exists():
                return False
            scores = tables.scores.scan().filter(target="response").collect()
            counted = dict(scores["evaluator"].value_counts().iter_rows())
            assert all(count <= records for name, count in counted.items() if name in NAMES), counted
            return all(counted.get(name) == records for name in NAMES)

        wait_until(done, PATIENCE_S, f"{records} records are scored by all")
        ids = tables.scores.scan().select("evaluator", "target", "databricks_request_id").collect()
        assert ids.is_unique().all()


@pytest.fixture
def lens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lens]:
    monkeypatch.setenv("SERVELENS_SECRET_JUDGE_KEY", SECRET)
    with backend_process() as url, judge_server() as judge, http_sink() as sink:
        endpoints = [
            endpoint("chat", url, {"champion": 50, "challenger": 50}),
            endpoint("judging", judge.url.removesuffix("/v1")),
            scoring_endpoint("price", url, "mlflow"),
        ]
        with System(tmp_path, endpoints, _settings(free_port(), sink.url)) as running:
            yield Lens(running, judge, sink)


def test_every_answer_is_scored_once_whoever_dies_and_people_are_told_once(lens: Lens) -> None:
    system, console = lens.system, lens.system.console_url
    made = httpx.post(
        f"{console}/api/evaluations",
        json=_judge(system.proxy_url, name="second", scores_as="terse", options={"api_key": PLAIN}),
    )
    assert made.status_code == 201, made.text
    for number in range(12):
        lens.ask(number)
    shape = {"dataframe_split": {"columns": ["size", "rooms"], "data": [[3, 1], [0.5, 2]]}}
    httpx.post(f"{system.proxy_url}/serving-endpoints/price/invocations", json=shape, timeout=30)
    lens.await_scores(12)

    scheduler = system.child("scheduler")
    assert scheduler is not None
    workers = scheduler.children()
    rules = [each for each in workers if each.memory_info().rss < 200e6]
    assert len(rules) == len(workers) >= 8, "no rule loads a model's libraries"
    for each in rules[:3]:
        each.kill()
    for number in range(12, 18):
        lens.ask(number)
    scheduler.kill()
    lens.ask(18)
    _give_truths(lens)
    lens.await_scores(19)
    assert not [each for each in workers if each.is_running() and each.status() != "zombie"]

    _look_at_the_judges(lens)
    _look_at_what_people_get(lens)
    later = Window(datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1))
    wait_until(lambda: lens.rows("price") == 1, PATIENCE_S, "the scoring call is in its table")
    observed = PayloadFeatures().read(system.tables("price"), later)
    assert {"feature:size", "feature:rooms"} <= {each.name for each in observed.columns}

    after = system.child("scheduler")
    assert after is not None
    family = [after, *after.children()]
    began = time.monotonic()
    assert system.stop() == 0
    assert time.monotonic() - began < 30
    assert not [each for each in family if each.is_running() and each.status() != "zombie"]
    log = system.log.read_text()
    assert SECRET not in log
    assert PLAIN not in log


def _give_truths(lens: Lens) -> None:
    tables = lens.system.tables("chat")
    wait_until(lambda: lens.rows("chat") >= 4, PATIENCE_S, "records to tell the truth about")
    known = tables.payload.scan().filter(status_code=200).collect().filter(response_text='{"answer": 42}')
    tables.feedback.append(truth_rows(known, ["not that"] * known.height))


def _look_at_the_judges(lens: Lens) -> None:
    """Each judge has asked for what it could judge, by its own key; and judges no judge's calls."""
    chat = lens.system.tables("chat").scores.scan().collect()
    for name in ("judge", "terse"):
        judged = chat.filter(evaluator=name)
        assert judged["score"].count() >= 10
        assert set(judged["unscored_reason"].drop_nulls()) == {"empty"}
    # Were one of its own calls judged, that would be a call more, and so on without end.
    judging = lens.system.tables("judging").scores
    wait_until(
        lambda: judging.scan().collect().height == lens.rows("judging") == len(lens.judge.asked),
        PATIENCE_S,
        "all calls of the judges are seen",
    )
    assert set(judging.scan().collect()["unscored_reason"]) == {"judge_call"}
    listed = httpx.get(f"{lens.system.console_url}/api/evaluations").text
    assert "{{secrets/judge/key}}" in listed
    assert "**********" in listed
    assert PLAIN not in listed
    assert SECRET not in listed


def _look_at_what_people_get(lens: Lens) -> None:
    console = lens.system.console_url
    wait_until(lambda: bool(lens.sink.received), PATIENCE_S, "somebody is told of the leaks")
    wait_until(
        lambda: _case_reasons(lens) == {"no-parentheses", "ground_truth"},
        PATIENCE_S,
        "cases by parentheses and by ground truth",
    )
    assert [told.json["kind"] for told in lens.sink.received] == ["firing"]
    runs = httpx.get(f"{console}/api/evaluations/runs", params={"limit": 1000}).json()["runs"]
    assert not [run["error"] for run in runs if run["state"] == "failed"]


def _case_reasons(lens: Lens) -> set[str]:
    with closing(sqlite3.connect(lens.system.loaded().data_dir / "servelens.db")) as database:
        return {name for (name,) in database.execute("SELECT DISTINCT evaluator FROM relabel_reasons")}
