"""Pattern: whether a text holds what it must hold and nothing that it must not, by regular expressions.

Expressions are those of the ``regex`` package (https://pypi.org/project/regex/), which reads what Python's ``re``
reads and can be stopped: an expression that backtracks without end costs one text its score (``timed_out``), not the
run. They are searched anywhere in the text; ``\\A`` and ``\\Z`` tie them to its ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import regex

from evaluators.evaluator import TIMED_OUT, Score, Target, unscored
from evaluators.scorers.options import as_number, as_target, as_texts
from evaluators.scorers.rule import TextRule, installed_versions

_CODE: Final = "pattern-1"
_SHOWN: Final = 100
"""So many characters of a broken expression are in the details."""


class Pattern(TextRule):
    """1 and ``ok`` when every rule holds; 0 and ``missing`` or ``forbidden``, by the first that does not."""

    def __init__(
        self,
        *,
        target: Target = "response",
        must_match: Sequence[str] = (),
        must_not_match: Sequence[str] = (),
        timeout_ms: float = 100.0,
    ) -> None:
        """``timeout_ms``: for each expression and text. Raises ``ValueError`` for an expression that is none."""
        if not must_match and not must_not_match:
            raise ValueError("give must_match, must_not_match or both: there is nothing to look for.")
        options = {
            "must_match": must_match,
            "must_not_match": must_not_match,
            "timeout_ms": timeout_ms,
            "libraries": installed_versions("regex"),
        }
        super().__init__("pattern", target=target, model="regular expressions", code=_CODE, options=options)
        self._wanted = [_compiled("must_match", index, text) for index, text in enumerate(must_match)]
        self._unwanted = [
            _compiled("must_not_match", index, text) for index, text in enumerate(must_not_match)
        ]
        self._timeout_s = timeout_ms / 1000

    def _score_text(self, text: str) -> Score:
        looking_for = ""
        missing: list[str] = []
        forbidden: list[str] = []
        try:
            for expression in self._wanted:
                looking_for = expression.pattern
                if expression.search(text, timeout=self._timeout_s) is None:
                    missing.append(looking_for)
            for expression in self._unwanted:
                looking_for = expression.pattern
                if expression.search(text, timeout=self._timeout_s) is not None:
                    forbidden.append(looking_for)
        except TimeoutError:
            return unscored(TIMED_OUT, pattern=looking_for[:_SHOWN])
        broken = missing or forbidden
        if not broken:
            return Score(1.0, "ok")
        return Score(
            0.0,
            "missing" if missing else "forbidden",
            details={
                "pattern": broken[0][:_SHOWN],
                "missing": float(len(missing)),
                "forbidden": float(len(forbidden)),
            },
        )


def build(
    *,
    target: Target = "response",
    must_match: str | Sequence[str] | None = None,
    must_not_match: str | Sequence[str] | None = None,
    timeout_ms: float = 100.0,
) -> Pattern:
    """What the settings call ``pattern``."""
    return Pattern(
        target=as_target(target),
        must_match=as_texts("must_match", must_match),
        must_not_match=as_texts("must_not_match", must_not_match),
        timeout_ms=as_number("timeout_ms", timeout_ms, least=1),
    )


def _compiled(option: str, index: int, text: str) -> Any:
    try:
        return regex.compile(text)
    except regex.error as error:
        raise ValueError(f"{option}[{index}] is no regular expression: {error} ({text!r}).") from error
