"""Label Studio (https://labelstud.io): a labeling configuration made from a label schema, and tasks with a prediction.

Written for release 1.23; the tags are those of https://labelstud.io/tags. Everything is shown by ``Paragraphs`` and
``Text``, which take text as text. Its short export (JSON_MIN) puts what a task carried and what was answered side by side
into one object, so no control is named as a part of the task is: see :func:`control_names`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from xml.etree import ElementTree

from relabel.interchange.label_studio_results import NO_CONTROLS, LabelStudioResults
from relabel.interchange.suggested import Suggested, suggested
from relabel.interchange.task_case import TaskCase
from relabel.interchange.tool import Annotation, Answers
from relabel.label import ANSWER, TIE, Rating
from relabel.label_schema import Field, FieldType, LabelSchema, Texts
from servelens.errors import Invalid

MODEL_VERSION: Final = "servelens"
"""Of all predictions, since a project shows those of one version."""

_COMMENT: Final = "comment"
# Paragraphs run the lines of a text together unless told otherwise.
_LINE_BREAKS: Final = '[class*="dialoguetext"] { white-space: pre-wrap }'
_MOST_STARS: Final = 10
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LABEL_STUDIO_TYPES: Final = {
    FieldType.RATING: "choices",
    FieldType.CHOICE: "choices",
    FieldType.MULTIPLE_CHOICE: "choices",
    FieldType.TAGS: "textarea",
}


class LabelStudio:
    """Implements :class:`~relabel.interchange.tool.Tool`."""

    name: Final = "label_studio"
    config_type: Final = "application/xml"

    def config(self, schema: LabelSchema) -> str:
        """XML. Raises :class:`~servelens.errors.Invalid` for an option that Label Studio takes for a part of the task."""
        view = ElementTree.Element("View")
        _tag(view, "Style").text = _LINE_BREAKS
        if schema.guidelines is not None:
            _tag(view, "Header", value=_shown(schema.guidelines), size="5")
        _tag(
            view,
            "Paragraphs",
            name="dialogue",
            value="$dialogue",
            layout="dialogue",
            nameKey="author",
            textKey="text",
        )
        for side, key in (("request", "prompt"), ("response", "answer")):
            if any(each.type is FieldType.SPANS and each.of == side for each in schema.fields):
                _tag(view, "Header", value=f"The {side}, to be marked", size="5")
                _tag(view, "Text", name=key, value=f"${key}")
        if schema.of_type(FieldType.PREFERENCE) is not None:
            _tag(view, "Header", value="The answers", size="5")
            _tag(
                view,
                "Paragraphs",
                name="answers",
                value="$answers",
                layout="dialogue",
                nameKey="author",
                textKey="text",
            )
        fields, comment = control_names(schema)
        for each in schema.fields:
            _tag(view, "Header", value=_shown(each.title or each.name))
            if each.help is not None:
                _tag(view, "Header", value=_shown(each.help), size="6")
            _control(view, each, fields[each.name])
        _tag(view, "Header", value="Comment")
        _text_area(view, comment, rows="2", maxSubmissions="1")
        ElementTree.indent(view)
        return ElementTree.tostring(view, encoding="unicode") + "\n"

    def task(self, case: TaskCase, schema: LabelSchema) -> dict[str, Any]:
        """A task of Label Studio's JSON, with a prediction where something is suggested. What says which case it is about
        is there twice: the short export leaves ``meta`` out.
        """
        origin = {
            "case_id": case.id,
            "databricks_request_id": case.databricks_request_id,
            "endpoint": case.endpoint,
            "schema_version": schema.version,
        }
        answers = [(ANSWER, case.answer), *((each.id, each.text) for each in case.alternatives)]
        task: dict[str, Any] = {
            "data": {
                "dialogue": [{"author": line.author, "text": line.text} for line in case.dialogue],
                "prompt": case.prompt,
                "answer": case.answer,
                "answers": [{"author": name, "text": text} for name, text in answers],
                "preference_options": [{"value": name} for name in (*(name for name, _ in answers), TIE)],
                **origin,
            },
            "meta": origin,
        }
        offers = suggested(schema, case.scores)
        if offers:
            task["predictions"] = [_prediction(offers, control_names(schema)[0])]
        return task

    def annotations(self, element: Mapping[str, Any]) -> Iterator[Annotation | Invalid]:
        """Of a task of the full export (JSON), or an annotation of the short one (JSON_MIN)."""
        return LabelStudioResults.annotations(element)

    def answers(self, annotation: Annotation, schema: LabelSchema, texts: Texts) -> Answers:
        """What an annotation says; spans are counted in characters."""
        fields, comment = control_names(schema)
        return LabelStudioResults.answers(annotation.raw, schema, texts, fields, comment)


def control_names(schema: LabelSchema) -> tuple[Mapping[str, str], str]:
    """What Label Studio calls each field, and the comment: the field's own name, with ``_`` behind it where that is a part
    of the task or of the export.
    """
    taken = set(NO_CONTROLS) | {each.name for each in schema.fields if each.name not in NO_CONTROLS}
    names: dict[str, str] = {}
    for each in schema.fields:
        name = each.name
        if name in NO_CONTROLS:
            name = _free(name, taken)
        names[each.name] = name
    return names, _free(_COMMENT, taken)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _control(view: ElementTree.Element, field: Field, name: str) -> None:
    common = {"name": name, "toName": "dialogue"} | ({"required": "true"} if field.required else {})
    match field.type:
        case FieldType.RATING | FieldType.SCALE if field.scale is not None:
            if field.scale <= _MOST_STARS:
                _tag(view, "Rating", **common, maxRating=str(field.scale))
            else:
                _tag(view, "Number", **common, min="1", max=str(field.scale), step="1")
        case FieldType.RATING:
            _choices(view, field, tuple(map(str, Rating)), choice="single-radio", **common)
        case FieldType.CHOICE:
            _choices(view, field, field.options, choice="single-radio", **common)
        case FieldType.MULTIPLE_CHOICE:
            _choices(view, field, field.options, choice="multiple", **common)
        case FieldType.PREFERENCE:
            _tag(view, "Choices", choice="single-radio", value="$preference_options", **common)
        case FieldType.SPANS:
            common["toName"] = "prompt" if field.of == "request" else "answer"
            labels = _tag(view, "Labels", **common)
            for option in field.options:
                _tag(labels, "Label", value=_option(field, option))
        case FieldType.TAGS:
            _tag(view, "TextArea", **common, maxSubmissions="50", editable="true", skipDuplicates="true")
        case FieldType.TEXT | FieldType.CORRECTED_ANSWER:
            _text_area(view, name, required=field.required, rows="6", maxSubmissions="1")
        case _:
            raise AssertionError(f"no control for {field.type}")


def _choices(view: ElementTree.Element, field: Field, options: tuple[str, ...], **attributes: str) -> None:
    choices = _tag(view, "Choices", **attributes)
    for option in options:
        _tag(choices, "Choice", value=_option(field, option))


def _option(field: Field, option: str) -> str:
    if option.startswith("$") or _NOT_XML.search(option):
        raise Invalid(
            f"Label Studio cannot show the option {option!r} of {field.name!r}"[:300],
            field="options",
            fix="Begin it with another character than '$', and leave control characters out.",
        )
    return option


def _text_area(view: ElementTree.Element, name: str, *, required: bool = False, **attributes: str) -> None:
    needed = {"required": "true"} if required else {}
    _tag(
        view,
        "TextArea",
        name=name,
        toName="dialogue",
        editable="true",
        **needed,
        **attributes,
    )


def _tag(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, attributes)


def _shown(text: str) -> str:
    """Text beside the controls; a ``$`` at its beginning would name a part of the task."""
    clean = _NOT_XML.sub("\ufffd", text)
    return f" {clean}" if clean.startswith("$") else clean


def _prediction(offers: tuple[Suggested, ...], names: Mapping[str, str]) -> dict[str, Any]:
    results = []
    for offer in offers:
        name = names[offer.field.name]
        result = {"id": name, "from_name": name, "to_name": "dialogue", **_typed(offer)}
        if offer.score is not None and math.isfinite(offer.score):
            result["score"] = offer.score
        results.append(result)
    prediction: dict[str, Any] = {"model_version": MODEL_VERSION, "result": results}
    scores = [result["score"] for result in results if "score" in result]
    if scores:
        prediction["score"] = min(scores)
    return prediction


def _typed(offer: Suggested) -> dict[str, Any]:
    if offer.field.scale is not None:
        kind = "rating" if offer.field.scale <= _MOST_STARS else "number"
        return {"type": kind, "value": {kind: offer.value}}
    kind = _LABEL_STUDIO_TYPES[offer.field.type]
    words = offer.value if isinstance(offer.value, list) else [offer.value]
    return {"type": kind, "value": {"text" if kind == "textarea" else kind: words}}
