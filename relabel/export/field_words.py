"""What a label says under the name that its schema gives a field.

A rating, tags and a preference have places of their own in a label, whatever the field is called; other answers are kept by
the name of the field. A label is read by the schema that it answered: the same name may be another field elsewhere.
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
        self._default = {each.name: str(each.type) for each in default_schema().fields}
        self._types: dict[tuple[str, int], dict[str, str]] = {}
        wanted = select(SchemaRow.endpoint, SchemaRow.version, SchemaRow.definition)
        if endpoints:
            wanted = wanted.where(SchemaRow.endpoint.in_(endpoints))
        with database.session(read_only=True) as session:
            for endpoint, version, definition in session.execute(wanted):
                self._types[endpoint, version] = {
                    field["name"]: field["type"] for field in definition["fields"]
                }

    def check(self, name: str) -> None:
        """Raise :class:`~servelens.errors.Invalid` when no schema has had such a field."""
        names = {*self._default, *(each for fields in self._types.values() for each in fields)}
        if name not in names:
            known = ", ".join(sorted(names))
            raise Invalid(
                f"no label schema has a field {name!r}"[:200], field="value", fix=f"There are: {known}."
            )

    def of(self, case: LabeledCase, name: str) -> set[str]:
        """What the label can be asked for: an answer, the words of several, the labels of spans."""
        found = _words(case.values.get(name))
        fields = (
            self._types.get((case.endpoint, case.schema_version), {})
            if case.schema_version
            else self._default
        )
        kind = fields.get(name)
        if kind == FieldType.RATING and case.rating is not None:
            found.add(str(case.rating))
        if kind == FieldType.TAGS:
            found.update(case.tags)
        if kind == FieldType.PREFERENCE and case.preferred is not None:
            found.add(case.preferred)
        return found


def _words(value: Any) -> set[str]:
    if value is None:
        return set()
    if isinstance(value, list):
        return {str(each["label"]) if isinstance(each, dict) else str(each) for each in value}
    return {str(value)}
