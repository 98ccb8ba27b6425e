"""JSON as people send it: strict and fast first, then forgiving; never an exception.

msgspec refuses what Python's own reader takes and clients do send: ``NaN`` from numeric libraries, and half a
surrogate pair where a client cut a text in the middle of an emoji.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

NOT_JSON: Final = object()
"""What :func:`parse` gives for bytes that are no JSON (``None`` is the value ``null``)."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def parse(body: bytes | str) -> Any:
    """The value of a JSON text, or :data:`NOT_JSON`. Bytes that are not UTF-8 are replaced."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(body if isinstance(body, str) else body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return NOT_JSON


def write(value: Any) -> str:
    """``value`` as one line of JSON, characters as they are where that is possible."""
    try:
        return _encode(value).decode()
    except (UnicodeEncodeError, ValueError, OverflowError, TypeError, msgspec.MsgspecError):
        return json.dumps(value)


def clean(text: str) -> str:
    """``text`` with U+FFFD for each half of a surrogate pair, which no UTF-8 can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
