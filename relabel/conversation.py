"""Makes the snapshot of a conversation that an annotator sees, from one row of an inference table.

Invariants: the result is a list of OpenAI chat messages whose text every database and every UTF-8 file can
hold, and it depends on nothing but the row. A body that is no chat, or that the size limit kept out of the
table, is represented by the plain texts that the collector extracted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_MESSAGE_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal")

Message = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """OpenAI chat messages, the last one the recorded answer when ``answered``, and the tools offered."""

    messages: list[Message]
    answered: bool
    tools: list[dict[str, Any]] | None

    @property
    def answer(self) -> Message | None:
        """The recorded answer."""
        return self.messages[-1] if self.answered else None

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (hex) of the conversation and the answer; equal for equal content, whoever served it."""
        canonical = json.dumps(
            [self.messages, self.answered, self.tools],
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
        )
        return hashlib.sha256(canonical.encode()).hexdigest()


def read_conversation(
    request: str | None, response: str | None, prompt_text: str | None, response_text: str | None
) -> Conversation | None:
    """The conversation of a row, or ``None`` when the row has kept none of it."""
    asked = _object(request)
    answered = _object(response)
    messages = _asked(asked, prompt_text)
    answer = _answer(answered, response_text)
    if not messages and answer is None:
        return None
    tools = asked.get("tools")
    return Conversation(
        messages=storable([*messages, answer] if answer else messages),
        answered=answer is not None,
        tools=storable(tools) if isinstance(tools, list) and tools else None,
    )


def storable(value: Any) -> Any:
    """``value`` (JSON) with U+FFFD for what PostgreSQL and UTF-8 cannot hold: NUL and unpaired surrogates."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, list):
        return [storable(item) for item in value]
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    return value


def _object(body: str | None) -> Mapping[str, Any]:
    if body is None:
        return {}
    try:
        value = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _no_number(name: str) -> None:
    # NaN and Infinity are not JSON; PostgreSQL would refuse them.
    return None


def _asked(body: Mapping[str, Any], prompt_text: str | None) -> list[Message]:
    messages = body.get("messages")
    if isinstance(messages, list) and messages and all(map(_is_message, messages)):
        cleaned = [_cleaned(message) for message in messages]
        system = body.get("system")  # Anthropic keeps it beside the messages
        return [{"role": "system", "content": system}, *cleaned] if system else cleaned
    prompt = body.get("prompt")
    if isinstance(prompt, str) and prompt:
        return [{"role": "user", "content": prompt}]
    return [{"role": "user", "content": prompt_text}] if prompt_text else []


def _answer(body: Mapping[str, Any], response_text: str | None) -> Message | None:
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if isinstance(message, dict):
        cleaned = _cleaned({**message, "role": "assistant"})
        if any(cleaned.get(key) for key in ("content", "tool_calls", "function_call", "refusal")):
            return cleaned
    return {"role": "assistant", "content": response_text} if response_text else None


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str)


def _cleaned(message: Mapping[str, Any]) -> Message:
    """Without what only one backend adds (reasoning, audio, annotations) and without empty optional parts."""
    return {
        key: message[key]
        for key in _MESSAGE_KEYS
        if key in message and (key in ("role", "content") or message[key])
    }
