"""relabel.conversation: a snapshot from whatever bodies the inference table holds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel.conversation import Conversation, read_conversation

USER = {"role": "user", "content": "why?"}


def _chat(message: dict[str, Any]) -> str:
    return json.dumps({"choices": [{"message": message}]})


def _read(
    request: object, response: object, prompt_text: str | None = None, response_text: str | None = None
) -> Conversation:
    bodies = [body if isinstance(body, str | None) else json.dumps(body) for body in (request, response)]
    conversation = read_conversation(bodies[0], bodies[1], prompt_text, response_text)
    assert conversation is not None
    return conversation


def test_a_chat_keeps_its_messages_and_gets_the_answer() -> None:
    conversation = _read(
        {"messages": [USER]},
        _chat({"role": "assistant", "content": "so", "reasoning_content": "hm", "refusal": None}),
    )
    assert conversation.messages == [USER, {"role": "assistant", "content": "so"}]
    assert conversation.answered
    assert conversation.tools is None


def test_an_answer_of_tool_calls_is_an_answer() -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    tools = [{"type": "function", "function": {"name": "f"}}]
    conversation = _read(
        {"messages": [USER], "tools": tools},
        _chat({"role": "assistant", "content": None, "tool_calls": calls}),
    )
    assert conversation.messages[-1] == {"role": "assistant", "content": None, "tool_calls": calls}
    assert conversation.tools == tools


def test_a_completion_becomes_a_chat_of_two_messages() -> None:
    conversation = _read({"prompt": "Once"}, {"choices": [{"text": " upon"}]}, "Once", " upon")
    assert conversation.messages == [
        {"role": "user", "content": "Once"},
        {"role": "assistant", "content": " upon"},
    ]


def test_a_system_prompt_beside_the_messages_comes_first() -> None:
    conversation = _read({"system": "be brief", "messages": [USER]}, {"content": []}, "why?", "so")
    assert [message["role"] for message in conversation.messages] == ["system", "user", "assistant"]


@pytest.mark.parametrize(
    "request_body",
    [
        None,
        "not json",
        "[1]",
        '{"messages": []}',
        '{"messages": ["x"]}',
        '{"messages": [{"content": "x"}]}',
        '{"messages": 7, "prompt": 7}',
        "[" * 100_000,
        '{"inputs": {"text": ["why?"]}}',
    ],
)
def test_a_body_that_is_no_chat_is_shown_by_its_text(request_body: str | None) -> None:
    conversation = _read(request_body, None, "why?", "so")
    assert conversation.messages == [USER, {"role": "assistant", "content": "so"}]


@pytest.mark.parametrize(
    "response",
    [None, "", '{"error": {}}', '{"choices": []}', '{"choices": [1]}', _chat({"content": ""})],
)
def test_without_an_answer_the_question_is_kept(response: str | None) -> None:
    conversation = _read({"messages": [USER]}, response)
    assert conversation.messages == [USER]
    assert not conversation.answered


def test_a_row_without_any_text_has_no_conversation() -> None:
    assert read_conversation(None, None, None, None) is None
    assert read_conversation("{}", "{}", "", "") is None


def test_equal_content_has_an_equal_hash_and_other_content_another() -> None:
    one = _read('{"messages": [{"role": "user", "content": "why?"}]}', None)
    same = _read('{"temperature": 1, "messages": [{"content": "why?", "role": "user"}]}', None)
    others = [
        _read({"messages": [USER, USER]}, None),
        _read({"messages": [USER]}, None, None, "so"),
        _read({"messages": [USER], "tools": [{"type": "function"}]}, None),
    ]
    assert one.content_hash == same.content_hash
    assert len({one.content_hash, *(other.content_hash for other in others)}) == 4


_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["messages", "role", "content", "prompt", "choices", "message", "system", "tools"]
            ),
            children,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(request=_json, response=_json, text=st.none() | st.text(max_size=5))
def test_any_body_gives_storable_messages_or_none(
    request: object, response: object, text: str | None
) -> None:
    conversation = read_conversation(json.dumps(request), json.dumps(response), text, text)
    if conversation is not None:
        stored = json.dumps([conversation.messages, conversation.tools], ensure_ascii=False, allow_nan=False)
        assert "\x00" not in json.loads(stored).__repr__()
        stored.encode("utf-8")
        assert len(conversation.content_hash) == 64
        assert all(isinstance(message["role"], str) for message in conversation.messages)
