"""Streams cut anywhere, and whatever a backend may send: the same result, or an error of our own."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servelens.errors import Invalid, ServelensError, Unavailable
from servelens.identifiers import RequestIds
from serving_proxy.answer_filter import AnswerFilter
from serving_proxy.translation.event_splitter import MAX_EVENT_BYTES, EventSplitter
from serving_proxy.translation.registry import translation_for
from tests.providers.ai21_provider import AI21Provider
from tests.providers.anthropic_provider import AnthropicProvider
from tests.providers.cohere_provider import CohereProvider
from tests.providers.provider import KEY, Call

REQUEST_ID = RequestIds().next()
PAIRS = [(kind, api) for kind in ("chat", "messages") for api in ("anthropic", "cohere", "ai21labs")] + [
    ("messages", "openai"),
    ("embeddings", "cohere"),
]
PAIRS.remove(("messages", "anthropic"))
each_pair = pytest.mark.parametrize(("kind", "api"), PAIRS)
PROVIDERS = {
    "anthropic": (AnthropicProvider, "/v1/messages"),
    "cohere": (CohereProvider, "/v2/chat"),
    "ai21labs": (AI21Provider, "/studio/v1/chat/completions"),
}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
ASKED = {
    "chat": {"stream_options": {"include_usage": True}, "tools": TOOLS, "stream": True},
    "messages": {
        "max_tokens": 5,
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "stream": True,
    },
}


def answer(kind: str, api: Any) -> AnswerFilter:
    translation = translation_for(kind, api)
    assert translation is not None
    request = b'{"stream_options":{"include_usage":true},"thinking":{"type":"adaptive"}}'
    made = translation.answer(model="chat", request_id=REQUEST_ID, request=request)
    made.begin(200, [(b"content-type", b"text/event-stream")], is_stream=True)
    return made


def passed(filtering: AnswerFilter, pieces: list[bytes]) -> tuple[bytes, str | None]:
    """All that comes out, and the error that ends it."""
    out = b""
    try:
        for piece in pieces:
            out += filtering.chunk(piece)
        out += filtering.end()
    except ServelensError as error:
        return out, str(error)
    return out, None


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


def recorded(kind: str, api: str, text: str) -> bytes:
    """A provider's stream, as it answers a translated request."""
    if api == "openai":
        chunks = [
            {"id": "c", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
            {"id": "c", "choices": [{"index": 0, "delta": {"content": "hé“llo"}}]},
            {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"id": "c", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
        ]
        events = "".join(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in chunks)
        return events.encode() + b"data: [DONE]\n\n"
    translation = translation_for(kind, api)
    assert translation is not None
    body = {"messages": [{"role": "user", "content": text}], **ASKED[kind]}
    provider, path = PROVIDERS[api]
    headers = {
        "x-api-key" if api == "anthropic" else "authorization": KEY
        if api == "anthropic"
        else f"Bearer {KEY}",
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
    }
    request = translation.request(json.dumps(body).encode(), model="theirs")
    return provider().answer(Call("POST", path, headers, request)).body


@pytest.mark.parametrize(("kind", "api"), [pair for pair in PAIRS if pair[0] != "embeddings"])
@pytest.mark.parametrize("text", ["hi", "use tools", "break"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@given(places=st.lists(st.integers(0, 1 << 20), max_size=30))
@settings(max_examples=15)
def test_cuts_make_no_difference(kind: str, api: str, text: str, line_end: str, places: list[int]) -> None:
    body = recorded(kind, api, text)
    uncut = passed(answer(kind, api), [body])
    assert uncut[1] is None
    body = body.replace(b"\n", line_end.encode())
    assert passed(answer(kind, api), cut(body, places)) == uncut
    assert passed(answer(kind, api), [body[index : index + 1] for index in range(len(body))]) == uncut


@each_pair
@given(garbage=st.lists(st.binary(max_size=60), max_size=6), places=st.lists(st.integers(0, 500), max_size=8))
@settings(max_examples=60)
def test_garbage_is_an_error_of_our_own(kind: str, api: str, garbage: list[bytes], places: list[int]) -> None:
    body = b"".join(b"data: %b\n\n" % piece for piece in garbage)
    uncut = passed(answer(kind, api), [body])
    assert uncut[1] is not None
    assert passed(answer(kind, api), cut(body, places)) == uncut
    for status in (200, 204, 301, 400, 418, 500, 529, 999):
        whole(answer(kind, api), status, body)


WORDS = (  # what the APIs' bodies are made of
    *(
        "type",
        "id",
        "index",
        "delta",
        "content_block",
        "message",
        "content",
        "text",
        "choices",
        "usage",
        "error",
    ),
    *(
        "input_tokens",
        "output_tokens",
        "prompt_tokens",
        "completion_tokens",
        "embeddings",
        "float",
        "meta",
        "role",
    ),
    *(
        "finish_reason",
        "stop_reason",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "input",
        "model",
        "messages",
    ),
    *("tools", "tool_choice", "stop", "billed_units", "tokens", "thinking", "logprobs", "user", "assistant"),
    *("message-start", "content-delta", "tool-call-start", "tool-call-delta", "message-end", "message_start"),
    *("content_block_start", "content_block_delta", "message_delta", "message_stop", "content_block_stop"),
    *("tool_use", "text_delta", "input_json_delta"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(), inner, max_size=6)
    ),
    max_leaves=25,
)
SHAPED = st.recursive(
    st.none()
    | st.integers()
    | st.sampled_from(WORDS)
    | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=30,
)


def whole(filtering: AnswerFilter, status: int, body: bytes) -> None:
    """Either an answer in JSON comes out, or one of our errors."""
    try:
        given_status, given_body = filtering.whole(status, body)
    except Unavailable:
        return
    assert isinstance(json.loads(given_body), dict)
    assert 200 <= given_status < 1000


@each_pair
@given(value=JSON | SHAPED, status=st.sampled_from([200, 201, 400, 401, 422, 498, 500, 503, 529]))
@settings(max_examples=150)
def test_any_json_of_a_backend(kind: str, api: str, value: Any, status: int) -> None:
    body = json.dumps(value).encode()
    whole(answer(kind, api), status, body)
    passed(answer(kind, api), [b"data: %b\n\n" % body] * 2)
    kinds = [word for word in WORDS if "_" in word or "-" in word]
    for word in kinds if isinstance(value, dict) else ():
        event = json.dumps({**value, "type": word}).encode()
        passed(answer(kind, api), [b"data: %b\n\n" % event] * 2)


@each_pair
@given(value=JSON | SHAPED)
@settings(max_examples=150)
def test_any_json_of_a_client(kind: str, api: str, value: Any) -> None:
    translation = translation_for(kind, api)  # type: ignore[arg-type]
    assert translation is not None
    bodies = [value]
    if isinstance(value, dict):
        said = [{"role": "user", "content": value.get("content", "x")}]
        bodies += [{"messages": said, "max_tokens": 1, **value}, {**value, "messages": said, "max_tokens": 1}]
    for body in bodies:
        encoded = json.dumps(body).encode()
        with suppress(Invalid):
            assert isinstance(json.loads(translation.request(encoded, model="theirs")), dict)


@pytest.mark.parametrize("depth", [200, 100_000])
@each_pair
def test_deep_nesting(kind: str, api: str, depth: int) -> None:
    nested = b'{"type":' * depth + b"1" + b"}" * depth
    translation = translation_for(kind, api)  # type: ignore[arg-type]
    assert translation is not None
    body = (
        b'{"model":"m","max_tokens":1,"messages":[],"input":"x","metadata":%b,"tools":[{"name":"f",' % nested
    )
    for request in (body + b'"input_schema":%b}]}' % nested, nested):
        with pytest.raises(Invalid):
            translation.request(request, model="m")
    with pytest.raises(Unavailable):
        answer(kind, api).whole(200, nested)
    assert answer(kind, api).whole(500, nested)[0] == 500


@pytest.mark.parametrize(("kind", "api"), [pair for pair in PAIRS if pair[0] != "embeddings"])
@given(places=st.lists(st.integers(0, 1 << 20), max_size=10))
@settings(max_examples=10)
def test_what_came_before_a_fault_is_given(kind: str, api: str, places: list[int]) -> None:
    events = recorded(kind, api, "hi").split(b"\n\n")
    half = b"".join(event + b"\n\n" for event in events[:2])
    good, _ = passed(answer(kind, api), [half])
    assert good
    broken = half + b"data: {broken\n\n" + half
    uncut = passed(answer(kind, api), [broken])
    assert uncut[0] == good
    assert uncut[1] is not None
    assert passed(answer(kind, api), cut(broken, places)) == uncut


COHERE_COUNTS = {"input_tokens": 0, "output_tokens": 0}
NO_BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"messages":"\xff"}',
    b'{"messages":[{"role":"user","content":"\\ud800"}]}',
]


@each_pair
@pytest.mark.parametrize("body", NO_BODIES)
def test_what_is_no_request(kind: str, api: str, body: bytes) -> None:
    translation = translation_for(kind, api)
    assert translation is not None
    with pytest.raises(Invalid):
        translation.request(body, model="m")


@pytest.mark.parametrize("count", [-1, 10**30, 1e300, 0.5, "many", None])
@pytest.mark.parametrize(
    ("kind", "api", "body"),
    [
        ("chat", "anthropic", {"content": [], "usage": {"input_tokens": 0, "output_tokens": 0}}),
        ("chat", "cohere", {"finish_reason": "COMPLETE", "message": {}, "usage": {"tokens": COHERE_COUNTS}}),
        ("chat", "ai21labs", {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}),
        ("messages", "openai", {"choices": [{"message": {}}], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}),
        ("embeddings", "cohere", {"embeddings": {"float": []}, "meta": {"billed_units": {"input_tokens": 0}}}),
    ],
)  # fmt: skip
def test_counts_that_are_none(kind: str, api: str, body: dict[str, Any], count: Any) -> None:
    whole(answer(kind, api), 200, json.dumps(body).encode())
    whole(answer(kind, api), 200, json.dumps(body).replace(": 0", f": {json.dumps(count)}").encode())


@each_pair
def test_an_event_that_is_too_large(kind: str, api: str) -> None:
    filtering = answer(kind, api)
    piece = b"x" * 100_000
    for _ in range(MAX_EVENT_BYTES // len(piece)):
        assert filtering.chunk(piece) == b""
    with pytest.raises(Unavailable, match="more than 1048576 bytes"):
        filtering.chunk(piece)
    with pytest.raises(Unavailable):
        filtering.chunk(b"data: {}\n\n")


def test_a_large_event_in_tiny_pieces_takes_linear_time() -> None:
    splitter = EventSplitter()
    for _ in range(200_000):
        assert splitter.feed(b"xxxx") == []
    assert splitter.feed(b"\n\ndata: 1\n\n") == [b"1"]


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"\xef\xbb\xbfdata: 1\n\n", [b"1"]),
        (b": hello\n\ndata: 1\n\n\n\ndata:2\n\n", [b"1", b"2"]),
        (b"event: x\nid: 3\ndata: 1\ndata: 2\nretry: 1\n\n", [b"1\n2"]),
        (b"data: 1\r\ndata: 2\r\n\r\n", [b"1\n2"]),
        (b"data\n\nevent: x\n\ndata: 1", [b"", b"1"]),
        (b"data: 1\r\rdata: 2\r\n\r\ndata: 3\n\r\n", [b"1", b"2", b"3"]),
    ],
)
def test_events_are_read_as_the_standard_says(body: bytes, events: list[bytes]) -> None:
    for size in (1, 2, 3, len(body)):
        splitter = EventSplitter()
        found = [
            event
            for start in range(0, len(body), size)
            for event in splitter.feed(body[start : start + size])
        ]
        last = splitter.last()
        assert found + ([] if last is None else [last]) == events


def test_a_compressed_answer_is_refused() -> None:
    filtering = answer("chat", "anthropic")
    assert (b"content-encoding", b"gzip") not in filtering.begin(
        200, [(b"content-encoding", b"gzip")], is_stream=False
    )
    with pytest.raises(Unavailable, match="compressed"):
        filtering.whole(200, b"\x1f\x8b")


def test_only_headers_that_say_when_to_come_again_pass() -> None:
    headers = [(b"anthropic-organization-id", b"x"), (b"retry-after", b"3"), (b"content-type", b"text/html")]
    passed_on = answer("chat", "anthropic").begin(429, headers, is_stream=False)
    assert passed_on == [(b"content-type", b"application/json"), (b"retry-after", b"3")]
