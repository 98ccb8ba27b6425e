"""AI21's answers in the words of OpenAI's chat completions, which they follow: what is missing is added.

Source: https://docs.ai21.com/reference/jamba-api-response. Whole answers and chunks have no ``object``, ``created`` and
``model``; the usage comes with the last chunk whether it was asked for or not.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from serving_proxy.dialects.openai import OpenAI
from serving_proxy.translation.chat_writer import ChatWriter, chat_usage
from serving_proxy.translation.strict_json import Count
from serving_proxy.translation.translated_answer import TranslatedAnswer, cut_short

_OPENAI: Final = OpenAI()
_REASONS: Final = ("stop", "length", "tool_calls", "content_filter")


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: Count
    completion_tokens: Count


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    id: str | None = None
    index: int | None = None
    function: _Function | None = None


class _Message(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    index: int = 0
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    id: str | None = None
    usage: _Usage | None = None


class _ChunkChoice(msgspec.Struct):
    index: int = 0
    delta: _Message | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_ChunkChoice] | None = None
    id: str | None = None
    usage: _Usage | None = None
    error: Any = None


_decode_answer: Final = msgspec.json.Decoder(_Answer).decode
_decode_chunk: Final = msgspec.json.Decoder(_Chunk).decode


class AI21ToChat(TranslatedAnswer):
    """One answer of ``/studio/v1/chat/completions``."""

    def __init__(self, writer: ChatWriter) -> None:
        super().__init__(_OPENAI, overloaded=503)
        self._writer = writer
        self._usage: _Usage | None = None
        self._finished = False

    def _answer(self, body: bytes) -> tuple[int, bytes]:
        answer = _decode_answer(body)
        if answer.id:
            self._writer.ident = answer.id
        return 200, self._writer.whole([_whole(choice) for choice in answer.choices], _counts(answer.usage))

    def _event(self, data: bytes) -> None:
        if data.strip() == b"[DONE]":
            self._finish()
            return
        chunk = _decode_chunk(data)
        if chunk.error is not None:
            self._fail(data)
            return
        if chunk.id:
            self._writer.ident = chunk.id
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices or ():
            delta = choice.delta
            if delta is not None and (written := _delta(delta)):
                self._out.append(self._writer.delta(written, choice.index))
            if choice.finish_reason is not None:
                self._finished = True
                self._out.append(self._writer.finish(_reason(choice.finish_reason), choice.index))

    def _finish(self) -> None:
        if not self._finished:
            raise cut_short()
        self._over = True
        self._out.append(self._writer.end(_counts(self._usage)))


def _whole(choice: _Choice) -> dict[str, Any]:
    message = choice.message
    said: dict[str, Any] = {"role": "assistant", "content": message.content, "refusal": None}
    if message.tool_calls:
        said["tool_calls"] = [_call(call, number) for number, call in enumerate(message.tool_calls)]
        for call in said["tool_calls"]:
            del call["index"]
            call["function"]["arguments"] = call["function"]["arguments"] or "{}"
    return {
        "index": choice.index,
        "message": said,
        "logprobs": None,
        "finish_reason": _reason(choice.finish_reason),
    }


def _delta(delta: _Message) -> dict[str, Any]:
    written: dict[str, Any] = {}
    if delta.role is not None:
        written["role"] = "assistant"
    if delta.content is not None:
        written["content"] = delta.content
    if delta.tool_calls:
        written["tool_calls"] = [_piece(call, number) for number, call in enumerate(delta.tool_calls)]
    return written


def _piece(call: _Call, number: int) -> dict[str, Any]:
    """A tool call's first piece has its id and name; the others only go on with its arguments."""
    function = call.function or _Function()
    if call.id:
        return _call(call, number)
    return {
        "index": number if call.index is None else call.index,
        "function": {"arguments": function.arguments or ""},
    }


def _call(call: _Call, number: int) -> dict[str, Any]:
    function = call.function or _Function()
    return {
        "index": number if call.index is None else call.index,
        "id": call.id or f"call_{number}",
        "type": "function",
        "function": {"name": function.name or "", "arguments": function.arguments or ""},
    }


def _reason(reason: str | None) -> str:
    return reason if reason in _REASONS else "stop"


def _counts(usage: _Usage | None) -> dict[str, Any] | None:
    return None if usage is None else chat_usage(usage.prompt_tokens, usage.completion_tokens)
