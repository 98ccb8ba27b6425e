"""Which failures are tried again, where, how often, and what is left for the client when nothing helps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from collector.record import Record
from serving_proxy.endpoint import HealthCheck, Retries, Timeouts
from tests.backends import Behaviour, OpenAIBackend, Received
from tests.unit.serving_proxy.running_proxy import (
    call,
    chat,
    connect,
    eventually,
    one_entity,
    post,
    running_proxy,
)

NOWHERE = "http://127.0.0.1:9"
NEVER_OUT = HealthCheck(eject_after=0)
QUICK = Timeouts(first_byte_s=0.2, idle_s=0.2)


@asynccontextmanager
async def twins(*faults: Behaviour) -> AsyncIterator[tuple[OpenAIBackend, OpenAIBackend]]:
    """Two replicas; the faults come one after the other, whoever is asked."""
    left = list(faults)

    def respond(_: Received) -> Behaviour:
        return left.pop(0) if left else Behaviour()

    async with OpenAIBackend(respond=respond) as one, OpenAIBackend(respond=respond) as other:
        yield one, other


def outcomes(record: Record) -> list[tuple[int | None, str | None]]:
    """How each attempt ended."""
    assert len(record.attempt_details) == record.attempts
    return [(attempt.status, attempt.error_type) for attempt in record.attempt_details]


@pytest.mark.parametrize(
    ("fault", "stream", "outcome"),
    [
        (Behaviour(status=429), False, (429, None)),
        (Behaviour(status=502), False, (502, None)),
        (Behaviour(status=503), True, (503, None)),
        (Behaviour(status=503, headers=(("retry-after", "600"),)), False, (503, None)),
        (Behaviour(status=504), False, (504, None)),
        (Behaviour(reset_before_answer=True), False, (None, "upstream_reset")),
        (Behaviour(close_before_answer=True), True, (None, "upstream_reset")),
        (Behaviour(declared_length=10_000), False, (200, "upstream_reset")),
        (Behaviour(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"), True, (200, "upstream_reset")),
        (Behaviour(hang=True), False, (None, "upstream_timeout")),
        (Behaviour(hang=True), True, (None, "upstream_timeout")),
    ],
)
async def test_another_replica_is_asked_at_once(
    tmp_path: Path, fault: Behaviour, stream: bool, outcome: tuple[int | None, str | None]
) -> None:
    retries = Retries(base_s=60.0, max_s=60.0)  # never waits for another replica
    async with twins(fault) as (one, other):
        snapshot = one_entity(one.url, other.url, timeouts=QUICK, retries=retries)
        async with running_proxy(tmp_path, snapshot) as proxy:
            answer = await call(proxy, chat(stream=stream))
            record = await proxy.record()
    assert (answer.status, answer.complete) == (200, True)
    assert answer.body.count(b"[DONE]") == stream
    assert len(one.received) == len(other.received) == 1
    assert outcomes(record) == [outcome, (200, None)]
    assert {attempt.url for attempt in record.attempt_details} == {one.url, other.url}
    assert (record.status_code, record.error_type, record.response) == (200, None, answer.body)


async def test_an_answer_that_stops_in_the_middle_is_asked_for_again(tmp_path: Path) -> None:
    start = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"half'
    release = asyncio.Event()

    async def stop_halfway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(start)
        await release.wait()
        writer.close()

    server = await asyncio.start_server(stop_halfway, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, OpenAIBackend() as well:
        async with running_proxy(tmp_path, one_entity(url, well.url, timeouts=QUICK)) as proxy:
            answers = [await call(proxy, chat()) for _ in range(2)]
            records = proxy.records()
        release.set()
    assert [answer.json()["object"] for answer in answers] == ["chat.completion"] * 2
    assert sorted((outcomes(record) for record in records), key=len) == [
        [(200, None)],
        [(200, "upstream_timeout"), (200, None)],
    ]
    assert b'"half' not in b"".join(record.response or b"" for record in records)


async def test_the_same_replica_is_asked_again_when_there_is_no_other(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend:
        backend.script.extend([Behaviour(status=503), Behaviour(reset_before_answer=True)])
        async with running_proxy(tmp_path, one_entity(backend.url)) as proxy:
            answer = await call(proxy, chat())
            record = await proxy.record()
    assert answer.status == 200
    assert outcomes(record) == [(503, None), (None, "upstream_reset"), (200, None)]


@pytest.mark.parametrize(
    ("fault", "attempts", "asked"),
    [(Behaviour(status=503), 3, "one one other"), (Behaviour(hang=True), 3, "one other")],
)
async def test_the_last_try_is_made_at_a_replica_that_is_out_rather_than_again(
    tmp_path: Path, fault: Behaviour, attempts: int, asked: str
) -> None:
    health = HealthCheck(eject_after=4, ejection_s=600.0)
    async with OpenAIBackend() as one, OpenAIBackend(Behaviour(status=503)) as other:
        snapshot = one_entity(
            one.url,
            other.url,
            health=health,
            retries=Retries(attempts=attempts, base_s=0.001),
            timeouts=QUICK,
        )
        async with running_proxy(tmp_path, snapshot) as proxy:
            while len(other.received) < 4:
                await call(proxy, chat())  # which takes it out
            before = len(proxy.records())
            other.behaviour = Behaviour()
            one.behaviour = fault
            answer = await call(proxy, chat())
            record = proxy.records()[before]
    names = {one.url: "one", other.url: "other"}
    assert answer.status == 200
    assert " ".join(names[attempt.url] for attempt in record.attempt_details) == asked


async def test_silence_is_not_waited_for_twice_at_the_same_replica(tmp_path: Path) -> None:
    async with (
        OpenAIBackend(Behaviour(hang=True)) as backend,
        running_proxy(tmp_path, one_entity(backend.url, timeouts=QUICK)) as proxy,
    ):
        answer = await call(proxy, chat())
        record = await proxy.record()
    assert answer.status == 504
    assert "0.2 s" in answer.json()["error"]["message"]
    assert outcomes(record) == [(None, "upstream_timeout")]


async def test_the_last_answer_is_passed_on_unchanged(tmp_path: Path) -> None:
    fault = Behaviour(
        status=503,
        body=b'{"error": {"message": "loading"}}',
        headers=(("retry-after", "1"), ("x-model", "m")),
    )
    retries = Retries(attempts=3, max_s=1.0)
    async with (
        OpenAIBackend(fault) as backend,
        running_proxy(tmp_path, one_entity(backend.url, retries=retries)) as proxy,
    ):
        started = asyncio.get_running_loop().time()
        answer = await call(proxy, chat())
        took_s = asyncio.get_running_loop().time() - started
        record = await proxy.record()
    assert (answer.status, answer.body) == (503, fault.body)
    assert (answer.headers["retry-after"], answer.headers["x-model"]) == ("1", "m")
    assert took_s > 1.9  # as Retry-After said, twice
    assert outcomes(record) == [(503, None)] * 3
    assert (record.error_type, record.response) == ("upstream_status", fault.body)


@pytest.mark.parametrize("retry_after", ["3", "Fri, 01 Jan 2100 00:00:00 GMT"])
async def test_a_long_retry_after_is_the_client_s_to_wait(tmp_path: Path, retry_after: str) -> None:
    fault = Behaviour(status=429, headers=(("retry-after", retry_after),))
    async with OpenAIBackend(fault) as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        answer = await call(proxy, chat())
        record = await proxy.record()
    assert (answer.status, answer.headers["retry-after"]) == (429, retry_after)
    assert record.attempts == 1


@pytest.mark.parametrize("status", [400, 401, 404, 422, 500, 501])
async def test_other_answers_are_not_asked_for_again(tmp_path: Path, status: int) -> None:
    async with (
        twins(Behaviour(status=status)) as (one, other),
        running_proxy(tmp_path, one_entity(one.url, other.url)) as proxy,
    ):
        answer = await call(proxy, chat())
    assert answer.status == status
    assert len(one.received) + len(other.received) == 1


async def test_a_stream_is_not_begun_twice(tmp_path: Path) -> None:
    async with (
        twins(Behaviour(reset_after_chunks=1, chunk_delay_s=0.01)) as (one, other),
        running_proxy(tmp_path, one_entity(one.url, other.url)) as proxy,
    ):
        answer = await call(proxy, chat(stream=True))
        record = await proxy.record()
    assert not answer.complete
    assert outcomes(record) == [(200, "upstream_reset")]
    assert len(one.received) + len(other.received) == 1


async def test_a_long_answer_is_not_begun_twice(tmp_path: Path) -> None:
    long = Behaviour(body=b"[" + b"1," * 500_000, declared_length=5_000_000)
    async with twins(long) as (one, other), running_proxy(tmp_path, one_entity(one.url, other.url)) as proxy:
        answer = await call(proxy, chat())
    assert not answer.complete
    assert len(one.received) + len(other.received) == 1


async def test_retries_stay_within_the_budget(tmp_path: Path) -> None:
    retries = Retries(attempts=2, base_s=0.001, budget=0.1)
    async with OpenAIBackend(Behaviour(status=503)) as backend:
        snapshot = one_entity(backend.url, retries=retries, health=NEVER_OUT)
        async with running_proxy(tmp_path, snapshot) as proxy, connect(proxy) as client:
            for _ in range(200):
                await client.send(post(chat()))
                assert (await client.answer()).status == 503
    retried = len(backend.received) - 200
    assert 30 <= retried <= 30 + 0.1 * 200 + 3 * 10  # 3 a second and a tenth of the calls


async def test_a_client_that_leaves_between_two_tries(tmp_path: Path) -> None:
    retries = Retries(base_s=30.0, max_s=30.0)
    async with (
        OpenAIBackend(Behaviour(status=503)) as backend,
        running_proxy(tmp_path, one_entity(backend.url, retries=retries)) as proxy,
    ):
        async with connect(proxy) as client:
            await client.send(post(chat()))
            await eventually(lambda: bool(backend.received))
        record = await proxy.record()
    assert (record.status_code, record.error_type) == (499, "client_disconnected")
    assert outcomes(record) == [(503, None)]


async def test_a_call_that_waits_for_its_next_try_is_finished_before_the_worker_ends(tmp_path: Path) -> None:
    fault = Behaviour(status=503, headers=(("retry-after", "1"),))
    async with OpenAIBackend() as backend:
        backend.script.append(fault)
        async with running_proxy(tmp_path, one_entity(backend.url)) as proxy, connect(proxy) as client:
            await client.send(post(chat()))
            await eventually(lambda: bool(backend.received))
            proxy.stop.set()
            answer = await client.answer()
            assert answer.headers["connection"] == "close"
            record = await proxy.record()
    assert answer.status == 200
    assert record.attempts == 2


async def test_the_total_deadline_spans_all_tries(tmp_path: Path) -> None:
    timeouts = Timeouts(first_byte_s=0.25, total_s=0.6)
    async with (
        twins(*[Behaviour(hang=True)] * 20) as (one, other),
        OpenAIBackend(Behaviour(hang=True)) as third,
    ):
        retries = Retries(attempts=10)
        snapshot = one_entity(one.url, other.url, third.url, timeouts=timeouts, retries=retries)
        async with running_proxy(tmp_path, snapshot) as proxy:
            answer = await call(proxy, chat())
            record = await proxy.record()
    assert answer.status == 504
    assert 0.55 < record.duration_us / 1e6 < 1.0
    assert record.attempts in (2, 3)
    assert outcomes(record) == [(None, "upstream_timeout")] * record.attempts


def seen_by(*servers: OpenAIBackend) -> Callable[[], int]:
    return lambda: sum(len(server.received) for server in servers)


async def test_a_dead_replica_is_soon_left_alone_and_used_again_when_it_is_back(tmp_path: Path) -> None:
    health = HealthCheck(eject_after=2, ejection_s=0.3)
    async with OpenAIBackend() as well, OpenAIBackend() as dying:
        snapshot = one_entity(well.url, dying.url, health=health)
        async with running_proxy(tmp_path, snapshot) as proxy:
            await call(proxy, chat())
            await dying.stop()
            while_dead = [await call(proxy, chat()) for _ in range(20)]
            records = proxy.records()[1:]
            await dying.start()
            seen = len(dying.received)
            async with asyncio.timeout(5):
                while len(dying.received) < seen + 5:
                    assert (await call(proxy, chat())).status == 200
    assert [answer.status for answer in while_dead] == [200] * 20
    assert 2 <= sum(record.attempts - 1 for record in records) <= 3
    assert {error for record in records for _, error in outcomes(record)} <= {None, "upstream_connect"}


async def test_a_backend_that_does_not_answer_at_all_is_not_waited_for_by_everybody(tmp_path: Path) -> None:
    health = HealthCheck(eject_after=3, ejection_s=0.5)
    async with OpenAIBackend(Behaviour(hang=True)) as backend:
        snapshot = one_entity(backend.url, health=health, timeouts=Timeouts(first_byte_s=0.1))
        async with running_proxy(tmp_path, snapshot) as proxy:
            waited = await asyncio.gather(*(call(proxy, chat()) for _ in range(8)))
            refused = await call(proxy, chat())
            seen = len(backend.received)
            backend.behaviour = Behaviour()
            async with asyncio.timeout(5):
                while (answer := await call(proxy, chat())).status != 200:
                    assert len(backend.received) == seen
                    await asyncio.sleep(0.02)
            again = [await call(proxy, chat()) for _ in range(4)]
            record = proxy.records()[8]
    assert {answer.status for answer in waited} == {504}
    assert refused.status == 503
    assert int(refused.headers["retry-after"]) == 1
    assert json.loads(refused.body)["error"]["code"] == "overloaded"
    assert (record.error_type, record.attempts) == ("overloaded", 0)
    assert [each.status for each in (answer, *again)] == [200] * 5
