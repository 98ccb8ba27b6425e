"""OpenAI's Responses and embeddings on record: their texts and counts, and streams as the response they end with."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.conversation import Answer, answer, prompt_text
from collector.stream_aggregation import aggregate

MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Let me look.", "annotations": []}],
}
CALL = {"type": "function_call", "call_id": "c", "name": "weather", "arguments": '{"city":"Ulm"}'}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "output": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, MESSAGE, CALL],
    "usage": {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13},
}
STARTED = {
    "type": "response.created",
    "response": {**RESPONSE, "status": "in_progress", "output": [], "usage": None},
}
PIECES: list[dict[str, Any]] = [
    STARTED,
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "content": []}},
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Let me "},
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "look."},
    {"type": "response.output_item.added", "output_index": 1, "item": {**CALL, "arguments": ""}},
    {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"city":'},
    {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '"Ulm"}'},
]


def stream(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)


REQUESTS: list[tuple[dict[str, Any], str | None]] = [
    ({"input": "Hi"}, "Hi"),
    ({"input": "Hi", "instructions": "Be brief."}, "Be brief.\nHi"),
    (
        {
            "instructions": None,
            "input": [
                {"role": "user", "content": "What is"},
                {
                    "role": "user",
                    "content": [{"type": "input_text", "text": "this?"}, {"type": "input_image"}],
                },
                {"type": "reasoning", "summary": [{"text": "hm"}]},
                CALL,
                {"type": "function_call_output", "call_id": "c", "output": "sunny"},
                {
                    "type": "function_call_output",
                    "call_id": "c",
                    "output": [{"type": "input_text", "text": "dry"}],
                },
            ],
        },
        'What is\nthis?\nweather({"city":"Ulm"})\nsunny\ndry',
    ),
    ({"input": ["one", "two"], "encoding_format": "base64"}, "one\ntwo"),
    ({"input": [1, 2, 3]}, None),
    ({"input": {"question": "why"}}, "why"),
]


@pytest.mark.parametrize(("body", "text"), REQUESTS)
def test_the_prompt(body: dict[str, Any], text: str | None) -> None:
    assert prompt_text(body) == text


def test_what_a_response_says() -> None:
    assert answer(RESPONSE) == Answer('Let me look.\nweather({"city":"Ulm"})', "completed", 9, 4)
    short = {
        **RESPONSE,
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "output": [],
    }
    assert answer(short) == Answer(None, "max_output_tokens", 9, 4)
    refusal = {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}
    assert answer({"object": "response", "output": [refusal]}).text == "No."


def test_what_embeddings_say() -> None:
    body = {
        "object": "list",
        "data": [{"embedding": [0.5], "index": 0}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    assert answer(body) == Answer(None, None, 3, None)


@pytest.mark.parametrize("end", ["completed", "incomplete", "failed"])
def test_a_stream_becomes_the_response_it_ends_with(end: str) -> None:
    whole = {**RESPONSE, "status": end}
    assert aggregate(stream(*PIECES, {"type": f"response.{end}", "response": whole})) == whole


def test_a_cut_stream_gives_what_came() -> None:
    response = aggregate(stream(*PIECES))
    assert response is not None
    assert response["status"] == "in_progress"
    assert answer(response).text == 'Let me look.\nweather({"city":"Ulm"})'
    failed = aggregate(
        stream(*PIECES, {"type": "error", "code": "x", "message": "gone", "sequence_number": 8})
    )
    assert failed is not None
    assert failed["error"] == {"code": "x", "message": "gone", "sequence_number": 8}


WORDS = (
    "type",
    "response",
    "item",
    "output",
    "output_index",
    "content_index",
    "delta",
    "content",
    "text",
    "refusal",
)
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=20,
)


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from([str(piece["type"]) for piece in PIECES] + ["response.completed", "error"]),
            st.dictionaries(st.sampled_from(WORDS), VALUES),
        ),
        max_size=6,
    )
)
@settings(max_examples=300)
def test_any_events_and_bodies_can_be_read(events: list[tuple[str, dict[str, Any]]]) -> None:
    bodies = [{**fields, "type": kind} for kind, fields in events]
    whole = aggregate(stream(STARTED, *bodies))
    assert whole is not None
    answer(whole)
    for body in bodies:
        answer({**body, "object": "response", "output": [body]})
        prompt_text({"input": [body]})
