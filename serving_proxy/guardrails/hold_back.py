"""A text that comes in pieces, let go as far as no later piece can change what the guardrails say of it.

Invariants. What has been let go, joined, is what the guardrails make of the whole text, wherever it was cut. Nothing of a
match is let go before the match is masked or blocked. At most MAX_HELD characters are held back.

Held back is the end of the text that may yet become part of a match: the word that is being written, numbers with their
gaps, the groups of an IBAN, and as many words as the longest keyword has. Scripts without spaces do not wait for one.
"""

from __future__ import annotations

import re
from typing import Final

from servelens.personal_data.found import CONTEXT
from serving_proxy.guardrails.keywords import MAX_KEYWORD
from serving_proxy.guardrails.screen import Screen

MAX_HELD: Final = 512
_MAX_WORD: Final = 384  # an e-mail address has up to 320 characters
_MAX_NUMBER: Final = 96
_MAX_IBAN: Final = 68
_LEFT: Final = CONTEXT + 24
_NUMBER: Final = frozenset("0123456789 +().-/\u00a0\u202f")
_NUMBER_START: Final = frozenset("0123456789+(")
_FIRST_UNSPACED: Final = "\u2e80"
_IBAN_TAIL: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){0,30}[ -]?\Z")


class HeldText:
    """One text of an answer. Both methods raise Blocked."""

    __slots__ = ("_left", "_pending", "_screen")

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._left = ""  # of what was let go, the end, as it came
        self._pending = ""

    def feed(self, piece: str) -> str:
        """What may be let go now that ``piece`` has come."""
        self._pending += piece
        return self._released(is_last=False) if piece else ""

    def flush(self) -> str:
        """The rest: no more will come."""
        return self._released(is_last=True) if self._pending else ""

    def _released(self, *, is_last: bool) -> str:
        screen = self._screen
        start = len(self._left)
        text = self._left + self._pending
        found = [] if screen.personal_data is None else screen.personal_data.find(text, start)
        cut = len(text) if is_last else self._settled(text, start)
        while found and found[-1].end > cut:
            cut = min(cut, found.pop().start)
        if cut <= start:
            return ""
        keywords = screen.keywords
        if (
            keywords is not None
            and keywords.are_in(text, start)
            and (cut == len(text) or keywords.are_in(text[:cut], start))
        ):
            raise screen.refusal()
        released = screen.treated(text, found, start, cut)
        self._left = text[max(0, cut - _LEFT) : cut]
        self._pending = text[cut:]
        return released

    def _settled(self, text: str, start: int) -> int:
        """The position up to which nothing depends on what comes next."""
        end = len(text)
        cut = _word_start(text, start, end)
        if self._screen.personal_data is not None:
            number = _number_tail(text, start, cut)
            if number < cut:
                cut = _word_start(text, start, number)
            match = _IBAN_TAIL.search(text, max(start, end - _MAX_IBAN))
            if match is not None:
                cut = min(cut, match.start())
        keywords = self._screen.keywords
        if keywords is not None:
            for _ in range(keywords.spaces):
                cut = _word_before(text, start, cut)
            if keywords.unspaced_length:
                cut = max(start, min(cut, end - 2 * keywords.unspaced_length))
        return max(cut, start, end - MAX_HELD)


def _word_start(text: str, start: int, at: int) -> int:
    """Where the word begins that ends at ``at``."""
    lowest = max(start, at - _MAX_WORD)
    while at > lowest and not text[at - 1].isspace() and text[at - 1] < _FIRST_UNSPACED:
        at -= 1
    return at


def _number_tail(text: str, start: int, word: int) -> int:
    """Where the numbers begin that the text ends with; ``word`` is where its last word does."""
    if word < len(text) and text[word] not in _NUMBER:
        return word
    lowest = max(start, word - _MAX_NUMBER)
    first = at = word
    while at > lowest and text[at - 1] in _NUMBER:
        at -= 1
        if text[at] in _NUMBER_START:
            first = at
    return first


def _word_before(text: str, start: int, at: int) -> int:
    lowest = max(start, at - MAX_KEYWORD - 8)
    while at > lowest and text[at - 1].isspace():
        at -= 1
    while at > lowest and not text[at - 1].isspace():
        at -= 1
    return at
