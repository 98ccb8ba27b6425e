"""Guardrails on streams of chat completions and completions.

Shapes: https://platform.openai.com/docs/api-reference/chat/streaming, and of the servers that follow it (``reasoning_content``,
``token_ids``). The rest of a text is sent in an event of its own before the one that finishes its choice.
"""

from __future__ import annotations

from typing import Any, Final

from serving_proxy.guardrails.channels import Channels, Key
from serving_proxy.guardrails.event_stream import with_data
from serving_proxy.guardrails.text_fields import treat_texts, without_probabilities

_TEXTS: Final = ("content", "text", "reasoning_content", "reasoning", "refusal")
_SILENT: Final = frozenset((*_TEXTS, "tool_calls", "function_call"))
_DRY: Final = frozenset(("choices", "usage", "error"))


class StreamedChoices:
    """The choices of one answer."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._frame: dict[str, Any] = {}  # what the events of this answer have in common
        self._is_chat = True

    def event(self, raw: bytes, event: dict[str, Any]) -> bytes:
        """What is sent for one event of the backend."""
        self._frame = {name: value for name, value in event.items() if name not in _DRY}
        says_something = bool(event.get("usage")) or not event["choices"] or "error" in event
        before = b""
        for choice in event["choices"]:
            if not isinstance(choice, dict):
                continue
            index = choice.get("index", 0)
            self._is_chat = "delta" in choice
            delta = choice.get("delta")
            held = delta if isinstance(delta, dict) else {} if self._is_chat else choice
            said = self._choice(index, held)
            without_probabilities(choice)
            is_finished = choice.get("finish_reason") is not None
            if is_finished:
                texts = {name: held.pop(name) for name in _TEXTS if held.get(name)}
                for name, text in texts.items():
                    before += self._rest((index, name), text)
                for key, rest in self._channels.finish(index):
                    before += self._rest(key, rest)
                if not self._is_chat:
                    held["text"] = ""
            says_something = says_something or said or is_finished
        return before + with_data(raw, event) if says_something else before

    def finish(self) -> bytes:
        """The rests of all choices: the stream is over."""
        return b"".join(self._rest(key, rest) for key, rest in self._channels.finish())

    def _choice(self, index: Any, held: dict[str, Any]) -> bool:
        """Treat one choice's delta in place; whether there is anything in it to send now."""
        channels = self._channels
        says_something = False
        for name, value in held.items():
            if name in _TEXTS and isinstance(value, str):
                held[name] = text = channels.feed((index, name), value)
                says_something = says_something or text != ""
            elif name == "tool_calls" and isinstance(value, list):
                for call in value:
                    says_something = self._call(index, call) or says_something
            elif name == "function_call" and isinstance(value, dict):
                if isinstance(value.get("arguments"), str):
                    channels.keep((index, name), value["arguments"])
                    value["arguments"] = ""
                says_something = says_something or "name" in value
            elif name not in ("index", "finish_reason", "logprobs", "delta"):
                if isinstance(value, dict | list):
                    held[name] = treat_texts(value, channels.screen.text)
                says_something = says_something or (value is not None and name not in _SILENT)
        return says_something

    def _call(self, index: Any, call: Any) -> bool:
        if not isinstance(call, dict):
            return False
        function = call.get("function")
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            self._channels.keep((index, "tool_calls", call.get("index", 0)), function["arguments"])
            function["arguments"] = ""
        return bool(call.get("id")) or (isinstance(function, dict) and bool(function.get("name")))

    def _rest(self, key: Key, rest: str) -> bytes:
        """An event with what was still held back of one text."""
        index, name = key[0], str(key[1])
        choice: dict[str, Any] = {"index": index, "finish_reason": None}
        if not self._is_chat:
            choice["text"] = rest
        elif name == "tool_calls":
            choice["delta"] = {"tool_calls": [{"index": key[2], "function": {"arguments": rest}}]}
        elif name == "function_call":
            choice["delta"] = {"function_call": {"arguments": rest}}
        else:
            choice["delta"] = {name: rest}
        return with_data(b"data:", {**self._frame, "choices": [choice]})
