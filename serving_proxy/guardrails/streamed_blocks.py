"""Guardrails on streams of Anthropic's messages.

Shapes: https://docs.anthropic.com/en/docs/build-with-claude/streaming. The rest of a block's text is sent as one more delta
before the event that stops the block. A masked ``thinking`` no longer fits its signature.
"""

from __future__ import annotations

from typing import Any, Final

from serving_proxy.guardrails.channels import Channels, Key
from serving_proxy.guardrails.event_stream import named_event, with_data
from serving_proxy.guardrails.text_fields import treat_texts

EVENTS: Final = frozenset(
    (
        *(
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
        ),
        *("message_stop", "ping", "error"),
    )
)
_DELTA_OF: Final = {"text": "text_delta", "thinking": "thinking_delta", "partial_json": "input_json_delta"}


class StreamedBlocks:
    """The content blocks of one message."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    def event(self, raw: bytes, event: dict[str, Any]) -> bytes:
        """What is sent for one event of the backend."""
        match event["type"]:
            case "content_block_delta" if isinstance(event.get("delta"), dict):
                return self._delta(raw, event, event["delta"])
            case "content_block_start":
                block = event.get("content_block")
                if isinstance(block, dict):
                    for name in ("text", "thinking"):
                        if isinstance(block.get(name), str):
                            block[name] = self._channels.feed((event.get("index"), name), block[name])
                    event["content_block"] = treat_texts(block, self._channels.screen.text)
                return with_data(raw, event)
            case "content_block_stop":
                return self._rests(event.get("index")) + raw
            case "message_delta" | "message_stop":
                return self.finish() + raw
            case "message_start":
                return with_data(raw, treat_texts(event, self._channels.screen.text))
            case _:
                return raw

    def finish(self) -> bytes:
        """The rests of all blocks: the stream is over."""
        return b"".join(self._rest(key, rest) for key, rest in self._channels.finish())

    def _delta(self, raw: bytes, event: dict[str, Any], delta: dict[str, Any]) -> bytes:
        for name in ("text", "thinking"):
            piece = delta.get(name)
            if isinstance(piece, str):
                delta[name] = text = self._channels.feed((event.get("index"), name), piece)
                return with_data(raw, event) if text else b""
        arguments = delta.get("partial_json")
        if isinstance(arguments, str):
            self._channels.keep((event.get("index"), "partial_json"), arguments)
            return b""
        event["delta"] = treat_texts(delta, self._channels.screen.text)
        return with_data(raw, event)

    def _rests(self, index: Any) -> bytes:
        return b"".join(self._rest(key, rest) for key, rest in self._channels.finish(index))

    def _rest(self, key: Key, rest: str) -> bytes:
        name = str(key[1])
        delta = {"type": _DELTA_OF[name], name: rest}
        return named_event(
            "content_block_delta", {"type": "content_block_delta", "index": key[0], "delta": delta}
        )
