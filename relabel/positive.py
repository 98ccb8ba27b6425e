"""What counts as people's yes when an evaluator is measured: one answer to one field of the label schema.

Written ``FIELD=VALUE``: ``topic=billing``, ``tags=toxic``; of a field of spans a kind that was marked; ``rating=bad``, whatever
the rating is called and however long its scale. Of scales also ``FIELD<=VALUE`` and ``FIELD>=VALUE``. A label that does not
answer the field says neither yes nor no.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from relabel.human_labels import HumanLabel
from relabel.label import Label, Rating
from relabel.label_schema import Field, FieldType, LabelSchema
from servelens.errors import Invalid

DEFAULT: Final = "rating=bad"
_FORM: Final = re.compile(r"\s*([^=<>]+?)\s*(<=|>=|=)\s*(.+?)\s*", re.DOTALL)
_UNMARKED: Final = frozenset({FieldType.MULTIPLE_CHOICE, FieldType.SPANS, FieldType.TAGS})

Relation = Literal["=", "<=", ">="]


@dataclass(frozen=True, slots=True)
class Positive:
    """Whether a label says yes. ``kind`` and ``scale`` are those of the field in the schema it was checked against: a field of
    the same name and another type or scale in an older schema is another question.
    """

    field: str
    relation: Relation
    value: str | int
    kind: FieldType
    scale: int | None

    def __str__(self) -> str:
        return f"{self.field}{self.relation}{self.value}"

    @property
    def words(self) -> str:
        """As people read it."""
        if self.kind is FieldType.TAGS:
            return f"tagged {self.value}"
        if self.kind is FieldType.RATING and self.scale is None:
            return f"rated {self.value}"
        relation = {"=": "is", "<=": "is at most", ">=": "is at least"}[self.relation]
        return f"whose {self.field} {relation} {self.value}"

    def of(self, label: HumanLabel, schema: LabelSchema) -> bool | None:
        """What ``label``, which answered ``schema``, says; ``None`` where it does not say."""
        if self.kind is FieldType.RATING and self.scale is None:
            return None if label.rating is None else str(label.rating) == self.value
        asked = schema.field(self.field)
        if asked is None or asked.type is not self.kind or asked.scale != self.scale:
            return None
        given = Label(rating=label.rating, tags=label.tags, preferred=label.preferred, values=label.values)
        answer = schema.answers(given).get(self.field)
        if answer is None:
            return False if self.kind in _UNMARKED else None
        if isinstance(answer, list):
            words = [each["label"] if isinstance(each, Mapping) else each for each in answer]
            return str(self.value).casefold() in (word.casefold() for word in words)
        if isinstance(answer, int) and isinstance(self.value, int):
            return {
                "=": answer == self.value,
                "<=": answer <= self.value,
                ">=": answer >= self.value,
            }[self.relation]
        return answer == self.value


def parse_positive(text: str, schema: LabelSchema) -> Positive:
    """Raises :class:`~servelens.errors.Invalid`, naming ``positive``, when ``schema`` has no such field or answer."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise Invalid(
            f"{text[:200]!r} is no answer", field="positive", fix="Give FIELD=VALUE, as rating=bad."
        )
    name, relation, value = form.groups()
    asked = schema.field(name) or (schema.of_type(FieldType.RATING) if name == "rating" else None)
    usable = [each for each in schema.fields if each.type not in (FieldType.TEXT, FieldType.CORRECTED_ANSWER)]
    if asked is None or asked not in usable:
        raise Invalid(
            f"the label schema has no field {name[:200]!r} whose answers can be compared",
            field="positive",
            fix=f"It has: {', '.join(each.name for each in usable) or 'none'}.",
        )
    if asked.type is FieldType.RATING and relation == "=" and value in tuple(map(str, Rating)):
        return Positive(name, "=", value, asked.type, None)
    if asked.scale is not None:
        return Positive(name, _relation(relation), _on_scale(value, asked), asked.type, asked.scale)
    if relation != "=":
        raise Invalid(f"{name} is no scale", field="positive", fix=f"Give {name}=VALUE.")
    options = _options(asked)
    if options and value not in options:
        raise Invalid(
            f"{value[:200]!r} is no answer to {name}",
            field="positive",
            fix=f"Its answers are: {', '.join(options)}."[:1_000],
        )
    return Positive(name, "=", value, asked.type, None)


def _options(asked: Field) -> tuple[str, ...]:
    """The answers that there can be; none where any word can be one."""
    if asked.type is FieldType.RATING:
        return tuple(map(str, Rating))
    if asked.type is FieldType.PREFERENCE or asked.type is FieldType.TAGS:
        return ()
    return asked.options


def _relation(text: str) -> Relation:
    return "<=" if text == "<=" else ">=" if text == ">=" else "="


def _on_scale(value: str, asked: Field) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if not 1 <= number <= (asked.scale or 1):
        raise Invalid(
            f"{value[:200]!r} is not on the scale of {asked.name}",
            field="positive",
            fix=f"Give a whole number from 1 to {asked.scale}.",
        )
    return number
