"""Length: how many characters or words a text has, and whether that lies within bounds.

Characters are Unicode code points, white space included. Words are what white space separates, which counts a
sentence of Chinese, Japanese or Thai as one: take characters there.
"""

from __future__ import annotations

from typing import Final

from evaluators.evaluator import Score, Target
from evaluators.scorers.options import as_choice, as_target, as_whole_number
from evaluators.scorers.rule import TextRule

_CODE: Final = "length-1"


class Length(TextRule):
    """The label is ``short``, ``long`` or ``ok`` where there are bounds, and none where there are none."""

    def __init__(
        self,
        *,
        target: Target = "response",
        unit: str = "words",
        least: int | None = None,
        most: int | None = None,
    ) -> None:
        """``unit``: ``words`` or ``characters``; ``least`` and ``most`` are in it, and allowed themselves."""
        if least is not None and most is not None and least > most:
            raise ValueError(f"min ({least}) is more than max ({most}).")
        options = {"unit": unit, "min": least, "max": most}
        super().__init__("length", target=target, model=unit, code=_CODE, options=options)
        self._counts_words = unit == "words"
        self._least = least
        self._most = most

    def _score_text(self, text: str) -> Score:
        characters, words = len(text), len(text.split())
        value = words if self._counts_words else characters
        label = None
        if self._least is not None or self._most is not None:
            label = "ok"
            if self._least is not None and value < self._least:
                label = "short"
            elif self._most is not None and value > self._most:
                label = "long"
        return Score(float(value), label, details={"characters": float(characters), "words": float(words)})


def build(
    *,
    target: Target = "response",
    unit: str = "words",
    min: int | None = None,
    max: int | None = None,
) -> Length:
    """What the settings call ``length``."""
    return Length(
        target=as_target(target),
        unit=as_choice("unit", unit, ("words", "characters")),
        least=None if min is None else as_whole_number("min", min, least=0),
        most=None if max is None else as_whole_number("max", max, least=0),
    )
