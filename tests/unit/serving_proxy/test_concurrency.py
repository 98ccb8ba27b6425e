"""Who has to wait for a turn, who is refused, and that a place is free again whatever happens to its call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from serving_proxy.endpoint import Backend, Endpoint, Gateway, Pool, Route, ServedEntity, Timeouts
from serving_proxy.routing import Snapshot
from tests.unit.serving_proxy.running_proxy import (
    PATIENCE_S,
    Answer,
    RunningProxy,
    call,
    chat,
    connect,
    eventually,
    get,
    post,
    running_proxy,
)

both_kinds = pytest.mark.parametrize("kind", ["pool", "gateway"])


def bounded(kind: str, *urls: str, at_once: int, timeouts: Timeouts | None = None, **line: Any) -> Snapshot:
    """Endpoint ``chat`` that serves ``at_once`` calls at once (per replica, for ``pool``)."""
    pool = Pool(max_connections=at_once, **line) if kind == "pool" else Pool()
    gateway = Gateway(max_concurrency=at_once, **line) if kind == "gateway" else Gateway()
    entity = ServedEntity("only", Backend(urls, pool=pool, timeouts=timeouts or Timeouts()))
    return Snapshot.of([Endpoint("chat", (entity,), (Route("only", 100),), gateway=gateway)])


class Turnstile:
    """A backend that answers one call each time it is told to, in their order."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(0)
        self.url = ""
        self.most = 0
        self.inside = 0
        self.seen: list[str] = []

    def let(self, calls: int = 1) -> None:
        for _ in range(calls):
            self._turns.release()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.seen.append(json.loads(await reader.readexactly(length))["messages"][0]["content"])
                self.inside += 1
                self.most = max(self.most, self.inside)
                await self._turns.acquire()
                self.inside -= 1
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def turnstile() -> AsyncIterator[Turnstile]:
    stile = Turnstile()
    server = await asyncio.start_server(stile.serve, "127.0.0.1", 0)
    stile.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield stile
        server.close()
        stile.let(100)


async def until_live(proxy: RunningProxy, count: int) -> None:
    """Wait until the proxy has so many calls under way or waiting."""
    for _ in range(1000):
        if (await get(proxy, "/health/ready")).json()["in_flight"] == count:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"there were never {count} calls at once")


async def in_order(proxy: RunningProxy, count: int) -> list[asyncio.Task[Answer]]:
    """So many calls, each one after the one before has come in."""
    calls = []
    for number in range(count):
        calls.append(asyncio.create_task(call(proxy, chat(f"call {number}"))))
        await until_live(proxy, len(calls))
    return calls


@both_kinds
async def test_first_come_first_served(tmp_path: Path, kind: str) -> None:
    async with (
        turnstile() as stile,
        running_proxy(tmp_path, bounded(kind, stile.url, at_once=2)) as proxy,
    ):
        calls = await in_order(proxy, 8)
        assert stile.seen == ["call 0", "call 1"]
        for number in range(8):
            stile.let()
            await until_live(proxy, 7 - number)
        answers = await asyncio.gather(*calls)
        records = proxy.records()
    assert stile.seen == [f"call {number}" for number in range(8)]
    assert stile.most == 2
    assert [answer.status for answer in answers] == [200] * 8
    assert {record.attempts for record in records} == {1}


@both_kinds
async def test_a_full_line_refuses_at_once(tmp_path: Path, kind: str) -> None:
    async with (
        turnstile() as stile,
        running_proxy(tmp_path, bounded(kind, stile.url, at_once=1, max_queue=2)) as proxy,
    ):
        calls = await in_order(proxy, 3)
        refused = await call(proxy, chat("too many"))
        record = await proxy.record()
        stile.let(3)
        answers = await asyncio.gather(*calls)
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "overloaded"
    assert (record.status_code, record.error_type, record.attempts) == (429, "overloaded", 0)
    assert record.duration_us < 1_000_000
    assert [answer.status for answer in answers] == [200] * 3
    assert "too many" not in stile.seen


@both_kinds
async def test_whoever_would_wait_too_long_is_refused_when_it_comes(tmp_path: Path, kind: str) -> None:
    async with (
        turnstile() as stile,
        running_proxy(tmp_path, bounded(kind, stile.url, at_once=1, queue_s=3.0)) as proxy,
    ):
        calls = await in_order(proxy, 2)
        await asyncio.sleep(1.0)  # one turn takes at least this long
        stile.let()
        await until_live(proxy, 1)
        calls += [asyncio.create_task(call(proxy, chat(f"later {number}"))) for number in range(12)]
        await eventually(lambda: len(proxy.records()) > 1)
        await asyncio.sleep(0.1)
        refused = [record for record in proxy.records() if record.status_code == 429]
        stile.let(20)
        statuses = [answer.status for answer in await asyncio.gather(*calls)]
    assert len(refused) >= 9
    assert max(record.duration_us for record in refused) < 1_000_000
    assert statuses.count(429) == len(refused)


@both_kinds
async def test_a_turn_that_does_not_come_ends_in_a_refusal(tmp_path: Path, kind: str) -> None:
    async with (
        turnstile() as stile,
        running_proxy(tmp_path, bounded(kind, stile.url, at_once=1, queue_s=0.3)) as proxy,
    ):
        calls = await in_order(proxy, 2)
        late = await calls[1]
        stile.let()
        first = await calls[0]
    assert (first.status, late.status) == (200, 429)
    assert late.headers["retry-after"]
    assert stile.seen == ["call 0"]


@both_kinds
async def test_a_client_that_leaves_frees_its_place(tmp_path: Path, kind: str) -> None:
    async with (
        turnstile() as stile,
        running_proxy(tmp_path, bounded(kind, stile.url, at_once=1, max_queue=1)) as proxy,
    ):
        first = (await in_order(proxy, 1))[0]
        async with connect(proxy) as client:
            await client.send(post(chat("leaves")))
            await until_live(proxy, 2)
        left = await proxy.record()
        last = asyncio.create_task(call(proxy, chat("stays")))
        await until_live(proxy, 2)
        stile.let(2)
        answers = await asyncio.gather(first, last)
    assert [answer.status for answer in answers] == [200, 200]
    assert stile.seen == ["call 0", "stays"]
    assert (left.status_code, left.error_type, left.attempts) == (499, "client_disconnected", 0)


@both_kinds
async def test_a_client_that_leaves_in_its_turn_gives_it_up(tmp_path: Path, kind: str) -> None:
    async with (
        turnstile() as stile,
        running_proxy(tmp_path, bounded(kind, stile.url, at_once=1)) as proxy,
    ):
        async with connect(proxy) as client:
            await client.send(post(chat("leaves")))
            await eventually(lambda: stile.inside == 1)
            waiting = asyncio.create_task(call(proxy, chat("next")))
            await until_live(proxy, 2)
        stile.let(2)
        answer = await waiting
    assert answer.status == 200
    assert stile.seen == ["leaves", "next"]


@both_kinds
async def test_calls_that_fail_give_up_their_turns_however_many_wait(tmp_path: Path, kind: str) -> None:
    snapshot = bounded(kind, "http://127.0.0.1:9", at_once=1, max_queue=500, queue_s=600.0)
    async with running_proxy(tmp_path, snapshot) as proxy:
        answers = await asyncio.gather(*(call(proxy, chat()) for _ in range(300)))
    assert {answer.status for answer in answers} <= {502, 503}


@both_kinds
async def test_those_who_wait_are_served_before_the_worker_ends(tmp_path: Path, kind: str) -> None:
    async with (
        turnstile() as stile,
        running_proxy(tmp_path, bounded(kind, stile.url, at_once=1)) as proxy,
    ):
        calls = await in_order(proxy, 4)
        proxy.stop.set()
        stile.let(4)
        answers = await asyncio.gather(*calls)
    assert [answer.status for answer in answers] == [200] * 4


@both_kinds
async def test_those_whose_turn_does_not_come_before_the_worker_ends_are_told(
    tmp_path: Path, kind: str
) -> None:
    async with (
        turnstile() as stile,
        running_proxy(tmp_path, bounded(kind, stile.url, at_once=1), graceful_s=1) as proxy,
    ):
        calls = await in_order(proxy, 3)
        proxy.stop.set()
        answers = await asyncio.gather(*calls)
        records = proxy.records()
    assert [answer.status for answer in answers] == [503] * 3
    assert [record.attempts for record in records].count(0) == 2
    assert {len(record.attempt_details) - record.attempts for record in records} == {0}


async def test_the_bound_is_on_each_replica(tmp_path: Path) -> None:
    async with turnstile() as one, turnstile() as other:
        snapshot = bounded("pool", one.url, other.url, at_once=2)
        async with running_proxy(tmp_path, snapshot) as proxy:
            calls = await in_order(proxy, 6)
            assert (one.inside, other.inside) == (2, 2)
            one.let(6)
            other.let(6)
            answers = await asyncio.gather(*calls)
    assert [answer.status for answer in answers] == [200] * 6
    assert (one.most, other.most) == (2, 2)


async def test_an_endpoint_s_bound_may_change_while_calls_wait(tmp_path: Path) -> None:
    async with turnstile() as stile:
        tight, wide = (bounded("gateway", stile.url, at_once=count) for count in (1, 3))
        async with running_proxy(tmp_path, tight, refresh_s=0.02) as proxy:
            calls = await in_order(proxy, 3)
            proxy.pending.append(wide)
            await eventually(lambda: not proxy.pending)
            async with asyncio.timeout(PATIENCE_S):
                while stile.inside < 3:  # the next one to come lets them in
                    calls.append(asyncio.create_task(call(proxy, chat("knocks"))))
                    await until_live(proxy, len(calls))
            stile.let(len(calls))
            answers = await asyncio.gather(*calls)
    assert {answer.status for answer in answers} == {200}
