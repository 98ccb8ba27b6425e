"""Guardrails on streams of OpenAI's Responses API.

Shapes: https://platform.openai.com/docs/api-reference/responses-streaming. Every text comes as ``….delta`` events, then whole in
``….done``, in the done events of its part and item, and in the last event. ``sequence_number`` is counted anew, for events are
left out and put in.
"""

from __future__ import annotations

from typing import Any, Final

from serving_proxy.guardrails.channels import Channels, Key
from serving_proxy.guardrails.event_stream import named_event, with_data
from serving_proxy.guardrails.text_fields import treat_texts, without_probabilities

_PLACE: Final = ("item_id", "output_index", "content_index", "summary_index")
KEPT_WHOLE: Final = ("arguments", "custom_tool_call_input", "code_interpreter_call_code")
_UNSEEN: Final = ("response.audio",)
_LAST: Final = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")


class StreamedItems:
    """The output items of one response."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._next: int | None = None
        self._places: dict[Key, dict[str, Any]] = {}

    def event(self, raw: bytes, event: dict[str, Any]) -> bytes:
        """What is sent for one event of the backend."""
        kind = str(event["type"])
        number = event.get("sequence_number")
        if self._next is None and isinstance(number, int):
            self._next = number
        base, _, step = kind.rpartition(".")
        if step == "delta" and isinstance(event.get("delta"), str) and base not in _UNSEEN:
            return self._delta(raw, event, base)
        before = b""
        if step == "done":
            before = self._rests(self._key(base, event))
        elif kind in _LAST:
            before = self.finish()
        without_probabilities(event)
        response = event.get("response")
        if isinstance(response, dict):  # it repeats the request, which is the client's own
            for name in ("output", "output_text"):
                if response.get(name):
                    response[name] = treat_texts(response[name], self._channels.screen.text)
        else:
            event = treat_texts(event, self._channels.screen.text)
        return before + with_data(raw, self._numbered(event))

    def finish(self) -> bytes:
        """The rests of all texts: the stream is over."""
        return self._rests(())

    def _delta(self, raw: bytes, event: dict[str, Any], base: str) -> bytes:
        key = self._key(base, event)
        if key not in self._places:
            self._places[key] = {name: event[name] for name in _PLACE if name in event}
        if base.endswith(KEPT_WHOLE):
            self._channels.keep(key, event["delta"])
            return b""
        event["delta"] = text = self._channels.feed(key, event["delta"])
        if not text:
            return b""
        without_probabilities(event)
        return with_data(raw, self._numbered(event))

    def _key(self, base: str, event: dict[str, Any]) -> Key:
        return (base, *(event.get(name) for name in _PLACE))

    def _rests(self, start: Key) -> bytes:
        events = b""
        for key, rest in self._channels.finish(*start):
            kind = f"{key[0]}.delta"
            event = {"type": kind, **self._places.get(key, {}), "delta": rest}
            if kind == "response.output_text.delta":
                event["logprobs"] = []
            events += named_event(kind, self._numbered(event))
        return events

    def _numbered(self, event: dict[str, Any]) -> dict[str, Any]:
        if self._next is not None:
            event["sequence_number"] = self._next
            self._next += 1
        return event
