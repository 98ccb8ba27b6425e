"""Where texts are in decoded bodies: everywhere but in fields that only machines read.

A list of what to pass over rather than of what to look at: a new kind of content is then screened before anybody has heard of
it. Arguments of tools are JSON written in a string; their texts are looked at as JSON, for only there can ``\\n`` be told from
an ``n``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

_MACHINE_FIELDS: Final = frozenset(
    (
        *(
            "role",
            "type",
            "id",
            "object",
            "model",
            "status",
            "name",
            "index",
            "format",
            "detail",
            "finish_reason",
        ),
        *(
            "stop_reason",
            "tool_call_id",
            "tool_use_id",
            "call_id",
            "item_id",
            "response_id",
            "file_id",
            "container_id",
        ),
        *("url", "image_url", "input_audio", "data", "file_data", "media_type", "mime_type", "signature"),
        *(
            "encrypted_content",
            "encrypted_index",
            "cache_control",
            "usage",
            "logprobs",
            "tools",
            "tool_choice",
        ),
        *("system_fingerprint", "service_tier", "token_ids", "prompt_token_ids", "datatype", "model_name"),
        *("model_version", "error"),
    )
)
_FREE_FIELDS: Final = frozenset(("arguments", "input", "predictions", "parameters"))
_MANY_DIGITS: Final = 10**7
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

Treat = Callable[[str], str]


def treat_texts(value: Any, treat: Treat, *, is_free: bool = False) -> Any:
    """``value`` with every text treated, changed in place where it can be; the same object when no text changed.

    ``is_free``: all strings are texts, and numbers of many digits too, because the fields are anybody's.
    """
    if isinstance(value, str):
        return treat(value)
    if isinstance(value, dict):
        for key, child in value.items():
            if type(child) is str:
                if not is_free and key in _MACHINE_FIELDS:
                    continue
                new: Any = treat_arguments(child, treat) if key == "arguments" else treat(child)
            elif child is None or (not is_free and key in _MACHINE_FIELDS):
                continue
            else:
                free = is_free or (key in _FREE_FIELDS and isinstance(child, dict))
                new = treat_texts(child, treat, is_free=free)
            if new is not child:
                value[key] = new
        return value
    if isinstance(value, list):
        for index, child in enumerate(value):
            new = treat_texts(child, treat, is_free=is_free)
            if new is not child:
                value[index] = new
        return value
    if is_free and type(value) is int and value >= _MANY_DIGITS:
        text = str(value)
        treated = treat(text)
        return value if treated == text else treated
    return value


def treat_arguments(text: str, treat: Treat) -> str:
    """The arguments of a tool call; the same string when nothing in them changed."""
    try:
        arguments = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return treat(text)
    changes = Changes(treat)
    treated = treat_texts(arguments, changes, is_free=True)
    return _encode(treated).decode() if changes.any else text


class Changes:
    """Treats texts and remembers whether any changed."""

    __slots__ = ("_treat", "any")

    def __init__(self, treat: Treat) -> None:
        self._treat = treat
        self.any = False

    def __call__(self, text: str) -> str:
        treated = self._treat(text)
        if treated is not text:
            self.any = True
        return treated


def without_probabilities(value: Any) -> None:
    """Take token probabilities and token numbers out, in place: they spell the text a second time."""
    if isinstance(value, dict):
        for key, child in value.items():
            if key in ("logprobs", "token_ids", "prompt_token_ids"):
                value[key] = [] if value.get("type") == "output_text" else None
            else:
                without_probabilities(child)
    elif isinstance(value, list):
        for child in value:
            without_probabilities(child)
