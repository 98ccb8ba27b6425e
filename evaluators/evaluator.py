"""What an evaluator is: texts in, one score per text out, in the same order.

This module imports nothing but the standard library, so that the scoring models and third-party evaluators
that build on it run alone on a GPU machine.

Invariant: a text that cannot be scored is *unscored with a reason*. A score never holds a default number or
a NaN in the place of a failure, and one bad text never stops its batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias, runtime_checkable

Target: TypeAlias = Literal["request", "response"]

EMPTY: Final = "empty"
"""There is no text: null, or white space only."""
TOO_SHORT: Final = "too_short"
"""Fewer tokens than the score is defined for."""
NOT_FINITE: Final = "not_finite"
"""The model answered NaN or an infinity."""
OUT_OF_MEMORY: Final = "out_of_memory"
"""The text did not fit into the device's memory, not even alone."""
MODEL_ERROR: Final = "model_error"
"""The model raised; the detail ``error`` says what."""
TIMED_OUT: Final = "timed_out"
"""The model gave no answer in time, not even for the text alone."""
WORKER_DIED: Final = "worker_died"
"""The process that the model runs in ended while it scored the text, also when it was alone."""


@dataclass(frozen=True, slots=True)
class Text:
    """What was asked and what was answered; ``None`` where the record has none. ``columns`` holds the columns of the
    inference table that the evaluator asked for, by name."""

    prompt: str | None
    response: str | None
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one text: a finite ``value``, or an ``unscored_reason``; exactly one of them, else
    ``ValueError``. ``vectors``: embeddings of the record's sides, which are kept in a table of their own."""

    value: float | None
    label: str | None = None
    unscored_reason: str | None = None
    details: Mapping[str, float | str] = field(default_factory=dict)
    vectors: Mapping[Target, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.value is None) == (self.unscored_reason is None):
            raise ValueError("a score has either a value or an unscored_reason")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a score's value is finite, not {self.value}; use unscored(NOT_FINITE)")


def unscored(reason: str, **details: float | str) -> Score:
    """The score of a text that could not be scored, with a short machine word for the reason."""
    return Score(value=None, unscored_reason=reason, details=details)


@runtime_checkable
class Evaluator(Protocol):
    """A model, or a rule, that gives a score per text.

    An evaluator that lives from more than the two texts also has ``columns``, a tuple of columns of the inference
    table; it is then given every record, and says itself what it cannot score. Others are given only records whose
    target has a text.

    ``version`` changes whenever the same text could get another score (the code or the weights changed);
    ``model`` names what was loaded; ``device`` says where it runs (``cpu``, ``cuda:0``). All five are
    written beside each score.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def target(self) -> Target: ...

    @property
    def device(self) -> str: ...

    def score(self, batch: Sequence[Text]) -> list[Score]:
        """One score per text, in the order of ``batch``. Must not raise because of a text."""
        ...


def wanted_columns(evaluator: Evaluator) -> tuple[str, ...]:
    """The columns of the inference table that ``evaluator`` asks for; none for most."""
    return tuple(getattr(evaluator, "columns", ()))


def begin_run(evaluator: Evaluator) -> None:
    """Tell ``evaluator`` that a run begins, where it has a ``begin_run()``: it may count something by the run."""
    begin = getattr(evaluator, "begin_run", None)
    if begin is not None:
        begin()


def target_text(text: Text, target: Target) -> str | None:
    """The side of ``text`` that is scored, or ``None`` where there is nothing but white space.

    Half of a surrogate pair, which JSON can carry and no tokenizer takes, becomes a question mark.
    """
    chosen = text.prompt if target == "request" else text.response
    if chosen is None or not chosen.strip():
        return None
    return chosen.encode("utf-8", "replace").decode("utf-8")
