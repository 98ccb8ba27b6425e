"""The words of a conversation as they are compared: whether two cases ask the same.

Upper case, blanks and the marks of sentences make no difference, so that "Where is it?" and "where is  it" ask the same.
Numbers and other signs do: "2 + 2" is not "2 - 2".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

from relabel.export.labeled_case import Message

_SEPARATORS: Final = re.compile(r"[\s.,;:!?…'\"]+")


def prompt_key(messages: Sequence[Message]) -> int:
    """A 64-bit hash of what ``messages`` (without the answer) say; equal for those that differ in such details alone."""
    return turn_keys(messages)[-1] if messages else key_of("")


def turn_keys(messages: Sequence[Message]) -> list[int]:
    """After each of ``messages`` the :func:`prompt_key` of the conversation up to it."""
    said = blake2b(digest_size=8)
    keys = []
    for message in messages:
        line = f"{message.get('role')} {_SEPARATORS.sub(' ', _text(message)).strip()}\n"
        said.update(line.casefold().encode("utf-8", "surrogatepass"))
        keys.append(int.from_bytes(said.copy().digest()))
    return keys


def key_of(text: str) -> int:
    """A 64-bit hash of a text, the same everywhere."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _text(message: Message) -> str:
    content = message.get("content")
    calls = message.get("tool_calls")
    words = content if isinstance(content, str) else _of_parts(content)
    return f"{words} {calls}" if calls else words


def _of_parts(content: Any) -> str:
    if not isinstance(content, list):
        return "" if content is None else str(content)
    return " ".join(
        str(part.get("text") or part) if isinstance(part, dict) else str(part) for part in content
    )
