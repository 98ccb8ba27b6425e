"""What a case's scores suggest as answers, where the schema shows suggestions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relabel.case import RecordedScore
from relabel.label_schema import Field, FieldType, LabelSchema
from relabel.suggestions import suggestions

_LISTS = frozenset({FieldType.MULTIPLE_CHOICE, FieldType.TAGS})


@dataclass(frozen=True, slots=True)
class Suggested:
    """An answer to a field, and the evaluator that suggests it with its score."""

    field: Field
    value: str | int | list[str]
    evaluator: str
    score: float | None


def suggested(schema: LabelSchema, scores: Sequence[RecordedScore]) -> tuple[Suggested, ...]:
    """At most one for a field: the first that :func:`relabel.suggestions.suggestions` has, and of a list of words all."""
    found: list[Suggested] = []
    for name, offers in suggestions(schema, scores).items():
        field, first = schema.field(name), offers[0]
        assert field is not None, "only fields of the schema have suggestions"
        value: str | int | list[str] = first.value
        if field.type in _LISTS:
            value = list(dict.fromkeys(str(offer.value) for offer in offers))
        found.append(Suggested(field, value, first.evaluator, first.score))
    return tuple(found)
