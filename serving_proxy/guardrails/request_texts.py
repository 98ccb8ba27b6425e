"""The texts of one request, read once, looked at and replaced in place."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from servelens.errors import Invalid
from serving_proxy.guardrails.blocked import Blocked
from serving_proxy.guardrails.text_fields import Treat, treat_texts
from serving_proxy.target import Kind

_TEXT_FIELDS: Final = ("messages", "system", "prompt", "suffix", "input", "instructions")
_TABULAR: Final = ("scoring", "infer")
_OUTSIDE_OF_TEXTS: Final = ("model", "signature_name", "id", "parameters", "params")
_decode = msgspec.json.Decoder().decode
_decode_top = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class RequestTexts:
    """A request body. Raises Invalid for one whose texts cannot be read (no JSON, token numbers in place of a text)."""

    def __init__(self, kind: Kind, body: bytes) -> None:
        self._is_free = kind in _TABULAR
        try:
            self._fields = _decode_top(body)
            self._values = {name: _decode(self._fields[name]) for name in self._names()}
        except _UNREADABLE as error:
            raise _unreadable(error) from error
        for name in ("prompt", "input"):
            if not self._is_free and _holds_numbers(self._values.get(name)):
                raise Invalid(
                    "Token numbers cannot be screened by this endpoint's guardrails.",
                    field=name,
                    fix="Send text.",
                )

    def treat(self, treat: Treat) -> None:
        """Treat every text, in place; Blocked, which ``treat`` may raise, says where."""
        for name, value in self._values.items():
            if isinstance(value, list):
                for index, child in enumerate(value):
                    value[index] = self._treated(child, treat, f"{name}[{index}]")
            else:
                self._values[name] = self._treated(value, treat, name)

    def all(self) -> list[str]:
        """Every text."""
        texts: list[str] = []

        def collect(text: str) -> str:
            texts.append(text)
            return text

        self.treat(collect)
        return texts

    def encoded(self) -> bytes:
        """The body as it is now. Written anew also when nothing changed: of a key that is there twice, only the last was
        looked at.
        """
        return _encode({**self._fields, **self._values})

    def _names(self) -> list[str]:
        if self._is_free:
            return [name for name in self._fields if name not in _OUTSIDE_OF_TEXTS]
        return [name for name in _TEXT_FIELDS if name in self._fields]

    def _treated(self, value: Any, treat: Treat, place: str) -> Any:
        try:
            return treat_texts(value, treat, is_free=self._is_free)
        except Blocked as blocked:
            blocked.field = place
            raise
        except RecursionError as error:
            raise _unreadable(error) from error


def _unreadable(error: Exception) -> Invalid:
    return Invalid(
        f"The request body cannot be screened by this endpoint's guardrails: {error}.", field="body"
    )


def _holds_numbers(value: Any) -> bool:
    """Whether a prompt is given as token numbers: ``[1, 2]`` or ``[[1, 2], [3]]``."""
    if not isinstance(value, list):
        return False
    return any(type(child) is int or (isinstance(child, list) and _holds_numbers(child)) for child in value)
