"""Reads a judge's answer, strictly: a grade is exactly what was asked for, or there is none and a reason.

Invariant: nothing is guessed. A number in words, a grade out of range, a second object, a field given twice: each is a
reason, never a grade.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from evaluators.judge.options import JudgeOptions
from evaluators.judge.prompt import EXPLANATION

NONSENSE: Final = "judge_nonsense"
"""The answer is not the object that was asked for; the detail ``answer`` has its beginning."""
OUT_OF_RANGE: Final = "judge_out_of_range"
"""The grade is a number outside the scale, or a word that is none of the labels."""
REFUSED: Final = "judge_refused"
"""The judge would not grade this text (``refusal``, or its content filter)."""
CUT_OFF: Final = "judge_cut_off"
"""The answer came to ``max_tokens`` before its end."""

_SHOWN: Final = 200
_EXPLANATION_KEPT: Final = 1_000
_FENCE: Final = "```"


@dataclass(frozen=True, slots=True)
class Grades:
    """One answer: the value of each grade, the label behind it where labels were asked for, and why."""

    values: Mapping[str, float]
    labels: Mapping[str, str]
    explanation: str


@dataclass(frozen=True, slots=True)
class NoGrade:
    """Why an answer has no grade: a machine word, and a few words for a person."""

    reason: str
    detail: str


def read_completion(body: Any, options: JudgeOptions) -> Grades | NoGrade:
    """The grades in the body of a chat completion, as JSON gave it."""
    try:
        choice = body["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
        finish = choice.get("finish_reason")
    except (LookupError, TypeError, AttributeError):
        return NoGrade(NONSENSE, f"the body is no chat completion: {_short(body)}")
    if refusal or finish == "content_filter":
        return NoGrade(REFUSED, _short(refusal or "content_filter"))
    if finish == "length":
        return NoGrade(CUT_OFF, _short(content))
    if not isinstance(content, str) or not content.strip():
        return NoGrade(NONSENSE, "the answer is empty")
    return read_answer(content, options)


def read_answer(content: str, options: JudgeOptions) -> Grades | NoGrade:
    """The grades in the text of an answer."""
    try:
        found = json.loads(_unfenced(content.strip()), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return NoGrade(NONSENSE, f"no JSON object: {_short(content)}")
    if not isinstance(found, dict):
        return NoGrade(NONSENSE, f"no JSON object: {_short(content)}")
    explanation = found.get(EXPLANATION, "")
    if not isinstance(explanation, str):
        return NoGrade(NONSENSE, f"{EXPLANATION} is no text: {_short(content)}")
    values: dict[str, float] = {}
    labels: dict[str, str] = {}
    for name in options.grades:
        if name not in found:
            return NoGrade(NONSENSE, f"{name} is missing: {_short(content)}")
        given = found[name]
        if options.labels is not None:
            if not isinstance(given, str):
                return NoGrade(NONSENSE, f"{name} is no word: {_short(content)}")
            if given not in options.labels:
                return NoGrade(OUT_OF_RANGE, f"{name} is {_short(given)}")
            labels[name], values[name] = given, options.labels[given]
        else:
            if isinstance(given, bool) or not isinstance(given, int | float):
                return NoGrade(NONSENSE, f"{name} is no number: {_short(content)}")
            low, high = options.bounds
            if not low <= given <= high:
                return NoGrade(
                    OUT_OF_RANGE, f"{name} is {given:g}" if abs(given) < 1e300 else f"{name} is huge"
                )
            values[name] = float(given)
    return Grades(values, labels, _bounded(explanation, _EXPLANATION_KEPT))


def _unfenced(answer: str) -> str:
    """``answer`` without the one code block around all of it, which is how many models write JSON. By hand: an expression
    for it goes through thousands of line breaks again and again."""
    first, found, rest = answer.partition("\n")
    if not found or first.rstrip().lower() not in (_FENCE, f"{_FENCE}json") or not rest.endswith(_FENCE):
        return answer
    inside = rest.removesuffix(_FENCE)
    return inside if "\n" in inside[len(inside.rstrip()) :] else answer


def read_usage(body: Any) -> tuple[int, int] | None:
    """Tokens in and out by the answer's ``usage``; ``None`` where it does not say."""
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return None
    counts = [usage.get("prompt_tokens"), usage.get("completion_tokens", 0)]
    if not all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts):
        return None
    return counts[0], counts[1]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is given twice")
    return found


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _short(value: Any) -> str:
    return _bounded(value if isinstance(value, str) else json.dumps(value, default=str), _SHOWN)


def _bounded(text: str, characters: int) -> str:
    # A string of JSON can hold half of a surrogate pair, which no table takes.
    clean = text.encode("utf-8", "replace").decode("utf-8").strip()
    return clean if len(clean) <= characters else clean[: characters - 1] + "…"
