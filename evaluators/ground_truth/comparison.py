"""One answer and one truth: the prediction is taken out of the record, and compared.

Invariant: an answer without a prediction, and a truth that is none, have a reason and no score. Labels of the result are in
the form in which they were compared, so that a confusion matrix counts what was compared. A ``pattern`` that backtracks
without end costs one answer its score (``timed_out``) and not the scheduler its time: the ``regex`` package can be stopped.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Any, Final

import regex

from evaluators.evaluator import TIMED_OUT, Score, unscored
from evaluators.ground_truth.options import GroundTruthOptions, Task

CORRECT: Final = "correct"
INCORRECT: Final = "incorrect"

NO_PREDICTION: Final = "no_prediction"
"""The record has no answer: the call failed, or nothing was said."""
NOT_FOUND: Final = "prediction_not_found"
"""``pattern`` or ``pointer`` finds nothing in the answer."""
SEVERAL: Final = "several_predictions"
"""The answer has several predictions, and no ``pointer`` says which."""
NOT_A_NUMBER: Final = "prediction_not_a_number"
NO_TRUTH: Final = "no_truth"
"""The feedback has neither label nor value, or no number where one is needed."""

_SEARCHED: Final = 100_000
_SEARCH_S: Final = 0.1
_LABEL: Final = 200
_AROUND: Final = " \t\n.!?,;:\"'`*"


@dataclass(frozen=True, slots=True)
class Expected:
    """The truth: a label in its compared form, or a finite number."""

    task: Task
    value: str | float


class _NoPredictionError(Exception):
    """Its argument is the reason."""


def expected(label: str | None, value: float | None, options: GroundTruthOptions) -> Expected | None:
    """What a feedback says is true; ``None`` when it says nothing that can be compared."""
    task: Task = options.task or ("regression" if label is None else "classification")
    if task == "classification":
        if label is not None and label.strip():
            return Expected(task, _label(label, options))
        return (
            None
            if value is None or not math.isfinite(value)
            else Expected(task, _label(_word(value), options))
        )
    number = value if value is not None else _number(label)
    return None if number is None or not math.isfinite(number) else Expected(task, number)


def compare(
    response: str | None, response_text: str | None, truth: Expected, options: GroundTruthOptions
) -> Score:
    """The score of a record's answer: 1 or 0 and ``correct`` or ``incorrect``; for numbers the absolute error.

    ``response`` is the recorded body, ``response_text`` what it says.
    """
    wanted: dict[str, float | str] = {"task": truth.task, "expected": truth.value}
    try:
        found = _prediction(response, response_text, options)
        if isinstance(truth.value, str):
            predicted = _label(_word(found), options)
            right = predicted == truth.value
            return Score(
                float(right), CORRECT if right else INCORRECT, details=wanted | {"predicted": predicted}
            )
        number = _number(found)
        if number is None or not math.isfinite(number):
            raise _NoPredictionError(NOT_A_NUMBER)
    except _NoPredictionError as reason:
        return unscored(str(reason), **wanted)
    error = number - truth.value
    if not math.isfinite(error):
        return unscored(NOT_A_NUMBER, **wanted)
    return Score(abs(error), details=wanted | {"predicted": number, "error": error})


def _prediction(
    response: str | None, response_text: str | None, options: GroundTruthOptions
) -> str | float | bool:
    if options.pointer is not None:
        found = _pointed(_parsed(response), options.pointer)
    elif response_text is not None and response_text.strip():
        found = response_text
    else:
        found = _only(_parsed(response))
    if options.pattern is not None:
        try:
            match = _searching(options.pattern.pattern)(_word(found)[:_SEARCHED], timeout=_SEARCH_S)
        except TimeoutError:
            raise _NoPredictionError(TIMED_OUT) from None
        if match is None or match[1] is None:
            raise _NoPredictionError(NOT_FOUND)
        found = match[1]
    if isinstance(found, str) and not found.strip():
        raise _NoPredictionError(NOT_FOUND)
    return found


@cache
def _searching(pattern: str) -> Any:
    return regex.compile(pattern).search


def _parsed(response: str | None) -> Any:
    if response is None:
        raise _NoPredictionError(NO_PREDICTION)
    try:
        return json.loads(response)
    except (ValueError, RecursionError) as error:
        raise _NoPredictionError(NO_PREDICTION) from error


def _pointed(document: Any, parts: tuple[str, ...]) -> str | float | bool:
    for part in parts:
        try:
            document = document[int(part)] if isinstance(document, list) else document[part]
        except (LookupError, ValueError, TypeError) as error:
            raise _NoPredictionError(NOT_FOUND) from error
    return _scalar(document)


def _only(document: Any) -> str | float | bool:
    """The one prediction of an MLflow (``predictions``) or KServe answer (``outputs[0].data``)."""
    found = None
    if isinstance(document, dict):
        found = document.get("predictions")
        outputs = document.get("outputs")
        if found is None and isinstance(outputs, list):
            if len(outputs) > 1:
                raise _NoPredictionError(SEVERAL)
            found = outputs[0].get("data") if outputs and isinstance(outputs[0], dict) else None
    while isinstance(found, list | dict):
        values = list(found.values()) if isinstance(found, dict) else found
        if len(values) != 1:
            raise _NoPredictionError(SEVERAL if values else NO_PREDICTION)
        found = values[0]
    if found is None:
        raise _NoPredictionError(NO_PREDICTION)
    return _scalar(found)


def _scalar(found: Any) -> str | float | bool:
    if isinstance(found, str | int | float):
        return found
    raise _NoPredictionError(NOT_FOUND)


def _word(value: str | float | bool) -> str:
    """A label as text: 1, 1.0 and "1" are one class."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _label(text: str, options: GroundTruthOptions) -> str:
    if options.match == "normalised":
        text = " ".join(text.casefold().split()).strip(_AROUND) or text.strip()
    # Half of a surrogate pair, which JSON can carry and no table holds, becomes a question mark.
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= _LABEL:
        return text
    # Two long answers stay two, and no column holds whole texts.
    digest = blake2b(text.encode(), digest_size=4).hexdigest()
    return f"{text[: _LABEL - 10]}…#{digest}"


def _number(value: str | float | bool | None) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
