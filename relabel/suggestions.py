"""Answers that a case's scores suggest for the fields of its schema.

Invariants: nothing is suggested unless the schema shows suggestions, since what annotators see before they answer moves what
they answer; and a suggestion is no answer: it is offered, and submitted only by an annotator who takes it over.

No evaluator that there is says where in a text it saw something, so no spans are suggested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from relabel.case import RecordedScore
from relabel.label import MAX_TAG_LENGTH, Rating
from relabel.label_schema import Field, FieldType, LabelSchema, Schemas, Suggestion
from relabel.models import CaseRow, ClaimRow
from servelens.database import Database
from servelens.errors import Missing


@dataclass(frozen=True, slots=True)
class Suggested:
    """``value`` for a field, because ``evaluator`` gave ``target`` this ``score`` (``None``: only a label)."""

    value: str | int
    evaluator: str
    target: str
    score: float | None


def suggestions(schema: LabelSchema, scores: Sequence[RecordedScore]) -> dict[str, list[Suggested]]:
    """By the name of the field, in the order of the schema; only fields for which there is something."""
    if not schema.show_suggestions:
        return {}
    by_source = {(score.evaluator, score.target): score for score in scores}
    found: dict[str, list[Suggested]] = {}
    for field in schema.fields:
        for rule in field.suggest:
            score = by_source.get((rule.evaluator, rule.target))
            value = None if score is None else _value(rule, field, score)
            if score is not None and value is not None:
                suggested = Suggested(value, score.evaluator, score.target, score.score)
                found.setdefault(field.name, []).append(suggested)
    return found


def suggestions_for(
    database: Database, schemas: Schemas, case_id: int, annotator: str | None = None
) -> dict[str, list[Suggested]]:
    """What is suggested to ``annotator``, by the schema that they were given the case with, else by the current one.

    Raises :class:`~servelens.errors.Missing` for an unknown case, and :class:`~servelens.errors.Unavailable`.
    """
    with database.session(read_only=True) as session:
        case = session.execute(
            select(CaseRow.endpoint, CaseRow.scores).where(CaseRow.id == case_id)
        ).one_or_none()
        if case is None:
            raise Missing(f"there is no case {case_id}", field="case_id")
        asked = session.scalar(
            select(ClaimRow.schema_version).where(
                ClaimRow.case_id == case_id, ClaimRow.annotator == (annotator or "").strip()
            )
        )
    schema = schemas.current(case.endpoint) if asked is None else schemas.version(case.endpoint, asked)
    return suggestions(schema, [RecordedScore(**score) for score in case.scores])


def _value(rule: Suggestion, field: Field, score: RecordedScore) -> str | int | None:
    if rule.above is None and rule.below is None:
        return _label(field, score.label)
    if score.score is None:
        return None
    over = rule.above is None or score.score > rule.above
    under = rule.below is None or score.score < rule.below
    return rule.value if over and under else None


def _label(field: Field, label: str | None) -> str | None:
    """The score's label where the field can have it."""
    if label is None:
        return None
    match field.type:
        case FieldType.TAGS:
            fits = bool(label.strip()) and len(label) <= MAX_TAG_LENGTH
        case FieldType.RATING:
            fits = label in set(Rating)
        case _:
            fits = label in field.options
    return label if fits else None
