"""Which feedback is the truth, and how an answer is compared with it: the options, checked once.

Invariant: :attr:`GroundTruthOptions.version` changes whenever the same answer and truth could get another score.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final, Literal, TypeAlias

from servelens.errors import Invalid

EVALUATOR: Final = "ground_truth"

Task: TypeAlias = Literal["classification", "regression"]

_CODE_VERSION: Final = 1
_NAMES: Final = ("truth", "task", "match", "pattern", "pointer", "wait_days")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundTruthOptions:
    """``truth`` is the name of the feedback; ``task`` ``None``: by what a feedback has, a label or a value.

    The prediction is the answer's text or single number, unless ``pointer`` (JSON Pointer, RFC 6901) names a place in the
    response's JSON; ``pattern`` then takes its first group out. ``match`` says how two labels are compared. Feedback whose
    record is not in the inference table is kept ``wait`` before it is given up.
    """

    truth: str = EVALUATOR
    task: Task | None = None
    match: Literal["exact", "normalised"] = "normalised"
    pattern: re.Pattern[str] | None = None
    pointer: tuple[str, ...] | None = None
    wait: timedelta = timedelta(days=7)

    @property
    def evaluator(self) -> str:
        """The name under which scores are kept: ``ground_truth``, or ``ground_truth.NAME`` for another truth."""
        return EVALUATOR if self.truth == EVALUATOR else f"{EVALUATOR}.{self.truth}"

    @property
    def version(self) -> str:
        """Twelve hexadecimal digits."""
        pattern = None if self.pattern is None else self.pattern.pattern
        counted = [_CODE_VERSION, self.truth, self.task, self.match, pattern, self.pointer]
        return sha256(json.dumps(counted).encode()).hexdigest()[:12]


def read_options(options: Mapping[str, Any]) -> GroundTruthOptions:
    """The options as a settings file has them. Raises :class:`~servelens.errors.Invalid`, which names the option."""
    unknown = sorted(options.keys() - set(_NAMES))
    if unknown:
        raise _invalid(None, f"unknown option {unknown[0]!r}.", f"Its options are: {', '.join(_NAMES)}.")
    truth = options.get("truth", EVALUATOR)
    if not isinstance(truth, str) or not truth.strip():
        raise _invalid("truth", f"{truth!r} is no name of a feedback")
    task, match = options.get("task"), options.get("match", "normalised")
    if task not in (None, "classification", "regression"):
        raise _invalid("task", f"it is classification or regression, not {task!r}")
    if match not in ("exact", "normalised"):
        raise _invalid("match", f"it is exact or normalised, not {match!r}")
    days = options.get("wait_days", 7)
    if isinstance(days, bool) or not isinstance(days, int | float) or not 0 <= days <= 3650:
        raise _invalid("wait_days", f"{days!r} is no number of days")
    return GroundTruthOptions(
        truth=truth,
        task=task,
        match=match,
        pattern=_pattern(options.get("pattern")),
        pointer=_pointer(options.get("pointer")),
        wait=timedelta(days=days),
    )


def _pattern(pattern: Any) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise _invalid("pattern", f"{pattern!r} is no regular expression: {error}") from error
    if compiled.groups != 1:
        raise _invalid(
            "pattern", f"it has {compiled.groups} groups", "Put the label into the only one: 'label: (\\w+)'."
        )
    return compiled


def _pointer(pointer: Any) -> tuple[str, ...] | None:
    if pointer is None:
        return None
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise _invalid("pointer", f"{pointer!r} is no JSON Pointer", "Write, for example, /predictions/0.")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def _invalid(option: str | None, message: str, fix: str | None = None) -> Invalid:
    return Invalid(message, field="options" if option is None else f"options.{option}", fix=fix)
