"""One side's guardrails, ready to look at texts."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from servelens.personal_data.found import Found
from serving_proxy.gateway import Guardrails
from serving_proxy.guardrails.blocked import Blocked, Side
from serving_proxy.guardrails.keywords import Keywords

if TYPE_CHECKING:
    from servelens.personal_data.detector import PersonalData


class Screen:
    """Looks at texts. Raises InvalidSettings for keywords that cannot be used."""

    def __init__(self, guardrails: Guardrails, side: Side) -> None:
        self.side = side
        self.action = guardrails.pii
        self.keywords = Keywords(guardrails.invalid_keywords) if guardrails.invalid_keywords else None
        self.personal_data = _personal_data() if guardrails.pii is not None else None

    def text(self, text: str) -> str:
        """The text with its personal data masked; the same object when there is nothing to mask. Raises Blocked."""
        if self.keywords is not None and self.keywords.are_in(text):
            raise self.refusal()
        if self.personal_data is None:
            return text
        found = self.personal_data.find(text)
        return self.treated(text, found) if found else text

    def treated(self, text: str, found: list[Found], start: int = 0, end: int | None = None) -> str:
        """``text[start:end]`` with what was ``found`` in it masked; Blocked when that is what is configured."""
        if self.action == "block" and found:
            raise Blocked("pii", f"personal data ({found[0].kind})", self.side)
        pieces: list[str] = []
        for span in found:
            pieces += (text[start : span.start], f"<{span.kind}>")
            start = span.end
        pieces.append(text[start:end])
        return "".join(pieces)

    def refusal(self) -> Blocked:
        """What is raised for a keyword."""
        return Blocked("invalid_keywords", "a word that is not allowed", self.side)


@lru_cache(maxsize=512)
def screen_of(guardrails: Guardrails, side: Side) -> Screen:
    """The screen of these guardrails, made once. The first takes about 0.1 s: call it where that does no harm."""
    return Screen(guardrails, side)


def _personal_data() -> PersonalData:
    # 0.2 s: only where an endpoint asks for it
    from servelens.personal_data.detector import PersonalData

    return PersonalData()
