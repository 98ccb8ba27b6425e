"""A request and its answer as a conversation that people read.

Invariant: never fails on a payload. What is not understood is not guessed at: the caller then shows the raw text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Turn:
    """One message; ``calls`` are tools that it called, as (name, arguments as text)."""

    role: str
    text: str
    calls: tuple[tuple[str, str], ...] = ()
    is_answer: bool = False


def parse(text: str | None) -> Any:
    """``text`` as JSON, or ``None`` when it is none."""
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def pretty(text: str | None) -> str:
    """JSON with line breaks; any other text as it is."""
    value = parse(text)
    return pretty_value(value) if value is not None else text or ""


def pretty_value(value: Any) -> str:
    """A JSON value with line breaks."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def turns(
    request: str | None, response: str | None, prompt_text: str | None, response_text: str | None
) -> list[Turn]:
    """The messages of the request, then the answer; without a chat body, the plain texts of the record."""
    asked, answered = parse(request), parse(response)
    found = _asked(asked)
    if not found and prompt_text:
        found = [Turn("user", prompt_text)]
    answer = _answer(answered)
    if answer is None and response_text:
        answer = Turn("assistant", response_text, is_answer=True)
    return [*found, answer] if answer else found


def error_message(response: str | None) -> str | None:
    """What an error answer says, whichever of the usual shapes it has."""
    body = parse(response)
    if not isinstance(body, Mapping):
        return None
    error = body.get("error", body)
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("detail")
    return error if isinstance(error, str) else None


def _asked(body: Any) -> list[Turn]:
    if not isinstance(body, Mapping):
        return []
    messages = body.get("messages")
    if isinstance(messages, list):
        return [turn(message) for message in messages if isinstance(message, Mapping)]
    prompt = body.get("prompt", body.get("input"))
    if isinstance(prompt, str):
        return [Turn("user", prompt)]
    if isinstance(prompt, list) and prompt and all(isinstance(one, str) for one in prompt):
        return [Turn("user", one) for one in prompt]
    return []


def _answer(body: Any) -> Turn | None:
    if not isinstance(body, Mapping):
        return None
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        return None
    message = choices[0].get("message")
    if isinstance(message, Mapping):
        return turn(message, is_answer=True)
    text = choices[0].get("text")
    return Turn("assistant", text, is_answer=True) if isinstance(text, str) else None


def turn(message: Mapping[str, Any], *, is_answer: bool = False) -> Turn:
    """One OpenAI chat message."""
    role = message.get("role")
    calls = tuple(
        (str(call["function"].get("name", "tool")), str(call["function"].get("arguments", "")))
        for call in _list(message.get("tool_calls"))
        if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping)
    )
    text = _text(message.get("content"))
    refusal = message.get("refusal")
    words = text or (refusal if isinstance(refusal, str) else "")
    return Turn(role if isinstance(role, str) else "assistant", words, calls, is_answer)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = []
    for part in _list(content):
        if not isinstance(part, Mapping):
            continue
        text = part.get("text")
        parts.append(text if isinstance(text, str) else f"[{part.get('type', 'part')}]")
    return "\n".join(parts)


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
