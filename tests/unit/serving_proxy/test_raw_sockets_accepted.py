"""Requests that look odd and are right: read as HTTP says, passed on as the backend expects, without more."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from pathlib import Path

import pytest

from tests.backends import OpenAIBackend
from tests.unit.serving_proxy.raw_sockets import HELLO, assert_sound, chunk, request, sockets
from tests.unit.serving_proxy.running_proxy import (
    CHAT,
    call,
    chat,
    connect,
    eventually,
    one_entity,
    post,
    running_proxy,
)

LENGTH = b"Content-Length: %d" % len(HELLO)
CHUNKED = b"Transfer-Encoding: chunked"
PIECES = [HELLO[start : start + 9] for start in range(0, len(HELLO), 9)]
UPLOAD = b"".join(map(chunk, PIECES)) + b"0\r\n\r\n"

SAME = {
    "as it should be": request(LENGTH, HELLO),
    "zeros before the length": request(b"Content-Length: 000%d" % len(HELLO), HELLO),
    "spaces around the length": request(b"Content-Length: \t %d \t" % len(HELLO), HELLO),
    "lines before it": b"\r\n\r\n" + request(LENGTH, HELLO),
    "chunks": request(CHUNKED, UPLOAD),
    "one chunk in capitals": request(
        b"TRANSFER-ENCODING: CHUNKED", chunk(HELLO).upper()[:2] + chunk(HELLO)[2:] + b"0\r\n\r\n"
    ),
    "zeros before a chunk's size": request(CHUNKED, b"0000" + chunk(HELLO) + b"000\r\n\r\n"),
    "chunk extensions": request(CHUNKED, UPLOAD.replace(b"\r\n", b';a=b;c="d;e"\r\n', 1)),
    "trailers": request(
        CHUNKED + b"\r\nTrailer: X-Evil", UPLOAD[:-2] + b"X-Evil: 1\r\nAuthorization: evil\r\n\r\n"
    ),
    "another host": request(b"Host: evil.example\r\n" + LENGTH, HELLO),
    "absolute form": request(LENGTH, HELLO, start=b"POST http://evil.example:9%b HTTP/1.1" % CHAT.encode()),
    "absolute form with a user": request(
        LENGTH, HELLO, start=b"POST http://u:evil@x%b HTTP/1.1" % CHAT.encode()
    ),
    "a query": request(LENGTH, HELLO, start=b"POST %b?evil=1 HTTP/1.1" % CHAT.encode()),
    "hop-by-hop fields": request(
        b"Connection: X-Evil, keep-alive\r\nX-Evil: 1\r\nKeep-Alive: evil\r\nTE: evil\r\nUpgrade: evil\r\n"
        b"Proxy-Authorization: evil\r\nProxy-Connection: evil\r\n" + LENGTH,
        HELLO,
    ),
    "a connection that names the length": request(b"Connection: Content-Length, Host\r\n" + LENGTH, HELLO),
    "a coding behind an upgrade": request(b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + CHUNKED, UPLOAD),
    "an expectation nobody knows": request(b"Expect: evil\r\n" + LENGTH, HELLO),
    "a field that is not UTF-8": request(b"X-A: \xff\xfe\r\nX-Session-Id: \xff\r\n" + LENGTH, HELLO),
    "many small fields": request(b"X-A: 1\r\n" * 1000 + LENGTH, HELLO),
}


@pytest.mark.parametrize("name", SAME)
async def test_what_is_right_reaches_the_backend_once_and_plainly(tmp_path: Path, name: str) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            for _ in range(2):
                await client.send(SAME[name])
                answer = await client.answer()
                assert answer.status == 200
        await assert_sound(proxy)
        records = proxy.records()
    assert [received.body for received in backend.received] == [HELLO, HELLO]
    assert [record.request for record in records] == [HELLO, HELLO]
    for received in backend.received:
        assert received.path == CHAT
        assert received.headers["host"] == backend.url.removeprefix("http://")
        assert received.headers["content-length"] == str(len(HELLO))
        assert "transfer-encoding" not in received.headers
        assert not any("evil" in f"{field}: {value}" for field, value in received.headers.items())


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("//v1/chat/completions", 404),
        ("/x/../v1/chat/completions", 404),
        ("/v1/chat%2fcompletions", 404),
        ("/v1/chat/completions/", 404),
        ("/V1/chat/completions", 404),
        ("/v1/chat/completions;a=b", 404),
        ("/v1/chat/completions%00", 404),
        ("/serving-endpoints//invocations", 404),
        ("/serving-endpoints/a/b/invocations", 404),
        ("/serving-endpoints/%FF%0d%0aX:y/invocations", 404),
        ("/serving-endpoints/%63hat/invocations", 200),
        ("http://[::1/v1/chat/completions", 400),
    ],
)
async def test_targets(tmp_path: Path, target: str, status: int) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        answer = await call(proxy, chat(), target)
        await assert_sound(proxy)
    assert answer.status == status
    assert answer.complete
    assert "x" not in answer.headers
    assert len(backend.received) == (status == 200)


@pytest.mark.parametrize("place", range(1, len(UPLOAD)))
async def test_an_upload_in_chunks_cut_anywhere(tmp_path: Path, place: int) -> None:
    data = request(CHUNKED, UPLOAD)
    place += len(data) - len(UPLOAD)
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, one_entity(backend.url)) as proxy,
        connect(proxy) as client,
    ):
        await client.send(data[:place])
        for _ in range(5):
            await asyncio.sleep(0)
        await client.send(data[place:])
        assert (await client.answer()).status == 200
    assert backend.received[0].body == HELLO


async def test_a_body_of_tiny_chunks_takes_no_more_memory_than_a_body(tmp_path: Path) -> None:
    """Each piece as an object of its own would take many times its size."""
    body = b'{"model":"chat","messages":[{"role":"user","content":"%b"}]}' % (b"ab" * 200_000)
    data = request(
        CHUNKED, b"".join(chunk(body[at : at + 2]) for at in range(0, len(body), 2)) + b"0\r\n\r\n"
    )
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            tracemalloc.start()
            await client.send(data[:-1])
            await eventually(lambda: not any(each.unread for each in sockets() if each.local == proxy.port))
            taken, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            await client.send(data[-1:])
            assert (await client.answer()).status == 200
        await assert_sound(proxy)
    assert backend.received[0].body == body
    assert taken < 3 << 20  # 400 kB as objects of two bytes are about 10 MB


@pytest.mark.parametrize("expectation", ["100-continue", "100-Continue"])
@pytest.mark.parametrize("early", [True, False])
async def test_continue_is_said_once_and_only_to_who_waits(
    tmp_path: Path, expectation: str, early: bool
) -> None:
    head, _, body = post(chat(), expect=expectation).partition(b"\r\n\r\n")
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            for _ in range(3):
                if early:  # a client that sends its body at once is not waiting
                    await client.send(head + b"\r\n\r\n" + body)
                else:
                    await client.send(head + b"\r\n\r\n")
                    assert (await client.head())[0] == 100
                    await client.send(body[:5])
                    await asyncio.sleep(0)
                    await client.send(body[5:])
                assert (await client.answer()).status == 200
        await assert_sound(proxy)
        assert len(proxy.records()) == 3
    assert all("expect" not in received.headers for received in backend.received)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model": "chat", "messages": [], "x": 1e999, "y": -0.0, "z": %b}' % (b"9" * 4000), 200),
        (b'{"model": "chat", "messages": [], "x": "\\ud800"}', 400),
        (b'{"model": "chat", "messages": [], "x": 1, "x": 2}', 200),
        (b'\n\t {"model": "chat", "messages": []} \r\n', 200),
        (b'{"model": "chat", "messages": [], "x": %b1%b}' % (b'{"a":[' * 200, b"]}" * 200), 200),
        (b'{"model": "chat", "messages": %b}' % (b"[" * 100_000 + b"]" * 100_000), 400),
        (b'{"model": "chat", "messages": ' + b'{"a":' * 100_000, 400),
        (b"[" * 1_000_000, 400),
        (b'{"model": "chat", "messages": [], "x": NaN}', 400),
        (b'{"model": "chat", "messages": [], "x": 01}', 400),
        (b'{"model": "chat", "messages": []} {}', 400),
        (b'{"model": "ch\0at", "messages": []}', 400),
        (b'\xef\xbb\xbf{"model": "chat", "messages": []}', 400),
        (b'{"model": "chat", "messages": [], "x": "\xed\xa0\x80"}', 400),
        (b'{"model": "chat", "messages": [], "x": "\xc0\x80"}', 400),
        ('{"model": "chat", "messages": []}'.encode("utf-16"), 400),
    ],
)
async def test_bodies(tmp_path: Path, body: bytes, status: int) -> None:
    """What JSON allows passes unchanged; what it does not is told so, whatever its depth."""
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            await client.send(post(body))
            answer = await client.answer()
            await client.send(post(chat()))
            assert (await client.answer()).status == 200
        await assert_sound(proxy)
        records = proxy.records()
    assert answer.status == status
    assert len(records) == 2
    assert records[0].request == body
    if status == 200:
        assert backend.received[0].body == body
    else:
        assert json.loads(answer.body)["error"]["type"] == "invalid_request_error"
        assert len(backend.received) == 1
