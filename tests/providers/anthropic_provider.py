"""Anthropic's ``POST /v1/messages``, as https://platform.claude.com/docs/en/api/messages/create documents it.

Versions: https://platform.claude.com/docs/en/api/versioning.
"""

from __future__ import annotations

import json
from typing import Any

from tests.providers.model import Saying, events, pieces, say
from tests.providers.provider import KEY, Call, Given, Provider, Refusal, expect, only, parsed

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
_OPTIONAL = (
    "system stream stop_sequences tools tool_choice thinking metadata output_config "
    "service_tier cache_control container inference_geo"
)
_BLOCKS = {
    "text": ("type text", "cache_control citations"),
    "image": ("type source", "cache_control"),
    "document": ("type source", "cache_control citations context title"),
    "thinking": ("type thinking signature", ""),
    "redacted_thinking": ("type data", ""),
    "tool_use": ("type id name input", "cache_control"),
    "tool_result": ("type tool_use_id", "content is_error cache_control"),
}
_ALLOWED = {
    "user": ("text", "image", "document", "tool_result"),
    "assistant": ("text", "thinking", "redacted_thinking", "tool_use"),
    "system": ("text",),
}
VERSIONS = ("2023-06-01", "2026-10-21")
SIGNATURE = "sig-of-the-thoughts"


class AnthropicProvider(Provider):
    """The provider. It wants its own key, once, and one of the versions of its API."""

    def answer(self, call: Call) -> Given:
        expect(call.method == "POST" and call.path == "/v1/messages", f"Not found: {call.path}", 404)
        expect(call.headers.get("x-api-key") == KEY, "invalid x-api-key", 401)
        expect("authorization" not in call.headers, "both kinds of credentials", 401)
        version = call.headers.get("anthropic-version")
        expect(version in VERSIONS, f"anthropic-version: {version!r} is not a valid version")
        expect(
            call.headers.get("content-type", "").startswith("application/json"), "content-type must be JSON"
        )
        sampling = (
            "temperature top_p top_k" if version == "2023-06-01" else ""
        )  # removed in the later version
        body = only(parsed(call), "body", "model max_tokens messages", f"{_OPTIONAL} {sampling}")
        saying = _said(body)
        if body.get("stream"):
            return Given(_stream(body["model"], saying), stream=True)
        if saying.breaks:
            raise Refusal(500, "the model broke")
        message = _message(body["model"], saying, _content(saying))
        return Given(json.dumps(message, ensure_ascii=False).encode())

    def error(self, refusal: Refusal) -> bytes:
        kind = _TYPES.get(refusal.status, "api_error")
        error = {"type": kind, "message": refusal.message}
        return json.dumps({"type": "error", "error": error, "request_id": "req_provider"}).encode()


def _said(body: dict[str, Any]) -> Saying:
    expect(isinstance(body["max_tokens"], int) and body["max_tokens"] >= 1, "max_tokens: must be at least 1")
    for name in ("temperature", "top_p"):
        value = body.get(name, 0)
        expect(isinstance(value, int | float) and 0 <= value <= 1, f"{name}: range: 0..1")
    for stop in body.get("stop_sequences", []):
        expect(
            isinstance(stop, str) and bool(stop.strip()), "stop_sequences: each must contain non-whitespace"
        )
    only(body.get("metadata", {}), "metadata", "", "user_id")
    only(body.get("output_config", {}), "output_config", "", "effort format")
    answer_format = body.get("output_config", {}).get("format")
    if answer_format is not None:
        only(answer_format, "output_config.format", "type schema")
    if "thinking" in body:
        only(body["thinking"], "thinking", "type", "budget_tokens display")
        if body["thinking"]["type"] == "enabled":
            budget = body["thinking"]["budget_tokens"]
            expect(
                1024 <= budget < body["max_tokens"], "max_tokens must be greater than thinking.budget_tokens"
            )
    if isinstance(body.get("system"), list):
        for number, block in enumerate(body["system"]):
            _check_block(block, f"system.{number}", "system")
    last, result, uses = "", None, set[str]()
    expect(bool(body["messages"]), "messages: at least one message is required")
    for number, message in enumerate(body["messages"]):
        where = f"messages.{number}"
        only(message, where, "role content")
        expect(message["role"] in _ALLOWED, f"{where}.role: Input should be 'user' or 'assistant'")
        content = message["content"]
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        expect(bool(content), f"{where}: all messages must have non-empty content")
        for place, block in enumerate(content):
            _check_block(block, f"{where}.content.{place}", message["role"])
            if block["type"] == "tool_use":
                uses.add(block["id"])
            elif block["type"] == "tool_result":
                known = block["tool_use_id"] in uses
                expect(known, f"{where}: unexpected `tool_use_id` in `tool_result` blocks")
                result = _text(block.get("content", ""))
            elif block["type"] == "text" and message["role"] == "user":
                last, result = block["text"], None
    choice = body.get("tool_choice", {"type": "auto"})
    tools = _tools(body)
    expect("tool_choice" not in body or bool(tools), "tool_choice: only with tools")
    extra = "disable_parallel_tool_use" if choice["type"] != "none" else ""
    only(choice, "tool_choice", "type name" if choice["type"] == "tool" else "type", extra)
    if choice["type"] == "tool":
        expect(choice["name"] in tools, f"tool_choice: tool {choice['name']!r} not found")
        tools = [choice["name"]]
    saying = say(
        last,
        tools=[] if choice["type"] == "none" else tools,
        tool_result=result,
        demanded=choice["type"] in ("any", "tool"),
        only_one=choice.get("disable_parallel_tool_use", False),
        as_json=answer_format is not None,
    )
    wanted = body.get("thinking", {}).get("type") in ("enabled", "adaptive")
    return saying if wanted else Saying(saying.text, "", saying.calls, saying.finish, saying.breaks)


def _check_block(block: Any, where: str, role: str) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    expect(kind in _ALLOWED[role], f"{where}: type {kind!r} is not allowed for {role}")
    only(block, where, *_BLOCKS[kind])
    if kind == "text":
        expect(isinstance(block["text"], str) and bool(block["text"]), f"{where}: text must be non-empty")
    elif kind in ("image", "document"):
        source = block["source"]
        if source.get("type") == "base64":
            only(source, f"{where}.source", "type media_type data")
            expect(not source["data"].startswith("data:"), f"{where}.source.data: invalid base64")
        else:
            only(source, f"{where}.source", "type url")
            expect(source["url"].startswith("https://"), f"{where}.source.url: only https")
    elif kind == "tool_use":
        expect(isinstance(block["input"], dict), f"{where}.input: Input should be an object")


def _tools(body: dict[str, Any]) -> list[str]:
    names = []
    for number, tool in enumerate(body.get("tools", [])):
        only(tool, f"tools.{number}", "name input_schema", "description strict cache_control type")
        expect(
            tool["input_schema"].get("type") == "object", f"tools.{number}.input_schema.type: Field required"
        )
        names.append(tool["name"])
    return names


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def _content(saying: Saying) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    if saying.thoughts:
        content.append({"type": "thinking", "thinking": saying.thoughts, "signature": SIGNATURE})
    if saying.text:
        content.append({"type": "text", "text": saying.text, "citations": None})
    for ident, name, arguments in saying.calls:
        content.append({"type": "tool_use", "id": ident, "name": name, "input": arguments})
    return content


def _message(
    model: str, saying: Saying, content: list[dict[str, Any]], *, begun: bool = False
) -> dict[str, Any]:
    reason = {"end": "end_turn", "length": "max_tokens", "tools": "tool_use"}[saying.finish]
    return {
        "id": "msg_01provider",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": None if begun else reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": saying.input_tokens,
            "cache_creation_input_tokens": 2,
            "cache_read_input_tokens": 3,
            "output_tokens": 1 if begun else saying.output_tokens,
            "service_tier": "standard",
        },
    }


def _stream(model: str, saying: Saying) -> bytes:
    made: list[dict[str, Any]] = [
        {"type": "message_start", "message": _message(model, saying, [], begun=True)},
        {"type": "ping"},
    ]
    for index, block in enumerate(_content(saying)):
        made.append({"type": "content_block_start", "index": index, "content_block": _empty(block)})
        made += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in _deltas(block)]
        if saying.breaks:
            error = {"type": "overloaded_error", "message": "Overloaded"}
            return events(*made, {"type": "error", "error": error}, named=True)
        made.append({"type": "content_block_stop", "index": index})
    reason = _message(model, saying, [])["stop_reason"]
    made.append(
        {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {"output_tokens": saying.output_tokens},
        }
    )
    made.append({"type": "message_stop"})
    return events(*made, named=True)


def _empty(block: dict[str, Any]) -> dict[str, Any]:
    blank: dict[str, Any] = {"text": "", "thinking": "", "signature": "", "input": {}}
    return {**block, **{name: blank[name] for name in block if name in blank}}


def _deltas(block: dict[str, Any]) -> list[dict[str, Any]]:
    if block["type"] == "text":
        return [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
    if block["type"] == "thinking":
        thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
        return [*thoughts, {"type": "signature_delta", "signature": block["signature"]}]
    arguments = json.dumps(block["input"]) if block["input"] else ""
    return [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *pieces(arguments)]]
