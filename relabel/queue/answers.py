"""Answers to a schema as labels, and labels as rows.

An answer may be given by the name of its field, or by what it is: ``rating``, ``corrected_answer``, ``tags`` and
``preferred`` mean the schema's field of that type, of which it has at most one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from relabel.label import Label
from relabel.label_schema import FieldType, LabelSchema, Texts
from relabel.models import CaseRow, ClaimRow, LabelRow
from servelens.errors import Invalid

SHORT: Final = {
    "rating": FieldType.RATING,
    "corrected_answer": FieldType.CORRECTED_ANSWER,
    "tags": FieldType.TAGS,
    "preferred": FieldType.PREFERENCE,
}
"""What may be given by what it is."""
SERVELENS: Final = "servelens"
"""The source of a label that was given here, not in another tool."""


def read_answers(
    schema: LabelSchema,
    values: Mapping[str, Any],
    comment: str | None,
    *,
    texts: Texts,
    short: Mapping[str, Any] | None = None,
) -> Label:
    """The label that ``values`` (by name) and ``short`` (by :data:`SHORT`) are.

    Raises :class:`~servelens.errors.Invalid`, naming what the caller gave, for what the schema does not allow, and for an
    answer that is given both ways.
    """
    merged = dict(values)
    given_as: dict[str, str] = {}
    for word, value in (short or {}).items():
        if value is None or value == []:
            continue
        asked = schema.of_type(SHORT[word])
        if asked is None:
            raise Invalid(
                "the schema has no such field",
                field=word,
                fix=f"It has: {', '.join(each.name for each in schema.fields)}.",
            )
        if values.get(asked.name) is not None:
            raise Invalid(
                f"it is given twice, also as values.{asked.name}", field=word, fix="Give it in one place."
            )
        if value == "":
            raise Invalid("it is blank", field=word, fix="Leave it out when there is none.")
        merged[asked.name] = value
        given_as[f"values.{asked.name}"] = word
    try:
        return schema.read(merged, comment, texts=texts)
    except Invalid as error:
        field = _given_field(error.field, schema, given_as)
        raise Invalid(error.message, field=field, fix=error.fix) from error


def texts_of(row: CaseRow) -> Texts:
    """What the case has to be answered about."""
    alternatives = tuple(str(each["id"]) for each in row.alternatives or ())
    return Texts(row.prompt_text or "", row.response_text or "", alternatives)


def read_label(row: LabelRow) -> Label:
    """The label of a row."""
    return Label(
        row.rating, row.corrected_answer, tuple(row.tags), row.comment, row.preferred, row.values or {}
    )


def label_row(claim: ClaimRow, label: Label, now: datetime, source: str = SERVELENS) -> LabelRow:
    """A new row for the label that the holder of ``claim`` gave."""
    return LabelRow(
        case_id=claim.case_id,
        annotator=claim.annotator,
        rating=label.rating,
        corrected_answer=label.corrected_answer,
        tags=list(label.tags),
        comment=label.comment,
        preferred=label.preferred,
        values=dict(label.values) or None,
        created_at=now,
        schema_version=claim.schema_version,
        is_adjudication=claim.is_adjudication,
        duration_s=max((now - claim.claimed_at).total_seconds(), 0.0),
        source=source,
    )


def label_as_data(row: LabelRow) -> dict[str, Any]:
    """A label that leaves its case, for the history."""
    data = {
        "annotator": row.annotator,
        "rating": row.rating,
        "corrected_answer": row.corrected_answer,
        "tags": row.tags,
        "comment": row.comment,
        "preferred": row.preferred,
        "values": row.values,
        "schema_version": row.schema_version,
        "is_adjudication": row.is_adjudication or None,
        "created_at": row.created_at.isoformat(),
    }
    return {name: value for name, value in data.items() if value not in (None, [], {})}


def _given_field(field: str | None, schema: LabelSchema, given_as: Mapping[str, str]) -> str | None:
    """The field of an error in the caller's words: checks of a label name its parts, and those of a schema its fields."""
    if field is None:
        return None
    part, rest = (field, "") if "[" not in field else (field[: field.index("[")], field[field.index("[") :])
    if part in given_as:
        return given_as[part] + rest
    asked = schema.of_type(SHORT[part]) if part in SHORT else None
    if asked is not None and part not in given_as.values():
        return f"values.{asked.name}{rest}"
    return field
