"""OpenAI's ``/v1/chat/completions``, ``/v1/responses`` and ``/v1/embeddings``, as
https://platform.openai.com/docs/api-reference documents them, as far as the tests ask for.
"""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

from tests.providers.model import Saying, events, pieces, say
from tests.providers.provider import KEY, Call, Given, Provider, Refusal, expect, only, parsed

_CHAT = (
    "stream stream_options tools tool_choice parallel_tool_calls response_format max_tokens max_completion_tokens "
    "temperature top_p stop n user logprobs top_logprobs seed metadata reasoning_effort service_tier"
)
_RESPONSES = "input instructions stream tools tool_choice temperature max_output_tokens metadata text"
_MESSAGES = {
    "system": ("role content", "name"),
    "user": ("role content", "name"),
    "assistant": ("role", "content tool_calls refusal annotations audio function_call name parsed"),
    "tool": ("role tool_call_id content", ""),
}
_FINISH = {"end": "stop", "length": "length", "tools": "tool_calls"}


class OpenAIProvider(Provider):
    """The provider. Errors are ``{"error": {"message", "type", "param", "code"}}``."""

    def answer(self, call: Call) -> Given:
        expect(call.headers.get("authorization") == f"Bearer {KEY}", "Incorrect API key provided", 401)
        expect("x-api-key" not in call.headers, "what is this key", 401)
        body = parsed(call)
        if call.path == "/v1/embeddings":
            return Given(json.dumps(_embeddings(body)).encode())
        if call.path == "/v1/responses":
            return _responses(only(body, "body", "model", _RESPONSES))
        expect(call.path == "/v1/chat/completions", f"Unknown request URL: {call.path}", 404)
        only(body, "body", "model messages", _CHAT)
        saying = _said(body)
        if body.get("stream"):
            usage = bool(body.get("stream_options", {}).get("include_usage"))
            return Given(_chunks(body["model"], saying, with_usage=usage), stream=True)
        choices = [_choice(saying, index, bool(body.get("logprobs"))) for index in range(body.get("n", 1))]
        answer = {"id": "chatcmpl-p", "object": "chat.completion", "created": 1, "model": body["model"]}
        return Given(
            json.dumps({**answer, "choices": choices, "usage": _usage(saying)}, ensure_ascii=False).encode()
        )

    def error(self, refusal: Refusal) -> bytes:
        kind = "server_error" if refusal.status >= 500 else "invalid_request_error"
        error = {"message": refusal.message, "type": kind, "param": None, "code": None}
        return json.dumps({"error": error}).encode()


def _said(body: dict[str, Any]) -> Saying:
    last, result = "", None
    for number, message in enumerate(body["messages"]):
        where = f"messages[{number}]"
        expect(message.get("role") in _MESSAGES, f"{where}.role is invalid")
        only(message, where, *_MESSAGES[message["role"]])
        content = message.get("content") or ""
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        if message["role"] == "user":
            last, result = text, None
        elif message["role"] == "tool":
            result = text
    names = [tool["function"]["name"] for tool in body.get("tools", [])]
    choice = body.get("tool_choice", "auto")
    if isinstance(choice, dict):
        names = [choice["function"]["name"]]
    return say(
        last,
        tools=[] if choice == "none" else names,
        tool_result=result,
        demanded=choice == "required" or isinstance(choice, dict),
        only_one=body.get("parallel_tool_calls") is False,
        as_json="response_format" in body,
    )


def _calls(saying: Saying) -> list[dict[str, Any]]:
    return [
        {"id": ident, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for ident, name, arguments in saying.calls
    ]


def _choice(saying: Saying, index: int, with_logprobs: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": saying.text, "refusal": None}
    if saying.calls:
        message["tool_calls"] = _calls(saying)
    token = {"token": "echo", "logprob": -0.25, "bytes": [101], "top_logprobs": []}
    logprobs = {"content": [token], "refusal": None} if with_logprobs else None
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": _FINISH[saying.finish]}


def _usage(saying: Saying) -> dict[str, Any]:
    return {
        "prompt_tokens": saying.input_tokens,
        "completion_tokens": saying.output_tokens,
        "total_tokens": saying.input_tokens + saying.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 4},
    }


def _chunks(model: str, saying: Saying, *, with_usage: bool) -> bytes:
    head = {"id": "chatcmpl-p", "object": "chat.completion.chunk", "created": 1, "model": model}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}

    made = [chunk({"role": "assistant", "content": ""})]
    made += [chunk({"content": piece}) for piece in pieces(saying.text)]
    for index, call in enumerate(_calls(saying)):
        begun = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
        made.append(chunk({"tool_calls": [begun]}))
        for piece in pieces(call["function"]["arguments"]):
            made.append(chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
    if saying.breaks:
        return events(*made, {"error": {"message": "the model broke", "type": "server_error"}}, named=False)
    made.append(chunk({}, _FINISH[saying.finish]))
    if with_usage:
        made.append({**head, "choices": [], "usage": _usage(saying)})
    return events(*made, named=False) + b"data: [DONE]\n\n"


def _responses(body: dict[str, Any]) -> Given:
    given = body.get("input", "")
    text = given if isinstance(given, str) else given[-1]["content"]
    saying = say(text, tools=[])
    item = {
        "type": "message",
        "id": "msg_p",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": saying.text, "annotations": []}],
    }
    usage = {
        "input_tokens": saying.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": saying.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": saying.input_tokens + saying.output_tokens,
    }
    response = {
        "id": "resp_p",
        "object": "response",
        "created_at": 1,
        "model": body["model"],
        "status": "completed",
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }
    if not body.get("stream"):
        return Given(json.dumps(response, ensure_ascii=False).encode())
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    place = {"item_id": "msg_p", "output_index": 0, "content_index": 0}
    made: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {
            "type": "response.content_part.added",
            **place,
            "part": {"type": "output_text", "text": "", "annotations": []},
        },
        *(
            {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
            for piece in pieces(saying.text)
        ),
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response},
    ]
    numbered = [{**event, "sequence_number": number} for number, event in enumerate(made)]
    return Given(events(*numbered, named=True), stream=True)


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    only(body, "body", "model input", "encoding_format dimensions user")
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    vectors: list[Any] = [[len(text) / 8, 0.5] for text in texts]
    if body.get("encoding_format") == "base64":
        vectors = [base64.b64encode(struct.pack("<2f", *vector)).decode() for vector in vectors]
    data = [
        {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}
