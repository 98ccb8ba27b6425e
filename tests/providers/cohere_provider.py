"""Cohere's ``POST /v2/chat`` and ``/v2/embed``, as https://docs.cohere.com/reference/chat and /embed document them."""

from __future__ import annotations

import json
from typing import Any

from tests.providers.model import Saying, events, pieces, say
from tests.providers.provider import KEY, Call, Given, Provider, Refusal, expect, only, parsed

_OPTIONAL = (
    "stream tools strict_tools documents citation_options response_format safety_mode max_tokens stop_sequences "
    "temperature seed frequency_penalty presence_penalty k p logprobs tool_choice thinking priority"
)
_RANGES = {"p": (0.01, 0.99), "frequency_penalty": (0, 1), "presence_penalty": (0, 1), "k": (0, 500)}
_MESSAGES = {
    "system": ("role content", ""),
    "user": ("role content", ""),
    "assistant": ("role", "content tool_calls tool_plan citations"),
    "tool": ("role tool_call_id content", ""),
}
_PARTS = {"text": "type text", "image_url": "type image_url"}
_FINISH = {"end": "COMPLETE", "length": "MAX_TOKENS", "tools": "TOOL_CALL"}


class CohereProvider(Provider):
    """The provider. Errors are ``{"message"}``."""

    def answer(self, call: Call) -> Given:
        expect(call.headers.get("authorization") == f"Bearer {KEY}", "invalid api token", 401)
        expect("x-api-key" not in call.headers, "what is this key", 401)
        if call.path == "/v2/embed":
            return Given(json.dumps(_embed(parsed(call))).encode())
        expect(call.path == "/v2/chat", f"not found: {call.path}", 404)
        body = only(parsed(call), "body", "model messages", _OPTIONAL)
        saying = _said(body)
        if body.get("stream"):
            return Given(_stream(saying), stream=True)
        return Given(json.dumps(_answer(saying), ensure_ascii=False).encode())

    def error(self, refusal: Refusal) -> bytes:
        return json.dumps({"id": "err-1", "message": refusal.message}).encode()


def _said(body: dict[str, Any]) -> Saying:
    for name, (least, most) in _RANGES.items():
        value = body.get(name, least)
        expect(
            isinstance(value, int | float) and least <= value <= most, f"{name} must be in {least}..{most}"
        )
    expect(body.get("temperature", 0) >= 0, "temperature must not be negative")
    expect(len(body.get("stop_sequences", [])) <= 5, "too many stop sequences")
    last, result = "", None
    for number, message in enumerate(body["messages"]):
        where = f"messages[{number}]"
        expect(message.get("role") in _MESSAGES, f"{where}.role is invalid")
        only(message, where, *_MESSAGES[message["role"]])
        if message["role"] == "user":
            last, result = _text(message["content"], where), None
        elif message["role"] == "tool":
            result = _text(message["content"], where)
        elif message["role"] == "assistant":
            expect(bool(message.get("content") or message.get("tool_calls")), f"{where} is empty")
            for call in message.get("tool_calls", []):
                only(call, f"{where}.tool_calls", "id type function")
                only(call["function"], f"{where}.tool_calls.function", "name arguments")
                json.loads(call["function"]["arguments"])
    names = []
    for number, tool in enumerate(body.get("tools", [])):
        only(tool, f"tools[{number}]", "type function")
        only(tool["function"], f"tools[{number}].function", "name parameters", "description")
        names.append(tool["function"]["name"])
    choice = body.get("tool_choice")
    expect(choice in (None, "REQUIRED", "NONE"), "tool_choice is invalid")
    expect(choice is None or bool(names), "tool_choice needs tools")
    wanted = body.get("response_format", {"type": "text"})
    only(wanted, "response_format", "type", "json_schema" if wanted["type"] == "json_object" else "")
    only(body.get("thinking", {"type": "enabled"}), "thinking", "type", "token_budget")
    return say(
        last,
        tools=[] if choice == "NONE" else names,
        tool_result=result,
        demanded=choice == "REQUIRED",
        as_json=wanted["type"] == "json_object",
    )


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for part in content:
        expect(part.get("type") in _PARTS, f"{where}.content has a part of an unknown type")
        only(part, f"{where}.content", _PARTS[part["type"]])
        if part["type"] == "image_url":
            only(part["image_url"], f"{where}.content.image_url", "url", "detail")
        texts.append(part.get("text", ""))
    return "".join(texts)


def _usage(saying: Saying) -> dict[str, Any]:
    billed = {"input_tokens": 5.0, "output_tokens": float(saying.output_tokens)}
    tokens = {"input_tokens": float(saying.input_tokens), "output_tokens": float(saying.output_tokens)}
    return {"billed_units": billed, "tokens": tokens, "cached_tokens": 4.0}


def _calls(saying: Saying) -> list[dict[str, Any]]:
    return [
        {"id": ident, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for ident, name, arguments in saying.calls
    ]


def _answer(saying: Saying) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant"}
    if saying.calls:
        message |= {"tool_plan": saying.text, "tool_calls": _calls(saying)}
    else:
        thoughts = [{"type": "thinking", "thinking": saying.thoughts}] if saying.thoughts else []
        message["content"] = [*thoughts, {"type": "text", "text": saying.text}]
    finish = "ERROR" if saying.breaks else _FINISH[saying.finish]
    return {"id": "co-1", "finish_reason": finish, "message": message, "usage": _usage(saying)}


def _stream(saying: Saying) -> bytes:
    started = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    made: list[dict[str, Any]] = [{"type": "message-start", "id": "co-1", "delta": {"message": started}}]
    if saying.calls:
        made += [_event("tool-plan-delta", None, {"tool_plan": piece}) for piece in pieces(saying.text)]
        for index, call in enumerate(_calls(saying)):
            arguments = call["function"]["arguments"]
            begun = {**call, "function": {**call["function"], "arguments": ""}}
            made.append(_event("tool-call-start", index, {"tool_calls": begun}))
            for piece in pieces(arguments):
                made.append(
                    _event("tool-call-delta", index, {"tool_calls": {"function": {"arguments": piece}}})
                )
            made.append({"type": "tool-call-end", "index": index})
    else:
        index = 0
        for kind, text in (("thinking", saying.thoughts), ("text", saying.text)):
            if text:
                made.append(_event("content-start", index, {"content": {"type": kind, kind: ""}}))
                made += [_event("content-delta", index, {"content": {kind: piece}}) for piece in pieces(text)]
                made.append({"type": "content-end", "index": index})
                index += 1
    delta: dict[str, Any] = {"finish_reason": _FINISH[saying.finish], "usage": _usage(saying)}
    if saying.breaks:
        delta = {"finish_reason": "ERROR", "error": "the model broke"}
    return events(*made, {"type": "message-end", "delta": delta}, named=True)


def _event(kind: str, index: int | None, message: dict[str, Any]) -> dict[str, Any]:
    place = {} if index is None else {"index": index}
    return {"type": kind, **place, "delta": {"message": message}}


def _embed(body: dict[str, Any]) -> dict[str, Any]:
    only(
        body,
        "body",
        "model input_type texts embedding_types",
        "output_dimension truncate max_tokens priority",
    )
    expect(len(body["texts"]) <= 96, "too many texts")
    expect(
        body["input_type"] in ("search_document", "search_query", "classification", "clustering"),
        "input_type",
    )
    expect(body["embedding_types"] == ["float"], "embedding_types")
    size = body.get("output_dimension", 4)
    vectors = [[len(text) / 8, *[0.5] * (size - 1)] for text in body["texts"]]
    meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 3.0}}
    return {"id": "emb-1", "embeddings": {"float": vectors}, "texts": body["texts"], "meta": meta}
