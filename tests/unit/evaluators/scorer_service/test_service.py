"""The scorer service over HTTP."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx
import pytest

from evaluators.evaluator import Target
from evaluators.scorer_service.server import bind
from servelens.errors import Unavailable
from tests.unit.evaluators.scorer_service.running_scorer import RuleEvaluator, running_scorer


@pytest.mark.parametrize("target", ["response", "request"])
async def test_scores_in_the_order_of_the_texts(target: Target) -> None:
    texts = [
        "fine",
        "I hate it",
        "123",
        "this is broken",
        "ä \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    ]
    async with running_scorer(RuleEvaluator(target)) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post("/v1/score", json={"texts": texts})
        nothing = await client.post("/v1/score", json={"texts": []})
        metrics = (await client.get("/metrics")).text
        ready = await client.get("/health/ready")
        live = await client.get("/health/live")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model"], body["version"]) == ("rule", "1")
    assert body["scores"] == [
        {"score": 0.1, "label": "ok", "unscored_reason": None},
        {"score": 0.9, "label": "toxic", "unscored_reason": None},
        {"score": None, "label": None, "unscored_reason": "unknown_words"},
        {"score": None, "label": None, "unscored_reason": "model_error"},
        {"score": None, "label": None, "unscored_reason": "unknown_words"},
    ]
    assert nothing.json()["scores"] == []
    assert 'servelens_scorer_texts_total{outcome="scored"} 2.0' in metrics
    assert 'servelens_scorer_texts_total{outcome="unknown_words"} 2.0' in metrics
    assert "servelens_scorer_batch_texts_count 1.0" in metrics
    assert "servelens_scorer_queued_texts 0.0" in metrics
    assert (ready.status_code, live.status_code) == (200, 200)
    assert ready.json()["evaluator"] == "rule"


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"no json", 422, "body"),
        (b'{"texts": "one"}', 422, "texts"),
        (b'{"texts": [1]}', 422, "texts"),
        (b"{}", 422, "texts"),
        (b'{"texts": ["a"], "timeout_ms": 0}', 422, "timeout_ms"),
        (b'{"texts": [' + b",".join([b'"a"'] * 1025) + b"]}", 422, "1024"),
        (b'{"texts": ["' + b"a" * (1 << 20) + b'"]}', 413, "less text"),
    ],
)
async def test_what_makes_no_sense_is_refused(content: bytes, status: int, said: str) -> None:
    async with running_scorer(RuleEvaluator()) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post("/v1/score", content=content)
        missing = await client.get("/v1/score")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]
    assert missing.status_code == 404


async def test_a_model_that_hangs() -> None:
    rule = RuleEvaluator()
    async with running_scorer(rule, stuck_s=0.05) as url, httpx.AsyncClient(base_url=url) as client:
        rule.gate.clear()
        late = await client.post("/v1/score", json={"texts": ["a"], "timeout_ms": 60})
        ready = await client.get("/health/ready")
        live = await client.get("/health/live")
        stuck = await client.post("/v1/score", json={"texts": ["a"]})
    for answer in (late, stuck):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
    assert (ready.status_code, ready.json()["status"], live.status_code) == (503, "stuck", 200)


async def test_the_loop_answers_while_the_model_computes() -> None:
    rule = RuleEvaluator()
    async with running_scorer(rule) as url, httpx.AsyncClient(base_url=url) as client:
        rule.gate.clear()
        asked = asyncio.create_task(client.post("/v1/score", json={"texts": ["a"]}))
        busy: dict[str, Any] = {"busy_s": 0.0}
        async with asyncio.timeout(10):
            while not busy["busy_s"]:
                busy = (await client.get("/health/ready")).json()
        rule.gate.set()
        assert (await asked).status_code == 200
    assert busy["status"] == "ok"


def test_a_taken_port_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Unavailable, match="cannot listen"):
            bind("127.0.0.1", taken.getsockname()[1])


def test_answers_do_not_wait_for_a_delayed_acknowledgement() -> None:
    with bind("127.0.0.1", 0) as listener:
        assert (
            listener.proto == socket.IPPROTO_TCP
        )  # by which asyncio knows where to turn Nagle's algorithm off
