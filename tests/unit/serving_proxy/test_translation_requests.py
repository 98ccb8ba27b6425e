"""What each field of a request becomes at another provider, and which are refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from servelens.errors import Invalid
from serving_proxy.translation.registry import translation_for

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
OTHER = {"type": "function", "function": {"name": "g"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}


def messages(*said: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}, *said], **fields}


def translated(kind: str, api: str, body: Any) -> Any:
    translation = translation_for(kind, api)
    assert translation is not None
    return json.loads(translation.request(json.dumps(body).encode(), model="theirs"))


def refused(kind: str, api: str, body: Any) -> str | None:
    with pytest.raises(Invalid) as caught:
        translated(kind, api, body)
    assert caught.value.message
    return caught.value.field


TO_ANTHROPIC: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"max_tokens": 16384}),
    ({"max_tokens": 5}, {"max_tokens": 5}),
    ({"max_tokens": 5, "max_completion_tokens": 7}, {"max_tokens": 7}),
    ({"stop": "x"}, {"stop_sequences": ["x"]}),
    ({"stop": ["x", "y"]}, {"stop_sequences": ["x", "y"]}),
    ({"temperature": 1, "top_p": 0.5, "top_k": 3}, {"temperature": 1.0, "top_p": 0.5, "top_k": 3}),
    ({"user": "ada"}, {"metadata": {"user_id": "ada"}}),
    ({"safety_identifier": "a1", "user": "ada"}, {"metadata": {"user_id": "a1"}}),
    ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
    ({"reasoning_effort": "minimal"}, {"output_config": {"effort": "low"}}),
    ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
    (
        {"thinking": {"type": "enabled", "budget_tokens": 2000}},
        {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 18384},
    ),
    ({"response_format": {"type": "text"}}, {}),
    (
        {"response_format": SCHEMA},
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
    ),
    ({"tools": [TOOL]}, {"tools": [{"name": "f", "input_schema": {"type": "object"}}]}),
    ({"tools": [OTHER], "tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
    ({"tools": [TOOL], "tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"tool_choice": {"type": "tool", "name": "f"}},
    ),
    (
        {"tools": [TOOL], "parallel_tool_calls": False},
        {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    ),
    (
        {
            "tools": [TOOL, OTHER],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [OTHER]}},
        },
        {
            "tools": [{"name": "g", "input_schema": {"type": "object", "properties": {}}}],
            "tool_choice": {"type": "any"},
        },
    ),
    ({"service_tier": "default"}, {"service_tier": "standard_only"}),
    ({"n": 1, "logprobs": False, "logit_bias": {}, "frequency_penalty": 0, "store": False, "seed": None}, {}),
    ({"metadata": {"a": "b"}, "prompt_cache_key": "k", "prediction": {}, "modalities": ["text"]}, {}),
]


@pytest.mark.parametrize(("fields", "expected"), TO_ANTHROPIC)
def test_chat_fields_at_anthropic(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    made = translated("chat", "anthropic", chat(**fields))
    assert made["model"] == "theirs"
    assert made["messages"] == [{"role": "user", "content": "hi"}]
    assert {name: made[name] for name in expected} == expected
    known = {"model", "max_tokens", "messages", "tools", *expected}
    assert set(made) <= known


SAYINGS: list[tuple[list[Any], Any, list[Any]]] = [
    ([{"role": "system", "content": "a"}], "a", []),
    (
        [
            {"role": "developer", "content": [{"type": "text", "text": "a"}]},
            {"role": "system", "content": "b"},
        ],
        [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        [],
    ),
    (
        [{"role": "user", "content": [{"type": "text", "text": "see"}, IMAGE]}],
        None,
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "see"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                    },
                ],
            }
        ],
    ),
    (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://h/i.png"}}]}],
        None,
        [
            {
                "role": "user",
                "content": [{"type": "image", "source": {"type": "url", "url": "https://h/i.png"}}],
            }
        ],
    ),
    (
        [
            {
                "role": "user",
                "content": [
                    {
                        "type": "file",
                        "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"},
                    }
                ],
            }
        ],
        None,
        [
            {
                "role": "user",
                "content": [
                    {
                        "type": "document",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
                        "title": "a.pdf",
                    }
                ],
            }
        ],
    ),
    (
        [
            {
                "role": "user",
                "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
            }
        ],
        None,
        [
            {
                "role": "user",
                "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
            }
        ],
    ),
    (
        [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 10.50}'}},
                    {"id": "c2", "type": "function", "function": {"name": "f", "arguments": ""}},
                ],
                "refusal": None,
                "annotations": [],
                "audio": None,
                "function_call": None,
            },
            {"role": "tool", "tool_call_id": "c1", "content": "one"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}], "name": "f"},
            {"role": "system", "content": "now"},
        ],
        None,
        [
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 10.5}},
                    {"type": "tool_use", "id": "c2", "name": "f", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "one"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "c2",
                        "content": [{"type": "text", "text": "two"}],
                    },
                ],
            },
            {"role": "system", "content": [{"type": "text", "text": "now"}]},
        ],
    ),
    (
        [{"role": "assistant", "content": "", "refusal": "I will not."}],
        None,
        [{"role": "assistant", "content": [{"type": "text", "text": "I will not."}]}],
    ),
]


@pytest.mark.parametrize(("said", "system", "expected"), SAYINGS)
def test_conversations_at_anthropic(said: list[Any], system: Any, expected: list[Any]) -> None:
    made = translated("chat", "anthropic", {"model": "m", "messages": said})
    assert made.get("system") == system
    assert made["messages"] == expected


def test_the_bytes_of_schemas_and_arguments_stay() -> None:
    schema = b'{"type":"object", "maximum":  1234567890123456789012345678901234567890}'
    body = (
        b'{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":'
        b'{"name":"f","arguments":"{\\"x\\": 1e400}"}}]}],"tools":[{"type":"function","function":{"name":"f",'
        b'"parameters":' + schema + b"}}]}"
    )
    translation = translation_for("chat", "anthropic")
    assert translation is not None
    made = translation.request(body, model="theirs")
    assert schema in made
    assert b'"input":{"x": 1e400}' in made


REFUSED_EVERYWHERE: list[tuple[dict[str, Any], str]] = [
    (chat(logprobs=True), "logprobs"),
    (chat(top_logprobs=2), "top_logprobs"),
    (chat(logit_bias={"1": 1}), "logit_bias"),
    (chat(service_tier="flex"), "service_tier"),
    (chat(store=True), "store"),
    (chat(modalities=["audio"]), "modalities"),
    (chat(audio={"voice": "x"}), "audio"),
    (chat(verbosity="low"), "verbosity"),
    (chat(functions=[]), "functions"),
    (chat(function_call="auto"), "function_call"),
    (chat(web_search_options={}), "web_search_options"),
    (chat(moderation={"model": "m"}), "moderation"),
    (chat(brand_new=1), "brand_new"),
    (chat(tools=[{"type": "custom", "custom": {"name": "x"}}]), "tools[0].type"),
    (chat(tool_choice="required"), "tool_choice"),
    (
        chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "x"}}),
        "tool_choice.function.name",
    ),
    (chat(tools=[TOOL], tool_choice={"type": "custom", "custom": {"name": "x"}}), "tool_choice.type"),
    (
        chat(tools=[TOOL, {"type": "function", "function": {"name": "f", "parameters": []}}]),
        "tools[1].function.parameters",
    ),
    (chat(temperature="hot"), "temperature"),
    (chat(stop=1), "stop"),
    (
        messages({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "x"}]}),
        "messages[1].content[1].type",
    ),
    (
        messages({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}),
        "messages[1].content[0].type",
    ),
    (messages({"role": "user", "content": "a", "name": "ada"}), "messages[1].name"),
    (messages({"role": "user", "content": "a", "mood": "good"}), "messages[1].mood"),
    (messages({"role": "function", "content": "a", "name": "f"}), "messages[1].role"),
    (messages({"role": "tool", "content": "a"}), "messages[1]"),
    (messages({"role": "assistant", "content": "a", "audio": {"id": "x"}}), "messages[1].audio"),
    (messages({"role": "assistant", "function_call": {"name": "f"}}), "messages[1].function_call"),
    (messages({"role": "assistant", "content": [IMAGE]}), "messages[1].content[0].type"),
    ({"model": "m"}, "body"),
    ({"model": "m", "messages": "x"}, "messages"),
]


@pytest.mark.parametrize("api", ["anthropic", "cohere", "ai21labs"])
@pytest.mark.parametrize(("body", "field"), REFUSED_EVERYWHERE)
def test_what_no_provider_has_is_named(api: str, body: dict[str, Any], field: str) -> None:
    assert refused("chat", api, body) == field


REFUSED_SOMEWHERE: list[tuple[str, dict[str, Any], str]] = [
    ("anthropic", chat(n=2), "n"),
    ("anthropic", chat(seed=1), "seed"),
    ("anthropic", chat(temperature=1.5), "temperature"),
    ("anthropic", chat(presence_penalty=0.1), "presence_penalty"),
    ("anthropic", chat(response_format={"type": "json_object"}), "response_format.type"),
    (
        "anthropic",
        chat(response_format={"type": "json_schema", "json_schema": {"name": "n"}}),
        "response_format.json_schema.schema",
    ),
    (
        "anthropic",
        messages(
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://h/i.png"}}]}
        ),
        "messages[1].content[0].image_url.url",
    ),
    (
        "anthropic",
        messages({"role": "user", "content": [{"type": "file", "file": {"file_id": "f1"}}]}),
        "messages[1].content[0].file.file_id",
    ),
    (
        "anthropic",
        messages(
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "f", "arguments": "[1]"}}
                ],
            }
        ),
        "messages[1].tool_calls[0].function.arguments",
    ),
    ("anthropic", messages({"role": "assistant", "content": ""}), "messages[1].content"),
    ("cohere", chat(n=2), "n"),
    ("cohere", chat(frequency_penalty=1.5), "frequency_penalty"),
    ("cohere", chat(tools=[TOOL], parallel_tool_calls=False), "parallel_tool_calls"),
    ("cohere", chat(reasoning_effort="high"), "reasoning_effort"),
    (
        "cohere",
        chat(tools=[{"type": "function", "function": {"name": "f", "strict": True}}, OTHER]),
        "tools[1].function.strict",
    ),
    ("ai21labs", chat(seed=1), "seed"),
    ("ai21labs", chat(response_format=SCHEMA), "response_format.type"),
    ("ai21labs", chat(tools=[TOOL], tool_choice="required"), "tool_choice"),
    ("ai21labs", messages({"role": "user", "content": [IMAGE]}), "messages[1].content[0].type"),
]


@pytest.mark.parametrize(("api", "body", "field"), REFUSED_SOMEWHERE)
def test_what_a_provider_lacks_is_named(api: str, body: dict[str, Any], field: str) -> None:
    assert refused("chat", api, body) == field
