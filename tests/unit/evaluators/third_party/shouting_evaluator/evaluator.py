"""The evaluator ``shouting``: the share of a text's letters that are capitals."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

from evaluators.evaluator import EMPTY, TOO_SHORT, Score, Target, Text, target_text, unscored


class Shouting:
    """The share of capitals, 0 to 1. It wants to know the model as well, so it is given every record."""

    name = "shouting"
    model = "rule"
    device = "cpu"
    columns = ("model",)

    def __init__(self, *, target: Target, min_letters: int) -> None:
        if min_letters < 1:
            raise ValueError(f"min_letters is at least 1, not {min_letters}.")
        self.target: Target = target
        self.version = f"{metadata.version('shouting-evaluator')} {min_letters}"
        self._min_letters = min_letters

    def score(self, batch: Sequence[Text]) -> list[Score]:
        return [self._score(text) for text in batch]

    def _score(self, text: Text) -> Score:
        chosen = target_text(text, self.target)
        if chosen is None:
            return unscored(EMPTY)
        letters = [letter for letter in chosen if letter.isalpha()]
        if len(letters) < self._min_letters:
            return unscored(TOO_SHORT, letters=float(len(letters)))
        share = sum(map(str.isupper, letters)) / len(letters)
        details = {"model": str(text.columns.get("model"))}
        return Score(share, "shouting" if share > 0.5 else "calm", details=details)


def build(*, target: Target = "response", min_letters: int = 3) -> Shouting:
    """What the settings call ``shouting``."""
    return Shouting(target=target, min_letters=min_letters)
