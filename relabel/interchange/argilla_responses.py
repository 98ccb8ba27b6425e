"""Reads Argilla's responses: ``dataset.records.to_list(flatten=True)`` written as JSON, or the records of its HTTP API with
their responses.

What ``to_json`` writes has no statuses: a draft would look like an answer, so it is refused. Argilla's page counts spans in
UTF-16 code units, as JavaScript does, whatever its SDK says of them
(https://github.com/argilla-io/argilla/issues/5729); nothing in a response tells the text, so that is how they are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from relabel.interchange.text_offsets import Utf16Offsets
from relabel.interchange.tool import Annotation, Answers, Said
from relabel.label import ANSWER, TIE
from relabel.label_schema import Field, FieldType, LabelSchema, Texts
from servelens.errors import Invalid

AGREED: Final = ("case_id", "databricks_request_id", "endpoint", "schema_version", "alternatives")
"""What a record's metadata says of its case."""

_RESPONSES: Final = ".responses"
_STATUSES: Final = {"submitted": Said.ANSWERED, "discarded": Said.SKIPPED, "draft": Said.DRAFT}
_ALTERNATIVE: Final = re.compile(r"alternative_([1-9][0-9]*)", re.ASCII)
_HOW: Final = "Write json.dump(dataset.records(with_responses=True).to_list(flatten=True), file)."


@dataclass(frozen=True, slots=True)
class Questions:
    """The questions' names by the names of the fields, and that of the comment."""

    by_field: Mapping[str, str]
    comment: str


class ArgillaResponses:
    """The two ways of reading, apart from the naming of questions."""

    @staticmethod
    def annotations(element: Mapping[str, Any]) -> Iterator[Annotation | Invalid]:
        """What each person said of the record."""
        responses = element.get("responses")
        if isinstance(responses, list):
            origin = element.get("metadata")
            yield from _of_api(responses, origin if isinstance(origin, Mapping) else {})
        elif isinstance(responses, Mapping):
            if any(responses.values()):
                raise Invalid("it does not say which responses were submitted", field="responses", fix=_HOW)
        elif "id" in element:
            yield from _flat(element)
        else:
            raise Invalid("it is no record of Argilla", fix=_HOW)

    @staticmethod
    def answers(raw: Any, schema: LabelSchema, texts: Texts, questions: Questions) -> Answers:
        """The answers in ``raw``."""
        fields = {question: schema.field(name) for name, question in questions.by_field.items()}
        values: dict[str, Any] = {}
        comment: str | None = None
        for question, value in raw["values"].items():
            if question == questions.comment:
                if not isinstance(value, str):
                    raise Invalid("it is no text", field=f"values.{question}", fix="Write text.")
                comment = value
                continue
            field = fields.get(question)
            if field is None:
                values[question] = value  # the schema refuses it by name
            else:
                values[field.name] = _value(field, value, texts, raw["alternatives"])
        return Answers(values, comment)


def _of_api(responses: list[Any], origin: Mapping[str, Any]) -> Iterator[Annotation | Invalid]:
    for index, response in enumerate(responses):
        try:
            yield _response(response, origin, f"responses[{index}]")
        except Invalid as error:
            yield error


def _response(response: Any, origin: Mapping[str, Any], place: str) -> Annotation:
    values = response.get("values") if isinstance(response, Mapping) else None
    if not isinstance(response, Mapping) or not isinstance(values, Mapping | None):
        raise Invalid("it is no response of Argilla", field=place, fix=_HOW)
    given: dict[str, Any] = {}
    for question, answer in (values or {}).items():
        if not isinstance(answer, Mapping) or "value" not in answer:
            raise Invalid("it has no value", field=f"{place}.values.{question}"[:200], fix=_HOW)
        given[question] = answer["value"]
    return _annotation(origin, response.get("user_id"), _said(response.get("status"), place), given, place)


def _flat(record: Mapping[str, Any]) -> Iterator[Annotation | Invalid]:
    values: dict[str, dict[str, Any]] = {}
    statuses: dict[str, set[Said]] = {}
    for key, given in record.items():
        if not key.endswith(_RESPONSES) or given is None:
            continue
        users, status = record.get(f"{key}.users"), record.get(f"{key}.status")
        if not (isinstance(given, list) and isinstance(users, list) and isinstance(status, list)) or not (
            len(given) == len(users) == len(status)
        ):
            raise Invalid("it has not a user and a status for each", field=key[:200], fix=_HOW)
        for value, user, state in zip(given, users, status, strict=True):
            values.setdefault(str(user), {})[key.removesuffix(_RESPONSES)] = value
            statuses.setdefault(str(user), set()).add(_said(state, f"{key}.status"[:200]))
    for user, answers in values.items():
        seen = statuses[user]
        if len(seen) > 1:
            yield Invalid("the answers of one person have several statuses", field=user[:200], fix=_HOW)
        else:
            yield _annotation(record, user, seen.pop(), answers, "")


def _said(status: Any, place: str) -> Said:
    if not isinstance(status, str) or status not in _STATUSES:
        raise Invalid(
            f"{status!r} is no status of a response"[:200],
            field=place,
            fix=f"It is one of: {', '.join(_STATUSES)}.",
        )
    return _STATUSES[status]


def _annotation(
    origin: Mapping[str, Any], user: Any, said: Said, values: Mapping[str, Any], place: str
) -> Annotation:
    if not isinstance(user, str) or not user:
        raise Invalid("it does not say whose it is", field=place or None, fix=_HOW)
    case_id = _whole(origin.get("case_id"))
    request_id, endpoint = origin.get("databricks_request_id"), origin.get("endpoint")
    alternatives = origin.get("alternatives")
    if isinstance(alternatives, str):  # a list of one
        alternatives = [alternatives]
    return Annotation(
        # A person has one response to a record, which Argilla's flat export gives no id.
        external_id=f"{case_id if case_id is not None else request_id}:{user}",
        user=user,
        said=said,
        case_id=case_id,
        databricks_request_id=request_id if isinstance(request_id, str) else None,
        endpoint=endpoint if isinstance(endpoint, str) else None,
        schema_version=_whole(origin.get("schema_version")),
        raw={
            "values": {name: value for name, value in values.items() if value is not None},
            "alternatives": alternatives if isinstance(alternatives, list) else [],
        },
    )


def _value(field: Field, value: Any, texts: Texts, alternatives: list[Any]) -> Any:
    place = f"values.{field.name}"
    if field.scale is not None and isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value, re.ASCII):
        return int(value)
    match field.type:
        case FieldType.PREFERENCE if isinstance(value, str) and value not in (ANSWER, TIE):
            named = _ALTERNATIVE.fullmatch(value)
            if named is None or int(named[1]) > len(alternatives):
                raise Invalid(
                    f"the record has no {value!r}"[:200], field=place, fix="Choose one that the record shows."
                )
            return alternatives[int(named[1]) - 1]
        case FieldType.TAGS if isinstance(value, str):
            return [tag.strip() for tag in re.split("[,\n]", value) if tag.strip()]
        case FieldType.SPANS if isinstance(value, list):
            text = texts.request if field.of == "request" else texts.response
            units = Utf16Offsets(text)
            return [_span(span, units, f"{place}[{index}]") for index, span in enumerate(value)]
        case _:
            return value


def _span(span: Any, units: Utf16Offsets, place: str) -> dict[str, Any]:
    if not isinstance(span, Mapping):
        raise Invalid("it is no span", field=place, fix='Give {"start": 0, "end": 5, "label": "…"}.')
    return {
        "start": units.character(span.get("start"), f"{place}.start"),
        "end": units.character(span.get("end"), f"{place}.end"),
        "label": span.get("label"),
    }


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
