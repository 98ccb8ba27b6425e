from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.stream_aggregation import aggregate

CHAT = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "m-1"}


def stream(*chunks: dict[str, Any] | str, done: bool = True, end: str = "\n") -> bytes:
    lines = [chunk if isinstance(chunk, str) else json.dumps(chunk) for chunk in chunks]
    return "".join(f"data: {line}{end}{end}" for line in [*lines, *(["[DONE]"] if done else [])]).encode()


def chunk(delta: dict[str, Any], index: int = 0, finish: str | None = None, **extra: Any) -> dict[str, Any]:
    return {**CHAT, "choices": [{"index": index, "delta": delta, "finish_reason": finish, **extra}]}


def test_a_chat_stream_becomes_the_answer_of_a_call_without_stream() -> None:
    body = stream(
        {
            **CHAT,
            "system_fingerprint": "fp_1",
            "choices": [
                {
                    "index": 0,
                    "delta": {"role": "assistant", "content": "", "refusal": None},
                    "logprobs": None,
                    "finish_reason": None,
                }
            ],
            "usage": None,
        },
        chunk({"content": "Hel"}),
        chunk({"content": "lo ☃"}),
        chunk({}, finish="stop"),
        {
            **CHAT,
            "choices": [],
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
        },
    )
    assert aggregate(body) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "m-1",
        "system_fingerprint": "fp_1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello ☃", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }


def test_tool_calls_are_joined_by_their_index() -> None:
    body = stream(
        chunk({"role": "assistant", "content": None}),
        chunk(
            {
                "tool_calls": [
                    {
                        "index": 1,
                        "id": "b",
                        "type": "function",
                        "function": {"name": "time", "arguments": ""},
                    }
                ]
            }
        ),
        chunk(
            {
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "a",
                        "type": "function",
                        "function": {"name": "weather", "arguments": ""},
                    }
                ]
            }
        ),
        chunk({"tool_calls": [{"index": 0, "function": {"name": "weather", "arguments": '{"city":'}}]}),
        chunk(
            {
                "tool_calls": [
                    {"index": 0, "function": {"arguments": '"Ulm"}'}},
                    {"index": 1, "function": {"arguments": "{}"}},
                ]
            }
        ),
        chunk({}, finish="tool_calls"),
    )
    answer = aggregate(body)
    assert answer is not None
    assert answer["choices"][0] == {
        "index": 0,
        "finish_reason": "tool_calls",
        "message": {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "a",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Ulm"}'},
                },
                {"id": "b", "type": "function", "function": {"name": "time", "arguments": "{}"}},
            ],
        },
    }


def test_tool_calls_without_an_index_are_told_apart_by_id() -> None:
    body = stream(
        chunk({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "1"}}]}),
        chunk({"tool_calls": [{"function": {"arguments": "2"}}]}),
        chunk({"tool_calls": [{"id": "b", "function": {"name": "f", "arguments": "3"}}]}),
    )
    answer = aggregate(body)
    assert answer is not None
    calls = answer["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], call["function"]["arguments"]) for call in calls] == [("a", "12"), ("b", "3")]


def test_several_choices_and_token_probabilities() -> None:
    body = stream(
        chunk({"content": "b"}, 1, logprobs={"content": [{"token": "b", "logprob": -1.0}]}),
        chunk({"content": "a"}, 0, logprobs={"content": [{"token": "a", "logprob": -2.0}]}),
        chunk({"content": "B"}, 1, logprobs={"content": [{"token": "B", "logprob": -3.0}]}, finish="length"),
        chunk({}, 0, "stop"),
    )
    answer = aggregate(body)
    assert answer is not None
    assert [(c["message"]["content"], c["finish_reason"]) for c in answer["choices"]] == [
        ("a", "stop"),
        ("bB", "length"),
    ]
    assert [p["token"] for p in answer["choices"][1]["logprobs"]["content"]] == ["b", "B"]


def test_reasoning_and_fields_that_nobody_knows_are_kept() -> None:
    body = stream(
        {**chunk({"role": "assistant", "reasoning_content": "I thi"}), "x_vendor": {"pod": 3}},
        {**chunk({"reasoning_content": "nk"}), "x_vendor": {"pod": 4}},
        chunk({"content": "42", "x_field": 1}, stop_reason=None),
        chunk({}, finish="stop", stop_reason="END"),
    )
    answer = aggregate(body)
    assert answer is not None
    assert answer["x_vendor"] == {"pod": 3}
    assert answer["choices"][0]["stop_reason"] == "END"
    assert answer["choices"][0]["message"] == {
        "role": "assistant",
        "reasoning_content": "I think",
        "content": "42",
        "x_field": 1,
    }


def test_a_completion_stream() -> None:
    base = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    body = stream(
        {**base, "choices": [{"index": 0, "text": "Once ", "logprobs": {"tokens": ["Once "]}}]},
        {**base, "choices": [{"index": 0, "text": "upon", "logprobs": {"tokens": ["upon"]}}]},
        {**base, "choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}]},
    )
    assert aggregate(body) == {
        **base,
        "choices": [
            {
                "index": 0,
                "text": "Once upon",
                "logprobs": {"tokens": ["Once ", "upon"]},
                "finish_reason": "length",
            }
        ],
    }


def test_usage_that_grows_with_every_chunk_ends_as_the_last() -> None:
    body = stream(
        {**chunk({"content": "a"}), "usage": {"completion_tokens": 1}},
        {**chunk({"content": "b"}), "usage": {"completion_tokens": 2}},
        chunk({}, finish="stop"),
    )
    answer = aggregate(body)
    assert answer is not None
    assert answer["usage"] == {"completion_tokens": 2}


def test_a_cut_stream_gives_what_came_and_keeps_the_torn_event() -> None:
    body = stream(chunk({"role": "assistant", "content": "Hel"}), done=False) + b'data: {"choices": [{"ind'
    answer = aggregate(body)
    assert answer is not None
    assert answer["choices"][0]["message"]["content"] == "Hel"
    assert answer["choices"][0]["finish_reason"] is None
    assert answer["unparsed_events"] == ['{"choices": [{"ind']


def test_an_error_in_the_stream_is_part_of_the_answer() -> None:
    body = stream(chunk({"content": "a"}), {"error": {"message": "out of memory"}}, done=False)
    answer = aggregate(body)
    assert answer is not None
    assert answer["error"] == {"message": "out of memory"}
    assert answer["choices"][0]["message"]["content"] == "a"
    alone = aggregate(stream({"error": {"message": "no"}}, done=False))
    assert alone == {"error": {"message": "no"}}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"data: [DONE]\n\n",
        b'data: {"type": "ping"}\n\n',
        b"\xff\xfe\x00",
        b"data: 17\n\n",
    ],
)
def test_what_is_no_completion_stays_as_it_is(body: bytes) -> None:
    assert aggregate(body) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELD = st.sampled_from(
    ["role", "content", "tool_calls", "function_call", "logprobs", "index", "text", "delta", "id", "name"]
)
ODD = st.dictionaries(FIELD, JSON | st.dictionaries(FIELD, JSON, max_size=3), max_size=4)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["choices", "usage", "object", "id"]), JSON | st.lists(ODD)),
        max_size=5,
    )
)
def test_odd_chunks_never_raise(chunks: list[dict[str, Any]]) -> None:
    aggregate(stream(*chunks))


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40).flatmap(
        lambda text: st.tuples(st.just(text), st.lists(st.integers(0, len(text)), max_size=6))
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
    st.booleans(),
)
def test_how_the_text_was_cut_into_deltas_does_not_matter(
    cut: tuple[str, list[int]], arguments: str, end: str, comments: bool, trailing: bool
) -> None:
    text, places = cut
    edges = [0, *sorted(places), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    half = len(arguments) // 2
    chunks: list[dict[str, Any] | str] = [
        chunk({"role": "assistant", "content": ""}),
        *(chunk({"content": piece}) for piece in pieces),
        chunk(
            {
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "c",
                        "type": "function",
                        "function": {"name": "f", "arguments": arguments[:half]},
                    }
                ]
            }
        ),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": arguments[half:]}}]}),
        chunk({}, finish="tool_calls"),
    ]
    body = stream(*chunks, end=end)
    if comments:
        body = f": keep-alive{end}{end}".encode() + body
    if not trailing:
        body = body.rstrip()
    assert aggregate(body) == {
        **CHAT,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": text,
                    "tool_calls": [
                        {
                            "id": "c",
                            "type": "function",
                            "function": {"name": "f", "arguments": arguments},
                        }
                    ],
                },
            }
        ],
    }


@given(st.integers(min_value=0))
def test_a_stream_cut_at_any_byte_gives_a_beginning_of_the_text(place: int) -> None:
    text = "Grüße aus Ulm ☃"
    body = stream(chunk({"role": "assistant", "content": ""}), *(chunk({"content": c}) for c in text))
    answer = aggregate(body[: place % (len(body) + 1)])
    if answer is not None:
        choices = answer["choices"]
        assert text.startswith((choices[0]["message"]["content"] or "") if choices else "")
