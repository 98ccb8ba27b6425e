"""Bad input and failing backends: the client is told in its dialect, and the record says what happened."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from collector.record import UNROUTED
from serving_proxy.endpoint import Retries, Timeouts
from serving_proxy.limits import Limits
from tests.backends import Behaviour, OpenAIBackend
from tests.unit.serving_proxy.running_proxy import (
    call,
    chat,
    connect,
    eventually,
    one_entity,
    post,
    running_proxy,
)

INVOCATIONS = "/serving-endpoints/chat/invocations"
NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("body", "field", "hint"),
    [
        (b'{"model": "chat", ', "body", "JSON"),
        (b"", "body", "JSON"),
        (b"[1, 2]", "body", "object"),
        (b'{"model": "chat", "x": "\xff"}', "body", "UTF-8"),
        (b'{"model": "chat", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "body", "JSON"),
        (b'{"model": 5}', "model", "str"),
        (b'{"model": "chat", "stream": "yes"}', "stream", "bool"),
        (b'{"messages": []}', "model", "'chat'"),
        (json.dumps(chat(user="u" * 513)).encode(), "user", "512"),
    ],
)
async def test_unusable_bodies(tmp_path: Path, body: bytes, field: str, hint: str) -> None:
    async with running_proxy(tmp_path, one_entity(NOWHERE)) as proxy:
        answer = await call(proxy, body)
        record = await proxy.record()
    error = answer.json()["error"]
    assert answer.status == 400
    assert (error["type"], error["param"], error["code"]) == (
        "invalid_request_error",
        field,
        "invalid_request",
    )
    assert hint in error["message"]
    assert (record.status_code, record.error_type, record.endpoint) == (400, "invalid_request", UNROUTED)
    assert record.request == body
    assert record.response == answer.body
    assert record.served_entity is None
    assert record.attempts == 0


async def test_an_unknown_model_is_told_the_endpoints(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, one_entity(NOWHERE)) as proxy:
        answer = await call(proxy, chat(model="gpt-9"))
        named = await call(proxy, chat(), "/serving-endpoints/nope/invocations")
        records = proxy.records()
    assert answer.status == named.status == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "'gpt-9'" in answer.json()["error"]["message"]
    assert "'chat'" in answer.json()["error"]["message"]
    assert named.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert [(record.endpoint, record.error_type) for record in records] == [
        (UNROUTED, "unknown_endpoint")
    ] * 2


async def test_a_body_over_the_limit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, one_entity(NOWHERE), limits=Limits(max_body_bytes=1000)) as proxy:
        async with connect(proxy) as client:
            head, _, _ = post(chat("x" * 2000), expect="100-continue").partition(b"\r\n\r\n")
            await client.send(head + b"\r\n\r\n")
            answer = await client.answer()
            assert await client.closed()
        record = await proxy.record()
    assert answer.status == 413
    assert answer.headers["connection"] == "close"
    assert answer.json()["error"]["code"] == "request_too_large"
    assert "1000" in answer.json()["error"]["message"]
    assert (record.status_code, record.error_type) == (413, "body_too_large")
    assert record.request is None
    assert record.logging_error_codes == ["MAX_REQUEST_SIZE_EXCEEDED"]


async def test_a_chunked_body_over_the_limit_is_refused_when_it_gets_there(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, one_entity(NOWHERE), limits=Limits(max_body_bytes=1000)) as proxy:
        async with connect(proxy) as client:
            await client.send(
                b"POST /serving-endpoints/chat/invocations HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"7d0\r\n" + b"x" * 2000 + b"\r\n"
            )
            answer = await client.answer()
        record = await proxy.record()
    assert answer.status == 413
    assert answer.json()["error_code"] == "MAX_REQUEST_SIZE_EXCEEDED"
    assert record.error_type == "body_too_large"


async def test_a_backend_that_is_down(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, one_entity(NOWHERE)) as proxy:
        answer = await call(proxy, chat(stream=True))
        scored = await call(proxy, chat(), INVOCATIONS)
        records = proxy.records()
    error = answer.json()["error"]
    assert answer.status == scored.status == 502
    assert (error["type"], error["code"]) == ("server_error", "upstream_connect")
    assert "'only'" in error["message"]
    assert scored.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"
    assert answer.headers["x-servelens-served-entity"] == "only"
    for record in records:
        assert (record.status_code, record.error_type, record.endpoint) == (502, "upstream_connect", "chat")
        assert record.served_entity == "only"
        assert not record.is_stream


async def test_a_backend_that_does_not_accept_in_time(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]  # the queue is full: the next SYN is not answered
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(address)
            snapshot = one_entity(f"http://127.0.0.1:{address[1]}", timeouts=Timeouts(connect_s=0.2))
            async with running_proxy(tmp_path, snapshot) as proxy:
                answer = await call(proxy, chat())
                record = await proxy.record()
        finally:
            for filler in fillers:
                filler.close()
    assert answer.status == 504
    assert "0.2 s" in answer.json()["error"]["message"]
    assert record.error_type == "upstream_timeout"


async def test_another_replica_answers_when_one_is_down(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(NOWHERE, backend.url)) as proxy:
        answers = [await call(proxy, chat()) for _ in range(4)]
        records = proxy.records()
    assert [answer.status for answer in answers] == [200] * 4
    assert max(record.attempts for record in records) == 2
    assert {record.error_type for record in records} == {None}


@pytest.mark.parametrize(
    ("behaviour", "status", "error_type"),
    [
        (Behaviour(reset_before_answer=True), 502, "upstream_reset"),
        (Behaviour(close_before_answer=True), 502, "upstream_reset"),
        (Behaviour(declared_length=10_000), 502, "upstream_reset"),
        (Behaviour(raw=b"SSH-2.0-OpenSSH_9.2\r\n"), 502, "upstream_invalid"),
        (
            Behaviour(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc"),
            502,
            "upstream_invalid",
        ),
        (
            Behaviour(raw=b"HTTP/1.1 101 Hi\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
            502,
            "upstream_invalid",
        ),
        (
            Behaviour(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n"),
            502,
            "upstream_invalid",
        ),
        (Behaviour(body=b"<html>Welcome</html>", content_type="text/html"), 502, "upstream_invalid"),
        (Behaviour(body=b""), 502, "upstream_invalid"),
        (Behaviour(hang=True), 504, "upstream_timeout"),
        (Behaviour(delay_s=60), 504, "upstream_timeout"),
    ],
)
async def test_backends_that_fail_before_an_answer(
    tmp_path: Path, behaviour: Behaviour, status: int, error_type: str
) -> None:
    timeouts = Timeouts(first_byte_s=0.3)
    async with (
        OpenAIBackend(behaviour) as backend,
        running_proxy(tmp_path, one_entity(backend.url, timeouts=timeouts)) as proxy,
        connect(proxy) as client,
    ):
        await client.send(post(chat()))
        answer = await client.answer()
        record = await proxy.record()
        backend.behaviour = Behaviour()
        await client.send(post(chat()))  # the client's connection is as good as before
        again = await client.answer()
    assert answer.status == status
    assert answer.complete
    assert answer.json()["error"]["code"] == error_type
    assert (record.status_code, record.error_type) == (status, error_type)
    assert record.response == answer.body
    assert again.status == 200


async def test_bytes_after_an_answer_do_not_reach_anybody(tmp_path: Path) -> None:
    behaviour = Behaviour(trailing=b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
    async with OpenAIBackend(behaviour) as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        for _ in range(3):
            answer = await call(proxy, chat())
            assert answer.json()["choices"]
    assert backend.connections == 3


@pytest.mark.parametrize(
    ("behaviour", "error_type"),
    [
        (Behaviour(reset_after_chunks=3, chunk_delay_s=0.01), "upstream_reset"),
        (Behaviour(close_after_chunks=3), "upstream_reset"),
        (Behaviour(hang_after_chunks=3), "upstream_timeout"),
    ],
)
async def test_a_stream_that_breaks_off_is_seen_to_break_off(
    tmp_path: Path, behaviour: Behaviour, error_type: str
) -> None:
    timeouts = Timeouts(idle_s=0.3)
    async with (
        OpenAIBackend(behaviour) as backend,
        running_proxy(tmp_path, one_entity(backend.url, timeouts=timeouts)) as proxy,
    ):
        answer = await call(proxy, chat(stream=True))
        record = await proxy.record()
    assert answer.status == 200
    assert not answer.complete
    events = answer.body.split(b"\n\n")
    assert json.loads(events[-2].removeprefix(b"data: "))["error"]["code"] == error_type
    assert answer.body.count(b"chat.completion.chunk") == 3
    assert (record.status_code, record.error_type, record.is_stream) == (200, error_type, True)
    assert record.response == answer.body


async def test_a_stream_that_never_ends_meets_the_total_deadline(tmp_path: Path) -> None:
    behaviour = Behaviour(chunks=1000, chunk_delay_s=0.02)
    timeouts = Timeouts(total_s=0.5)
    async with (
        OpenAIBackend(behaviour) as backend,
        running_proxy(tmp_path, one_entity(backend.url, timeouts=timeouts)) as proxy,
    ):
        answer = await call(proxy, chat(stream=True))
        record = await proxy.record()
    assert not answer.complete
    assert b"within 0.5 s" in answer.body
    assert record.error_type == "upstream_timeout"


async def test_a_large_answer_that_breaks_off_is_cut(tmp_path: Path) -> None:
    behaviour = Behaviour(body=b"[" + b"1," * 500_000, declared_length=5_000_000)
    async with OpenAIBackend(behaviour) as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        answer = await call(proxy, chat())
        record = await proxy.record()
    assert not answer.complete
    assert (record.status_code, record.error_type) == (200, "upstream_reset")


async def test_a_stale_connection_is_tried_again_once(tmp_path: Path) -> None:
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, one_entity(backend.url, retries=Retries(attempts=1))) as proxy,
    ):
        await call(proxy, chat())
        backend.script.append(Behaviour(close_before_answer=True))
        revived = await call(proxy, chat())
        backend.behaviour = Behaviour(close_before_answer=True)
        dead = await call(proxy, chat())
        records = proxy.records()
    assert (revived.status, dead.status) == (200, 502)
    assert [record.attempts for record in records] == [1, 2, 2]


async def test_connections_closed_while_idle_are_not_used(tmp_path: Path) -> None:
    async with (
        OpenAIBackend(Behaviour(close_quietly=True)) as backend,
        running_proxy(tmp_path, one_entity(backend.url)) as proxy,
    ):
        answers = [await call(proxy, chat()) for _ in range(5)]
    assert [answer.status for answer in answers] == [200] * 5


async def test_a_client_that_leaves_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    behaviour = Behaviour(chunks=20, chunk_delay_s=0.01)
    async with OpenAIBackend(behaviour) as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            await client.send(post(chat(stream=True)))
            await client.head()
            await client.chunk()
        record = await proxy.record()
    assert (record.status_code, record.error_type) == (200, "client_disconnected")
    assert record.client_disconnected
    assert record.response is not None
    assert record.response.endswith(b"data: [DONE]\n\n")


async def test_a_client_that_leaves_before_the_answer(tmp_path: Path) -> None:
    async with (
        OpenAIBackend(Behaviour(delay_s=0.2)) as backend,
        running_proxy(tmp_path, one_entity(backend.url)) as proxy,
    ):
        async with connect(proxy) as client:
            await client.send(post(chat()))
            await eventually(lambda: bool(backend.received))
        record = await proxy.record()
    assert (record.status_code, record.error_type) == (499, "client_disconnected")
    assert record.client_disconnected
    assert record.response is not None
    assert json.loads(record.response)["choices"]


@pytest.mark.parametrize("limits", [Limits(drain_bytes=3000), Limits(drain_s=0.2)])
async def test_what_a_client_left_behind_is_drained_within_bounds(tmp_path: Path, limits: Limits) -> None:
    behaviour = Behaviour(chunks=10_000, chunk_delay_s=0.005)
    async with (
        OpenAIBackend(behaviour) as backend,
        running_proxy(tmp_path, one_entity(backend.url), limits=limits) as proxy,
    ):
        async with connect(proxy) as client:
            await client.send(post(chat(stream=True)))
            await client.chunk_after_head()
        record = await proxy.record()
        await eventually(lambda: backend.disconnects > 0)
    assert record.client_disconnected
    assert record.response is not None
    assert 0 < len(record.response) < 100_000


async def test_a_reader_that_stops_does_not_fill_memory_and_is_recorded(tmp_path: Path) -> None:
    taken = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        try:
            while True:
                writer.write(b"data: " + b"x" * 65_530 + b"\n\n")
                await writer.drain()
                taken += 65_538
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    limits = Limits(slow_reader_s=0.5, drain_bytes=100_000)
    async with (
        server,
        running_proxy(tmp_path, one_entity(url), limits=limits) as proxy,
        connect(proxy, limit=1024) as client,
    ):
        await client.send(post(chat(stream=True)))
        await client.head()
        record = await proxy.record()
    assert taken < 40_000_000  # what the kernel's buffers take, on both sides
    assert record.client_disconnected
    assert record.logging_error_codes == ["MAX_RESPONSE_SIZE_EXCEEDED"]


async def test_a_slow_reader_gets_everything(tmp_path: Path) -> None:
    behaviour = Behaviour(content="word " * 1_000_000, chunks=200)
    async with OpenAIBackend(behaviour) as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy, limit=65_536) as client:
            await client.send(post(chat(stream=True)))
            await client.head()
            await asyncio.sleep(0.3)
            size = 0
            while piece := await client.chunk():
                size += len(piece)
        record = await proxy.record()
    assert size > 5_000_000
    assert record.error_type is None
