"""Places in a text, from what JavaScript counts to what Python counts."""

from __future__ import annotations

import bisect
import itertools
from typing import Any, Final

from servelens.errors import Invalid

_LAST_OF_ONE_UNIT: Final = 0xFFFF


class Utf16Offsets:
    """Offsets into ``text`` in UTF-16 code units, of which a character beyond U+FFFF (an emoji) has two."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._starts: list[int] | None = None
        if any(ord(character) > _LAST_OF_ONE_UNIT for character in text):
            widths = (2 if ord(character) > _LAST_OF_ONE_UNIT else 1 for character in text)
            self._starts = list(itertools.accumulate(widths, initial=0))

    def character(self, unit: Any, place: str) -> int:
        """How many characters are before ``unit``. Raises :class:`~servelens.errors.Invalid` at ``place`` when it is
        outside of the text or in the middle of a character.
        """
        offset = checked_offset(unit, place)
        end = len(self.text) if self._starts is None else self._starts[-1]
        if offset > end:
            raise Invalid(
                f"{offset} is behind the text", field=place, fix=f"Give 0 to {end}, in UTF-16 code units."
            )
        if self._starts is None:
            return offset
        index = bisect.bisect_left(self._starts, offset)
        if self._starts[index] != offset:
            raise Invalid(
                f"{offset} is in the middle of a character", field=place, fix="Mark whole characters."
            )
        return index


def checked_offset(value: Any, place: str) -> int:
    """``value`` where it is a whole number from 0. Raises :class:`~servelens.errors.Invalid` at ``place``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Invalid(
            f"{value!r} is no place in a text"[:200], field=place, fix="Give a whole number from 0."
        )
    return value
