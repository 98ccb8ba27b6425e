"""Cohere's v2 chat answers in the words of OpenAI's chat completions.

Source: https://docs.cohere.com/reference/chat and https://docs.cohere.com/reference/chat-stream. What a model plans
before it calls tools (``tool_plan``) is the content that comes with OpenAI's tool calls. Token counts are those of
``usage.tokens``, or what was billed where they are missing. Citations have no counterpart and are left out.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from serving_proxy.dialects.openai import OpenAI
from serving_proxy.failure import Failure
from serving_proxy.translation.chat_writer import ChatWriter, chat_usage
from serving_proxy.translation.strict_json import FloatCount
from serving_proxy.translation.translated_answer import TranslatedAnswer, cut_short

_REASONS: Final = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
}
_FAILURES: Final = {
    "ERROR": Failure("upstream_status", 500, "The provider failed while it generated the answer."),
    "ERROR_TOXIC": Failure("upstream_status", 400, "The provider refused to give the answer it generated."),
    "TIMEOUT": Failure("upstream_status", 504, "The provider took too long to generate the answer."),
}
_OPENAI: Final = OpenAI()


class _Counts(msgspec.Struct, gc=False):
    input_tokens: FloatCount | None = None
    output_tokens: FloatCount | None = None


class _Usage(msgspec.Struct, gc=False):
    tokens: _Counts | None = None
    billed_units: _Counts | None = None
    cached_tokens: FloatCount | None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    id: str | None = None
    function: _Function | None = None


class _Content(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None


class _Message(msgspec.Struct):
    content: list[_Content] | None = None
    tool_calls: list[_Call] | None = None
    tool_plan: str | None = None


class _Answer(msgspec.Struct):
    message: _Message
    finish_reason: str
    id: str | None = None
    usage: _Usage | None = None


class _MessageDelta(msgspec.Struct):
    content: _Content | list[_Content] | None = None
    tool_calls: _Call | list[_Call] | None = None
    tool_plan: str | None = None


class _Delta(msgspec.Struct):
    message: _MessageDelta | None = None
    finish_reason: str | None = None
    usage: _Usage | None = None
    error: str | None = None


class _Event(msgspec.Struct):
    type: str
    id: str | None = None
    delta: _Delta | None = None


_decode_answer: Final = msgspec.json.Decoder(_Answer).decode
_decode_event: Final = msgspec.json.Decoder(_Event).decode


class CohereToChat(TranslatedAnswer):
    """One answer of ``/v2/chat``."""

    def __init__(self, writer: ChatWriter) -> None:
        super().__init__(_OPENAI, overloaded=503)
        self._writer = writer
        self._tools = 0
        self._has_arguments = True

    def _answer(self, body: bytes) -> tuple[int, bytes]:
        answer = _decode_answer(body)
        failure = _FAILURES.get(answer.finish_reason)
        if failure is not None:
            return self._failed(failure)
        if answer.id:
            self._writer.ident = answer.id
        message = answer.message
        parts = message.content or []
        texts = [part.text for part in parts if part.text]
        thoughts = [part.thinking for part in parts if part.thinking]
        calls = [_tool_call(call) for call in message.tool_calls or ()]
        text: str | None = "".join(texts) or (message.tool_plan if calls else None)
        said: dict[str, Any] = {
            "role": "assistant",
            "content": text if text or calls else "",
            "refusal": None,
        }
        if calls:
            said["tool_calls"] = calls
        if thoughts:
            said["reasoning_content"] = "".join(thoughts)
        reason = _REASONS.get(answer.finish_reason, "stop")
        choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": reason}
        return 200, self._writer.whole([choice], _usage(answer.usage))

    def _event(self, data: bytes) -> None:
        if data.strip() == b"[DONE]":  # some deployments end their streams as OpenAI does
            return
        event = _decode_event(data)
        delta = event.delta or _Delta()
        message = delta.message or _MessageDelta()
        kind = event.type
        if kind in ("content-delta", "content-start"):
            for part in _listed(message.content):
                if part.text:
                    self._out.append(self._writer.text(part.text))
                if part.thinking:
                    self._out.append(self._writer.delta({"reasoning_content": part.thinking}))
        elif kind == "tool-plan-delta":
            if message.tool_plan:
                self._out.append(self._writer.text(message.tool_plan))
        elif kind == "tool-call-start":
            for call in _listed(message.tool_calls):
                self._on_call(call)
        elif kind == "tool-call-delta":
            for call in _listed(message.tool_calls):
                if call.function is not None and call.function.arguments:
                    self._add_arguments(call.function.arguments)
        elif kind == "tool-call-end":
            self._end_call()
        elif kind == "message-start":
            if event.id:
                self._writer.ident = event.id
            self._out.append(self._writer.delta({"role": "assistant", "content": "", "refusal": None}))
        elif kind == "message-end":
            self._on_end(delta)

    def _finish(self) -> None:
        raise cut_short()

    def _on_call(self, call: _Call) -> None:
        self._end_call()
        function = call.function or _Function()
        started = {
            "index": self._tools,
            "id": call.id or f"call_{self._tools}",
            "type": "function",
            "function": {"name": function.name or "", "arguments": ""},
        }
        self._tools += 1
        self._has_arguments = False
        self._out.append(self._writer.delta({"tool_calls": [started]}))
        if function.arguments:
            self._add_arguments(function.arguments)

    def _add_arguments(self, text: str) -> None:
        if not self._tools:
            return
        self._has_arguments = True
        call = {"index": self._tools - 1, "function": {"arguments": text}}
        self._out.append(self._writer.delta({"tool_calls": [call]}))

    def _end_call(self) -> None:
        if not self._has_arguments:  # clients parse the arguments, and '' is no JSON
            self._add_arguments("{}")

    def _on_end(self, delta: _Delta) -> None:
        self._over = True
        failure = _FAILURES.get(delta.finish_reason or "")
        if failure is None and delta.error:
            failure = Failure("upstream_status", 500, delta.error)
        if failure is not None:
            self._out.append(self._dialect.error_event(failure))
            return
        self._end_call()
        self._out.append(self._writer.finish(_REASONS.get(delta.finish_reason or "", "stop")))
        self._out.append(self._writer.end(_usage(delta.usage)))


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _tool_call(call: _Call) -> dict[str, Any]:
    function = call.function or _Function()
    written = {"name": function.name or "", "arguments": function.arguments or "{}"}
    return {"id": call.id or "", "type": "function", "function": written}


def _usage(usage: _Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    for counts in (usage.tokens, usage.billed_units):
        if counts is not None and counts.input_tokens is not None and counts.output_tokens is not None:
            cached = None if usage.cached_tokens is None else int(usage.cached_tokens)
            return chat_usage(int(counts.input_tokens), int(counts.output_tokens), cached=cached)
    return None
