"""What a case's scores suggest as answers, where the schema shows suggestions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relabel.case import RecordedScore
from relabel.label import Rating
from relabel.label_schema import Field, FieldType, LabelSchema, Suggestion

_LISTS = frozenset({FieldType.MULTIPLE_CHOICE, FieldType.TAGS})


@dataclass(frozen=True, slots=True)
class Suggested:
    """An answer to a field, and the evaluator that suggests it with its score."""

    field: Field
    value: str | int | list[str]
    evaluator: str
    score: float | None


def suggested(schema: LabelSchema, scores: Sequence[RecordedScore]) -> tuple[Suggested, ...]:
    """At most one for a field: the first of its suggestions that the scores bear out, and of a list of words all of them.
    Nothing where the schema does not show suggestions.
    """
    if not schema.show_suggestions:
        return ()
    found: list[Suggested] = []
    for field in schema.fields:
        offers = [offer for suggestion in field.suggest if (offer := _offer(field, suggestion, scores))]
        if not offers:
            continue
        first = offers[0]
        if field.type in _LISTS:
            words = list(dict.fromkeys(str(offer.value) for offer in offers))
            found.append(Suggested(field, words, first.evaluator, first.score))
        else:
            found.append(first)
    return tuple(found)


def _offer(field: Field, suggestion: Suggestion, scores: Sequence[RecordedScore]) -> Suggested | None:
    for score in scores:
        if score.evaluator != suggestion.evaluator or score.target != suggestion.target:
            continue
        value = _value(field, suggestion, score)
        if value is not None:
            return Suggested(field, value, score.evaluator, score.score)
    return None


def _value(field: Field, suggestion: Suggestion, score: RecordedScore) -> str | int | None:
    if suggestion.above is None and suggestion.below is None:
        options = tuple(map(str, Rating)) if field.type is FieldType.RATING else field.options
        fits = field.type is FieldType.TAGS or score.label in options
        return score.label if score.label and fits else None
    if score.score is None:
        return None
    over = suggestion.above is not None and score.score > suggestion.above
    under = suggestion.below is not None and score.score < suggestion.below
    return suggestion.value if over or under else None
