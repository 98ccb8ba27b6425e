"""Argilla (https://docs.argilla.io): settings of a dataset made from a label schema, and records with suggestions.

Written for the SDK 2.8: ``rg.Settings.from_json`` reads the settings, and ``rg.Record.from_dict`` a record. A record keeps
its id, so logging it again changes it instead of adding another. Nothing is shown as Markdown, which could carry HTML.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from relabel.interchange.argilla_responses import AGREED, ArgillaResponses, Questions
from relabel.interchange.suggested import Suggested, suggested
from relabel.interchange.task_case import TaskCase
from relabel.interchange.tool import Annotation, Answers
from relabel.label import ANSWER, TIE, Rating
from relabel.label_schema import Field, FieldType, LabelSchema, Texts
from servelens.errors import Invalid

MAX_ALTERNATIVES: Final = 4
"""Argilla asks the same of all records, so a preference is among so many alternatives; a case shows its first ones."""

_MOST_POINTS: Final = 10
_ALTERNATIVE: Final = "alternative_{}"
_TAKEN: Final = frozenset(
    {
        *("id", "status", "score", "_server_id"),
        *("dialogue", "prompt", "answer"),
        *(_ALTERNATIVE.format(number) for number in range(1, MAX_ALTERNATIVES + 1)),
        *AGREED,
    }
)
_COMMENT: Final = "comment"
_NO_AGENT: Final = re.compile(r"[^A-Za-z0-9_:./ -]")


class Argilla:
    """Implements :class:`~relabel.interchange.tool.Tool`."""

    name: Final = "argilla"
    config_type: Final = "application/json"

    def config(self, schema: LabelSchema) -> str:
        """JSON of the dataset's settings. Raises :class:`~servelens.errors.Invalid` for what Argilla does not take: no
        question that has to be answered, and a choice of one.
        """
        if not any(each.required for each in schema.fields):
            raise Invalid(
                "Argilla wants a question that has to be answered",
                field="fields",
                fix="Set 'required: true' on one of them.",
            )
        names = question_names(schema)
        marks = {each.of for each in schema.fields if each.type is FieldType.SPANS}
        fields = [_field("dialogue", "Dialogue", "chat", required=True)]
        if "request" in marks:
            fields.append(_field("prompt", "The request, to be marked", "text"))
        compared = schema.of_type(FieldType.PREFERENCE) is not None
        if "response" in marks or compared:
            fields.append(_field("answer", "The answer", "text"))
        if compared:
            fields += [
                _field(_ALTERNATIVE.format(number), f"Alternative {number}", "text")
                for number in range(1, MAX_ALTERNATIVES + 1)
            ]
        questions = [_question(each, names.by_field[each.name]) for each in schema.fields]
        questions.append(
            _asked(names.comment, "Comment", None, False, {"type": "text", "use_markdown": False})
        )
        settings = {
            "guidelines": schema.guidelines,
            "fields": fields,
            "questions": questions,
            "vectors": [],
            "metadata": [
                _metadata("case_id", "integer"),
                _metadata("databricks_request_id", "terms"),
                _metadata("endpoint", "terms"),
                _metadata("schema_version", "integer"),
                *([_metadata("alternatives", "terms")] if compared else []),
            ],
            "allow_extra_metadata": False,
            "distribution": {"strategy": "overlap", "min_submitted": schema.annotators},
            "mapping": None,
        }
        return json.dumps(settings, ensure_ascii=False, indent=2) + "\n"

    def task(self, case: TaskCase, schema: LabelSchema) -> dict[str, Any]:
        """A record as ``rg.Record.to_dict`` writes it."""
        marks = {each.of for each in schema.fields if each.type is FieldType.SPANS}
        compared = schema.of_type(FieldType.PREFERENCE) is not None
        fields: dict[str, Any] = {
            "dialogue": [{"role": line.author, "content": line.text} for line in case.dialogue]
        }
        metadata: dict[str, Any] = {
            "case_id": case.id,
            "databricks_request_id": case.databricks_request_id,
            "endpoint": case.endpoint,
            "schema_version": schema.version,
        }
        if "request" in marks and case.prompt:
            fields["prompt"] = case.prompt
        if ("response" in marks or compared) and case.answer:
            fields["answer"] = case.answer
        if compared:
            shown = case.alternatives[:MAX_ALTERNATIVES]
            fields |= {_ALTERNATIVE.format(number): each.text for number, each in enumerate(shown, start=1)}
            if shown:
                metadata["alternatives"] = [each.id for each in shown]
        names = question_names(schema)
        offers = suggested(schema, case.scores)
        return {
            "id": f"case-{case.id}",
            "fields": fields,
            "metadata": metadata,
            "suggestions": {names.by_field[offer.field.name]: _suggestion(offer) for offer in offers},
            "responses": {},
            "vectors": {},
        }

    def annotations(self, element: Mapping[str, Any]) -> Iterator[Annotation | Invalid]:
        """Of a record, one for each person."""
        return ArgillaResponses.annotations(element)

    def answers(self, annotation: Annotation, schema: LabelSchema, texts: Texts) -> Answers:
        """What a person said of a record; spans are counted in characters."""
        return ArgillaResponses.answers(annotation.raw, schema, texts, question_names(schema))


def question_names(schema: LabelSchema) -> Questions:
    """What Argilla calls each field, and the comment: in small letters, with ``_`` behind it where it is taken."""
    taken = set(_TAKEN)
    names = {each.name: _free(each.name.lower(), taken) for each in schema.fields}
    return Questions(names, _free(_COMMENT, taken))


def _free(name: str, taken: set[str]) -> str:
    if not re.search("[a-z0-9]", name):  # a name of underscores alone is none
        name = f"field{name}"
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _field(name: str, title: str, kind: str, *, required: bool = False) -> dict[str, Any]:
    settings = {"type": kind, "use_markdown": False}
    return {"name": name, "title": title, "required": required, "settings": settings}


def _metadata(name: str, kind: str) -> dict[str, Any]:
    return {"name": name, "title": name, "settings": {"type": kind}, "visible_for_annotators": False}


def _question(field: Field, name: str) -> dict[str, Any]:
    return _asked(name, field.title or field.name, field.help, field.required, _settings(field))


def _asked(
    name: str, title: str, description: str | None, required: bool, settings: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "title": title,
        "description": description,
        "required": required,
        "settings": settings,
    }


def _settings(field: Field) -> dict[str, Any]:
    if field.scale is not None:
        values = range(1, field.scale + 1)
        if field.scale <= _MOST_POINTS:
            return {"type": "rating", "options": [{"value": value} for value in values]}
        return _labels("label_selection", {str(value): str(value) for value in values}, field)
    match field.type:
        case FieldType.RATING:
            return _labels("label_selection", {str(rating): str(rating) for rating in Rating}, field)
        case FieldType.CHOICE:
            return _labels("label_selection", {option: option for option in field.options}, field)
        case FieldType.MULTIPLE_CHOICE:
            options = {option: option for option in field.options}
            return _labels("multi_label_selection", options, field) | {"options_order": "natural"}
        case FieldType.PREFERENCE:
            numbers = range(1, MAX_ALTERNATIVES + 1)
            others = {_ALTERNATIVE.format(number): f"Alternative {number}" for number in numbers}
            return _labels("label_selection", {ANSWER: "The answer", **others, TIE: "None is better"}, field)
        case FieldType.SPANS:
            options = {option: option for option in field.options}
            return _options("span", options) | {
                "field": "prompt" if field.of == "request" else "answer",
                "allow_overlapping": True,
            }
        case FieldType.TEXT | FieldType.CORRECTED_ANSWER | FieldType.TAGS:
            return {"type": "text", "use_markdown": False}
        case _:
            raise AssertionError(f"no question for {field.type}")


def _labels(kind: str, options: Mapping[str, str], field: Field) -> dict[str, Any]:
    if len(options) < 2:
        raise Invalid(
            f"Argilla wants two options, and {field.name!r} has one"[:300],
            field="options",
            fix="Add another, or use Label Studio.",
        )
    return _options(kind, options)


def _options(kind: str, options: Mapping[str, str]) -> dict[str, Any]:
    return {"type": kind, "options": [{"value": value, "text": text} for value, text in options.items()]}


def _suggestion(offer: Suggested) -> dict[str, Any]:
    value: Any = offer.value
    if offer.field.type is FieldType.TAGS:
        value = "\n".join(value if isinstance(value, list) else [str(value)])
    elif offer.field.scale is not None and offer.field.scale > _MOST_POINTS:
        value = str(value)
    # Argilla takes a score from 0 to 1, and of several words one each.
    score = offer.score if not isinstance(value, list) else None
    fits = score is not None and math.isfinite(score) and 0 <= score <= 1
    agent = _NO_AGENT.sub("_", offer.evaluator)[:200]
    return {"value": value, "score": score if fits else None, "agent": agent}
