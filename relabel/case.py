"""What a case is, apart from where it is stored.

A case keeps a snapshot of all that an annotator needs, so that it outlives the retention of its record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from relabel.label import MAX_COMMENT_LENGTH, GivenLabel, check_text
from servelens.errors import Invalid

MAX_ANNOTATOR_LENGTH = 200

_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class CaseState(StrEnum):
    """Where a case stands.

    A case wants so many labels, each from another person: it has as many *places*. It is ``open`` while a place is free,
    and ``claimed`` while all are taken and not all have been answered; a claim ends with a label, a skip, a release or the
    end of its lease, and a skip uses the place up. Then it is ``labeled``, or ``skipped`` when all skipped, or ``disputed``
    when the labels disagree; ``adjudicating`` while somebody decides. A ``gold`` case has a known answer, is given to every
    annotator once, and never ends.
    """

    OPEN = "open"
    CLAIMED = "claimed"
    DISPUTED = "disputed"
    ADJUDICATING = "adjudicating"
    LABELED = "labeled"
    SKIPPED = "skipped"
    GOLD = "gold"


class ReasonKind(StrEnum):
    """The kinds of rules that make a record a case; ``manual`` is a person, ``random`` the control sample."""

    SCORE = "score"
    SCORE_LABEL = "score_label"
    UNSCORED = "unscored"
    LOW_CONFIDENCE = "low_confidence"
    SHADOW_DISAGREEMENT = "shadow_disagreement"
    EVALUATOR_DISAGREEMENT = "evaluator_disagreement"
    FEEDBACK = "feedback"
    DRIFT = "drift"
    RANDOM = "random"
    MANUAL = "manual"


class Resolution(StrEnum):
    """How the labels of a case came to be its one label."""

    SINGLE = "single"
    UNANIMOUS = "unanimous"
    MAJORITY = "majority"
    ADJUDICATED = "adjudicated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a record became a case: the rule of that name, which a case has at most once, and what it saw.

    Of a score: ``evaluator`` scored its ``target`` ``above`` or ``below`` (``direction``) the ``threshold``, or gave it the
    ``label``. ``detail`` is a sentence for people where these do not say it.
    """

    rule: str
    kind: ReasonKind
    priority: int
    evaluator: str | None = None
    evaluator_version: str | None = None
    target: str | None = None
    score: float | None = None
    direction: str | None = None
    threshold: float | None = None
    label: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class RecordedScore:
    """A score of the record when it became a case; ``score`` is ``None`` when it is not a finite number."""

    evaluator: str
    target: str
    score: float | None
    label: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """Another answer to the same request. ``source`` is ``shadow``, ``regenerated`` or ``uploaded``; ``id`` is what a
    preference names it by; ``message`` is an OpenAI assistant message and ``text`` what it says.
    """

    id: str
    source: str
    message: Mapping[str, Any]
    text: str
    served_entity: str | None = None
    model: str | None = None
    databricks_request_id: str | None = None


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Something that happened to a case; ``actor`` is an annotator, or the part of the system that did it. ``event`` is a
    word: ``selected``, ``claimed``, ``labeled``, ``skipped``, ``released``, ``expired``, ``renewed``, ``reassigned``,
    ``adjudicated``, ``withdrawn``, ``reopened``, ``gold``, ``imported``; ``None`` in rows of earlier releases.
    """

    at: datetime
    from_state: CaseState | None
    to_state: CaseState
    actor: str
    detail: str | None
    event: str | None = None


@dataclass(frozen=True, slots=True)
class Comment:
    """A remark on a case that everybody sees."""

    author: str
    text: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSummary:
    """A case as lists show it.

    ``annotator`` took it last: of a case that wants one label, who holds it while it is claimed, and who finished it once
    it is labeled or skipped. ``lease_expires_at`` is when the first of its claims ends. ``occurrences`` counts the flagged
    records with this same conversation and answer, or one that is nearly the same. ``version`` grows whenever the case
    passes into or out of somebody's hands; to an annotator who holds it, it is that of their claim.
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
    wanted: int = 1
    labeled: int = 0
    resolution: Resolution | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(CaseSummary):
    """A case with all that an annotator needs.

    ``messages`` is the conversation as OpenAI chat messages; when ``answered``, the last one is the recorded
    answer. ``tools`` are the tools the model was offered, as in an OpenAI request. ``labels`` are those that may be seen:
    of an unfinished case none but the reader's own, so that annotators are blind to each other.
    """

    messages: tuple[Mapping[str, Any], ...]
    answered: bool
    tools: tuple[Mapping[str, Any], ...] | None
    prompt_text: str | None
    response_text: str | None
    scores: tuple[RecordedScore, ...]
    labels: tuple[GivenLabel, ...]
    skip_reason: str | None
    alternatives: tuple[Alternative, ...] = ()
    comments: tuple[Comment, ...] = ()
    schema_version: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list. ``next_cursor`` asks for the next one; ``None`` when this is the last."""

    cases: tuple[CaseSummary, ...]
    next_cursor: str | None


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
    """Why a case is skipped, opened again or queued. Raises :class:`~servelens.errors.Invalid` when it is blank or too long."""
    check_text(reason, "reason", MAX_COMMENT_LENGTH)
    if not reason.strip():
        raise Invalid("it is blank", field="reason", fix="Say in a word why.")
    return reason.strip()
