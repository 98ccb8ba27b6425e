"""The same bytes, cut at random into packets, are answered and recorded as when they come whole."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from collector.record import Record
from tests.backends import OpenAIBackend
from tests.unit.serving_proxy.raw_sockets import assert_sound, chunk, request
from tests.unit.serving_proxy.running_proxy import (
    RawClient,
    RunningProxy,
    chat,
    connect,
    one_entity,
    post,
    running_proxy,
)

CHUNKED = b"Transfer-Encoding: chunked"
IDS = ("x-request-id", "databricks-request-id", "date")
DIFFER = ("request_id", "request_time_us", "duration_us", "time_to_first_token_us", "unit", "attempt_details")


class Message(NamedTuple):
    """A request, and whether it is the last: one that closes the connection."""

    data: bytes
    is_last: bool = False


def good(chance: random.Random) -> Message:
    """One with always the same head but for its length: the most frequent, so that heads repeat."""
    return Message(post(chat("word " * chance.choice((0, 1, 3, 30, 2000)))))


def other(chance: random.Random) -> Message:
    text = str(chance.randrange(1000))
    body = post(chat(text)).partition(b"\r\n\r\n")[2]
    pieces = [body[start : start + 20] for start in range(0, len(body), 20)]
    return Message(
        chance.choice(
            (
                post(chat(text), x_session_id=text),
                post(chat(text), x_servelens_unit="u" * chance.randrange(1, 200)),
                post(chat(text), connection="keep-alive"),
                post(chat(text), "/serving-endpoints/chat/invocations"),
                post(chat(text, stream=True)),
                post(chat(text, stream=True)),
                post(chat(model="nobody")),
                post(b'{"model": "chat", "messages": [' + b"[" * chance.randrange(50)),
                post(b'{"model": "chat", "x": "\xff\xfe"}'),
                post(b""),
                b"\r\n" + post(chat(text)),
                post(chat(text), expect="100-continue").replace(b"100-continue", b"something"),
                request(CHUNKED, b"".join(chunk(piece) for piece in pieces) + b"0\r\n\r\n"),
                request(CHUNKED, chunk(body).replace(b"\r\n", b";a=b\r\n", 1) + b"0\r\nx-t: 1\r\n\r\n"),
                b"GET /v1/models HTTP/1.1\r\nHost: p\r\n\r\n",
                b"GET /health/live HTTP/1.1\r\nHost: p\r\nContent-Length: 3\r\n\r\nabc",
                b"OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: p\r\n\r\n",
                b"PUT /v1/chat/completions HTTP/1.1\r\nHost: p\r\nContent-Length: 2\r\n\r\n{}",
                b"POST /nowhere HTTP/1.1\r\nHost: p\r\nContent-Length: 2\r\n\r\n{}",
            )
        )
    )


def last(chance: random.Random) -> Message:
    return Message(
        chance.choice(
            (
                post(chat("bye"), connection="close"),
                request(b"Content-Length: 5\r\n" + CHUNKED, b"0\r\n\r\n") + post(chat("SMUGGLED")),
                request(CHUNKED, b"5\r\nhello0\r\n\r\n") + post(chat("SMUGGLED")),
                b"\x00\x01\x02" + post(chat("SMUGGLED")),
                post(chat("bye")).replace(b"HTTP/1.1", b"HTTP/1.0"),
                request(b"X : y\r\nContent-Length: 0"),
            )
        ),
        is_last=True,
    )


def sequence(chance: random.Random) -> list[Message]:
    messages = [(good if chance.random() < 0.6 else other)(chance) for _ in range(chance.randrange(3, 25))]
    return [*messages, last(chance)]


async def is_read() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


async def answers(client: RawClient, count: int) -> list[tuple[Any, ...]]:
    """``count`` answers without what differs from call to call."""
    found = []
    for _ in range(count):
        answer = await client.answer()
        fields = {name: value for name, value in answer.headers.items() if name not in IDS}
        found.append((answer.status, fields, answer.body, answer.complete))
    return found


def comparable(record: Record) -> dict[str, Any]:
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    return {name: value for name, value in fields.items() if name not in DIFFER}


async def by_message(client: RawClient, messages: list[Message], chance: random.Random) -> list[Any]:
    found = []
    for message in messages:
        await client.send(message.data)
        found += await answers(client, 1)
    return found


async def at_once(client: RawClient, messages: list[Message], chance: random.Random) -> list[Any]:
    await client.send(b"".join(message.data for message in messages))
    return await answers(client, len(messages))


async def cut_at_random(client: RawClient, messages: list[Message], chance: random.Random) -> list[Any]:
    data = b"".join(message.data for message in messages)
    reading = asyncio.ensure_future(answers(client, len(messages)))
    try:
        while data and not reading.done():
            size = chance.choice((1, 2, 7, 40, 150, 300, 5000))
            await client.send(data[:size])
            data = data[size:]
            await is_read()
    except ConnectionError:  # refused already: what is behind goes nowhere
        pass
    return await reading


async def pairs(client: RawClient, messages: list[Message], chance: random.Random) -> list[Any]:
    """Whole messages one or two at a time, without waiting for answers."""
    reading = asyncio.ensure_future(answers(client, len(messages)))
    rest = list(messages)
    while rest:
        count = chance.choice((1, 1, 1, 2))
        await client.send(b"".join(message.data for message in rest[:count]))
        rest = rest[count:]
        await is_read()
    return await reading


WAYS = (at_once, by_message, cut_at_random, cut_at_random, pairs)


async def run(
    proxy: RunningProxy, backend: OpenAIBackend, way: Any, messages: list[Message], chance: random.Random
) -> tuple[list[Any], list[dict[str, Any]], list[tuple[str, bytes]]]:
    before = len(proxy.records())
    backend.received.clear()
    async with connect(proxy, limit=1 << 22) as client:
        found = await way(client, messages, chance)
        assert await client.closed()
    await assert_sound(proxy)
    records = [comparable(record) for record in proxy.records()[before:]]
    return found, records, [(each.path, each.body) for each in backend.received]


@pytest.mark.parametrize("seed", range(12))
async def test_cuts_do_not_matter(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        for _ in range(2):
            messages = sequence(chance)
            reference = await run(proxy, backend, WAYS[0], messages, chance)
            for way in WAYS[1:]:
                answers_, records, received = await run(proxy, backend, way, messages, chance)
                assert answers_ == reference[0], way
                assert records == reference[1], way
                assert received == reference[2], way
    assert not any(b"SMUGGLED" in (record["request"] or b"") for record in reference[1])
