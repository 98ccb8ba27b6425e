"""The guardrail ``safety`` on one side of one call: what its texts scored, and what follows from it.

Invariants: a text is judged by its own score, whoever it was asked with. One that the scorer has nothing to say of (an
unknown language) passes; one that a failure left without a score is *not checked*, and ``fails_open`` says whether it
passes. What was found is in the record's tags:

- ``safety.input``, ``safety.output``: the highest score on that side
- ``safety.action``: ``blocked``, ``masked``, ``flagged`` or ``unchecked``, the first of these that happened
- ``safety.unchecked``: the sides that were not checked, or not all of them, and why
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final, Literal

from servelens.errors import Backpressure
from serving_proxy.gateway import Safety
from serving_proxy.guardrails.blocked import Blocked, Side
from serving_proxy.guardrails.scorer_client import WORDS, Failing, NotScored, Scored

MARK: Final = "<UNSAFE>"
"""What stands for an unsafe text that is masked."""

Outcome = Literal["blocked", "masked", "flagged", "refused", "unchecked", "passed"]
_RANK: Final[dict[str, int]] = {
    word: rank for rank, word in enumerate(("blocked", "masked", "flagged", "refused", "unchecked", "passed"))
}
NOTHING_TO_SAY: Final = frozenset(("empty", "too_short", "unknown_words"))
_PASSED: Final = Scored(None, "unchecked")

Ask = Callable[[list[str], float], Awaitable[list[Scored]]]


class Unchecked(Backpressure):
    """A text could not be checked, and the endpoint does not let it pass for that. The fault is ours."""

    status = 503


class SafetyCheck:
    """Give it texts to :meth:`look` at, then ask it what becomes of them. ``ask`` gives scores, or raises NotScored;
    ``marks`` are the tags.
    """

    def __init__(self, safety: Safety, side: Side, ask: Ask, marks: dict[str, str]) -> None:
        self.outcome: Outcome = "passed"
        self.failures: list[Failing] = []
        """Why texts were not checked."""
        self._safety = safety
        self._side = side
        self._ask = ask
        self._marks = marks
        self._scored: dict[str, Scored] = {}
        self._highest = 0.0

    @property
    def has_looked(self) -> bool:
        """Whether there was anything to look at yet."""
        return bool(self._scored or self.failures)

    def knows(self, texts: Iterable[str]) -> bool:
        """Whether all of these have been looked at."""
        return all(text in self._scored for text in texts)

    async def look(self, texts: Collection[str]) -> None:
        """Have texts scored. Raises Unchecked when they could not be, and may not pass without."""
        asked = [text for text in dict.fromkeys(texts) if text not in self._scored]
        if not asked:
            return
        try:
            answers = await self._ask(asked, self._safety.timeout_s)
        except NotScored as failure:
            self.not_checked(failure.reason)
            answers = [_PASSED] * len(asked)
        else:
            if any(each.reason is not None and each.reason not in NOTHING_TO_SAY for each in answers):
                self.not_checked("unscored")
        for text, scored in zip(asked, answers, strict=True):
            self._scored[text] = scored
            if scored.score is not None:
                self._highest = max(self._highest, scored.score)
                self._marks[f"safety.{self._side}"] = f"{self._highest:.3f}"

    def not_checked(self, reason: Failing) -> None:
        """Something was not checked. Raises Unchecked when it may not pass for that."""
        self.failures.append(reason)
        noted, said = self._marks.get("safety.unchecked"), f"{self._side}: {reason}"
        if noted is None or said not in noted:
            self._marks["safety.unchecked"] = said if noted is None else f"{noted}, {said}"
        if not self._safety.fails_open:
            self._note("refused")
            raise Unchecked(
                f"The {self._side} could not be checked by the guardrail 'safety': {WORDS[reason]}.",
                fix="Try again later.",
            )
        self._note("unchecked")

    def treat(self, text: str) -> str:
        """What becomes of a text that has been looked at: the same object when it may stay. Raises Blocked."""
        scored = self._scored.get(text)
        if scored is None or scored.score is None or scored.score < self._safety.threshold:
            return text
        match self._safety.action:
            case "block":
                self._note("blocked")
                raise Blocked("safety", "unsafe text", self._side)
            case "mask":
                self._note("masked")
                body = text.strip()
                start = text.index(body)
                return f"{text[:start]}{MARK}{text[start + len(body) :]}"
            case "flag":
                self._note("flagged")
        return text

    def _note(self, outcome: Outcome) -> None:
        """The gravest of what happened counts."""
        self.outcome = min(self.outcome, outcome, key=_RANK.__getitem__)
        word = "unchecked" if outcome == "refused" else outcome
        if _RANK[word] < _RANK[self._marks.get("safety.action", "passed")]:
            self._marks["safety.action"] = word


def says_something(text: str) -> bool:
    """Whether there is anything to be judged: a letter."""
    return any(map(str.isalpha, text))
