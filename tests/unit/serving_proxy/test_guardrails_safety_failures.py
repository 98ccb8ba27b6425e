"""The safety guardrail when something goes wrong: a scorer that is down, slow, senseless or new, a client that leaves, a
backend that breaks off, a worker that stops.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from serving_proxy.endpoint import Backend, Endpoint, Gateway, Retries, Route, ServedEntity, Shadow, Timeouts
from serving_proxy.routing import Snapshot
from tests.backends import Behaviour, OpenAIBackend
from tests.unit.evaluators.scorer_service.running_scorer import RuleEvaluator, running_scorer
from tests.unit.serving_proxy.running_proxy import (
    call,
    chat,
    connect,
    eventually,
    get,
    post,
    running_proxy,
)
from tests.unit.serving_proxy.safety_calls import BAD, CLOSED_PORT, GOOD, safe, setting, snapshot
from tests.unit.serving_proxy.scripted_server import serving

CHAT_AND_MESSAGES = [("/v1/chat/completions", "server_error"), ("/v1/messages", "overloaded_error")]


@pytest.mark.parametrize(("path", "kind"), CHAT_AND_MESSAGES)
async def test_a_scorer_that_is_down_closes_the_endpoint(tmp_path: Path, path: str, kind: str) -> None:
    async with setting(tmp_path, safe(), scorer_url=CLOSED_PORT) as it:
        answer = await call(it.proxy, chat(GOOD, max_tokens=5), path)
        record = await it.proxy.record()
        metrics = (await get(it.proxy, "/metrics")).body.decode()
        health = (await get(it.proxy, "/health/ready")).json()
    assert it.backend.received == []
    assert answer.status == 503
    assert answer.json()["error"]["type"] == kind
    assert "retry-after" in answer.headers
    assert (record.status_code, record.error_type) == (503, "overloaded")
    assert record.tags == {"safety.unchecked": "input: unreachable", "safety.action": "unchecked"}
    assert 'safety_failures_total{reason="unreachable",side="input",worker="proxy-0"} 1.0' in metrics
    assert (
        'safety_checks_total{endpoint="chat",outcome="refused",side="input",worker="proxy-0"} 1.0' in metrics
    )
    assert health["scorer"]["failure"] == "the scorer cannot be reached"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_scorer_that_is_down_lets_pass_where_that_is_configured(tmp_path: Path, stream: bool) -> None:
    lenient = safe(fails_open=True)
    async with setting(tmp_path, lenient, lenient, Behaviour(content=BAD), scorer_url=CLOSED_PORT) as it:
        answer = await call(it.proxy, chat(BAD, stream=stream))
        record = await it.proxy.record()
        metrics = (await get(it.proxy, "/metrics")).body.decode()
    assert (answer.status, answer.complete, record.response) == (200, True, answer.body)
    assert record.error_type is None
    assert record.tags == {
        "safety.unchecked": "input: unreachable, output: unreachable",
        "safety.action": "unchecked",
    }
    for side in ("input", "output"):
        line = (
            f'safety_checks_total{{endpoint="chat",outcome="unchecked",side="{side}",worker="proxy-0"}} 1.0'
        )
        assert line in metrics


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_cannot_be_checked_is_withheld(tmp_path: Path, stream: bool) -> None:
    async with setting(tmp_path, None, safe(), Behaviour(content=GOOD + BAD), scorer_url=CLOSED_PORT) as it:
        answer = await call(it.proxy, chat("hi", stream=stream))
        record = await it.proxy.record()
    assert b"weather" not in answer.body
    assert b"could not be checked" in answer.body
    assert answer.complete == (not stream)
    assert (answer.status, record.error_type) == (200 if stream else 503, "overloaded")
    assert record.response == answer.body


async def test_a_slow_scorer_is_not_waited_for(tmp_path: Path) -> None:
    async with setting(tmp_path, safe(timeout_s=0.05)) as it:
        it.rule.gate.clear()
        answers = [await call(it.proxy, chat(f"{GOOD} {number}")) for number in range(6)]
        await eventually(lambda: len(it.proxy.records()) == 6)
        records = it.proxy.records()
    assert [answer.status for answer in answers] == [503] * 6
    assert it.backend.received == []
    reasons = [record.tags["safety.unchecked"] for record in records]
    assert set(reasons[:5]) <= {"input: timeout", "input: overloaded"}
    assert records[0].duration_us > 40_000


async def test_nobody_waits_for_a_scorer_that_hangs(tmp_path: Path) -> None:
    """After five that have waited, calls are told at once; one a second finds out that it is back."""
    hanging = [b""] * 5
    good = b'{"scores": [{"score": 0.1}], "version": "2"}'
    answered = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(good), good)
    async with OpenAIBackend() as backend, serving(*hanging, answered) as (server, replica):
        served = snapshot(backend.url, safe(timeout_s=0.03))
        async with running_proxy(tmp_path, served, scorer_url=replica.url) as proxy:
            for number in range(7):
                assert (await call(proxy, chat(f"{GOOD} {number}"))).status == 503
            records = proxy.records()
            assert [record.tags["safety.unchecked"] for record in records] == [
                *["input: timeout"] * 5,
                *["input: down"] * 2,
            ]
            await asyncio.sleep(1.0)  # the time between two looks
            assert (await call(proxy, chat("Are you back?"))).status == 200
        assert len(server.received) == 6


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, b"<html>", "invalid"),
        (200, b'{"scores": []}', "invalid"),
        (200, b'{"scores": [{}]}', "invalid"),
        (200, b'{"scores": [{"score": "high"}]}', "invalid"),
        (200, b'{"scores": [{"score": null, "unscored_reason": "not_finite"}]}', "unscored"),
        (404, b'{"scores": [{"score": 0.1}]}', "invalid"),
        (503, b"{}", "overloaded"),
        (413, b"{}", "too_long"),
    ],
)
async def test_senseless_answers_are_no_verdict(
    tmp_path: Path, status: int, body: bytes, reason: str
) -> None:
    answer = b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)
    async with (
        OpenAIBackend() as backend,
        serving(answer) as (_, replica),
        running_proxy(tmp_path, snapshot(backend.url, safe()), scorer_url=replica.url) as proxy,
    ):
        refused = await call(proxy, chat(GOOD))
        record = await proxy.record()
    assert (refused.status, backend.received) == (503, [])
    assert record.tags["safety.unchecked"] == f"input: {reason}"


async def test_a_text_that_the_model_fails_on_is_not_checked(tmp_path: Path) -> None:
    async with setting(tmp_path, safe()) as it:
        broken = await call(it.proxy, chat("This is broken."))
        exploding = await call(it.proxy, chat("Now explode."))
        fine = await call(it.proxy, chat(GOOD))
    assert (broken.status, exploding.status, fine.status) == (503, 503, 200)
    assert len(it.backend.received) == 1


async def test_more_text_than_the_scorer_takes(tmp_path: Path) -> None:
    async with setting(tmp_path, safe()) as it:
        refused = await call(it.proxy, chat("word " * 230_000))
        record = await it.proxy.record()
    assert (refused.status, it.backend.received) == (503, [])
    assert record.tags["safety.unchecked"] == "input: too_long"


async def test_a_scorer_that_is_started_again_with_another_model(tmp_path: Path) -> None:
    first, second = RuleEvaluator(version="1"), RuleEvaluator(version="2")
    async with OpenAIBackend() as backend, AsyncExitStack() as scorers:
        url = await scorers.enter_async_context(running_scorer(first))
        async with running_proxy(tmp_path, snapshot(backend.url, safe()), scorer_url=url) as proxy:
            assert (await call(proxy, chat(GOOD))).status == 200
            await scorers.aclose()
            assert (await call(proxy, chat(GOOD))).status == 200  # its score is remembered
            assert (await call(proxy, chat("Something else."))).status == 503
            await scorers.enter_async_context(running_scorer(second, port=int(url.rpartition(":")[2])))
            for text in ("Something new.", GOOD):
                assert (await call(proxy, chat(text))).status == 200
    assert first.seen == [GOOD]
    assert second.seen == ["Something new.", GOOD]


async def test_a_client_that_leaves_while_its_request_is_looked_at(tmp_path: Path) -> None:
    async with setting(tmp_path, safe()) as it:
        it.rule.gate.clear()
        async with connect(it.proxy) as client:
            await client.send(post(chat(GOOD)))
            await eventually(lambda: it.rule.asked == 1)
        record = await it.proxy.record()
        it.rule.gate.set()
        assert (await call(it.proxy, chat("Next one, please."))).status == 200
        assert len(it.proxy.records()) == 2
    assert (record.status_code, record.client_disconnected) == (499, True)
    assert record.error_type == "client_disconnected"
    assert len(it.backend.received) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_while_its_answer_is_looked_at(tmp_path: Path, stream: bool) -> None:
    behaviour = Behaviour(content=GOOD + BAD)
    async with setting(tmp_path, None, safe(), behaviour) as it:
        it.rule.gate.clear()
        async with connect(it.proxy) as client:
            await client.send(post(chat("hi", stream=stream)))
            await eventually(lambda: it.rule.asked == 1)
        assert it.proxy.records() == []
        it.rule.gate.set()
        record = await it.proxy.record()
    assert record.client_disconnected
    assert record.error_type == "blocked"
    assert record.response is not None
    assert b"hate" not in record.response


async def test_a_stream_whose_backend_breaks_off_while_it_is_looked_at(tmp_path: Path) -> None:
    behaviour = Behaviour(content=GOOD * 4, chunks=4, reset_after_chunks=3)
    async with setting(tmp_path, None, safe(), behaviour) as it:
        it.rule.gate.clear()
        answer = await call(it.proxy, chat("hi", stream=True))
        it.rule.gate.set()
        record = await it.proxy.record()
    assert not answer.complete
    assert b"weather" not in answer.body
    assert (record.error_type, record.response) == ("upstream_reset", answer.body)


async def test_the_whole_calls_deadline_holds_while_an_answer_is_looked_at(tmp_path: Path) -> None:
    timeouts = Timeouts(idle_s=0.2, total_s=0.6)
    async with setting(tmp_path, None, safe(), Behaviour(content=GOOD), timeouts=timeouts) as it:
        it.rule.gate.clear()
        answer = await call(it.proxy, chat("hi"))
        record = await it.proxy.record()
    assert (answer.status, record.error_type) == (504, "upstream_timeout")
    assert record.duration_us > 550_000


async def test_a_worker_that_stops_while_calls_are_looked_at(tmp_path: Path) -> None:
    async with setting(tmp_path, safe(timeout_s=30.0), graceful_s=1.0) as it:
        it.rule.gate.clear()
        async with connect(it.proxy) as client:
            await client.send(post(chat(GOOD)))
            await eventually(lambda: it.rule.asked == 1)
            it.proxy.stop.set()
            answer = await client.answer()
        record = await it.proxy.record()
    assert (answer.status, answer.complete) == (503, True)
    assert (record.error_type, record.response) == ("internal", answer.body)
    assert it.backend.received == []


async def test_a_backend_is_not_read_faster_than_it_is_looked_at(tmp_path: Path) -> None:
    """A stream of 14 MB waits at the scorer: the backend stays behind, and then everything comes, in order."""
    content = "One sentence to be looked at. " + ("1" * 6999 + " ") * 2000
    behaviour = Behaviour(content=content, chunks=2000)
    async with setting(tmp_path, None, safe(timeout_s=30.0), behaviour) as it:
        it.rule.gate.clear()
        async with connect(it.proxy, limit=1 << 26) as client:
            await client.send(post(chat("hi", stream=True)))
            await client.head()
            await eventually(lambda: it.rule.asked == 1)
            before = -1
            while it.backend.bytes_sent != before:  # until it cannot write any more
                before = it.backend.bytes_sent
                await asyncio.sleep(0.1)
            assert before < 12 << 20
            it.rule.gate.set()
            got = bytearray()
            while piece := await client.chunk():
                got += piece
    texts = [json.loads(line[6:]) for line in got.decode().split("\n\n") if line.startswith("data: {")]
    words = "".join(text["choices"][0]["delta"].get("content") or "" for text in texts if text["choices"])
    assert words == content


async def test_a_request_is_looked_at_once_whoever_is_asked_then(tmp_path: Path) -> None:
    async with OpenAIBackend(Behaviour(status=503)) as down, OpenAIBackend() as up:
        entities = (
            ServedEntity("a", Backend((down.url,), retries=Retries(attempts=2, base_s=0.01))),
            ServedEntity("b", Backend((up.url,))),
        )
        gateway = Gateway(fallback=True, input_guardrails=safe(), output_guardrails=safe())
        endpoint = Endpoint("chat", entities, (Route("a", 100),), gateway=gateway)
        rule = RuleEvaluator()
        async with (
            running_scorer(rule) as url,
            running_proxy(tmp_path, Snapshot.of([endpoint]), scorer_url=url) as proxy,
        ):
            answer = await call(proxy, chat(GOOD))
            record = await proxy.record()
            seen = list(rule.seen)
    assert (answer.status, record.served_entity, record.attempts) == (200, "b", 3)
    assert seen.count(GOOD) == 1


async def test_a_mirrored_call_is_not_looked_at_again(tmp_path: Path) -> None:
    async with OpenAIBackend() as main, OpenAIBackend(Behaviour(content=BAD)) as mirror:
        entities = (ServedEntity("main", Backend((main.url,))), ServedEntity("new", Backend((mirror.url,))))
        gateway = Gateway(input_guardrails=safe("mask"), output_guardrails=safe())
        endpoint = Endpoint(
            "chat", entities, (Route("main", 100),), gateway=gateway, shadows=(Shadow("new"),)
        )
        rule = RuleEvaluator()
        async with (
            running_scorer(rule) as url,
            running_proxy(tmp_path, Snapshot.of([endpoint]), scorer_url=url) as proxy,
        ):
            assert (await call(proxy, chat(BAD))).status == 200
            await eventually(lambda: len(proxy.records()) == 2)
            shadow = next(record for record in proxy.records() if record.is_shadow)
            seen = list(rule.seen)
    assert b"hate" not in mirror.received[0].body
    assert shadow.tags == {}
    assert seen.count(BAD) == 1
