"""Whole chat requests in the words of Cohere and AI21."""

from __future__ import annotations

from tests.unit.serving_proxy.test_translation_requests import OTHER, SCHEMA, TOOL, chat, messages, translated


def test_chat_at_cohere() -> None:
    body = chat(
        stop="x",
        top_p=1,
        seed=3,
        presence_penalty=0.5,
        tools=[TOOL, OTHER],
        response_format=SCHEMA,
        max_tokens=4,
    )
    body["tool_choice"] = {"type": "function", "function": {"name": "g"}}
    made = translated("chat", "cohere", body)
    assert made == {
        "model": "theirs",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": False,
        "max_tokens": 4,
        "stop_sequences": ["x"],
        "p": 0.99,
        "seed": 3,
        "presence_penalty": 0.5,
        "tools": [
            {
                "type": "function",
                "function": {"name": "g", "parameters": {"type": "object", "properties": {}}},
            }
        ],
        "tool_choice": "REQUIRED",
        "response_format": {"type": "json_object", "json_schema": {"type": "object"}},
    }


def test_what_is_said_before_tools_is_coheres_tool_plan() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    made = translated(
        "chat", "cohere", messages({"role": "assistant", "content": "Wait.", "tool_calls": [call]})
    )
    assert made["messages"][1] == {"role": "assistant", "tool_calls": [call], "tool_plan": "Wait."}


def test_chat_at_ai21() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = {
        "model": "m",
        "messages": [{"role": "developer", "content": parts}],
        "n": 2,
        "stop": "x",
        "top_p": 0.5,
    }
    assert translated("chat", "ai21labs", body | {"response_format": {"type": "json_object"}}) == {
        "model": "theirs",
        "messages": [{"role": "system", "content": "a\nb"}],
        "n": 2,
        "stop": ["x"],
        "top_p": 0.5,
        "response_format": {"type": "json_object"},
    }
    assert "tools" not in translated("chat", "ai21labs", chat(tools=[TOOL], tool_choice="none"))
