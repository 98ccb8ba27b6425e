"""Spans of generative AI as rows: every convention that is understood, through the collector's own normalizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from collector.intake.genai_spans import Read, read_spans
from collector.intake.spans import ERROR, Span, SpanEvent
from collector.normalize import rows
from collector.record import UNROUTED
from servelens.identifiers import time_us
from tests.unit.collector.intake.running import RULES

NOON_NS = 1_777_636_800_000_000_000
NOW_US = NOON_NS // 1_000 + 5_000_000
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "qwen"}
NOT_TO_RECORD = [
    {"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "qwen"},
    {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"},
    {"gen_ai.operation.name": 5},
    {"openinference.span.kind": "CHAIN"},
    {"llm.request.type": "rerank"},
    {"gen_ai.usage.input_tokens": 4},
]


def span(
    attributes: Mapping[str, Any], *events: SpanEvent, resource: Mapping[str, Any] | None = None, **more: Any
) -> Span:
    fields = {
        "trace_id": TRACE,
        "span_id": SPAN,
        "parent_id": "",
        "start_ns": NOON_NS,
        "end_ns": NOON_NS + 1_500_000_000,
        "status": 0,
        "status_message": "",
        **more,
    }
    return Span(attributes=attributes, events=events, resource=resource or {"service.name": "chat"}, **fields)


def read(*spans: Span) -> Read:
    return read_spans(list(spans), RULES, now_us=NOW_US, requester="otlp-key")


def row(found: Span) -> dict[str, Any]:
    made = read(found)
    assert (made.problems, made.ignored, made.not_kept) == ([], 0, 0)
    (one,) = made.arrivals
    return dict(rows([one.record], "intake-0-1", [0]).to_pylist()[0])


def said(found: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("prompt_text", "response_text", "finish_reason", "input_tokens", "output_tokens")
    return tuple(found[name] for name in names)


INPUT = [
    {"role": "user", "parts": [{"type": "text", "content": "Weather in Köln?"}]},
    {
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"city": "Köln"}}],
    },
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "rain"}]},
]
OUTPUT = [{"role": "assistant", "parts": [{"type": "text", "content": "Rain."}], "finish_reason": "stop"}]
USAGE = {"gen_ai.usage.input_tokens": 31, "gen_ai.usage.output_tokens": 2}
EXPECTED = ('Be brief.\nWeather in Köln?\nweather({"city":"Köln"})\nrain', "Rain.", "stop", 31, 2)


@pytest.mark.parametrize("is_text", [True, False])
@pytest.mark.parametrize("place", ["span", "event"])
def test_the_present_conventions(is_text: bool, place: str) -> None:
    content: dict[str, Any] = {
        "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}],
        "gen_ai.input.messages": INPUT,
        "gen_ai.output.messages": OUTPUT,
    }
    if is_text:
        content = {name: json.dumps(value) for name, value in content.items()}
    details = SpanEvent("gen_ai.client.inference.operation.details", content)
    found = (
        row(span({**CHAT, **USAGE, **content})) if place == "span" else row(span({**CHAT, **USAGE}, details))
    )
    assert said(found) == EXPECTED
    messages = json.loads(found["request"])["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool"]
    assert messages[2]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city":"Köln"}'}
    assert messages[3]["tool_call_id"] == "c1"
    assert json.loads(found["response"])["usage"]["total_tokens"] == 33


def test_identity_time_and_place_of_a_record() -> None:
    attributes = {
        **CHAT,
        "gen_ai.conversation.id": "conv-1",
        "gen_ai.response.id": "chatcmpl-1",
        "user.id": "ada",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.response.finish_reasons": ["length"],
    }
    found = row(
        span(
            attributes,
            parent_id="b9c7c989f97918e1",
            resource={"service.name": "checkout", "service.version": "9"},
        )
    )
    assert (found["endpoint"], found["served_entity"], found["served_entity_id"]) == (
        "chat",
        "small",
        "chat/small/3",
    )
    assert (found["trace_id"], found["session_id"], found["unit"]) == (TRACE, "conv-1", "ada")
    assert (found["requester"], found["client_request_id"], found["model"]) == (
        "otlp-key",
        "chatcmpl-1",
        "qwen",
    )
    assert (found["status_code"], found["error_type"], found["finish_reason"]) == (200, None, "length")
    assert (found["execution_duration_ms"], found["time_to_first_token_ms"]) == (1_500, 250.0)
    assert (found["is_stream"], found["endpoint_config_version"]) == (True, 7)
    assert time_us(found["databricks_request_id"]) == NOON_NS // 1_000
    assert json.loads(found["request"]) == {"model": "qwen", "temperature": 0.5, "max_tokens": 64}
    assert dict(found["tags"]) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "service.name": "checkout",
        "service.version": "9",
        "span_id": SPAN,
        "parent_span_id": "b9c7c989f97918e1",
    }


def test_without_content_and_usage_there_is_no_answer() -> None:
    found = row(span(CHAT))
    assert said(found) == (None, None, None, None, None)
    assert (found["request"], found["response"]) == ('{"model":"qwen"}', None)


OLDER: dict[str, Span] = {
    "events of each message (1.28 to 1.36)": span(
        {**CHAT, **USAGE},
        SpanEvent("gen_ai.system.message", {"content": "Be brief."}),
        SpanEvent("gen_ai.user.message", {"content": "Hi"}),
        SpanEvent(
            "gen_ai.choice",
            {
                "index": 0,
                "finish_reason": "stop",
                "message": json.dumps({"role": "assistant", "content": "Hello"}),
            },
        ),
    ),
    "prompt and completion on events (1.27)": span(
        {**CHAT, "gen_ai.usage.prompt_tokens": 31, "gen_ai.usage.completion_tokens": 2}
        | {"gen_ai.response.finish_reasons": ["stop"]},
        SpanEvent(
            "gen_ai.content.prompt",
            {
                "gen_ai.prompt": json.dumps(
                    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
                )
            },
        ),
        SpanEvent(
            "gen_ai.content.completion",
            {"gen_ai.completion": json.dumps([{"role": "assistant", "content": "Hello"}])},
        ),
    ),
    "OpenLLMetry": span(
        {
            "llm.request.type": "chat",
            "gen_ai.request.model": "qwen",
            "gen_ai.prompt.0.role": "system",
            "gen_ai.prompt.0.content": "Be brief.",
            "gen_ai.prompt.1.role": "user",
            "gen_ai.prompt.1.content": "Hi",
            "gen_ai.completion.0.role": "assistant",
            "gen_ai.completion.0.content": "Hello",
            "gen_ai.completion.0.finish_reason": "stop",
            "gen_ai.usage.prompt_tokens": 31,
            "gen_ai.usage.completion_tokens": 2,
        }
    ),
    "OpenInference": span(
        {
            "openinference.span.kind": "LLM",
            "llm.model_name": "qwen",
            "llm.input_messages.0.message.role": "system",
            "llm.input_messages.0.message.content": "Be brief.",
            "llm.input_messages.1.message.role": "user",
            "llm.input_messages.1.message.contents.0.message_content.type": "text",
            "llm.input_messages.1.message.contents.0.message_content.text": "Hi",
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.content": "Hello",
            "llm.token_count.prompt": 31,
            "llm.token_count.completion": 2,
            "gen_ai.response.finish_reasons": ["stop"],
        }
    ),
}


@pytest.mark.parametrize("name", OLDER)
def test_older_and_other_conventions(name: str) -> None:
    found = row(OLDER[name])
    assert said(found) == ("Be brief.\nHi", "Hello", "stop", 31, 2)
    assert (found["api"], found["model"]) == ("chat", "qwen")


def test_a_server_span_of_vllm() -> None:
    found = row(
        span(
            {
                "gen_ai.request.id": "cmpl-9",
                "gen_ai.response.model": "qwen",
                "gen_ai.usage.prompt_tokens": 5,
                "gen_ai.usage.completion_tokens": 7,
                "gen_ai.latency.time_to_first_token": 0.5,
                "gen_ai.latency.e2e": 1.5,
            }
        )
    )
    assert (found["api"], found["model"], found["client_request_id"]) == ("completions", "qwen", "cmpl-9")
    assert (found["input_tokens"], found["output_tokens"]) == (5, 7)
    assert found["time_to_first_token_ms"] == 500.0


def test_completions_and_embeddings() -> None:
    asked = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "Once"}]}])
    answered = json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": " upon"}]}])
    text = row(
        span(
            {
                "gen_ai.operation.name": "text_completion",
                "gen_ai.input.messages": asked,
                "gen_ai.output.messages": answered,
                "gen_ai.response.finish_reasons": ["stop"],
            }
        )
    )
    assert (text["api"], *said(text)) == ("completions", "Once", " upon", "stop", None, None)
    vector = row(
        span(
            {
                "gen_ai.operation.name": "embeddings",
                "gen_ai.input.messages": asked,
                "gen_ai.usage.input_tokens": 3,
            }
        )
    )
    assert (vector["api"], *said(vector)) == ("embeddings", "Once", None, None, 3, None)


def test_tool_calls_of_an_answer() -> None:
    parts = [
        {"type": "reasoning", "content": "hm"},
        {"type": "tool_call", "id": "c1", "name": "weather", "arguments": '{"city": "Köln"}'},
    ]
    answers = [{"role": "assistant", "parts": parts, "finish_reason": "tool_call"}]
    found = row(span({**CHAT, "gen_ai.output.messages": answers}))
    assert (found["response_text"], found["finish_reason"]) == ('weather({"city": "Köln"})', "tool_calls")


@pytest.mark.parametrize(
    ("attributes", "status", "error_type"),
    [
        ({"error.type": "429"}, 429, "upstream_status"),
        ({"error.type": "openai.RateLimitError"}, 429, "upstream_status"),
        ({"error.type": "APITimeoutError"}, 504, "upstream_timeout"),
        ({"error.type": "APIConnectionError"}, 502, "upstream_connect"),
        ({"error.type": "Whatever", "http.response.status_code": 418}, 418, "upstream_status"),
        ({"error.type": "timeout", "http.response.status_code": 408}, 408, "upstream_timeout"),
        ({}, 500, "upstream_status"),
        ({"http.response.status_code": "what"}, 500, "upstream_status"),
    ],
)
def test_failed_spans(attributes: dict[str, Any], status: int, error_type: str) -> None:
    found = row(span({**CHAT, **attributes}, status=ERROR, status_message="it broke"))
    assert (found["status_code"], found["error_type"]) == (status, error_type)
    assert json.loads(found["response"])["error"]["message"] == "it broke"


def test_a_status_without_an_error_counts_too() -> None:
    found = row(span({**CHAT, "http.response.status_code": 503}))
    assert (found["status_code"], found["error_type"]) == (503, "upstream_status")


@pytest.mark.parametrize(
    ("attributes", "resource", "endpoint"),
    [
        ({}, {"service.name": "chat"}, "chat"),
        ({}, {"service.name": "checkout"}, "chat"),
        ({}, {"service.name": "chat", "servelens.endpoint": "iris"}, "iris"),
        ({"servelens.endpoint": "iris"}, {"service.name": "chat"}, "iris"),
        ({"servelens.endpoint": "nobody"}, {"service.name": "chat"}, "chat"),
        ({}, {"service.name": "unknown_service"}, UNROUTED),
        ({}, {"x": 1}, UNROUTED),
    ],
)
def test_where_a_span_belongs(attributes: dict[str, str], resource: dict[str, Any], endpoint: str) -> None:
    assert row(span({**CHAT, **attributes}, resource=resource))["endpoint"] == endpoint


@pytest.mark.parametrize("attributes", NOT_TO_RECORD)
def test_other_spans_are_ignored(attributes: dict[str, Any]) -> None:
    assert read(span(attributes)) == Read([], 1, 0, [])


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"trace_id": "0" * 32}, "traceId"),
        ({"trace_id": "abc"}, "traceId"),
        ({"span_id": ""}, "spanId"),
        ({"span_id": "zz" * 8}, "spanId"),
        ({"start_ns": 0}, "startTimeUnixNano"),
        ({"start_ns": -5}, "startTimeUnixNano"),
        ({"end_ns": NOON_NS - 1}, "endTimeUnixNano"),
    ],
)
def test_a_span_that_is_wrong_is_named_and_the_others_are_taken(fields: dict[str, Any], named: str) -> None:
    made = read(span(CHAT, **fields), span(CHAT))
    assert len(made.arrivals) == 1
    assert len(made.problems) == 1
    assert named in made.problems[0]


def test_what_an_endpoint_does_not_keep_never_arrives() -> None:
    assert read(span(CHAT, resource={"service.name": "secret"})) == Read([], 0, 1, [])


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        True,
        "plain text",
        "[",
        '{"a": 1}',
        [5, None, "x"],
        {"parts": 5},
        [{"parts": [None, {}, {"type": 7}]}],
        [[]],
    ],
)
@pytest.mark.parametrize(
    "name", ["gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"]
)
def test_content_of_any_shape_makes_a_record(name: str, value: Any) -> None:
    assert row(span({**CHAT, name: value}))["endpoint"] == "chat"


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.prompt.0": "x", "gen_ai.prompt.0.content": "y", "gen_ai.prompt.1": 5},
        {"gen_ai.prompt.99999999999999999999.content": "far"},
        {"gen_ai.prompt.²": "x", "gen_ai.prompt.": "y"},
        {"gen_ai.response.finish_reasons": 5, "gen_ai.usage.input_tokens": "many"},
        {"gen_ai.usage.input_tokens": -1, "gen_ai.response.time_to_first_chunk": -1.0},
        {"gen_ai.response.time_to_first_chunk": float("nan"), "gen_ai.request.temperature": float("inf")},
        {"gen_ai.request.model": ["a"], "user.id": {"a": 1}, "gen_ai.conversation.id": 7},
        {"gen_ai.response.model": "half \ud83d pair"},
    ],
)
def test_attributes_of_any_shape_make_a_record_or_a_problem(attributes: dict[str, Any]) -> None:
    made = read(span({**CHAT, **attributes}))
    assert len(made.arrivals) + len(made.problems) == 1
    if made.arrivals:
        rows([made.arrivals[0].record], "intake-0-1", [0])
