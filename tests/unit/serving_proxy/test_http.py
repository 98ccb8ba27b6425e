"""HTTP/1.1 as written: connections, framing, methods, limits, and requests that are meant to do harm."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serving_proxy.limits import Limits
from tests.backends import Behaviour, OpenAIBackend
from tests.unit.serving_proxy.running_proxy import (
    CHAT,
    call,
    chat,
    connect,
    get,
    one_entity,
    post,
    running_proxy,
)

NOWHERE = "http://127.0.0.1:9"


async def test_pipelined_requests_are_answered_in_order_whoever_answers(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        backend.script.append(Behaviour(delay_s=0.2))
        async with connect(proxy) as client:
            await client.send(
                post(chat("one"))
                + b"GET /health/live HTTP/1.1\r\nHost: p\r\n\r\n"
                + post(chat("two", stream=True))
                + post(chat(model="nope"))
                + b"GET /v1/models HTTP/1.1\r\nHost: p\r\n\r\n"
                + post(chat("three"))[:-5]
            )
            answers = [await client.answer() for _ in range(5)]
            await client.send(post(chat("three"))[-5:])
            last = await client.answer()
        records = proxy.records()
    assert b"echo: one" in answers[0].body
    assert answers[1].json() == {"status": "ok"}
    assert answers[2].body.endswith(b"[DONE]\n\n")
    assert answers[3].status == 404
    assert answers[4].json()["data"][0]["id"] == "chat"
    assert b"echo: three" in last.body
    assert len(records) == 4


async def test_garbage_behind_a_request_does_not_spoil_its_answer(tmp_path: Path) -> None:
    async with (
        OpenAIBackend(Behaviour(delay_s=0.1)) as backend,
        running_proxy(tmp_path, one_entity(backend.url)) as proxy,
        connect(proxy) as client,
    ):
        await client.send(post(chat()) + b"\x00\x01 nonsense\r\n\r\n")
        good, bad = await client.answer(), await client.answer()
        assert await client.closed()
    assert (good.status, bad.status) == (200, 400)
    assert good.complete


async def test_expect_100_continue(tmp_path: Path) -> None:
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, one_entity(backend.url)) as proxy,
        connect(proxy) as client,
    ):
        head, _, body = post(chat(), expect="100-continue").partition(b"\r\n\r\n")
        await client.send(head + b"\r\n\r\n")
        interim, _ = await client.head()
        await client.send(body)
        answer = await client.answer()
    assert (interim, answer.status) == (100, 200)
    assert "expect" not in backend.received[0].headers


async def test_a_chunked_upload_arrives_whole(tmp_path: Path) -> None:
    body = post(chat("in pieces")).partition(b"\r\n\r\n")[2]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:7], body[7:30], body[30:]))
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            await client.send(
                f"POST {CHAT} HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            )
            for byte in range(0, len(chunks), 9):
                await client.send(chunks[byte : byte + 9])
            await client.send(b"0\r\n\r\n")
            answer = await client.answer()
        record = await proxy.record()
    assert answer.status == 200
    assert backend.received[0].body == body == record.request
    assert backend.received[0].headers["content-length"] == str(len(body))


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
async def test_other_methods_are_refused_without_a_record(tmp_path: Path, method: str) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            await client.send(f"{method} {CHAT} HTTP/1.1\r\nHost: p\r\n\r\n".encode())
            if method == "HEAD":
                status, headers = await client.head()
            else:
                refused = await client.answer()
                status, headers = refused.status, refused.headers
                assert method in refused.json()["error"]["message"]
            await client.send(post(chat()))
            assert (await client.answer()).status == 200
        await proxy.record()
    assert status == 405
    assert headers["allow"] == "POST, OPTIONS"


async def test_options_and_unknown_paths(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, one_entity(NOWHERE)) as proxy:
        async with connect(proxy) as client:
            await client.send(f"OPTIONS {CHAT} HTTP/1.1\r\nHost: p\r\n\r\n".encode())
            options = await client.answer()
        openai = await get(proxy, "/v1/nothing")
        databricks = await get(proxy, "/serving-endpoints/chat/nothing")
        elsewhere = await get(proxy, "/nothing")
        model = await get(proxy, "/v1/models/chat")
        no_model = await get(proxy, "/v1/models/nope")
        assert proxy.records() == []
    assert (options.status, options.headers["allow"]) == (204, "POST, OPTIONS")
    assert openai.json()["error"]["type"] == "invalid_request_error"
    assert databricks.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert elsewhere.headers["content-type"] == "application/problem+json"
    assert [answer.status for answer in (openai, databricks, elsewhere, no_model)] == [404] * 4
    assert model.json()["id"] == "chat"
    assert "'chat'" in no_model.json()["error"]["message"]


async def test_connection_close_is_honoured(tmp_path: Path) -> None:
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, one_entity(backend.url)) as proxy,
        connect(proxy) as client,
    ):
        await client.send(post(chat(), connection="close"))
        answer = await client.answer()
        assert await client.closed()
    assert answer.headers["connection"] == "close"


async def test_an_offered_upgrade_is_ignored_and_the_body_read(tmp_path: Path) -> None:
    headers = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAMAAABk"}
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, one_entity(backend.url)) as proxy,
        connect(proxy) as client,
    ):
        request = post(chat(), **headers)
        await client.send(request[:-20])
        await asyncio.sleep(0.05)
        await client.send(request[-20:])
        first = await client.answer()
        await client.send(post(chat()))
        second = await client.answer()
    assert (first.status, second.status) == (200, 200)
    assert "upgrade" not in backend.received[0].headers


async def test_absolute_form_targets(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        assert (await call(proxy, chat(), f"http://proxy.example{CHAT}")).status == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nContent-Length: +5\r\n\r\nhello",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nX: a\r\n b\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost : p\r\n\r\n",
        b"CONNECT proxy:443 HTTP/1.1\r\nHost: p\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
    ],
)
async def test_ambiguous_and_broken_requests_are_refused(tmp_path: Path, request_bytes: bytes) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            await client.send(request_bytes)
            answer = await client.answer()
            assert await client.closed()
        assert proxy.records() == []
    assert answer.status == 400
    assert answer.headers["connection"] == "close"
    assert not backend.received


@pytest.mark.parametrize("whole", [True, False])
async def test_oversized_headers(tmp_path: Path, whole: bool) -> None:
    limits = Limits(max_header_bytes=2000)
    async with running_proxy(tmp_path, one_entity(NOWHERE), limits=limits) as proxy, connect(proxy) as client:
        await client.send(f"POST {CHAT} HTTP/1.1\r\nHost: p\r\nX-Long: ".encode())
        for _ in range(10):
            await client.send(b"x" * 300)
            await asyncio.sleep(0.005)
        if whole:
            await client.send(b"\r\nContent-Length: 0\r\n\r\n")
        answer = await client.answer()
    assert answer.status == 431
    assert "2000" in answer.json()["error"]["message"]


async def test_large_bodies_do_not_count_as_headers(tmp_path: Path) -> None:
    limits = Limits(max_header_bytes=2000)
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, one_entity(backend.url), limits=limits) as proxy,
    ):
        assert (await call(proxy, chat("x" * 500_000))).status == 200


async def test_slow_heads_and_bodies_are_given_up(tmp_path: Path) -> None:
    limits = Limits(header_timeout_s=0.2, body_timeout_s=0.2, keep_alive_s=0.2)
    async with running_proxy(tmp_path, one_entity(NOWHERE), limits=limits) as proxy:
        async with connect(proxy) as silent:
            assert await silent.closed()
        async with connect(proxy) as client:
            await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHo")
            head = await client.answer()
            assert await client.closed()
        assert proxy.records() == []
        async with connect(proxy) as client:
            await client.send(post(chat())[:-10])
            body = await client.answer()
            assert await client.closed()
        record = await proxy.record()
    assert (head.status, body.status) == (408, 408)
    assert (record.status_code, record.error_type) == (408, "invalid_request")


async def test_a_client_that_leaves_during_its_upload_leaves_no_record(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            await client.send(post(chat())[:-10])
        await call(proxy, chat("after"))
        record = await proxy.record()
    assert b"after" in (record.request or b"")
    assert len(backend.received) == 1
