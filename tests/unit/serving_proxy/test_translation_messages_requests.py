"""What each field of an Anthropic request becomes at an OpenAI-compatible backend, and which are refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

from servelens.errors import Invalid
from serving_proxy.translation.registry import translation_for

TOOL = {"name": "f", "input_schema": {"type": "object"}}
OPENAI = TypeAdapter(CompletionCreateParamsNonStreaming)


def asked(*said: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}, *said], **fields}


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def translated(body: Any, api: Any = "openai") -> Any:
    translation = translation_for("messages", api)
    assert translation is not None
    return json.loads(translation.request(json.dumps(body).encode(), model="theirs"))


FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"max_completion_tokens": 9}),
    ({"system": "be brief"}, {}),
    ({"stop_sequences": ["x"]}, {"stop": ["x"]}),
    ({"temperature": 0.5, "top_p": 1}, {"temperature": 0.5, "top_p": 1.0}),
    ({"metadata": {"user_id": "ada"}}, {"user": "ada"}),
    ({"service_tier": "standard_only"}, {"service_tier": "default"}),
    ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
    (
        {"tools": [TOOL]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
    ),
    ({"tools": [TOOL], "tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
    ({"tools": [TOOL], "tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
    (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": False},
    ),
    ({"output_config": {"effort": "high"}}, {"reasoning_effort": "high"}),
    (
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
            }
        },
    ),
    ({"thinking": {"type": "adaptive"}, "cache_control": {"type": "ephemeral"}}, {}),
]


@pytest.mark.parametrize(("fields", "expected"), FIELDS)
def test_fields(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    made = translated(asked(**fields))
    if "stream" not in fields:
        OPENAI.validate_python(made)
    assert made["model"] == "theirs"
    assert made["messages"][-1] == {"role": "user", "content": "hi"}
    assert {name: made[name] for name in expected} == expected
    assert set(made) <= {"model", "messages", "max_completion_tokens", "tools", *expected}


CONVERSATIONS: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = [
    (
        [
            user(
                {"type": "text", "text": "see", "cache_control": {"type": "ephemeral"}},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
                {"type": "image", "source": {"type": "url", "url": "https://h/i.png"}},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "JV"},
                },
                {"type": "document", "title": "T", "source": {"type": "text", "data": "long"}},
            )
        ],
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
                    {"type": "image_url", "image_url": {"url": "https://h/i.png"}},
                    {
                        "type": "file",
                        "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JV"},
                    },
                    {"type": "text", "text": "T\nlong"},
                ],
            }
        ],
    ),
    (
        [
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "text", "text": "Wait."},
                    {"type": "tool_use", "id": "u", "name": "f", "input": {"a": 1}},
                ],
            },
            user(
                {"type": "tool_result", "tool_use_id": "u", "content": [{"type": "text", "text": "1"}]},
                {"type": "text", "text": "and?"},
            ),
        ],
        [
            {
                "role": "assistant",
                "content": "Wait.",
                "tool_calls": [
                    {"id": "u", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "u", "content": "1"},
            {"role": "user", "content": "and?"},
        ],
    ),
    (
        [user({"type": "tool_result", "tool_use_id": "u", "content": "no such city", "is_error": True})],
        [{"role": "tool", "tool_call_id": "u", "content": "Error: no such city"}],
    ),
    (
        [{"role": "system", "content": "from now on"}, user({"type": "text", "text": "yes"})],
        [{"role": "system", "content": "from now on"}, {"role": "user", "content": "yes"}],
    ),
]


@pytest.mark.parametrize(("said", "expected"), CONVERSATIONS)
def test_conversations(said: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    made = translated(asked(*said))
    OPENAI.validate_python(made)
    assert made["messages"][1:] == expected


def test_a_system_prompt_in_blocks() -> None:
    made = translated(asked(system=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]))
    assert made["messages"][0] == {"role": "system", "content": "a\nb"}


REFUSED: list[tuple[dict[str, Any], str]] = [
    (asked(top_k=4), "top_k"),
    (asked(thinking={"type": "enabled", "budget_tokens": 2000}), "thinking.budget_tokens"),
    (asked(speed="fast"), "speed"),
    (asked(container="c"), "container"),
    (asked(brand_new=1), "brand_new"),
    (asked({"role": "assistant", "content": "The answer is ("}), "messages[1]"),
    (asked(user({"type": "text", "text": "a"}, {"type": "search_result"})), "messages[1].content[1].type"),
    (
        asked(user({"type": "document", "source": {"type": "url", "url": "https://h"}})),
        "messages[1].content[0].source.type",
    ),
    (
        asked(
            user(
                {"type": "document", "citations": {"enabled": True}, "source": {"type": "text", "data": "x"}}
            )
        ),
        "messages[1].content[0].citations",
    ),
    (
        asked(
            user(
                {
                    "type": "tool_result",
                    "tool_use_id": "u",
                    "content": [{"type": "image", "source": {"type": "url", "url": "https://h"}}],
                }
            )
        ),
        "messages[1].content[0].content[0].type",
    ),
    (asked(tools=[{"type": "web_search_20250305", "name": "web_search"}]), "tools[0].type"),
    (asked(tools=[{**TOOL, "input_schema": 1}]), "tools[0].input_schema"),
    (asked(tools=[{**TOOL, "defer_loading": True}]), "tools[0].defer_loading"),
    (asked(tools=[{**TOOL, "input_examples": [{}]}]), "tools[0].input_examples"),
    ({"model": "m", "messages": []}, "body"),
]


@pytest.mark.parametrize(("body", "field"), REFUSED)
def test_what_cannot_be_translated_is_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        translated(body)
    assert caught.value.field == field


def test_through_chat_to_cohere_keeps_what_cohere_has() -> None:
    made = translated(
        asked(top_k=4, thinking={"type": "enabled", "budget_tokens": 2000}, stop_sequences=["x"]), "cohere"
    )
    assert (made["k"], made["thinking"], made["stop_sequences"], made["max_tokens"]) == (
        4,
        {"type": "enabled", "token_budget": 2000},
        ["x"],
        9,
    )


@pytest.mark.parametrize(
    ("api", "fields", "field"),
    [
        ("cohere", {"output_config": {"effort": "high"}}, "output_config.effort"),
        (
            "cohere",
            {"tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            "tool_choice.disable_parallel_tool_use",
        ),
        ("ai21labs", {"tools": [{**TOOL, "strict": True}]}, "tools[0].strict"),
        (
            "ai21labs",
            {"output_config": {"format": {"type": "json_schema", "schema": {}}}},
            "output_config.format",
        ),
        (
            "ai21labs",
            {
                "system": "s",
                "messages": [user({"type": "image", "source": {"type": "url", "url": "https://h"}})],
            },
            "messages[0]",
        ),
    ],
)
def test_through_chat_fields_are_named_in_the_clients_words(
    api: str, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as caught:
        translated(asked() | fields, api)
    assert caught.value.field == field
