"""What a label says under the name that its schema gives a field.

A rating, tags and a preference have places of their own in a label, whatever the field is called; other answers are kept by
the name of the field. Names are those of all versions of the schemas, since labels of older versions are exported as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from relabel.export.labeled_case import LabeledCase
from relabel.label_schema import FieldType, default_schema
from relabel.models import SchemaRow
from servelens.database import Database
from servelens.errors import Invalid


class FieldWords:
    """The fields that the schemas of ``endpoints`` (none: of all) have ever had."""

    def __init__(self, database: Database, endpoints: Sequence[str]) -> None:
        self._types: dict[str, set[str]] = {}
        for each in default_schema().fields:
            self._types.setdefault(each.name, set()).add(each.type)
        wanted = select(SchemaRow.definition)
        if endpoints:
            wanted = wanted.where(SchemaRow.endpoint.in_(endpoints))
        with database.session(read_only=True) as session:
            for definition in session.scalars(wanted):
                for field in definition["fields"]:
                    self._types.setdefault(field["name"], set()).add(field["type"])

    def check(self, name: str) -> None:
        """Raise :class:`~servelens.errors.Invalid` when no schema has had such a field."""
        if name not in self._types:
            known = ", ".join(sorted(self._types))
            raise Invalid(
                f"no label schema has a field {name!r}"[:200], field="value", fix=f"There are: {known}."
            )

    def of(self, case: LabeledCase, name: str) -> set[str]:
        """What the label can be asked for: an answer, the words of several, the labels of spans."""
        found = _words(case.values.get(name))
        types = self._types.get(name, ())
        if FieldType.RATING in types and case.rating is not None:
            found.add(str(case.rating))
        if FieldType.TAGS in types:
            found.update(case.tags)
        if FieldType.PREFERENCE in types and case.preferred is not None:
            found.add(case.preferred)
        return found


def _words(value: Any) -> set[str]:
    if value is None:
        return set()
    if isinstance(value, list):
        return {str(each["label"]) if isinstance(each, dict) else str(each) for each in value}
    return {str(value)}
