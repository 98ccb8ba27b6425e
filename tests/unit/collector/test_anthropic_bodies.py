"""Anthropic's messages on record: their texts and counts, and streams as the message they add up to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from collector import chat_bodies
from collector.conversation import Answer, answer, prompt_text
from collector.stream_aggregation import aggregate
from tests.providers.anthropic_provider import AnthropicProvider
from tests.providers.provider import KEY, Call

TOOLS = [{"name": name, "input_schema": {"type": "object"}} for name in ("weather", "time")]


def asked(text: str, *, stream: bool) -> bytes:
    """The provider's answer to a request."""
    body = {
        "model": "claude",
        "max_tokens": 3000,
        "messages": [{"role": "user", "content": text}],
        "tools": TOOLS,
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "stream": stream,
    }
    headers = {"x-api-key": KEY, "anthropic-version": "2026-10-21", "content-type": "application/json"}
    return AnthropicProvider().answer(Call("POST", "/v1/messages", headers, json.dumps(body).encode())).body


@pytest.mark.parametrize("text", ["hi", "use tools", "call with nothing", "think", "too long"])
def test_a_stream_becomes_the_message_of_a_call_without_stream(text: str) -> None:
    whole = json.loads(asked(text, stream=False))
    aggregated = aggregate(asked(text, stream=True))
    assert aggregated == whole
    Message.model_validate(aggregated)
    assert answer(aggregated) == answer(whole)


def test_what_a_message_says() -> None:
    assert answer(json.loads(asked("use tools", stream=False))) == Answer(
        'Let me look.\nweather({"city":"Paris"})\ntime({"city":"Paris"})', "tool_use", 16, 7
    )
    assert answer(json.loads(asked("think", stream=False))).text == "thought about it"
    assert answer({"type": "message", "content": [], "usage": {"output_tokens": 3}}) == Answer(
        None, None, None, 3
    )
    assert answer({"type": "error", "error": {"type": "api_error", "message": "x"}}) == Answer()


REQUESTS: list[tuple[dict[str, Any], str | None]] = [
    ({"system": "Be brief.", "messages": [{"role": "user", "content": "Hi"}]}, "Be brief.\nHi"),
    (
        {
            "system": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}],
            "messages": [
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": "s"},
                        {"type": "text", "text": "Wait."},
                        {"type": "tool_use", "id": "u", "name": "f", "input": {"a": 1}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "u",
                            "content": [{"type": "text", "text": "one"}, {"type": "image", "source": {}}],
                        },
                        {"type": "text", "text": "and?"},
                    ],
                },
            ],
        },
        'Be\nbrief.\nWait.\nf({"a":1})\none\nand?',
    ),
    ({"system": "", "messages": [{"role": "user", "content": "Hi"}]}, "Hi"),
]


@pytest.mark.parametrize(("body", "text"), REQUESTS)
def test_the_prompt(body: dict[str, Any], text: str | None) -> None:
    assert prompt_text(body) == text
    plain = chat_bodies.read_request(json.dumps(body).encode())
    assert plain is None or plain[0] == text


def test_a_cut_stream_gives_what_came() -> None:
    body = asked("use tools", stream=True)
    cut = body[: body.rindex(b"content_block_stop")]
    message = aggregate(cut)
    assert message is not None
    assert message["stop_reason"] is None
    assert answer(message).text == 'Let me look.\nweather({"city":"Paris"})\ntime({"city":"Paris"})'
    half = aggregate(body[: body.index(b'"partial_json": "{')] + b'"partial_json": "{\\"a"}}\n\n')
    assert half is not None
    assert half["content"][-1]["input"] == '{"a'


def test_an_error_in_a_stream_is_kept() -> None:
    message = aggregate(asked("break", stream=True))
    assert message is not None
    assert message["error"] == {"type": "overloaded_error", "message": "Overloaded"}
    assert answer(message).text == "half an answer"
    only = b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"x"}}\n\n'
    assert aggregate(only) == {"type": "error", "error": {"type": "api_error", "message": "x"}}


WORDS = (
    *(
        "type",
        "index",
        "delta",
        "content_block",
        "message",
        "content",
        "text",
        "usage",
        "input",
        "partial_json",
    ),
    *(
        "message_start",
        "content_block_start",
        "content_block_delta",
        "message_delta",
        "text_delta",
        "citations",
    ),
    *("input_json_delta", "thinking_delta", "citations_delta", "error", "tool_use", "tool_result", "name"),
)
VALUES = st.recursive(
    st.none() | st.integers() | st.sampled_from(WORDS) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=20,
)


@given(
    events=st.lists(
        st.tuples(st.sampled_from(WORDS), st.dictionaries(st.sampled_from(WORDS), VALUES)), max_size=5
    )
)
@settings(max_examples=300)
def test_any_events_and_bodies_can_be_read(events: list[tuple[str, dict[str, Any]]]) -> None:
    bodies = [{**fields, "type": kind} for kind, fields in events]
    start = b'data: {"type": "message_start", "message": {}}\n\n'
    whole = aggregate(start + b"".join(b"data: %b\n\n" % json.dumps(body).encode() for body in bodies))
    assert whole is not None
    answer(whole)
    for body in bodies:
        answer({**body, "type": "message"})
        prompt_text({**body, "messages": [body], "system": body.get("text")})
