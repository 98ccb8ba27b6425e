"""Language: which language a text is in, and whether that is the one that was wanted.

A naive Bayes classifier over byte n-grams, langid.py (Lui and Baldwin 2012, https://aclanthology.org/P12-3005/) as
``py3langid`` maintains it: 139 languages, BSD licence, no network. Of a text the beginning is read, code blocks left
out.

The score is a probability: of the language in the label, or, where a language is wanted (``expected``,
``same_as_prompt``), of the wanted ones; so what is below 0.1 is in another language. Invariant: a text that is too
short or says too little for a verdict is unscored, never "not the wanted language".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from functools import cache
from typing import Any, Final

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from evaluators.evaluator import EMPTY, TOO_SHORT, Score, Target, Text, target_text, unscored
from evaluators.scorers.last_question import last_question
from evaluators.scorers.options import as_flag, as_number, as_target, as_texts, as_whole_number
from evaluators.scorers.rule import Rule, installed_versions

UNDETERMINED: Final = "undetermined"
"""No language is likely enough, or it is no language (numbers, markup)."""
_CODE: Final = "language-1"
_READ: Final = 1000
"""So many characters of a text are read: what comes then changes the verdict on mixed texts only."""
_NO_LANGUAGE: Final = "zxx"
_CODE_BLOCK: Final = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_NO_LETTER: Final = re.compile(r"[\W\d_]+")


class Language(Rule):
    """The label is an ISO 639 code; details: ``expected`` or ``same_as_prompt`` (``yes``, ``no``) where asked for."""

    def __init__(
        self,
        *,
        target: Target = "response",
        expected: Sequence[str] = (),
        same_as_prompt: bool = False,
        among: Sequence[str] = (),
        min_confidence: float = 0.3,
        min_letters: int = 10,
    ) -> None:
        """``among``: the only languages there are, which makes short texts surer. ``min_letters``: a letter counts by
        its bytes in UTF-8, so a Chinese one three times. Raises ``ValueError`` for an unknown language."""
        if expected and same_as_prompt:
            raise ValueError("give expected or same_as_prompt, not both.")
        if same_as_prompt and target == "request":
            raise ValueError("same_as_prompt is about answers: its target is response.")
        options = {
            "expected": sorted(expected),
            "same_as_prompt": same_as_prompt,
            "among": sorted(among),
            "min_confidence": min_confidence,
            "min_letters": min_letters,
            "library": installed_versions("py3langid"),
        }
        super().__init__(
            "language", target=target, model=installed_versions("py3langid"), code=_CODE, options=options
        )
        self._identifier = copy(_identifier())
        _known("among", among, self._identifier.labels)
        if among:
            self._identifier.set_languages(list(among))
        _known("expected", expected, self._identifier.labels)
        self._expected = tuple(expected)
        self._same_as_prompt = same_as_prompt
        self._min_confidence = min_confidence
        self._min_letters = min_letters
        self.columns: tuple[str, ...] = ("request",) if same_as_prompt else ()

    def _score(self, text: Text) -> Score:
        chosen = target_text(text, self.target)
        if chosen is None:
            return unscored(EMPTY)
        wanted = self._expected
        details: dict[str, float | str] = {}
        if self._same_as_prompt:
            asked = last_question(text)
            if asked is None:
                return unscored(EMPTY, of="request")
            of_prompt = self._read(asked)
            if isinstance(of_prompt, Score):
                return unscored(of_prompt.unscored_reason or UNDETERMINED, of="request")
            wanted = (of_prompt[0][0],)
            details["prompt_language"] = wanted[0]
        said = self._read(chosen)
        if isinstance(said, Score):
            return said
        language, confidence = said[0]
        if not wanted:
            return Score(confidence, language)
        details["same_as_prompt" if self._same_as_prompt else "expected"] = (
            "yes" if language in wanted else "no"
        )
        details["confidence"] = confidence
        return Score(
            min(1.0, sum(share for each, share in said if each in wanted)), language, details=details
        )

    def _read(self, text: str) -> list[tuple[str, float]] | Score:
        """Languages with their probabilities, the likeliest first and the others only where they matter; or why there
        are none."""
        readable = _CODE_BLOCK.sub(" ", text)[:_READ] if "```" in text else text[:_READ]
        letters = len(_NO_LETTER.sub("", readable).encode())
        if letters < self._min_letters:
            return unscored(TOO_SHORT, letters=float(letters))
        if self._expected or self._same_as_prompt:
            ranked: list[tuple[str, float]] = self._identifier.rank(readable)
        else:
            ranked = [self._identifier.classify(readable)]
        language, confidence = ranked[0]
        if language == _NO_LANGUAGE or confidence < self._min_confidence:
            return unscored(UNDETERMINED, language=language, confidence=confidence)
        return ranked


def build(
    *,
    target: Target = "response",
    expected: str | Sequence[str] | None = None,
    same_as_prompt: bool = False,
    among: str | Sequence[str] | None = None,
    min_confidence: float = 0.3,
    min_letters: int = 10,
) -> Language:
    """What the settings call ``language``."""
    return Language(
        target=as_target(target),
        expected=as_texts("expected", expected),
        same_as_prompt=as_flag("same_as_prompt", same_as_prompt),
        among=as_texts("among", among),
        min_confidence=as_number("min_confidence", min_confidence, least=0, most=1),
        min_letters=as_whole_number("min_letters", min_letters, least=1),
    )


@cache
def _identifier() -> Any:
    """The classifier of all languages, which takes a second to load. A copy of it can be restricted by itself."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _known(option: str, codes: Sequence[str], known: Sequence[Any]) -> None:
    for code in codes:
        if code not in known:
            raise ValueError(
                f"{option} does not know {code!r}. Languages are ISO 639 codes; it knows: {', '.join(sorted(known))}."
            )
