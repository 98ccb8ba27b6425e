"""A text cut into sentences, the same ones whether it comes whole or in pieces.

Invariants: the sentences, joined, are the text. Where one ends depends on nothing that comes after its end, so a text that
is let go sentence by sentence was judged by the sentences that the whole of it has. At most MAX_SENTENCE characters are
held back.

A sentence ends after a full stop, exclamation or question mark (with the quotes and brackets that follow) and the space
after it, after a full-width one, and at the end of a line; not before MIN_SENTENCE characters, so that an abbreviation or the
number of a list does not stand alone. Where there is no end in time it is cut between two words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from serving_proxy.guardrails.channels import Held
from serving_proxy.guardrails.hold_back import HeldText
from serving_proxy.guardrails.screen import Screen

MIN_SENTENCE: Final = 16
MAX_SENTENCE: Final = 480
# A run of marks is taken whole, with an end or without, and not looked at again from each of its marks: an answer of nothing
# but exclamation marks would else hold up everybody for a minute.
_END: Final = re.compile(r"[.!?…]++(?:[\"'”’»)\]]*+(?P<end>\s))?|(?P<other>[。！？]|\n)")
_SPACE: Final = re.compile(r"\s(?=\S*\Z)")


def sentences(text: str) -> list[str]:
    """All sentences of a whole text; the last may have no end."""
    found: list[str] = []
    start = 0
    while (end := _end(text, start)) is not None:
        found.append(text[start:end])
        start = end
    if start < len(text):
        found.append(text[start:])
    return found


class HeldSentence:
    """One text of an answer, let go as far as its sentences are complete, after the other guardrails. Both methods raise
    Blocked.
    """

    __slots__ = ("_inner", "_text")

    def __init__(self, screen: Screen) -> None:
        looks = screen.keywords is not None or screen.personal_data is not None
        self._inner: Held | None = HeldText(screen) if looks else None
        self._text = ""

    def feed(self, piece: str) -> str:
        """The sentences that are complete now that ``piece`` has come."""
        self._text += piece if self._inner is None else self._inner.feed(piece)
        cut = 0
        while (end := _end(self._text, cut)) is not None:
            cut = end
        released, self._text = self._text[:cut], self._text[cut:]
        return released

    def flush(self) -> str:
        """The rest: no more will come."""
        rest = self._text if self._inner is None else self._text + self._inner.flush()
        self._text = ""
        return rest


class SeenText:
    """One text of an answer that passes at once; ``see`` is given it as far as it came, when it ends."""

    def __init__(self, see: Callable[[str], object]) -> None:
        self._see = see
        self._pieces: list[str] = []

    def feed(self, piece: str) -> str:
        self._pieces.append(piece)
        return piece

    def flush(self) -> str:
        self._see("".join(self._pieces))
        return ""


def _end(text: str, start: int) -> int | None:
    """Where the sentence ends that begins at ``start``; ``None`` when what comes next may matter."""
    latest = start + MAX_SENTENCE
    for match in _END.finditer(text, start, min(len(text), latest)):
        if match.lastgroup is not None and match.end() - start >= MIN_SENTENCE:
            return match.end()
    if len(text) < latest:
        return None
    space = _SPACE.search(text, start + MIN_SENTENCE, latest)
    return latest if space is None else space.end()
