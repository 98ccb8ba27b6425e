"""Anthropic's answers in the words of OpenAI's chat completions.

Source: https://platform.claude.com/docs/en/api/messages/create (the Message object) and
https://platform.claude.com/docs/en/build-with-claude/streaming. What the model thought goes to
``reasoning_content``, as most OpenAI-compatible servers name it, and with its signatures to ``thinking_blocks``: a
client that sends them again with its tool results keeps the thread, as Anthropic asks for.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from serving_proxy.dialects.openai import OpenAI
from serving_proxy.translation.chat_writer import ChatWriter, chat_usage
from serving_proxy.translation.strict_json import Count
from serving_proxy.translation.translated_answer import TranslatedAnswer, cut_short

_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_OPENAI: Final = OpenAI()


class _Details(msgspec.Struct, gc=False):
    thinking_tokens: Count | None = None


class _Usage(msgspec.Struct, gc=False):
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    output_tokens_details: _Details | None = None


class _Block(msgspec.Struct, gc=False):
    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw()
    thinking: str = ""
    signature: str = ""
    data: str = ""


class _Message(msgspec.Struct):
    content: list[_Block]
    usage: _Usage
    id: str | None = None
    stop_reason: str | None = None


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: str = ""
    partial_json: str = ""
    thinking: str = ""
    signature: str = ""
    stop_reason: str | None = None


class _Event(msgspec.Struct, gc=False):
    type: str
    index: int = 0
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Message | None = None
    usage: _Usage | None = None


_decode_message: Final = msgspec.json.Decoder(_Message).decode
_decode_event: Final = msgspec.json.Decoder(_Event).decode


class AnthropicToChat(TranslatedAnswer):
    """One answer of ``/v1/messages``."""

    def __init__(self, writer: ChatWriter) -> None:
        super().__init__(_OPENAI, overloaded=503)
        self._writer = writer
        self._usage = _Usage()
        self._tools = 0
        self._thoughts = 0
        self._block: _Block | None = None
        self._has_input = False
        self._finished = False

    def _answer(self, body: bytes) -> tuple[int, bytes]:
        message = _decode_message(body)
        if message.id:
            self._writer.ident = message.id
        texts, calls, thoughts = [], [], []
        for block in message.content:
            if block.type == "text":
                texts.append(block.text)
            elif block.type == "tool_use":
                calls.append(_tool_call(block))
            elif block.type in ("thinking", "redacted_thinking"):
                thoughts.append(block)
        said: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(texts) if texts or not calls else None,
        }
        said["refusal"] = None
        if calls:
            said["tool_calls"] = calls
        if thoughts:
            said["reasoning_content"] = "".join(block.thinking for block in thoughts)
            said["thinking_blocks"] = [_thought(block) for block in thoughts]
        reason = _REASONS.get(message.stop_reason or "", "stop")
        choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": reason}
        return 200, self._writer.whole([choice], _usage(message.usage))

    def _event(self, data: bytes) -> None:
        event = _decode_event(data)
        kind = event.type
        if kind == "content_block_delta":
            if event.delta is not None:
                self._on_delta(event.delta)
        elif kind == "content_block_start":
            if event.content_block is not None:
                self._on_block(event.content_block)
        elif kind == "content_block_stop":
            self._on_block_end()
        elif kind == "message_start":
            if event.message is not None:
                self._usage = event.message.usage
                if event.message.id:
                    self._writer.ident = event.message.id
            self._out.append(self._writer.delta({"role": "assistant", "content": "", "refusal": None}))
        elif kind == "message_delta":
            _add(self._usage, event.usage)
            if event.delta is not None and event.delta.stop_reason is not None and not self._finished:
                self._finished = True
                self._out.append(self._writer.finish(_REASONS.get(event.delta.stop_reason, "stop")))
        elif kind == "message_stop":
            self._finish()
        elif kind == "error":
            self._fail(data)

    def _finish(self) -> None:
        if not self._finished:
            raise cut_short()
        self._out.append(self._writer.end(_usage(self._usage)))
        self._over = True

    def _on_delta(self, delta: _Delta) -> None:
        if delta.type == "text_delta":
            self._out.append(self._writer.text(delta.text))
        elif delta.type == "input_json_delta":
            if delta.partial_json:
                self._has_input = True
                self._add_arguments(delta.partial_json)
        elif delta.type == "thinking_delta":
            block = {"index": self._thoughts, "type": "thinking", "thinking": delta.thinking}
            self._out.append(
                self._writer.delta({"reasoning_content": delta.thinking, "thinking_blocks": [block]})
            )
        elif delta.type == "signature_delta":
            block = {"index": self._thoughts, "type": "thinking", "signature": delta.signature}
            self._out.append(self._writer.delta({"thinking_blocks": [block]}))

    def _on_block(self, block: _Block) -> None:
        self._block = block
        self._has_input = False
        if block.type == "text":
            if block.text:
                self._out.append(self._writer.text(block.text))
        elif block.type == "tool_use":
            call = {"index": self._tools, "id": block.id, "type": "function"}
            self._tools += 1
            function = {"name": block.name, "arguments": ""}
            self._out.append(self._writer.delta({"tool_calls": [{**call, "function": function}]}))
        elif block.type == "redacted_thinking":
            thought = {"index": self._thoughts, **_thought(block)}
            self._out.append(self._writer.delta({"thinking_blocks": [thought]}))
        elif block.type == "thinking" and block.thinking:
            self._on_delta(_Delta("thinking_delta", thinking=block.thinking))

    def _on_block_end(self) -> None:
        block, self._block = self._block, None
        if block is None:
            return
        if block.type == "tool_use" and not self._has_input:
            self._add_arguments(_input(block))  # clients parse the arguments, and '' is no JSON
        elif block.type in ("thinking", "redacted_thinking"):
            self._thoughts += 1

    def _add_arguments(self, text: str) -> None:
        call = {"index": self._tools - 1, "function": {"arguments": text}}
        self._out.append(self._writer.delta({"tool_calls": [call]}))


def _tool_call(block: _Block) -> dict[str, Any]:
    function = {"name": block.name, "arguments": _input(block)}
    return {"id": block.id, "type": "function", "function": function}


def _input(block: _Block) -> str:
    return bytes(block.input).decode("utf-8", "replace") or "{}"


def _thought(block: _Block) -> dict[str, Any]:
    if block.type == "redacted_thinking":
        return {"type": "redacted_thinking", "data": block.data}
    return {"type": "thinking", "thinking": block.thinking, "signature": block.signature}


def _add(usage: _Usage, later: _Usage | None) -> None:
    """Counts are cumulative, and one that is missing stays what it was."""
    if later is None:
        return
    for name in usage.__struct_fields__:
        value = getattr(later, name)
        if value is not None:
            setattr(usage, name, value)


def _usage(usage: _Usage) -> dict[str, Any] | None:
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    details = usage.output_tokens_details
    return chat_usage(
        usage.input_tokens + (read or 0) + (written or 0),
        usage.output_tokens,
        cached=read,
        written=written,
        reasoning=None if details is None else details.thinking_tokens,
    )
