"""Backends that are wrong about HTTP: the client gets a whole answer of its own or a visible break, its next
call is answered rightly, nothing of one answer is in another, and every invocation has its one record.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from serving_proxy.endpoint import Retries, Timeouts
from tests.unit.serving_proxy.raw_sockets import (
    BODY,
    Step,
    Then,
    answer_with,
    assert_sound,
    chunk,
    raw_backend,
    sized,
)
from tests.unit.serving_proxy.running_proxy import chat, connect, eventually, one_entity, post, running_proxy

SIZE = len(BODY)
LENGTH = b"content-length: %d" % SIZE
CHUNKED = b"transfer-encoding: chunked"
EVIL = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 6\r\n\r\n" + b'"evil"'
EVENT = b'data: {"choices":[{"delta":{"content":"right"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"out of memory"}}\n\n'
ONCE = Retries(attempts=1)
QUICK = Timeouts(first_byte_s=0.4, idle_s=0.4)

GOOD: dict[str, list[Step]] = {
    "as it should be": [sized()],
    "in chunks": [answer_with(CHUNKED, chunk(BODY[:9]) + chunk(BODY[9:]) + b"0\r\n\r\n")],
    "one byte at a time": [sized()[:1], Then.PAUSE, sized()[1:40], Then.PAUSE, sized()[40:]],
    "100 before": [b"HTTP/1.1 100 Continue\r\n\r\n" + sized()],
    "103 before, by itself": [b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", Then.PAUSE, sized()],
    "102 many times": [b"HTTP/1.1 102 Processing\r\n\r\n" * 50 + sized()],
    "103 with a length": [b"HTTP/1.1 103 Early Hints\r\ncontent-length: %d\r\n\r\n" % len(sized()) + sized()],
    "HTTP/1.0 with length": [sized().replace(b"HTTP/1.1", b"HTTP/1.0")],
    "HTTP/1.0 until the end": [
        sized().replace(b"HTTP/1.1", b"HTTP/1.0").replace(LENGTH, b"x: 1"),
        Then.CLOSE,
    ],
    "until the end": [answer_with(b"x: 1", BODY), Then.CLOSE],
    "closed behind it": [sized(), Then.CLOSE],
    "ended behind it": [sized(), Then.END],
    "reset behind it": [sized(), Then.PAUSE, Then.RESET],
    "no reason phrase": [sized().replace(b"200 OK", b"200 ")],
    "two answers": [sized() + EVIL],
    "three answers": [sized() + EVIL + EVIL],
    "too much behind it": [answer_with(LENGTH, BODY + b"evil")],
    "garbage behind it": [sized() + b"\0\0evil"],
    "a second answer later": [sized(), Then.PAUSE, EVIL],
    "garbage later": [sized(), Then.PAUSE, b"\0\0evil"],
    "a second answer in chunks": [answer_with(CHUNKED, chunk(BODY) + b"0\r\n\r\n") + EVIL],
    "trailers": [answer_with(CHUNKED, chunk(BODY) + b"0\r\nx-evil: 1\r\nx-request-id: evil\r\n\r\n")],
    "chunk extensions": [
        answer_with(CHUNKED, chunk(BODY).replace(b"\r\n", b";evil=1\r\n", 1) + b"0\r\n\r\n")
    ],
}
INVALID: dict[str, list[Step]] = {
    "bare LF in a value": [answer_with(b"x-a: b\nset-cookie: evil\r\n" + LENGTH, BODY)],
    "bare CR in a value": [answer_with(b"x-a: b\rset-cookie: evil\r\n" + LENGTH, BODY)],
    "NUL in a value": [answer_with(b"x-a: b\0evil\r\n" + LENGTH, BODY)],
    "folded field": [answer_with(b"x-a: b\r\n evil: c\r\n" + LENGTH, BODY)],
    "space before the colon": [answer_with(b"x-a : evil\r\n" + LENGTH, BODY)],
    "no name": [answer_with(b": evil\r\n" + LENGTH, BODY)],
    "CR in the reason": [sized().replace(b"OK", b"OK\rset-cookie: evil")],
    "bare LFs": [sized().replace(b"\r\n", b"\n")],
    "negative length": [answer_with(b"content-length: -1", BODY)],
    "length with a sign": [answer_with(b"content-length: +%d" % SIZE, BODY)],
    "hexadecimal length": [answer_with(b"content-length: 0x%x" % SIZE, BODY)],
    "a list of lengths": [answer_with(LENGTH + b", %d" % SIZE, BODY)],
    "the same length twice": [answer_with(LENGTH + b"\r\n" + LENGTH, BODY)],
    "a length over 64 bits": [answer_with(b"content-length: 99999999999999999999", BODY)],
    "length and chunks": [answer_with(LENGTH + b"\r\n" + CHUNKED, chunk(BODY) + b"0\r\n\r\n")],
    "not a chunk": [answer_with(CHUNKED, b"zz\r\n" + BODY)],
    "a chunk over 64 bits": [answer_with(CHUNKED, b"f" * 17 + b"\r\n" + BODY)],
    "a trailer with a bare LF": [answer_with(CHUNKED, chunk(BODY) + b"0\r\nx: 1\nevil: 1\r\n\r\n")],
    "a status of letters": [sized().replace(b"200", b"2OO")],
    "a request": [b"GET / HTTP/1.1\r\nhost: evil\r\n\r\n"],
    "a length too short": [answer_with(b"content-length: 10", BODY)],
    "a head without end": [b"HTTP/1.1 200 OK\r\n" + b"x-a: evil\r\n" * 200_000, Then.HANG],
    "a field without end": [b"HTTP/1.1 200 OK\r\nx-a: " + b"evil" * 500_000, Then.HANG],
    "interim answers without end": [b"HTTP/1.1 102 Processing\r\n\r\n" * 80_000, Then.HANG],
    "trailers without end": [answer_with(CHUNKED, b"0\r\n" + b"x-a: evil\r\n" * 200_000), Then.HANG],
}
BROKEN: dict[str, list[Step]] = {
    "less than announced": [answer_with(b"content-length: 1000", BODY), Then.CLOSE],
    "no last chunk": [answer_with(CHUNKED, chunk(BODY)), Then.CLOSE],
    "half a chunk": [answer_with(CHUNKED, chunk(BODY)[:-20]), Then.CLOSE],
    "half a head": [sized()[:40], Then.CLOSE],
    "only an interim answer": [b"HTTP/1.1 100 Continue\r\n\r\n", Then.CLOSE],
    "reset in the body": [sized()[:-10], Then.PAUSE, Then.RESET],
    "end instead of an answer": [Then.END, Then.HANG],
    "a coding that has no end": [answer_with(b"transfer-encoding: gzip", BODY), Then.CLOSE],
}


async def three_calls(
    tmp_path: Path, script: list[Step], status: int, error_type: str | None, *, scripted: int = 1
) -> None:
    """The script answers the first calls; they and those behind must come out right."""
    async with (
        raw_backend(*[script] * scripted) as backend,
        running_proxy(tmp_path, one_entity(backend.url, timeouts=QUICK, retries=ONCE)) as proxy,
    ):
        async with connect(proxy, limit=1 << 24) as client:
            answers = []
            for _ in range(3):
                await client.send(post(chat()))
                answers.append(await client.answer())
                await eventually(lambda: not backend.at_work)
                await asyncio.sleep(0.01)  # what came behind the answer is read before the next call
        await assert_sound(proxy)
        records = proxy.records()
    first = answers[0]
    assert [answer.status for answer in answers] == [status, 200, 200]
    assert all(answer.complete for answer in answers)
    assert (first.body == BODY) == (status == 200)
    assert [answer.body for answer in answers[1:]] == [BODY, BODY]
    assert not any("evil" in f"{name}: {value}" for name, value in first.headers.items())
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3
    assert [(record.status_code, record.error_type) for record in records] == [
        (status, error_type),
        (200, None),
        (200, None),
    ]
    assert [record.response for record in records] == [answer.body for answer in answers]
    if error_type is not None:
        assert first.json()["error"]["code"] == error_type


@pytest.mark.parametrize("name", GOOD)
async def test_what_can_be_understood_is_passed_on_and_no_more(tmp_path: Path, name: str) -> None:
    await three_calls(tmp_path, GOOD[name], 200, None, scripted=3)


@pytest.mark.parametrize("name", INVALID)
async def test_what_is_not_http_is_502_invalid(tmp_path: Path, name: str) -> None:
    await three_calls(tmp_path, INVALID[name], 502, "upstream_invalid")


@pytest.mark.parametrize("name", BROKEN)
async def test_what_breaks_off_is_502_reset(tmp_path: Path, name: str) -> None:
    await three_calls(tmp_path, BROKEN[name], 502, "upstream_reset")


@pytest.mark.parametrize("name", BROKEN)
async def test_what_breaks_off_before_a_byte_was_passed_on_is_tried_again(tmp_path: Path, name: str) -> None:
    async with (
        raw_backend(BROKEN[name]) as backend,
        running_proxy(tmp_path, one_entity(backend.url, timeouts=QUICK)) as proxy,
    ):
        async with connect(proxy) as client:
            await client.send(post(chat()))
            answer = await client.answer()
        await assert_sound(proxy)
        record = await proxy.record()
    assert (answer.status, answer.body) == (200, BODY)
    assert (record.status_code, record.error_type, record.attempts) == (200, None, 2)
    assert [number for number, _, _ in backend.requests] == [1, 2]


async def test_no_size_makes_an_answer_of_what_does_not_begin_as_one(tmp_path: Path) -> None:
    scripts: list[list[Step]] = [[sized()]]
    for size in range(len(BODY), len(sized()) + 20):
        scripts += [[b"\0" + BODY.ljust(size - 1)], [sized()]]
    async with (
        raw_backend(*scripts) as backend,
        running_proxy(tmp_path, one_entity(backend.url, timeouts=QUICK, retries=ONCE)) as proxy,
    ):
        async with connect(proxy) as client:
            statuses = []
            for _ in scripts:
                await client.send(post(chat()))
                statuses.append((await client.answer()).status)
        await assert_sound(proxy)
    assert statuses == [200] + [502, 200] * (len(scripts) // 2)


async def test_a_large_head_within_bounds_is_passed_on(tmp_path: Path) -> None:
    fields = b"".join(b"x-%d: %b\r\n" % (number, b"a" * 90) for number in range(100))
    await three_calls(tmp_path, [answer_with(fields + LENGTH, BODY)], 200, None)


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
STREAMS: dict[str, tuple[list[Step], bytes, str | None]] = {
    "an error inside": (
        [STREAM + CHUNKED + b"\r\n\r\n" + chunk(EVENT) + chunk(ERROR) + b"0\r\n\r\n"],
        EVENT + ERROR,
        None,
    ),
    "an error inside, then closed": (
        [STREAM + b"connection: close\r\n\r\n" + EVENT + ERROR, Then.CLOSE],
        EVENT + ERROR,
        None,
    ),
    "a length": (
        [STREAM + b"content-length: %d\r\n\r\n" % len(EVENT + DONE) + EVENT + DONE],
        EVENT + DONE,
        None,
    ),
    "an answer behind it": (
        [STREAM + CHUNKED + b"\r\n\r\n" + chunk(EVENT) + chunk(DONE) + b"0\r\n\r\n" + EVIL],
        EVENT + DONE,
        None,
    ),
    "an event cut in two": (
        [
            STREAM + CHUNKED + b"\r\n\r\n" + chunk(EVENT[:20]),
            Then.PAUSE,
            chunk(EVENT[20:] + DONE) + b"0\r\n\r\n",
        ],
        EVENT + DONE,
        None,
    ),
    "a chunk that is none": (
        [STREAM + CHUNKED + b"\r\n\r\n" + chunk(EVENT) + b"zz\r\n" + EVENT],
        EVENT,
        "upstream_invalid",
    ),
    "no end": ([STREAM + CHUNKED + b"\r\n\r\n" + chunk(EVENT), Then.CLOSE], EVENT, "upstream_reset"),
    "less than announced": (
        [STREAM + b"content-length: 1000\r\n\r\n" + EVENT, Then.CLOSE],
        EVENT,
        "upstream_reset",
    ),
    "reset": (
        [STREAM + CHUNKED + b"\r\n\r\n" + chunk(EVENT), Then.PAUSE, Then.RESET],
        EVENT,
        "upstream_reset",
    ),
    "silence": ([STREAM + CHUNKED + b"\r\n\r\n" + chunk(EVENT), Then.HANG], EVENT, "upstream_timeout"),
}


@pytest.mark.parametrize("name", STREAMS)
async def test_streams(tmp_path: Path, name: str) -> None:
    script, passed, error_type = STREAMS[name]
    async with (
        raw_backend(script) as backend,
        running_proxy(tmp_path, one_entity(backend.url, timeouts=QUICK, retries=ONCE)) as proxy,
    ):
        async with connect(proxy) as client:
            await client.send(post(chat(stream=True)))
            answer = await client.answer()
        async with connect(proxy) as client:
            await client.send(post(chat()))
            after = await client.answer()
        await assert_sound(proxy)
        records = proxy.records()
    assert answer.status == 200
    assert answer.body.startswith(passed)
    if error_type is None:
        assert answer.complete
        assert answer.body == passed
    else:
        assert not answer.complete
        event = json.loads(answer.body[len(passed) :].removeprefix(b"data: "))
        assert event["error"]["code"] == error_type
    assert (after.status, after.body) == (200, BODY)
    assert [(record.status_code, record.error_type) for record in records] == [(200, error_type), (200, None)]
    assert records[0].response == answer.body


@pytest.mark.parametrize("keep", [True, False])
async def test_an_answer_before_the_request_has_been_read(tmp_path: Path, keep: bool) -> None:
    """The connection still has to carry the rest of the request, so nothing else may be sent on it."""
    refusal = b"HTTP/1.1 413 Too Large\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    script: list[Step] = [refusal, Then.HANG] if keep else [refusal, Then.CLOSE]
    async with (
        raw_backend(script, early=True) as backend,
        running_proxy(tmp_path, one_entity(backend.url, timeouts=QUICK, retries=ONCE)) as proxy,
    ):
        async with connect(proxy) as client:
            await client.send(post(chat("x" * 12_000_000)))
            refused = await client.answer()
            await client.send(post(chat()))
            after = await client.answer()
        await assert_sound(proxy)
        records = proxy.records()
    assert refused.status in (413, 502)  # a reset can destroy an answer that has not been read
    assert refused.complete
    assert (after.status, after.body) == (200, BODY)
    assert [number for number, _, _ in backend.requests] == [1, 2]
    assert [record.status_code for record in records] == [refused.status, 200]
    assert records[1].attempts == 1
