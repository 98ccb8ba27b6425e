"""Reads a JSON array element by element, so that memory holds one element and not the file."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from servelens.errors import Invalid

MAX_ELEMENT: Final = 32 * 1024 * 1024
"""Characters of one element."""

_SPACE: Final = " \t\n\r"


def read_objects(chunks: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """The objects of the array (UTF-8) that ``chunks`` are, in their order.

    Raises :class:`~servelens.errors.Invalid`, naming the element, as soon as it comes to something else; those before it
    have been given by then.
    """
    text = _Text(chunks)
    if text.next_character() != "[":
        raise Invalid("it is no JSON array", field="file", fix="Export as a JSON array of objects.")
    text.skip()
    if text.next_character() == "]":
        text.skip()
    else:
        yield from _elements(text)
    if text.next_character():
        raise Invalid("something follows the array", field="file", fix="Export it again.")


def _elements(text: _Text) -> Iterator[Mapping[str, Any]]:
    index = 0
    while True:
        if text.next_character() != "{":
            raise Invalid(
                "it is no JSON object", field=f"[{index}]", fix="Export it again; it may be cut off."
            )
        yield text.object(f"[{index}]")
        index += 1
        separator = text.next_character()
        text.skip()
        if separator == "]":
            return
        if separator != ",":
            raise Invalid(
                "the array does not go on", field=f"[{index}]", fix="Export it again; it may be cut off."
            )


class _Text:
    """What has been read of the chunks and not been given yet."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder(parse_constant=_no_number)
        self._buffer = ""
        self._position = 0
        self._ended = False

    def next_character(self) -> str:
        """The next one that is no white space, without going past it; ``""`` at the end."""
        while True:
            while self._position < len(self._buffer):
                character = self._buffer[self._position]
                if character not in _SPACE:
                    return character
                self._position += 1
            if not self._more(1):
                return ""

    def skip(self) -> None:
        """Go past one character."""
        self._position += 1

    def object(self, place: str) -> dict[str, Any]:
        """The object that begins here."""
        while True:
            try:
                value, self._position = self._json.raw_decode(self._buffer, self._position)
            except json.JSONDecodeError as error:
                have = len(self._buffer) - self._position
                if have > MAX_ELEMENT:
                    raise Invalid(
                        f"it is longer than {MAX_ELEMENT} characters", field=place, fix="Leave it out."
                    ) from error
                # As much again as there is: tried at every chunk, a long element would cost its length squared.
                if not self._more(have):
                    raise Invalid(
                        f"it is no JSON: {error.msg}", field=place, fix="Export it again."
                    ) from error
            except (ValueError, RecursionError) as error:
                raise Invalid(
                    f"it cannot be read: {error}"[:300], field=place, fix="Leave it out."
                ) from error
            else:
                assert isinstance(value, dict), "it begins with a brace"
                return value

    def _more(self, wanted: int) -> bool:
        """Read about ``wanted`` characters more; whether there were any."""
        parts = [self._buffer[self._position :]]
        self._position = 0
        got = 0
        try:
            while got < max(wanted, 1) and not self._ended:
                chunk = next(self._chunks, None)
                self._ended = chunk is None
                part = self._decoder.decode(chunk or b"", final=self._ended)
                parts.append(part)
                got += len(part)
        except UnicodeDecodeError as error:
            raise Invalid(f"it is not UTF-8: {error.reason}", field="file", fix="Export it again.") from error
        self._buffer = "".join(parts)
        return got > 0


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
