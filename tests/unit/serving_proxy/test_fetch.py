from __future__ import annotations

import asyncio

import pytest

from servelens.errors import Unavailable
from serving_proxy.fetch import Fetched, fetch
from serving_proxy.replicas import Replica
from tests.unit.serving_proxy.running_proxy import eventually
from tests.unit.serving_proxy.scripted_server import serving

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nhi"


async def test_a_connection_is_used_again_and_free_afterwards() -> None:
    async with serving(OK, b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n") as (
        server,
        replica,
    ):
        got = await fetch(replica, b"GET", b"/health?x=1", [(b"authorization", b"Bearer k")])
        assert got == Fetched(200, {b"content-length": b"2", b"x-a": b"b"}, b"hi")
        assert (await fetch(replica, b"POST", b"/p", body=b"{}"))[::2] == (503, b"abc")
        assert server.connections == 1
        assert replica.outstanding == 0
        first, second = server.received
        assert first.startswith(b"GET /health?x=1 HTTP/1.1\r\nhost: 127.0.0.1:")
        assert b"\r\nauthorization: Bearer k\r\n" in first
        assert b"content-length" not in first
        assert second.endswith(b"content-length: 2\r\n\r\n{}")


async def test_a_connection_that_was_closed_meanwhile_is_replaced() -> None:
    async with serving(OK, OK, OK) as (server, replica):
        server.close_after_each = True
        for _ in range(3):
            assert (await fetch(replica, b"GET", b"/")).status == 200
        assert server.connections == 3


async def failure(replica: Replica, timeout_s: float = 5, max_body_bytes: int = 1 << 20) -> str:
    with pytest.raises(Unavailable) as raised:
        await fetch(replica, b"GET", b"/", timeout_s=timeout_s, max_body_bytes=max_body_bytes)
    assert replica.outstanding == 0
    assert replica.url in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", "before the end"),
        (b"nonsense\r\n\r\n", "not HTTP"),
    ],
)
async def test_half_an_answer_and_nonsense_are_told_apart(answer: bytes, what: str) -> None:
    async with serving(answer) as (server, replica):
        server.close_after_each = True
        assert what in await failure(replica)


async def test_a_server_that_hangs_or_talks_too_much() -> None:
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + bytes(5000)
    async with serving(b"", long, OK) as (_, replica):
        assert "within 0.05 s" in await failure(replica, timeout_s=0.05)
        assert "too long" in await failure(replica, max_body_bytes=4999)
        assert (await fetch(replica, b"GET", b"/")).body == b"hi"


async def test_nobody_listens() -> None:
    async with serving() as (_, replica):
        pass
    assert "did not accept" in await failure(replica)


async def test_a_cancelled_fetch_leaves_nothing_busy() -> None:
    async with serving(b"") as (server, replica):
        task = asyncio.create_task(fetch(replica, b"GET", b"/", timeout_s=60))
        await eventually(lambda: bool(server.received))
        assert replica.outstanding == 1
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert replica.outstanding == 0
