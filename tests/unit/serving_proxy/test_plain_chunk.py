"""A chunk that is taken without the parser is one that the parser would have taken, and in its place."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any, cast

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving_proxy.plain_chunk import chunk_data
from serving_proxy.replicas import Replica
from serving_proxy.upstream import AnswerHead, Connection, Loss

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def framed(data: bytes, size: bytes = b"%x") -> bytes:
    return size % len(data) + b"\r\n" + data + b"\r\n"


@pytest.mark.parametrize("size", [1, 9, 10, 11, 15, 16, 255, 256, 4095, 4096, 70_000])
def test_a_chunk_in_digits_of_either_case(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    assert chunk_data(framed(data)) == data
    assert chunk_data(framed(data, b"%X")) == data


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"0\r\n\r\n",
        b"3\r\nab\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc",
        b"3\r\nabc\n\n",
        b"03\r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b"0x3\r\nabc\r\n",
        b" 3\r\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"3;x=y\r\nabc\r\n",
        b"3\nabc\r\n",
        b"3\r\nabc\r\n3\r\nabc\r\n",
        b"aB\r\n" + b"x" * 0xAB + b"\r\n",
    ],
)
def test_everything_else_is_the_parsers(sent: bytes) -> None:
    assert chunk_data(sent) is None


class _Transport:
    def write(self, data: bytes) -> None: ...
    def abort(self) -> None: ...

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


class _Heard:
    """What a listener hears, or a parser's own callbacks say."""

    def __init__(self) -> None:
        self.data = b""
        self.end: str | None = None

    def on_sent(self, connection: Connection) -> None: ...
    def on_head(self, head: AnswerHead, length: int | None) -> None: ...
    def on_whole(self, head: AnswerHead, body: bytes) -> None: ...

    def on_data(self, data: bytes) -> None:
        assert self.end is None
        self.data += data

    def on_chunk(self, data: bytes, framed: bytes) -> None:
        assert framed.endswith(data + b"\r\n")
        self.on_data(data)

    def on_end(self) -> None:
        self.end = "complete"

    def on_lost(self, loss: Loss, detail: str) -> None:
        self.end = loss.name

    on_body = on_data
    on_message_complete = on_end


_PIECES = st.one_of(
    st.binary(max_size=40).map(lambda data: framed(data) if data else b""),
    st.binary(min_size=1, max_size=40).map(lambda data: framed(data, b"%X")),
    st.sampled_from(
        [b"3;a=b\r\nabc\r\n", b"03\r\nabc\r\n", b"0\r\n\r\n", b"zz\r\n", b"1", b"\r\n", b"a\r\n", b"5\r\nhel"]
    ),
)


@given(st.lists(_PIECES, max_size=8), st.lists(st.integers(0, 400), max_size=6))
@example([b"5\r\nhello\r\n1", b"0\r\n0123456789abcdef\r\n"], [10, 11])
@example([b"5\r\nhello\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n"], [10, 20])
def test_however_it_is_cut_the_answer_is_the_one_that_a_parser_reads(
    pieces: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(pieces)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    packets = [HEAD, *(stream[a:b] for a, b in pairwise(places))]

    expected = _Heard()
    parser = httptools.HttpResponseParser(expected)
    try:
        for packet in packets:
            if expected.end is None:
                parser.feed_data(packet)
    except httptools.HttpParserError:
        if expected.end is None:
            expected.end = "INVALID"

    loop = asyncio.new_event_loop()
    try:
        connection = Connection(Replica("http://127.0.0.1:9", loop, 1))
        connection.connection_made(cast("Any", _Transport()))
        heard = _Heard()
        connection.send(b"", cast("Any", heard))
        for packet in packets:
            if heard.end is None:
                connection.data_received(packet)
    finally:
        loop.close()
    assert (heard.data, heard.end) == (expected.data, expected.end)
