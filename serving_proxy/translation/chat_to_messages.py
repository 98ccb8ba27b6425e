"""Answers of OpenAI's chat completions (and of servers that follow it) in the words of Anthropic's Messages API.

Sources: https://platform.openai.com/docs/api-reference/chat/streaming and
https://platform.claude.com/docs/en/build-with-claude/streaming. A stream's usage comes last there, so the message
starts with zero tokens and its ``message_delta`` has the counts; a backend that counts nothing leaves them at zero,
since Anthropic's API has no other way to say so. What the model reasoned becomes a thinking block when the client asked
for thinking, without a signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from servelens.errors import Unavailable
from serving_proxy.dialects.anthropic import Anthropic
from serving_proxy.translation.strict_json import NO_JSON, Count
from serving_proxy.translation.translated_answer import TranslatedAnswer, cut_short

_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_ANTHROPIC: Final = Anthropic()
_OVERLOADED: Final = 529
_encode: Final = msgspec.json.Encoder().encode


class _CachedTokens(msgspec.Struct, gc=False):
    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    prompt_tokens_details: _CachedTokens | None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Said(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    message: _Said
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    id: str | None = None
    usage: _Usage | None = None


class _ChunkChoice(msgspec.Struct):
    delta: _Said | None = None
    index: int = 0
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_ChunkChoice] | None = None
    id: str | None = None
    usage: _Usage | None = None
    error: Any = None


_decode_answer: Final = msgspec.json.Decoder(_Answer).decode
_decode_chunk: Final = msgspec.json.Decoder(_Chunk).decode
_decode_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class ChatToMessages(TranslatedAnswer):
    """One answer of ``/chat/completions``. ``stops`` are the request's own stop sequences: vLLM tells which of them
    ended the answer.
    """

    def __init__(self, *, model: str, request_id: str, thinks: bool, stops: Sequence[str] = ()) -> None:
        super().__init__(_ANTHROPIC, overloaded=_OVERLOADED)
        self._model = model
        self._request_id = request_id
        self._thinks = thinks
        self._stops = frozenset(stops)
        self._started = False
        self._blocks = 0
        self._open: str | None = None  # the kind of the block that is open
        self._tool: int | None = None  # the place of the tool call in the open block
        self._usage: _Usage | None = None
        self._reason: tuple[str, str | None] | None = None

    def begin(self, status: int, headers: Any, *, is_stream: bool) -> Any:
        passed = super().begin(status, headers, is_stream=is_stream)
        return [*passed, (b"request-id", self._request_id.encode())]

    def _answer(self, body: bytes) -> tuple[int, bytes]:
        answer = _decode_answer(body)
        if not answer.choices:
            raise Unavailable("The backend's answer has no choices.")
        choice = answer.choices[0]
        said = choice.message
        content: list[dict[str, Any]] = []
        thoughts = said.reasoning_content or said.reasoning
        if thoughts and self._thinks:
            content.append({"type": "thinking", "thinking": thoughts, "signature": ""})
        for text in (said.content, said.refusal):
            if text:
                content.append({"type": "text", "text": text})
        for number, call in enumerate(said.tool_calls or ()):
            block = _tool_use(call, number)
            if block is not None:
                content.append(block)
            elif choice.finish_reason != "length":
                raise Unavailable("The model called a tool with arguments that are no JSON object.")
        reason, stop = self._stop(choice, refused=bool(said.refusal))
        message = self._message(answer.id, content, reason, stop, _counts(answer.usage))
        return 200, _encode(message)

    def _event(self, data: bytes) -> None:
        if data.strip() == b"[DONE]":
            self._finish()
            return
        chunk = _decode_chunk(data)
        if chunk.error is not None:
            self._fail(data)
            return
        if not self._started:
            self._start(chunk.id)
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices or ():
            if choice.index != 0:
                continue
            if choice.delta is not None:
                self._on_delta(choice.delta)
            if choice.finish_reason is not None:
                self._reason = self._stop(choice, refused=False)

    def _finish(self) -> None:
        if self._reason is None:
            raise cut_short()
        self._close()
        reason, stop = self._reason
        delta = {"stop_reason": reason, "stop_sequence": stop}
        self._send("message_delta", {"delta": delta, "usage": _counts(self._usage)})
        self._send("message_stop", {})
        self._over = True

    def _on_delta(self, delta: _Said) -> None:
        thoughts = delta.reasoning_content or delta.reasoning
        if thoughts and self._thinks:
            self._open_block("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            self._add({"type": "thinking_delta", "thinking": thoughts})
        for text in (delta.content, delta.refusal):
            if text:
                self._open_block("text", {"type": "text", "text": ""})
                self._out.append(
                    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
                    b'"delta":{"type":"text_delta","text":%b}}\n\n' % (self._blocks - 1, _encode(text))
                )
        for number, call in enumerate(delta.tool_calls or ()):
            self._on_call(call, number)

    def _on_call(self, call: _Call, number: int) -> None:
        function = call.function or _Function()
        place = number if call.index is None else call.index
        if self._open != "tool_use" or place != self._tool:
            if not function.name:
                raise Unavailable("The backend goes on with a tool call that has not begun, or has ended.")
            self._close()
            ident = call.id or f"toolu_{self._request_id}_{place}"
            block = {"type": "tool_use", "id": ident, "name": function.name, "input": {}}
            self._open_block("tool_use", block)
            self._tool = place
        if function.arguments:
            self._add({"type": "input_json_delta", "partial_json": function.arguments})

    def _start(self, ident: str | None) -> None:
        self._started = True
        usage = {"input_tokens": 0, "output_tokens": 0}
        self._send("message_start", {"message": self._message(ident, [], None, None, usage)})

    def _message(
        self,
        ident: str | None,
        content: list[dict[str, Any]],
        reason: str | None,
        stop: str | None,
        usage: dict[str, int],
    ) -> dict[str, Any]:
        return {
            "id": ident or f"msg_{self._request_id}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": stop,
            "usage": usage,
        }

    def _open_block(self, kind: str, block: dict[str, Any]) -> None:
        if self._open == kind:
            return
        self._close()
        self._send("content_block_start", {"index": self._blocks, "content_block": block})
        self._open = kind
        self._blocks += 1

    def _close(self) -> None:
        if self._open is not None:
            self._send("content_block_stop", {"index": self._blocks - 1})
            self._open = self._tool = None

    def _add(self, delta: dict[str, Any]) -> None:
        self._send("content_block_delta", {"index": self._blocks - 1, "delta": delta})

    def _send(self, kind: str, fields: dict[str, Any]) -> None:
        self._out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **fields})))

    def _stop(self, choice: _Choice | _ChunkChoice, *, refused: bool) -> tuple[str, str | None]:
        if refused:
            return "refusal", None
        if choice.stop_reason in self._stops and isinstance(choice.stop_reason, str):
            return "stop_sequence", choice.stop_reason
        return _REASONS.get(choice.finish_reason or "", "end_turn"), None


def _tool_use(call: _Call, number: int) -> dict[str, Any] | None:
    """The block, or ``None`` when the arguments are no JSON object."""
    function = call.function or _Function()
    arguments = (function.arguments or "").strip() or "{}"
    try:
        _decode_object(arguments)
    except NO_JSON:
        return None
    return {
        "type": "tool_use",
        "id": call.id or f"toolu_{number}",
        "name": function.name or "",
        "input": msgspec.Raw(arguments.encode()),
    }


def _counts(usage: _Usage | None) -> dict[str, int]:
    """Anthropic counts what a cache gave apart from the other input."""
    if usage is None:
        return {"input_tokens": 0, "output_tokens": 0}
    counts = {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}
    details = usage.prompt_tokens_details
    if details is not None:
        for name, value in (
            ("cache_read_input_tokens", details.cached_tokens),
            ("cache_creation_input_tokens", details.cache_write_tokens),
        ):
            if value is not None:
                counts[name] = value
                counts["input_tokens"] = max(0, counts["input_tokens"] - value)
    return counts
