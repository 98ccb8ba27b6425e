"""Phone numbers in a text: written internationally, the American way, or after a word that announces one.

The rules of numbers are those of Google's libphonenumber (``phonenumbers``), which is slow to load and to ask; patterns
choose what it is asked about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

WORD_CHARACTER: Final = r"[^\W\u2e80-\U0010ffff]"
"""A letter, digit or underscore, but of no script that writes words without gaps."""

_W: Final = WORD_CHARACTER
_GAP: Final = r"[ ().\-/\u00a0\u202f]{0,3}"
_INTERNATIONAL: Final = re.compile(rf"(?<!{_W})(?<!\+)\+[1-9](?:{_GAP}[0-9]){{6,14}}(?![0-9A-Za-z_])")
_AMERICAN: Final = re.compile(
    rf"(?<!{_W})(?<![+$€£#.-])(?<![0-9] )(?:1[ .-])?(?:\([2-9][0-9]{{2}}\) ?|[2-9][0-9]{{2}}[.-])"
    rf"[2-9][0-9]{{2}}[.-][0-9]{{4}}(?!{_W}|-|\.[0-9])"
)
_ANNOUNCED: Final = re.compile(
    r"\b(?:(?:tele|cell)?phone|tel|mobile|cell|whatsapp|fax|call|text|sms|dial|ring|reach (?:me|us|him|her|them)"
    r"|telefon|handy|mobil|rufnummer|téléphone|portable|teléfono|móvil|celular|telefone|telefono)\b[^0-9\n]{0,24}"
    rf"(?<!{_W})(?<![+.,-])(?P<number>[0-9](?:{_GAP}[0-9]){{6,11}})(?![0-9A-Za-z_])",
    re.IGNORECASE,
)
_DATE: Final = re.compile(
    r"(?:19|20)[0-9]{2}[-./][01]?[0-9][-./][0-3]?[0-9]|[0-3]?[0-9][-./][0-3]?[0-9][-./](?:19|20)[0-9]{2}"
)
_CUT: Final = re.compile(r"[^0-9]+[0-9]+\Z")
_MAX_QUESTIONS: Final = 200
"""How often the library is asked about one text (about 25 µs each). What is left then counts as numbers, so that a text made
of near misses costs little and hides nothing.
"""


class PhoneNumbers:
    """Finds phone numbers; a word that announces one is at most ``context`` characters before it."""

    def __init__(self, context: int) -> None:
        self._context = context
        self._is_valid = _load()

    def find(self, text: str, start: int) -> Iterator[tuple[int, int]]:
        """Spans that begin at ``start`` or later; they may overlap."""
        questions = _Questions(self._is_valid)
        position = start
        while (match := _INTERNATIONAL.search(text, position)) is not None:
            number = match.group()
            while not questions.is_valid(number, None):
                shorter = _CUT.sub("", number)
                if shorter == number:
                    number = ""
                    break
                number = shorter
            position = match.start() + (len(number) or 1)
            if number:
                yield match.start(), position
        position = start
        while (match := _AMERICAN.search(text, position)) is not None:
            position = match.start() + 1
            if questions.is_valid(match.group(), "US"):
                position = match.end()
                yield match.span()
        position = max(0, start - self._context)
        while (match := _ANNOUNCED.search(text, position)) is not None:
            position = match.start() + 1
            if match.start("number") >= start and _may_be_dialled(match["number"], questions):
                position = match.end()
                yield match.span("number")


class _Questions:
    def __init__(self, ask: Callable[[str, str | None], bool]) -> None:
        self._ask = ask
        self._left = _MAX_QUESTIONS

    def is_valid(self, number: str, region: str | None) -> bool:
        self._left -= 1
        return self._left < 0 or self._ask(number, region)


def _may_be_dialled(number: str, questions: _Questions) -> bool:
    """Whether a number without its country can be one: it begins with the trunk prefix 0, or is American."""
    digits = "".join(filter(str.isdigit, number))
    if _DATE.match(number) or number.startswith("0."):
        return False
    return (digits.startswith("0") and len(digits) >= 8) or questions.is_valid(number, "US")


def _load() -> Callable[[str, str | None], bool]:
    import phonenumbers  # 0.1 s: only where an endpoint asks for it

    def is_valid(number: str, region: str | None) -> bool:
        try:
            return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
        except phonenumbers.NumberParseException:
            return False

    for number in ("+14155552671", "+442079460958", "+4930901820"):
        is_valid(number, None)  # loads the metadata of the country
    return is_valid
