"""Training examples in OpenAI's chat format for supervised fine-tuning.

Keeps to the documented input (https://platform.openai.com/docs/api-reference/fine-tuning/chat-input and
https://platform.openai.com/docs/guides/supervised-fine-tuning): the roles system, user, assistant and tool,
non-empty content unless the assistant calls a tool, the last message from the assistant. Only the last answer
was judged, so earlier assistant messages carry ``weight: 0``, the documented way of not training on them.
What does not fit is left out with a reason, never bent into shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from relabel.label import Rating


class LeftOut(StrEnum):
    """Why a labeled case gives no training example."""

    BAD_WITHOUT_CORRECTION = "bad_without_correction"
    NO_ANSWER = "no_answer"
    NO_PROMPT = "no_prompt"
    UNSUPPORTED_ROLE = "unsupported_role"
    UNSUPPORTED_CONTENT = "unsupported_content"
    EMPTY_MESSAGE = "empty_message"


class _Unfit(Exception):
    def __init__(self, reason: LeftOut) -> None:
        self.reason = reason
        super().__init__(reason)


_KEYS: Mapping[str, tuple[str, ...]] = {
    "system": ("name",),
    "user": ("name",),
    "assistant": ("name", "tool_calls", "function_call"),
    "tool": ("tool_call_id",),
    "function": ("name",),
}


def chat_example(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    *,
    answered: bool,
    rating: Rating,
    corrected_answer: str | None,
) -> dict[str, Any] | LeftOut:
    """One example, or why there is none. ``messages`` end with the recorded answer when ``answered``."""
    asked = list(messages[:-1] if answered else messages)
    if corrected_answer is not None:
        answer: Mapping[str, Any] = {"role": "assistant", "content": corrected_answer}
    elif rating is Rating.BAD:
        return LeftOut.BAD_WITHOUT_CORRECTION
    elif answered:
        answer = messages[-1]
    else:
        return LeftOut.NO_ANSWER
    if not asked:
        return LeftOut.NO_PROMPT
    try:
        cleaned = [_message(message) for message in asked]
        last = _message(answer)
    except _Unfit as unfit:
        return unfit.reason
    for message in cleaned:
        if message["role"] == "assistant":
            message["weight"] = 0
    example: dict[str, Any] = {"messages": [*cleaned, last]}
    if tools:
        example["tools"] = list(tools)
    return example


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    role = "system" if message["role"] == "developer" else message["role"]
    if role not in _KEYS:
        raise _Unfit(LeftOut.UNSUPPORTED_ROLE)
    cleaned: dict[str, Any] = {"role": role}
    content = message.get("content")
    calls = role == "assistant" and bool(message.get("tool_calls") or message.get("function_call"))
    if content or not calls:
        cleaned["content"] = _content(content)
    for key in _KEYS[role]:
        if message.get(key):
            cleaned[key] = _tool_calls(message[key]) if key == "tool_calls" else message[key]
    return cleaned


def _content(content: Any) -> Any:
    if content is None:
        raise _Unfit(LeftOut.EMPTY_MESSAGE)
    if isinstance(content, str):
        if not content.strip():
            raise _Unfit(LeftOut.EMPTY_MESSAGE)
        return content
    if not isinstance(content, list):
        raise _Unfit(LeftOut.UNSUPPORTED_CONTENT)
    if not content:
        raise _Unfit(LeftOut.EMPTY_MESSAGE)
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            if not part["text"].strip():
                raise _Unfit(LeftOut.EMPTY_MESSAGE)
        elif kind != "image_url":
            raise _Unfit(LeftOut.UNSUPPORTED_CONTENT)
    return content


def _tool_calls(calls: Any) -> list[dict[str, Any]]:
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise _Unfit(LeftOut.UNSUPPORTED_CONTENT)
    # The position in a stream ("index") is no part of a call.
    return [{key: call[key] for key in ("id", "type", "function") if key in call} for call in calls]
