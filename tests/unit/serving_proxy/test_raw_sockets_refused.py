"""Requests on whose end two readers could differ, and other things that are not HTTP: answered 400 at once,
the connection closed, nothing behind them read as a request.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serving_proxy.limits import Limits
from tests.backends import OpenAIBackend
from tests.unit.serving_proxy.raw_sockets import HELLO, SMUGGLED, assert_sound, chunk, request
from tests.unit.serving_proxy.running_proxy import CHAT, call, chat, connect, one_entity, running_proxy

SIZE = len(HELLO)
CHUNKED = b"Transfer-Encoding: chunked"
LENGTH = b"Content-Length: %d" % SIZE
POST = b"POST %b HTTP/1.1" % CHAT.encode()

LENGTHS = {
    "both, chunked first": request(CHUNKED + b"\r\nContent-Length: 5", b"0\r\n\r\n"),
    "both, no chunked": request(b"Content-Length: 5\r\nTransfer-Encoding: identity", b"hello"),
    "both behind an upgrade": request(
        b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n" + CHUNKED, b"0\r\n\r\n"
    ),
    "twice the same": request(LENGTH + b"\r\n" + LENGTH, HELLO),
    "a list of the same": request(LENGTH + b", %d" % SIZE, HELLO),
    "negative": request(b"Content-Length: -5", b"hello"),
    "hexadecimal": request(b"Content-Length: 0x5", b"hello"),
    "two numbers": request(b"Content-Length: 5 5", b"hello"),
    "empty": request(b"Content-Length:"),
    "a word": request(b"Content-Length: five", b"hello"),
    "over 64 bits": request(b"Content-Length: 18446744073709551621", b"hello"),
    "far over 64 bits": request(b"Content-Length: " + b"9" * 400, b"hello"),
    "behind a bare CR": request(b"X: a\rContent-Length: 5", b"hello"),
}
CODINGS = {
    "identity": request(b"Transfer-Encoding: identity"),
    "chunked, then another": request(CHUNKED + b", identity", b"0\r\n\r\n"),
    "chunked twice": request(CHUNKED + b", chunked", b"0\r\n\r\n"),
    "another, then chunked": request(b"Transfer-Encoding: gzip, chunked", b"0\r\n\r\n"),
    "two fields": request(CHUNKED + b"\r\nTransfer-Encoding: identity", b"0\r\n\r\n"),
    "two fields, chunked last": request(b"Transfer-Encoding: identity\r\n" + CHUNKED, b"0\r\n\r\n"),
    "two fields, the same": request(CHUNKED + b"\r\n" + CHUNKED, chunk(HELLO) + b"0\r\n\r\n"),
    "vertical tab": request(b"Transfer-Encoding: \x0bchunked", b"0\r\n\r\n"),
    "quoted": request(b'Transfer-Encoding: "chunked"', b"0\r\n\r\n"),
    "tab before the colon": request(b"Transfer-Encoding\t: chunked", b"0\r\n\r\n"),
}
LINES = {
    "bare LF everywhere": request(LENGTH, HELLO).replace(b"\r\n", b"\n"),
    "bare LF once": request(b"X: 1\n" + LENGTH, HELLO),
    "bare LF at the end": request(LENGTH, HELLO).replace(b"\r\n\r\n", b"\r\n\n"),
    "bare CR": request(b"X: a\rb\r\n" + LENGTH, HELLO),
    "NUL in a value": request(b"X: a\0b\r\n" + LENGTH, HELLO),
    "NUL in a name": request(b"X\0: a\r\n" + LENGTH, HELLO),
    "control character": request(b"X: a\x01\r\n" + LENGTH, HELLO),
    "no colon": request(b"nothing\r\n" + LENGTH, HELLO),
    "no name": request(b": a\r\n" + LENGTH, HELLO),
    "not a token": request(b"X(y): a\r\n" + LENGTH, HELLO),
    "name not ASCII": request(b"X\xe9: a\r\n" + LENGTH, HELLO),
    "space before the first": POST + b"\r\n Content-Length: 5\r\n\r\nhello",
}
STARTS = {
    "space in the target": request(LENGTH, HELLO, start=b"POST /v1/chat completions HTTP/1.1"),
    "NUL in the target": request(LENGTH, HELLO, start=b"POST /v1/chat/completions\0 HTTP/1.1"),
    "target not ASCII": request(LENGTH, HELLO, start=b"POST /serving-endpoints/\xff/invocations HTTP/1.1"),
    "method in lower case": request(LENGTH, HELLO, start=POST.lower().replace(b"http", b"HTTP")),
    "unknown method": request(LENGTH, HELLO, start=b"SMASH /v1/chat/completions HTTP/1.1"),
    "HTTP/0.9": b"GET /v1/models\r\n",
    "HTTP/1.2": request(LENGTH, HELLO, start=POST.replace(b"1.1", b"1.2")),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "leading space": b" " + request(LENGTH, HELLO),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
}
CHUNKS = {
    "no digit": b"g\r\nhello\r\n0\r\n\r\n",
    "negative": b"-5\r\nhello\r\n0\r\n\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "empty size": b"\r\nhello\r\n0\r\n\r\n",
    "over 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "no CRLF behind the data": b"5\r\nhelloXX0\r\n\r\n",
    "bare LF behind the size": chunk(HELLO).replace(b"\r\n", b"\n", 1) + b"0\r\n\r\n",
    "bare LF behind the data": chunk(HELLO)[:-2] + b"\n0\r\n\r\n",
    "bare LF at the end": chunk(HELLO) + b"0\n\n",
    "space behind the size": chunk(HELLO).replace(b"\r\n", b" \r\n", 1) + b"0\r\n\r\n",
    "NUL in an extension": chunk(HELLO).replace(b"\r\n", b";a=\0\r\n", 1) + b"0\r\n\r\n",
    "bare LF in an extension": chunk(HELLO).replace(b"\r\n", b";a\nb\r\n", 1) + b"0\r\n\r\n",
    "a trailer without colon": chunk(HELLO) + b"0\r\nnothing\r\n\r\n",
    "a length as trailer": chunk(HELLO) + b"0\r\nContent-Length: 3\r\n\r\n",
}
WRONG = {
    **{f"length: {name}": data for name, data in LENGTHS.items()},
    **{f"coding: {name}": data for name, data in CODINGS.items()},
    **{f"line: {name}": data for name, data in LINES.items()},
    **{f"start: {name}": data for name, data in STARTS.items()},
    **{f"chunk: {name}": request(CHUNKED, data) for name, data in CHUNKS.items()},
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_can_be_read_in_two_ways_is_refused_at_once(tmp_path: Path, name: str) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            await client.send(WRONG[name] + SMUGGLED)
            async with asyncio.timeout(2):
                answer = await client.answer()
                assert await client.closed()
        assert (await call(proxy, chat("next"))).status == 200
        await assert_sound(proxy)
        records = proxy.records()
    assert answer.status == 400
    assert answer.headers["connection"] == "close"
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert [b"next" in received.body for received in backend.received] == [True]
    assert not any(b"SMUGGLED" in (record.request or b"") for record in records)
    assert sum(record.status_code == 200 for record in records) == 1


@pytest.mark.parametrize(
    "name", ["length: negative", "coding: identity", "line: no colon", "chunk: no digit"]
)
async def test_an_answer_under_way_is_finished_before_the_refusal(tmp_path: Path, name: str) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            await client.send(request(LENGTH, HELLO) + WRONG[name] + SMUGGLED)
            good, bad = await client.answer(), await client.answer()
            assert await client.closed()
        await assert_sound(proxy)
    assert (good.status, good.complete, bad.status) == (200, True, 400)
    assert len(backend.received) == 1


@pytest.mark.parametrize("cut", range(1, 40, 3))
async def test_a_refused_request_in_two_packets(tmp_path: Path, cut: int) -> None:
    data = request(CHUNKED + b"\r\nContent-Length: 5", b"0\r\n\r\n") + SMUGGLED
    at = data.index(b"Transfer") + cut
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            await client.send(data[:at])
            await asyncio.sleep(0.005)
            await client.send(data[at:])
            answer = await client.answer()
            assert await client.closed()
        await assert_sound(proxy)
        assert proxy.records() == []
    assert answer.status == 400
    assert not backend.received


MANY = {
    "many small fields": b"".join(b"X-%d: 1\r\n" % number for number in range(20_000)),
    "one long field": b"X: " + b"a" * 100_000 + b"\r\n",
    "one long name": b"X" * 100_000 + b": a\r\n",
}


@pytest.mark.parametrize("name", MANY)
async def test_heads_over_the_limit_are_refused(tmp_path: Path, name: str) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            await client.send(request(MANY[name] + LENGTH, HELLO) + SMUGGLED)
            answer = await client.answer()
            assert await client.closed()
        await assert_sound(proxy)
        assert proxy.records() == []
    assert answer.status == 431
    assert not backend.received


async def test_a_long_target_is_refused(tmp_path: Path) -> None:
    start = b"POST /serving-endpoints/" + b"x" * 100_000 + b"/invocations HTTP/1.1"
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            await client.send(request(LENGTH, HELLO, start=start))
            answer = await client.answer()
        await assert_sound(proxy)
        assert proxy.records() == []
    assert answer.status == 431


async def test_trailers_count_against_the_heads_limit(tmp_path: Path) -> None:
    limits = Limits(max_header_bytes=4000)
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, one_entity(backend.url), limits=limits) as proxy,
    ):
        async with connect(proxy) as client:
            await client.send(request(CHUNKED, chunk(HELLO) + b"0\r\n"))
            for number in range(100):
                await client.send(b"X-%d: %b\r\n" % (number, b"a" * 500))
                await asyncio.sleep(0)
            answer = await client.answer()
        await assert_sound(proxy)
    assert answer.status == 431
    assert not backend.received
