"""Request bodies read strictly: what a translation does not know is refused by name, never dropped silently.

Invariant: only :class:`~servelens.errors.Invalid` leaves here, whatever the bytes are, and its ``field`` is the JSON
path in the client's body (``messages[2].content[0].type``).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, NoReturn, TypeAlias, TypeVar

import msgspec

from servelens.errors import Invalid

T = TypeVar("T")

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
"""A number of tokens: a larger one is no count, and no double holds it exactly."""

FloatCount: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1 << 53)]
"""The same, from an API that writes counts as floats."""

NO_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that do not say what was expected of them."""

_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_encode: Final = msgspec.json.Encoder().encode


def read_request(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The body as ``decoder`` reads it. Raises Invalid."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).rpartition(" - at `$")
        if not problem:
            problem, where = str(error), ""
        path = where.rstrip("`").lstrip(".")
        unknown = _UNKNOWN.match(problem)
        if unknown is None:
            raise Invalid(f"{problem}.", field=path or "body") from error
        name = unknown[1]
        raise Invalid(
            f"The field {name!r} is not known here and cannot be translated for this model's provider.",
            field=f"{path}.{name}" if path else name,
            fix="Leave it out.",
        ) from error
    except NO_JSON as error:
        raise Invalid(f"The request body cannot be read as JSON: {error}.", field="body") from error


def refuse(field: str, problem: str, fix: str = "Leave it out.") -> NoReturn:
    """Say that ``field`` cannot be translated."""
    raise Invalid(problem, field=field, fix=fix)


def is_given(raw: msgspec.Raw) -> bool:
    """Whether a raw field is there and not null."""
    value = bytes(raw)
    return bool(value) and value != b"null"


def is_object(raw: msgspec.Raw) -> bool:
    """Whether a raw field is a JSON object."""
    return bytes(raw)[:1] == b"{"


def write_request(value: Any) -> bytes:
    """The body for the backend; Invalid for a number that JSON's writer cannot hold."""
    try:
        return _encode(value)
    except (UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise Invalid(f"The request cannot be written as JSON: {error}.", field="body") from error
