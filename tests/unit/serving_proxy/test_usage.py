"""Token counts out of answers: every dialect's, and whatever else a backend may send."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_proxy.usage import read_answer, read_stream_usage, read_usage


def event(data: object, name: str | None = None) -> bytes:
    head = b"" if name is None else b"event: %b\n" % name.encode()
    return head + b"data: " + json.dumps(data).encode() + b"\n\n"


CHAT: dict[str, object] = {"id": "c", "choices": [{"message": {"content": 'say "usage": {}'}}]}
OPENAI = {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18}
EXACT = {"input_tokens": 7, "output_tokens": 11}


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        ({**CHAT, "usage": OPENAI}, (7, 11)),
        ({"object": "list", "data": [], "usage": {"prompt_tokens": 7, "total_tokens": 7}}, (7, 0)),
        ({"object": "response", "output": [], "usage": {**EXACT, "total_tokens": 18}}, (7, 11)),
        ({"type": "message", "content": [], "usage": {**EXACT, "cache_read_input_tokens": 0}}, (7, 11)),
        ({**CHAT, "usage": {**OPENAI, "prompt_tokens_details": {"cached_tokens": 3}}}, (7, 11)),
        (CHAT, None),
        ({**CHAT, "usage": None}, None),
        ({**CHAT, "usage": {}}, None),
        ({**CHAT, "usage": {"completion_tokens": 3}}, None),
        ({**CHAT, "usage": {"prompt_tokens": -1, "completion_tokens": 3}}, None),
        ({**CHAT, "usage": {"prompt_tokens": 10**30, "completion_tokens": 3}}, None),
        ({**CHAT, "usage": {"prompt_tokens": "7", "completion_tokens": 3}}, None),
        ({**CHAT, "usage": "much"}, None),
        ([1, 2], None),
        ("text", None),
        (None, None),
    ],
)
def test_of_a_whole_answer(answer: object, usage: tuple[int, int] | None) -> None:
    body = json.dumps(answer).encode()
    assert read_answer(body)[1] == usage
    assert read_usage(body) == usage


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"usage":', b'{"usage": "x", "y": ', b'"a" b', b'{"a": 1}}', b"[" * 100_000]
)
def test_what_is_no_json_is_told_apart(body: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, RecursionError)):
        read_answer(body)
    assert read_usage(body) is None


def openai_stream(*, counted: bool = True) -> bytes:
    chunks = [event({"choices": [{"delta": {"content": f"t{n}"}}], "usage": None}) for n in range(5)]
    last = [event({"choices": [], "usage": OPENAI})] if counted else []
    return b"".join([*chunks, *last, b"data: [DONE]\n\n"])


ANTHROPIC_STREAM = b"".join(
    [
        event(
            {"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 1}}},
            "message_start",
        ),
        event(
            {"type": "content_block_delta", "delta": {"text": '"usage": {"input_tokens": 99'}},
            "content_block_delta",
        ),
        event({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 11}}, "message_delta"),
        event({"type": "message_stop"}, "message_stop"),
    ]
)
RESPONSES_STREAM = b"".join(
    [
        event({"type": "response.created", "response": {"id": "r", "usage": None}}, "response.created"),
        event({"type": "response.output_text.delta", "delta": "hi"}, "response.output_text.delta"),
        event({"type": "response.completed", "response": {"id": "r", "usage": EXACT}}, "response.completed"),
    ]
)


@pytest.mark.parametrize(
    ("stream", "usage"),
    [
        (openai_stream(), (7, 11)),
        (openai_stream().replace(b"\n", b"\r\n"), (7, 11)),
        (openai_stream().replace(b"\n", b"\r"), (7, 11)),
        (openai_stream().replace(b'"usage": {', b'"usage" :{').replace(b"data: ", b"data:"), (7, 11)),
        (openai_stream(counted=False), None),
        (ANTHROPIC_STREAM, (7, 11)),
        (RESPONSES_STREAM, (7, 11)),
        (event({"usage": {"prompt_tokens": 1, "completion_tokens": 2}}) + openai_stream(), (7, 11)),
        (event({"usage": OPENAI}).rstrip(b"\n"), (7, 11)),
        (b'data: {"usage": {"prompt_tokens": 1', None),
        (b'{"usage": {"prompt_tokens": 1, "completion_tokens": 2}}', None),
        (b"", None),
    ],
)
def test_of_a_stream(stream: bytes, usage: tuple[int, int] | None) -> None:
    assert read_stream_usage([stream]) == usage
    assert read_stream_usage([stream[i : i + 7] for i in range(0, len(stream), 7)]) == usage


def test_an_interrupted_anthropic_stream_has_what_it_said() -> None:
    assert read_stream_usage([ANTHROPIC_STREAM.partition(b"event: message_delta")[0]]) == (7, 1)


@given(
    st.lists(
        st.sampled_from([b'"usage"', b": {", b"data: ", b"\n", b"\r", b"}", b'"prompt_tokens": 3', b"\xff"])
    )
)
def test_nothing_raises(pieces: list[bytes]) -> None:
    read_stream_usage(pieces)
    read_usage(b"".join(pieces))


def test_a_long_stream_counts_at_its_ends() -> None:
    start, rest = ANTHROPIC_STREAM.split(b"event: content_block_delta", 1)
    middle = event({"type": "content_block_delta", "delta": {"text": "x" * 900}}, "content_block_delta") * 200
    assert read_stream_usage([start, middle, b"event: content_block_delta", rest]) == (7, 11)
    completed = {"type": "response.completed", "response": {"output": "x" * 200_000, "usage": EXACT}}
    assert read_stream_usage([event(completed, "response.completed")]) == (7, 11)
