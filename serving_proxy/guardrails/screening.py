"""Guardrails on requests and on whole answers."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from servelens.errors import Invalid, Unavailable
from serving_proxy.gateway import Guardrails
from serving_proxy.guardrails.blocked import Blocked
from serving_proxy.guardrails.screen import Screen, screen_of
from serving_proxy.guardrails.text_fields import Changes, treat_texts, without_probabilities
from serving_proxy.target import Kind

_TEXT_FIELDS: Final = ("messages", "system", "prompt", "suffix", "input", "instructions")
_TABULAR: Final = ("scoring", "infer")
_OUTSIDE_OF_TEXTS: Final = ("model", "signature_name", "id", "parameters", "params")
_decode = msgspec.json.Decoder().decode
_decode_top = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def screen_input(guardrails: Guardrails, kind: Kind, body: bytes) -> bytes:
    """The request as it may be sent and recorded, personal data masked.

    Raises Blocked, naming the guardrail and the field; Invalid for a body whose texts cannot be read (no JSON, token
    numbers in place of a text).
    """
    screen = screen_of(guardrails, "input")
    try:
        fields = _decode_top(body)
        for name in _fields_of(kind, fields):
            value = _decode(fields[name])
            if name in ("prompt", "input") and _holds_numbers(value) and kind not in _TABULAR:
                raise Invalid(
                    "Token numbers cannot be screened by this endpoint's guardrails.",
                    field=name,
                    fix="Send text.",
                )
            # Written anew also when nothing changed: of a key that is there twice, only the last was looked at.
            fields[name] = msgspec.Raw(_encode(_treated(screen, name, value, is_free=kind in _TABULAR)))
    except Blocked as blocked:
        if guardrails.pii is not None:  # neither may the record have what the model may not
            blocked.masked = screen_input(Guardrails(pii="mask"), kind, body)
        raise
    except _UNREADABLE as error:
        raise Invalid(
            f"The request body cannot be screened by this endpoint's guardrails: {error}.", field="body"
        ) from error
    return _encode(fields)


def screen_answer(screen: Screen, body: bytes) -> bytes:
    """A whole answer, personal data masked; the same object when there is none. Raises Blocked, and Unavailable for one that
    is no JSON.
    """
    try:
        answer = _decode(body)
    except _UNREADABLE as error:
        raise Unavailable("The answer is no JSON and cannot be screened by the guardrails.") from error
    changes = Changes(screen.text)
    treated = treat_texts(answer, changes)
    if not changes.any:
        return body
    without_probabilities(treated)
    return _encode(treated)


def _fields_of(kind: Kind, fields: dict[str, msgspec.Raw]) -> list[str]:
    if kind in _TABULAR:
        return [name for name in fields if name not in _OUTSIDE_OF_TEXTS]
    return [name for name in _TEXT_FIELDS if name in fields]


def _treated(screen: Screen, name: str, value: Any, *, is_free: bool) -> Any:
    """The value of one field, treated; Blocked says where."""
    if not isinstance(value, list):
        try:
            return treat_texts(value, screen.text, is_free=is_free)
        except Blocked as blocked:
            blocked.field = name
            raise
    for index, child in enumerate(value):
        try:
            value[index] = treat_texts(child, screen.text, is_free=is_free)
        except Blocked as blocked:
            blocked.field = f"{name}[{index}]"
            raise
    return value


def _holds_numbers(value: Any) -> bool:
    """Whether a prompt is given as token numbers: ``[1, 2]`` or ``[[1, 2], [3]]``."""
    if not isinstance(value, list):
        return False
    return any(type(child) is int or (isinstance(child, list) and _holds_numbers(child)) for child in value)
