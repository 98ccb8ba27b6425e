"""Words that must not occur: whole words, whatever their case and Unicode spelling.

Texts and keywords are compared in the form NFKC, case-folded (Unicode Standard Annex 15, and chapter 3.13 of the Unicode
Standard), without characters that are not seen (soft hyphen, zero-width space and joiners). Scripts that write no spaces
have no whole words: a keyword that begins or ends with such a character needs no boundary there.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from servelens.errors import InvalidSettings

MAX_KEYWORD: Final = 128
_MAX_GAP: Final = 8
_FEW: Final = 32
_UNSEEN: Final = dict.fromkeys((0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF))
_UNSPACED: Final = (
    "CJK ",
    "HIRAGANA",
    "KATAKANA",
    "HANGUL",
    "THAI",
    "LAO ",
    "KHMER",
    "MYANMAR",
    "BOPOMOFO",
    "YI ",
)
_WORD: Final = re.compile(r"\w+")


class Keywords:
    """The words of one guardrail. Raises InvalidSettings for one that is empty or too long."""

    def __init__(self, words: Iterable[str]) -> None:
        folded = list(dict.fromkeys(_checked(word) for word in words))
        self._pattern = re.compile("|".join(_expression(word) for word in folded))
        # Needed in any text that has a keyword: the longest word of it, or, where words have no boundary, its longest piece.
        self._pieces = tuple({max(word.split(), key=len) for word in folded})
        plain = [word for word in folded if not (_is_unspaced(word[0]) or _is_unspaced(word[-1]))]
        by_word = {max(_WORD.findall(word), key=len, default="") for word in plain}
        self._words = (
            frozenset(by_word)
            if len(folded) > _FEW and len(plain) == len(folded) and "" not in by_word
            else None
        )
        self.spaces = max((len(word.split()) for word in folded), default=1) - 1
        """How many gaps between words the longest keyword has."""
        unspaced = [len(word) for word in folded if word not in plain]
        self.unspaced_length = max(unspaced, default=0)
        """The length of the longest keyword that can begin in the middle of a run of letters."""

    def are_in(self, text: str, start: int = 0) -> bool:
        """Whether a keyword ends after ``start``."""
        folded = fold(text)
        if self._words is not None:
            if self._words.isdisjoint(_WORD.findall(folded)):
                return False
        else:
            for piece in self._pieces:
                if piece in folded:
                    break
            else:
                return False
        seen = len(fold(text[:start])) if start else 0
        return any(match.end() > seen for match in self._pattern.finditer(folded))


def fold(text: str) -> str:
    """The form in which texts are compared."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_UNSEEN)


def _checked(word: str) -> str:
    folded = fold(word).strip()
    if not folded or len(word) > MAX_KEYWORD:
        raise InvalidSettings(
            f"{word[:MAX_KEYWORD]!r} cannot be a keyword",
            field="guardrails.invalid_keywords",
            fix=f"Use words of 1 to {MAX_KEYWORD} characters.",
        )
    return folded


def _expression(word: str) -> str:
    before = "" if _is_unspaced(word[0]) else r"(?<!\w)"
    after = "" if _is_unspaced(word[-1]) else r"(?!\w)"
    inside = rf"\s{{1,{_MAX_GAP}}}".join(re.escape(part) for part in word.split())
    return f"{before}{inside}{after}"


def _is_unspaced(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_UNSPACED)
