"""Clients and backends that are slow, stop reading, or close half of a connection: bounded memory, an end in
time, one record.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from serving_proxy.endpoint import Retries, Timeouts
from serving_proxy.limits import Limits
from tests.backends import Behaviour, OpenAIBackend
from tests.unit.serving_proxy.raw_sockets import (
    BODY,
    HELLO,
    Then,
    answer_with,
    assert_sound,
    chunk,
    client_connections,
    raw_backend,
    request,
    sized,
    sockets,
)
from tests.unit.serving_proxy.running_proxy import (
    RunningProxy,
    chat,
    connect,
    eventually,
    one_entity,
    post,
    running_proxy,
)

CHUNKED = b"Transfer-Encoding: chunked"
MAY_HOLD = 1 << 20
FLOOD = 60 << 20
ONCE = Retries(attempts=1)
NOWHERE = "http://127.0.0.1:9"

DRIPS = {
    "head": (b"POST /v1/chat/completions HTTP/1.1\r\nX-A: ", b"a", 408, 0),
    "fields": (b"POST /v1/chat/completions HTTP/1.1\r\n", b"X-A: 1\r\n", 408, 0),
    "body": (request(b"Content-Length: 1000"), b" ", 408, 1),
    "chunks": (request(CHUNKED), chunk(b" "), 408, 1),
    "a chunk's extension": (request(CHUNKED, b"5;a="), b"a", 408, 1),
    "trailers": (request(CHUNKED, chunk(HELLO) + b"0\r\n"), b"X-A: 1\r\n", 408, 1),
    "body for another path": (request(b"Content-Length: 1000", start=b"POST /nowhere HTTP/1.1"), b" ", 0, 0),
}


@pytest.mark.parametrize("name", DRIPS)
async def test_a_client_that_sends_a_little_now_and_then_does_not_get_more_time(
    tmp_path: Path, name: str
) -> None:
    start, drop, status, records = DRIPS[name]
    limits = Limits(header_timeout_s=0.3, body_timeout_s=0.3, keep_alive_s=0.3)
    async with running_proxy(tmp_path, one_entity(NOWHERE), limits=limits) as proxy:
        async with connect(proxy) as client:
            await client.send(start)

            async def drip() -> None:
                while True:
                    await client.send(drop)
                    await asyncio.sleep(0.02)

            dripping = asyncio.ensure_future(drip())
            async with asyncio.timeout(2):
                received = await client.reader.read()
            dripping.cancel()
            await asyncio.gather(dripping, return_exceptions=True)
        await assert_sound(proxy)
        assert len(proxy.records()) == records
    if status:
        assert received.startswith(b"HTTP/1.1 %d " % status)


class Reader:
    """A client that reads only when told to."""

    def __init__(self, proxy: RunningProxy) -> None:
        self.socket = socket.socket()
        self.socket.connect(("127.0.0.1", proxy.port))
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        self.taken = 0


def held_by(proxy: RunningProxy, reader: Reader, sent: int, backend_port: int) -> int:
    """Bytes that the worker itself holds: sent by the backend, neither taken by the client nor in the kernel's
    queues on either side.
    """
    on_the_way = [each for each in sockets() if {each.local, each.remote} & {reader.port, backend_port}]
    queued = sum(each.unsent + each.unread for each in on_the_way)
    return sent - reader.taken - queued


@pytest.mark.parametrize("kind", ["stream", "whole", "until the end"])
async def test_a_reader_that_stops_holds_up_the_backend_and_not_memory(tmp_path: Path, kind: str) -> None:
    sent = 0
    stopped, measured, over = asyncio.Event(), asyncio.Event(), asyncio.Event()
    if kind == "stream":
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        piece = chunk(b"data: " + b"x" * 50_000 + b"\n\n")
    elif kind == "whole":
        head, piece = answer_with(b"content-length: %d" % FLOOD), b" " * 50_000
    else:
        head, piece = answer_with(b"x-a: 1"), b" " * 50_000

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        own = writer.get_extra_info("socket")
        writer.transport.set_write_buffer_limits(high=0)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        try:
            for data in [head, *[piece] * (FLOOD // len(piece))]:
                writer.write(data)
                sent += len(data)
                await asyncio.wait_for(writer.drain(), 0.5)
        except TimeoutError:
            sent -= writer.transport.get_write_buffer_size()
            stopped.set()
        except ConnectionError:
            pass
        finally:
            await measured.wait()
            writer.transport.abort()
            over.set()

    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    limits = Limits(slow_reader_s=30)
    async with (
        server,
        running_proxy(tmp_path, one_entity(f"http://127.0.0.1:{port}"), limits=limits) as proxy,
    ):
        reader = Reader(proxy)
        await asyncio.get_running_loop().sock_sendall(reader.socket, post(chat(stream=kind == "stream")))
        await asyncio.wait_for(stopped.wait(), 20)
        held = held_by(proxy, reader, sent, port)
        reader.socket.close()
        measured.set()
        await over.wait()
        record = await proxy.record()
        await assert_sound(proxy)
    assert sent < FLOOD - len(piece)
    assert held < MAY_HOLD
    assert record.client_disconnected


async def test_a_client_that_pipelines_without_reading_is_not_read(tmp_path: Path) -> None:
    """What it sends while its first answer is awaited stays with it."""
    data = post(chat("x" * 10_000))
    loop = asyncio.get_running_loop()
    timeouts = Timeouts(first_byte_s=2)
    async with (
        OpenAIBackend(Behaviour(hang=True)) as backend,
        running_proxy(tmp_path, one_entity(backend.url, timeouts=timeouts, retries=ONCE)) as proxy,
    ):
        reader = Reader(proxy)
        sent = 0
        try:
            while sent < FLOOD:
                async with asyncio.timeout(0.5):
                    await loop.sock_sendall(reader.socket, data)
                sent += len(data)
        except TimeoutError:
            pass
        on_the_way = [each for each in sockets() if reader.port in (each.local, each.remote)]
        assert len(backend.received) == 1
        backend.behaviour = Behaviour()
        reader.socket.close()
        await eventually(lambda: client_connections(proxy) == 0)
        await assert_sound(proxy)
    assert sent < FLOOD
    assert sent - sum(each.unsent + each.unread for each in on_the_way) < MAY_HOLD


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_closes_its_sending_side_has_left(tmp_path: Path, stream: bool) -> None:
    async with (
        OpenAIBackend(Behaviour(delay_s=0.1)) as backend,
        running_proxy(tmp_path, one_entity(backend.url)) as proxy,
    ):
        async with connect(proxy) as client:
            await client.send(post(chat(stream=stream)))
            await eventually(lambda: bool(backend.received))
            client.writer.write_eof()
            record = await proxy.record()
            assert await client.closed()
        await assert_sound(proxy)
    assert record.client_disconnected
    assert record.response


@pytest.mark.parametrize("cut", [10, 100, len(post(chat())) - 1])
async def test_a_client_that_closes_its_sending_side_too_early(tmp_path: Path, cut: int) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            await client.send(post(chat())[:cut])
            client.writer.write_eof()
            async with asyncio.timeout(5):
                await client.reader.read()
        await assert_sound(proxy)
        assert proxy.records() == []
    assert not backend.received


async def test_an_idle_client_that_closes_its_sending_side_is_let_go(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            await client.send(post(chat()))
            assert (await client.answer()).status == 200
            client.writer.write_eof()
            assert await client.closed()
        await assert_sound(proxy)
        assert (await proxy.record()).error_type is None


@pytest.mark.parametrize("when", ["before the answer", "while idle", "in the middle of a request"])
async def test_backends_that_close_their_sending_side(tmp_path: Path, when: str) -> None:
    scripts: dict[str, list[list[bytes | Then]]] = {
        "before the answer": [[Then.END, Then.HANG]],
        "while idle": [[sized(), Then.END, Then.HANG]],
        "in the middle of a request": [[Then.END, Then.HANG]],
    }
    early = when == "in the middle of a request"
    text = "x" * 8_000_000 if early else "x"
    quick = Timeouts(first_byte_s=2, idle_s=2)
    async with (
        raw_backend(*scripts[when], early=early) as backend,
        running_proxy(tmp_path, one_entity(backend.url, timeouts=quick, retries=ONCE)) as proxy,
    ):
        async with connect(proxy) as client:
            await client.send(post(chat(text)))
            first = await client.answer()
            await client.send(post(chat()))
            second = await client.answer()
        await assert_sound(proxy)
        records = proxy.records()
    assert first.status == (200 if when == "while idle" else 502)
    assert (second.status, second.body) == (200, BODY)
    assert [record.status_code for record in records] == [first.status, 200]
    assert backend.connections == 2
