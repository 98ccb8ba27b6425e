"""Recorded chat messages as training files want them: OpenAI's own form, and text alone.

Invariant: a message says afterwards what it said before. What a format has no place for raises
:class:`~relabel.export.left_out.Unfit`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from relabel.export.labeled_case import Message
from relabel.export.left_out import LeftOut, Unfit

_KEYS: Mapping[str, tuple[str, ...]] = {
    "system": ("name",),
    "user": ("name",),
    "assistant": ("name", "tool_calls", "function_call"),
    "tool": ("tool_call_id",),
    "function": ("name",),
}
_TEXT_ROLES = ("system", "user", "assistant", "tool")


def openai_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages of a request as OpenAI's fine-tuning takes them; there is at least one."""
    if not messages:
        raise Unfit(LeftOut.NO_PROMPT)
    return [openai_message(message) for message in messages]


def openai_message(message: Message) -> dict[str, Any]:
    """One message with the documented keys only; ``developer`` is the newer name of ``system``."""
    role = "system" if message["role"] == "developer" else message["role"]
    if role not in _KEYS:
        raise Unfit(LeftOut.UNSUPPORTED_ROLE)
    cleaned: dict[str, Any] = {"role": role}
    content = message.get("content")
    calls = role == "assistant" and bool(message.get("tool_calls") or message.get("function_call"))
    if content or not calls:
        cleaned["content"] = _content(content)
    for key in _KEYS[role]:
        if message.get(key):
            cleaned[key] = _tool_calls(message[key]) if key == "tool_calls" else message[key]
    return cleaned


def text_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages of a request with text and tool calls alone; there is at least one."""
    if not messages:
        raise Unfit(LeftOut.NO_PROMPT)
    return [text_message(message) for message in messages]


def text_message(message: Message) -> dict[str, Any]:
    """One message whose ``content`` is a string (``""`` beside tool calls); several text parts follow each other without a
    gap, as chat templates put them. Images and the older function calls raise.
    """
    cleaned = openai_message(message)
    if cleaned["role"] not in _TEXT_ROLES or "function_call" in cleaned:
        raise Unfit(LeftOut.UNSUPPORTED_ROLE)
    content = cleaned.get("content", "")
    if not isinstance(content, str):
        if any(part["type"] != "text" for part in content):
            raise Unfit(LeftOut.UNSUPPORTED_CONTENT)
        content = "".join(part["text"] for part in content)
    return {"role": cleaned["role"], "content": content} | {
        key: cleaned[key] for key in ("name", "tool_calls", "tool_call_id") if key in cleaned
    }


def with_read_arguments(message: dict[str, Any]) -> dict[str, Any]:
    """The message with the arguments of its tool calls as an object, which is what chat templates are given."""
    if "tool_calls" not in message:
        return message
    calls = []
    for call in message["tool_calls"]:
        function = call.get("function")
        if not isinstance(function, Mapping) or "name" not in function:
            raise Unfit(LeftOut.UNSUPPORTED_TOOLS)
        calls.append({**call, "function": {**function, "arguments": read_arguments(function)}})
    return {**message, "tool_calls": calls}


def read_arguments(function: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call, which are a JSON object in a string."""
    arguments = function.get("arguments") or "{}"
    try:
        value = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Unfit(LeftOut.UNSUPPORTED_TOOLS)
    return value


def _content(content: Any) -> Any:
    if content is None:
        raise Unfit(LeftOut.EMPTY_MESSAGE)
    if isinstance(content, str):
        if not content.strip():
            raise Unfit(LeftOut.EMPTY_MESSAGE)
        return content
    if not isinstance(content, list):
        raise Unfit(LeftOut.UNSUPPORTED_CONTENT)
    if not content:
        raise Unfit(LeftOut.EMPTY_MESSAGE)
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            if not part["text"].strip():
                raise Unfit(LeftOut.EMPTY_MESSAGE)
        elif kind != "image_url":
            raise Unfit(LeftOut.UNSUPPORTED_CONTENT)
    return content


def _tool_calls(calls: Any) -> list[dict[str, Any]]:
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise Unfit(LeftOut.UNSUPPORTED_CONTENT)
    # The position in a stream ("index") is no part of a call.
    return [{key: call[key] for key in ("id", "type", "function") if key in call} for call in calls]
