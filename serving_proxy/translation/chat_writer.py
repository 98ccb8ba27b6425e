"""Writes answers of OpenAI's chat completions: whole ones, and the chunks of a stream.

Source: https://platform.openai.com/docs/api-reference/chat/object and
https://platform.openai.com/docs/api-reference/chat/streaming. The time of creation is that in our own request id.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from servelens.identifiers import time_us

DONE: Final = b"data: [DONE]\n\n"
_encode: Final = msgspec.json.Encoder().encode


class ChatWriter:
    """One answer to one call. ``model`` is what the client asked for; ``include_usage`` as in its
    ``stream_options``.
    """

    __slots__ = ("_include_usage", "_model", "_prefix", "_request_id", "_suffix", "ident")

    def __init__(self, *, model: str, request_id: str, include_usage: bool) -> None:
        self.ident = f"chatcmpl-{request_id}"
        self._model = model
        self._request_id = request_id
        self._include_usage = include_usage
        self._prefix = b""
        self._suffix = b',"usage":null}\n\n' if include_usage else b"}\n\n"

    def whole(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> bytes:
        answer = {
            "id": self.ident,
            "object": "chat.completion",
            "created": self._created(),
            "model": self._model,
            "choices": choices,
        }
        if usage is not None:
            answer["usage"] = usage
        return _encode(answer)

    def delta(self, delta: Any, index: int = 0) -> bytes:
        return self._chunk(_encode(delta), index, b"null")

    def text(self, text: str) -> bytes:
        return self._chunk(b'{"content":%b}' % _encode(text), 0, b"null")

    def finish(self, reason: str | None, index: int = 0) -> bytes:
        return self._chunk(b"{}", index, _encode(reason))

    def end(self, usage: dict[str, Any] | None) -> bytes:
        """The chunk with the usage, when it was asked for and is known, and the stream's end."""
        if not self._include_usage or usage is None:
            return DONE
        return b'%b"choices":[],"usage":%b}\n\n%b' % (self._start(), _encode(usage), DONE)

    def _chunk(self, delta: bytes, index: int, reason: bytes) -> bytes:
        return b'%b"choices":[{"index":%d,"delta":%b,"logprobs":null,"finish_reason":%b}]%b' % (
            self._start(),
            index,
            delta,
            reason,
            self._suffix,
        )

    def _start(self) -> bytes:
        if not self._prefix:
            head = {
                "id": self.ident,
                "object": "chat.completion.chunk",
                "created": self._created(),
                "model": self._model,
            }
            self._prefix = b"data: %b," % _encode(head)[:-1]
        return self._prefix

    def _created(self) -> int:
        return time_us(self._request_id) // 1_000_000


def chat_usage(
    prompt: int,
    completion: int,
    *,
    cached: int | None = None,
    written: int | None = None,
    reasoning: int | None = None,
) -> dict[str, Any]:
    """Token counts in OpenAI's words; ``prompt`` includes what was read from and written to a cache."""
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    details = {"cached_tokens": cached, "cache_write_tokens": written}
    if known := {name: count for name, count in details.items() if count is not None}:
        usage["prompt_tokens_details"] = known
    if reasoning is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage
