"""Requests whose head repeats the one before on the connection are read like any other.

A worker recognises such a head without parsing it. Whatever is made of the bytes after it, and however they
are cut into packets, answers, records and what the backend sees are those of a connection that has seen
nothing before.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import pytest

from servelens.clock import SystemClock
from serving_proxy.authentication import Keys, Requester, digest_of
from serving_proxy.endpoint import Retries
from serving_proxy.limits import Limits
from serving_proxy.routing import Snapshot
from tests.backends import Behaviour, OpenAIBackend
from tests.unit.serving_proxy.raw_sockets import SMUGGLED, assert_sound
from tests.unit.serving_proxy.running_proxy import (
    RawClient,
    RunningProxy,
    chat,
    connect,
    eventually,
    one_entity,
    post,
    running_proxy,
)

ONCE = Retries(attempts=1)
SIZE = len(post(chat("hello")).partition(b"\r\n\r\n")[2])
LAST = b"GET /v1/models HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n"


def message(text: str, length: bytes | None = None) -> bytes:
    """A call whose head is always the same but for the length, which may be a lie."""
    head, _, body = post(chat(text)).partition(b"Content-Length: ")
    body = body.partition(b"\r\n\r\n")[2]
    return b"%bContent-Length: %b\r\n\r\n%b" % (head, length or b"%d" % len(body), body)


async def is_read() -> None:
    """Let the worker, on the same loop, read what was sent as a packet of its own."""
    for _ in range(5):
        await asyncio.sleep(0)


async def learned(client: RawClient) -> None:
    """Make the worker know the head."""
    for _ in range(2):
        await client.send(message("once"))
        assert (await client.answer()).status == 200


async def outcome(client: RawClient) -> list[tuple[int, bytes]]:
    """All answers until the connection is closed: status, and the body without ids."""
    found = []
    while True:
        try:
            answer = await client.answer()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return found
        found.append((answer.status, answer.body))


@pytest.mark.parametrize("text", ["", "x", "as long", "x" * 5000, "x" * 700_000])
async def test_other_lengths_with_the_same_head(tmp_path: Path, text: str) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy, limit=1 << 22) as client:
            await learned(client)
            for _ in range(2):
                await client.send(message(text))
                answer = await client.answer()
                assert answer.json()["choices"][0]["message"]["content"] == f"echo: {text}"
        await assert_sound(proxy)
        assert len(proxy.records()) == 4


LENGTHS = {
    b"000000%d": 200,
    b"%030d": 200,
    b"+%d": 400,
    b"-%d": 400,
    b" %d 1": 400,
    b"%d, 5": 400,
    b"0x%x": 400,
    b"%d_0": 400,
    b"\xd9\xa1%d": 400,
    b"%d\xb2": 400,
    b"%d\r\nContent-Length: 5": 400,
    b"%d\r\nTransfer-Encoding: chunked": 400,
    b"99999999999999999999%d": 400,
    b"1844674407370955%d": 413,
    b"9999999999999%d": 413,
    b"167772%d": 413,
}


@pytest.mark.parametrize("length", LENGTHS)
async def test_numbers_that_are_none_or_too_large(tmp_path: Path, length: bytes) -> None:
    status = LENGTHS[length]
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            await learned(client)
            await client.send(message("hello", length % SIZE))
            assert (await client.answer()).status == status
            if status != 200:
                assert await client.closed()
        await assert_sound(proxy)
    assert len(backend.received) == (3 if status == 200 else 2)


async def test_a_body_longer_than_announced_is_not_the_next_request(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        for behind in (b"x", b" ", b"\0", SMUGGLED[1:], message("x")[1:]):
            async with connect(proxy) as client:
                await learned(client)
                await client.send(message("longer") + behind)
                good, bad = await client.answer(), await client.answer()
                assert await client.closed()
            assert (good.status, bad.status) == (200, 400)
            assert b"echo: longer" in good.body
        await assert_sound(proxy)
    assert not any(b"SMUGGLED" in received.body for received in backend.received)


async def test_no_size_makes_a_request_of_what_does_not_begin_as_one(tmp_path: Path) -> None:
    body = post(chat("SMUGGLED")).partition(b"\r\n\r\n")[2]
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        for spaces in range(200):
            async with connect(proxy) as client:
                await learned(client)
                await client.send(b"\0" + body[:spaces] if spaces < len(body) else b"\0" + body.ljust(spaces))
                assert (await client.answer()).status == 400
                assert await client.closed()
        await assert_sound(proxy)
        assert len(proxy.records()) == 400
    assert not any(b"SMUGGLED" in received.body for received in backend.received)


async def test_a_body_shorter_than_announced_is_waited_for(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            await learned(client)
            await client.send(message("shorter")[:-30])
            await is_read()
            assert len(backend.received) == 2
            await client.send(message("shorter")[-30:])
            answer = await client.answer()
        async with connect(proxy) as client:
            await learned(client)
            await client.send(message("shorter")[:-30])
            await is_read()
        await assert_sound(proxy)
        assert len(proxy.records()) == 5
    assert b"echo: shorter" in answer.body


async def test_cut_in_two_at_every_place(tmp_path: Path) -> None:
    data = message("cut")
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            for place in range(1, len(data)):
                await client.send(message("whole"))
                assert b"echo: whole" in (await client.answer()).body
                await client.send(data[:place])
                await is_read()
                await client.send(data[place:])
                assert b"echo: cut" in (await client.answer()).body
        await assert_sound(proxy)
        bodies = [json.loads(record.request or b"")["messages"][0]["content"] for record in proxy.records()]
    assert bodies == ["whole", "cut"] * (len(data) - 1)


@pytest.mark.parametrize("behind", [0, 1, 30, 200])
async def test_many_in_one_packet(tmp_path: Path, behind: int) -> None:
    """All at once, and with the last one ending in a packet of its own."""
    data = b"".join(message(f"number {number}") for number in range(8))
    cut = len(data) - behind
    async with (
        OpenAIBackend(Behaviour(delay_s=0.002)) as backend,
        running_proxy(tmp_path, one_entity(backend.url)) as proxy,
    ):
        async with connect(proxy) as client:
            for _ in range(3):
                await learned(client)
                await client.send(data[:cut])
                await is_read()
                await client.send(data[cut:])
                for number in range(8):
                    assert b"echo: number %d" % number in (await client.answer()).body
        await assert_sound(proxy)
        assert len(proxy.records()) == 30


async def test_the_same_head_while_an_answer_is_under_way(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            await learned(client)
            backend.script.append(Behaviour(delay_s=0.05))
            for text in ("slow", "second", "third"):
                await client.send(message(text))
                await is_read()
            await client.send(LAST)
            answers = await outcome(client)
        await assert_sound(proxy)
    assert [
        text in body for text, (_, body) in zip((b"slow", b"second", b"third"), answers, strict=False)
    ] == [True] * 3
    assert len(answers) == 4


async def answers_to(proxy: RunningProxy, data: bytes, *, first: bool) -> list[tuple[int, bytes]]:
    """What comes back for ``data`` in a packet of its own and a last request behind it."""
    async with connect(proxy) as client:
        if first:
            await learned(client)
        await client.send(data)
        await is_read()
        await client.send(LAST)
        return await outcome(client)


@pytest.mark.parametrize("changed", [b"x", b" ", b"\n", b"\r", b"\0", b"0", b":"])
async def test_a_head_that_differs_in_one_byte(tmp_path: Path, changed: bytes) -> None:
    """At any place: what a fresh connection makes of it is what a connection makes of it that knows the head."""
    data = message("changed")
    limits = Limits(body_timeout_s=0.1, header_timeout_s=0.1)
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, one_entity(backend.url), limits=limits) as proxy,
    ):
        for place in range(data.index(b"\r\n\r\n") + 4):
            other = data[:place] + changed + data[place + 1 :]
            if other == data:
                continue
            fresh = await answers_to(proxy, other, first=False)
            sent_fresh = [received.headers | {"x-request-id": ""} for received in backend.received]
            backend.received.clear()
            knowing = await answers_to(proxy, other, first=True)
            sent_knowing = [received.headers | {"x-request-id": ""} for received in backend.received[2:]]
            backend.received.clear()
            assert knowing == fresh, other
            assert sent_knowing == sent_fresh, other
        await assert_sound(proxy)


@pytest.mark.parametrize("reverse", [False, True])
async def test_the_same_head_behind_an_error(tmp_path: Path, reverse: bool) -> None:
    limits = Limits(max_body_bytes=2000)
    bad = post(b'{"model": "chat", "messages": [}')
    steps: list[tuple[bytes, int, Behaviour | None]] = [
        (message("good"), 200, None),
        (bad, 400, None),
        (message("good"), 200, None),
        (message("failing"), 503, Behaviour(status=503)),
        (message("good"), 200, None),
        (message("invalid"), 502, Behaviour(body=b"<html>", content_type="text/html")),
        (message("good"), 200, None),
    ]
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, one_entity(backend.url, retries=ONCE), limits=limits) as proxy,
    ):
        async with connect(proxy) as client:
            for data, status, behaviour in reversed(steps) if reverse else steps:
                backend.behaviour = behaviour or Behaviour()
                await client.send(data)
                assert (await client.answer()).status == status
            await client.send(message("x" * 3000))
            assert (await client.answer()).status == 413
            await client.send(message("good"))
            assert (await client.answer()).status == 200
        await assert_sound(proxy)
        assert len(proxy.records()) == len(steps) + 2


KEY = "sl-0123456789"


def with_keys(url: str, expires_at_us: int | None = None, *, known: bool = True) -> Snapshot:
    owner = Requester("team", frozenset({"invoke"}), "k-1")
    keys = {digest_of(KEY.encode()): (owner, expires_at_us)} if known else {}
    return dataclasses.replace(one_entity(url), keys=Keys(keys, required=True))


async def test_a_key_that_was_revoked_is_not_remembered_with_its_head(tmp_path: Path) -> None:
    data = post(chat(), authorization=f"Bearer {KEY}")
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, with_keys(backend.url), refresh_s=0.02) as proxy,
        connect(proxy) as client,
    ):
        for _ in range(3):
            await client.send(data)
            assert (await client.answer()).status == 200
        proxy.pending.append(with_keys(backend.url, known=False))
        await eventually(lambda: not proxy.pending)
        await asyncio.sleep(0.1)
        await client.send(data)
        refused = await client.answer()
        assert len(proxy.records()) == 4
    assert refused.status == 401
    assert len(backend.received) == 3


async def test_a_key_that_expires_is_not_remembered_with_its_head(tmp_path: Path) -> None:
    data = post(chat(), authorization=f"Bearer {KEY}")
    soon = SystemClock().now_us() + 400_000
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, with_keys(backend.url, soon)) as proxy,
        connect(proxy) as client,
    ):
        await client.send(data)
        assert (await client.answer()).status == 200
        await eventually(lambda: SystemClock().now_us() > soon)
        await client.send(data)
        refused = await client.answer()
    assert refused.status == 401
