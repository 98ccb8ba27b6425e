"""AI21's ``POST /studio/v1/chat/completions``, as https://docs.ai21.com/reference/jamba-1-6-api-ref documents it."""

from __future__ import annotations

import json
from typing import Any

from tests.providers.model import Saying, events, pieces, say
from tests.providers.provider import KEY, Call, Given, Provider, Refusal, expect, only, parsed

_OPTIONAL = "tools documents response_format max_tokens temperature top_p stop n stream"
_MESSAGES = {
    "system": ("role content", ""),
    "user": ("role content", ""),
    "assistant": ("role content", "tool_calls"),
    "tool": ("role content tool_call_id", ""),
}
_FINISH = {"end": "stop", "length": "length", "tools": "tool_calls"}


class AI21Provider(Provider):
    """The provider. Errors are FastAPI's ``{"detail"}``."""

    def answer(self, call: Call) -> Given:
        expect(call.path == "/studio/v1/chat/completions", f"Not Found: {call.path}", 404)
        expect(
            call.headers.get("authorization") == f"Bearer {KEY}", "Forbidden: Bad or missing API token.", 401
        )
        body = only(parsed(call), "body", "model messages", _OPTIONAL)
        saying = _said(body)
        count = body.get("n", 1)
        if body.get("stream"):
            return Given(_stream(saying), stream=True)
        if saying.breaks:
            raise Refusal(500, "the model broke")
        choices = [_choice(saying, number) for number in range(count)]
        return Given(json.dumps({"id": "chat-ai21", "choices": choices, "usage": _usage(saying)}).encode())

    def error(self, refusal: Refusal) -> bytes:
        where, _, what = refusal.message.partition(": ")
        if refusal.status == 400:
            return json.dumps(
                {"detail": [{"loc": where.split("."), "msg": what, "type": "value_error"}]}
            ).encode()
        return json.dumps({"detail": refusal.message}).encode()


def _said(body: dict[str, Any]) -> Saying:
    expect(0 <= body.get("temperature", 0) <= 2, "temperature: range 0..2")
    expect(0 <= body.get("top_p", 1) <= 1, "top_p: range 0..1")
    expect(1 <= body.get("n", 1) <= 16, "n: range 1..16")
    expect(isinstance(body.get("stop", []), list), "stop: must be a list")
    only(body.get("response_format", {"type": "text"}), "response_format", "type")
    last, result = "", None
    for number, message in enumerate(body["messages"]):
        where = f"messages.{number}"
        expect(message.get("role") in _MESSAGES, f"{where}.role: invalid")
        only(message, where, *_MESSAGES[message["role"]])
        expect(isinstance(message["content"], str), f"{where}.content: str type expected")
        if message["role"] == "user":
            last, result = message["content"], None
        elif message["role"] == "tool":
            result = message["content"]
    names = []
    for number, tool in enumerate(body.get("tools", [])):
        only(tool, f"tools.{number}", "type function")
        only(tool["function"], f"tools.{number}.function", "name", "description parameters")
        names.append(tool["function"]["name"])
    as_json = body.get("response_format", {}).get("type") == "json_object"
    return say(last, tools=names, tool_result=result, as_json=as_json)


def _calls(saying: Saying) -> list[dict[str, Any]]:
    return [
        {"id": ident, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for ident, name, arguments in saying.calls
    ]


def _choice(saying: Saying, index: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": saying.text, "tool_calls": _calls(saying) or None}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": _FINISH[saying.finish]}


def _usage(saying: Saying) -> dict[str, int]:
    total = saying.input_tokens + saying.output_tokens
    counts = {"prompt_tokens": saying.input_tokens, "completion_tokens": saying.output_tokens}
    return {**counts, "total_tokens": total}


def _stream(saying: Saying) -> bytes:
    made = [_chunk({"role": "assistant"})]
    made += [_chunk({"content": piece}) for piece in pieces(saying.text)]
    if saying.breaks:
        return events(*made, {"error": {"message": "the model broke"}}, named=False)
    if saying.calls:
        made.append(_chunk({"tool_calls": _calls(saying)}))
    made.append({**_chunk({"content": ""}, _FINISH[saying.finish]), "usage": _usage(saying)})
    return events(*made, named=False) + b"data: [DONE]\n\n"


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {"id": "chat-ai21", "choices": [choice]}
