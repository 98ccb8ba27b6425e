"""What a case and its label are, apart from where they are stored.

A case keeps a snapshot of all that an annotator needs, so that it outlives the retention of its record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from servelens.errors import Invalid

MAX_ANNOTATOR_LENGTH = 200
MAX_CORRECTED_ANSWER_LENGTH = 1_000_000
MAX_COMMENT_LENGTH = 10_000
MAX_TAGS = 50
MAX_TAG_LENGTH = 100

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class CaseState(StrEnum):
    """Where a case stands. ``claimed`` ends with a label, a skip, a release or the end of the lease."""

    OPEN = "open"
    CLAIMED = "claimed"
    LABELED = "labeled"
    SKIPPED = "skipped"


class Rating(StrEnum):
    """Whether the recorded answer is fit to be learnt from."""

    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a record became a case: ``evaluator`` scored its ``target`` ``above`` or ``below`` a threshold."""

    evaluator: str
    target: str
    score: float
    direction: str
    threshold: float
    priority: int


@dataclass(frozen=True, slots=True)
class RecordedScore:
    """A score of the record when it became a case; ``score`` is ``None`` when it is not a finite number."""

    evaluator: str
    target: str
    score: float | None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """An annotator's judgement. ``corrected_answer`` is what the model should have answered.

    Text is kept as given, except that tags are stripped and repeated ones dropped, and a blank comment is no
    comment.
    """

    rating: Rating
    corrected_answer: str | None = None
    tags: tuple[str, ...] = ()
    comment: str | None = None

    def __post_init__(self) -> None:
        """Raise :class:`~servelens.errors.Invalid`, naming the field, when the label cannot be kept."""
        object.__setattr__(self, "rating", checked_rating(self.rating))
        if self.corrected_answer is not None:
            _check_text(self.corrected_answer, "corrected_answer", MAX_CORRECTED_ANSWER_LENGTH)
            if not self.corrected_answer.strip():
                raise Invalid(
                    "it is blank", field="corrected_answer", fix="Leave it out when there is no correction."
                )
        object.__setattr__(self, "tags", _checked_tags(self.tags))
        if self.comment is not None:
            _check_text(self.comment, "comment", MAX_COMMENT_LENGTH)
            if not self.comment.strip():
                object.__setattr__(self, "comment", None)


@dataclass(frozen=True, slots=True)
class GivenLabel:
    """A label with who gave it and when."""

    annotator: str
    label: Label
    created_at: datetime


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change of a case's state; ``actor`` is an annotator, or the part of the system that did it."""

    at: datetime
    from_state: CaseState | None
    to_state: CaseState
    actor: str
    detail: str | None


@dataclass(frozen=True, slots=True)
class CaseSummary:
    """A case as lists show it.

    ``annotator`` holds the case while it is claimed, and finished it once it is labeled or skipped.
    ``occurrences`` counts the flagged records with this same conversation and answer. ``version`` grows
    whenever the case passes into or out of somebody's hands.
    """

    id: int
    endpoint: str
    databricks_request_id: str
    state: CaseState
    priority: int
    occurrences: int
    version: int
    annotator: str | None
    lease_expires_at: datetime | None
    served_entity: str | None
    variant: str | None
    model: str | None
    request_time: datetime
    created_at: datetime
    updated_at: datetime
    prompt_preview: str | None
    response_preview: str | None
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Case(CaseSummary):
    """A case with all that an annotator needs.

    ``messages`` is the conversation as OpenAI chat messages; when ``answered``, the last one is the recorded
    answer. ``tools`` are the tools the model was offered, as in an OpenAI request.
    """

    messages: tuple[Mapping[str, Any], ...]
    answered: bool
    tools: tuple[Mapping[str, Any], ...] | None
    prompt_text: str | None
    response_text: str | None
    scores: tuple[RecordedScore, ...]
    labels: tuple[GivenLabel, ...]
    skip_reason: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list. ``next_cursor`` asks for the next one; ``None`` when this is the last."""

    cases: tuple[CaseSummary, ...]
    next_cursor: str | None


def checked_rating(rating: str) -> Rating:
    """The rating of that name. Raises :class:`~servelens.errors.Invalid` when there is none."""
    try:
        return Rating(rating)
    except ValueError as error:
        raise Invalid(f"{rating!r} is not a rating", field="rating", fix="Use 'good' or 'bad'.") from error


def checked_annotator(name: str) -> str:
    """``name`` without surrounding space. Raises :class:`~servelens.errors.Invalid` when it names nobody."""
    stripped = name.strip()
    if not stripped or len(stripped) > MAX_ANNOTATOR_LENGTH or _CONTROL.search(stripped):
        raise Invalid(
            "it must be a name on one line",
            field="annotator",
            fix=f"Give a name of 1 to {MAX_ANNOTATOR_LENGTH} characters.",
        )
    return stripped


def checked_reason(reason: str) -> str:
    """A reason for skipping. Raises :class:`~servelens.errors.Invalid` when it is blank or too long."""
    _check_text(reason, "reason", MAX_COMMENT_LENGTH)
    if not reason.strip():
        raise Invalid("it is blank", field="reason", fix="Say in a word why the case is skipped.")
    return reason.strip()


def _checked_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    checked = []
    for index, tag in enumerate(tags):
        _check_text(tag, f"tags[{index}]", MAX_TAG_LENGTH)
        if not tag.strip():
            raise Invalid("it is blank", field=f"tags[{index}]", fix="Leave blank tags out.")
        checked.append(tag.strip())
    if len(checked) > MAX_TAGS:
        raise Invalid(f"there are {len(checked)} tags", field="tags", fix=f"Give at most {MAX_TAGS}.")
    return tuple(dict.fromkeys(checked))


def _check_text(text: str, field: str, limit: int) -> None:
    if len(text) > limit:
        raise Invalid(f"it has {len(text)} characters", field=field, fix=f"Give at most {limit}.")
    if _UNSTORABLE.search(text):
        raise Invalid(
            "it contains a NUL or half a surrogate pair, which is not text",
            field=field,
            fix="Remove the character.",
        )
