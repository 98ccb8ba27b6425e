from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collector import chat_bodies
from collector.conversation import Answer, answer, prompt_text

TOOL_CALL = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]},
            "Be brief.\nHi",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "What is"},
                            {"type": "image_url", "image_url": {"url": "data:…"}},
                            {"type": "text", "text": "this?"},
                        ],
                    }
                ]
            },
            "What is\nthis?",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
                    {"role": "tool", "tool_call_id": "a", "content": "sunny"},
                ]
            },
            'weather({"city":"Ulm"})\nsunny',
        ),
        ({"messages": []}, None),
        ({"messages": ["loose", 3, None]}, "loose"),
        ({"prompt": "Once"}, "Once"),
        ({"prompt": ["Once", "Twice"]}, "Once\nTwice"),
        ({"prompt": [1, 2, 3]}, None),
        ({"dataframe_split": {"columns": ["q", "n"], "data": [["why", 1], ["how", 2]]}}, "why\nhow"),
        ({"dataframe_records": [{"q": "why", "n": 1}, {"q": "how", "n": 2}]}, "why\nhow"),
        ({"instances": [{"text": "a"}, {"text": "b"}]}, "a\nb"),
        ({"instances": [[1.0, 2.0]]}, None),
        ({"inputs": {"text": ["a", "b"]}}, "a\nb"),
        ({"inputs": [{"messages": [{"role": "user", "content": "Hi"}]}]}, "Hi"),
        ({"input": "embed me"}, "embed me"),
        ({}, None),
        ([], None),
        ("text", None),
        (None, None),
    ],
)
def test_prompt_text(body: Any, text: str | None) -> None:
    assert prompt_text(body) == text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {
                "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"},
                    {
                        "index": 1,
                        "message": {"role": "assistant", "content": "Ho"},
                        "finish_reason": "length",
                    },
                ],
                "usage": {"prompt_tokens": 0, "completion_tokens": 3},
            },
            Answer("Hi", "stop", 0, 3),
        ),
        (
            {
                "choices": [
                    {
                        "message": {"content": "Let me see.", "tool_calls": [TOOL_CALL]},
                        "finish_reason": "tool_calls",
                    }
                ]
            },
            Answer('Let me see.\nweather({"city":"Ulm"})', "tool_calls"),
        ),
        ({"choices": [{"message": {"content": None, "refusal": "I will not."}}]}, Answer("I will not.")),
        ({"choices": [{"text": "upon a time", "finish_reason": "length"}]}, Answer("upon a time", "length")),
        ({"choices": [], "usage": {"input_tokens": 5, "output_tokens": None}}, Answer(None, None, 5, None)),
        ({"choices": [{"message": {"content": ""}}], "usage": None}, Answer()),
        ({"predictions": ["a", "b"]}, Answer("a\nb")),
        ({"predictions": [{"generated_text": "a"}]}, Answer("a")),
        ({"predictions": [0.5, 1]}, Answer()),
        ({"error": {"message": "no such model"}}, Answer()),
        ({"usage": {"prompt_tokens": True, "completion_tokens": -1}}, Answer()),
        ({"usage": {"prompt_tokens": 2**63, "completion_tokens": 1.5}}, Answer()),
        ([], Answer()),
        (None, Answer()),
    ],
)
def test_answer(body: Any, expected: Answer) -> None:
    assert answer(body) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Each field there or not, and now and then with a value of another kind."""
    return st.fixed_dictionaries({}, optional={name: value | JSON for name, value in fields.items()})


MESSAGE = maybe(
    role=st.text(max_size=5),
    content=st.text(max_size=8) | st.lists(maybe(type=st.just("text"), text=st.text(max_size=5)), max_size=2),
    tool_calls=st.lists(
        maybe(id=st.text(max_size=3), function=maybe(name=st.text(max_size=3), arguments=JSON))
    ),
    refusal=st.text(max_size=5),
)
REQUEST = maybe(messages=st.lists(MESSAGE, max_size=3), model=st.text(max_size=5), prompt=st.text(max_size=5))
RESPONSE = maybe(
    choices=st.lists(
        maybe(index=st.integers(), message=MESSAGE, finish_reason=st.text(max_size=5)), max_size=2
    ),
    usage=maybe(prompt_tokens=st.integers(), completion_tokens=st.integers(), input_tokens=st.integers()),
)


@given(REQUEST)
@example({"messages": [{"content": "Hi"}], "model": "m"})
@example({"messages": [{"content": ""}, {"content": "x", "tool_calls": [], "refusal": None}]})
def test_the_fast_reading_of_requests_agrees_with_the_other(body: dict[str, Any]) -> None:
    fast = chat_bodies.read_request(json.dumps(body).encode())
    if fast is not None:
        assert fast == (prompt_text(body), body.get("model"))


@given(RESPONSE)
@example({"choices": [{"message": {"content": "Hi"}}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
@example(
    {"choices": [{"message": {"content": ""}}], "usage": {"prompt_tokens": 2**63, "completion_tokens": 2}}
)
def test_the_fast_reading_of_answers_agrees_with_the_other(body: dict[str, Any]) -> None:
    fast = chat_bodies.read_response(json.dumps(body).encode())
    if fast is not None:
        assert fast == answer(body)


def test_plain_bodies_are_read_the_fast_way() -> None:
    request = b'{"model": "chat", "messages": [{"role": "user", "content": "Hi"}], "temperature": 1.6}'
    assert chat_bodies.read_request(request) == ("Hi", "chat")
    response = (
        b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "Ho", "refusal": null},'
        b' "logprobs": null, "finish_reason": "stop"}], "usage": {"prompt_tokens": 4, "completion_tokens": 1}}'
    )
    assert chat_bodies.read_response(response) == Answer("Ho", "stop", 4, 1)
