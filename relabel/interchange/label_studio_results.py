"""Reads Label Studio's exports: the full one (JSON: tasks with their annotations) and the short one (JSON_MIN: an object an
annotation, https://labelstud.io/guide/export).

Label Studio 1.23 counts text in characters (Unicode code points). Older releases, and programs that follow JavaScript, count
UTF-16 code units, of which an emoji is two (https://github.com/HumanSignal/label-studio/pull/1559). Which one a span means,
the text that is kept with it says.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from relabel.interchange.text_offsets import Utf16Offsets, checked_offset
from relabel.interchange.tool import Annotation, Answers, Said
from relabel.label_schema import Field, FieldType, LabelSchema, Texts
from servelens.errors import Invalid

NO_CONTROLS: Final = frozenset(
    {
        *("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"),
        *("dialogue", "prompt", "answer", "answers", "preference_options"),
        *("case_id", "databricks_request_id", "endpoint", "schema_version"),
    }
)
"""What the short export says of an annotation, and what a task carries."""

_LONGEST_S: Final = 366 * 86_400
_NUMBER: Final = {"rating", "number"}
# In its text of a span Label Studio writes line breaks as \n, in two characters; and white space as the page shows it.
_NOT_COMPARED: Final = re.compile(r"\\n|\s+")


class LabelStudioResults:
    """The two ways of reading, apart from the naming of controls."""

    @staticmethod
    def annotations(element: Mapping[str, Any]) -> Iterator[Annotation | Invalid]:
        """The annotations of one element of an export."""
        if isinstance(element.get("annotations"), list):
            for index, annotation in enumerate(element["annotations"]):
                try:
                    yield _full(element, annotation, f"annotations[{index}]")
                except Invalid as error:
                    yield error
        elif "annotation_id" in element:
            yield _short(element)
        elif "annotations" not in element and isinstance(element.get("data"), Mapping):
            return  # a task that nobody has labeled
        else:
            raise Invalid(
                "it is neither a task with annotations nor an annotation",
                fix="Export the project as JSON or JSON_MIN.",
            )

    @staticmethod
    def answers(
        raw: Any, schema: LabelSchema, texts: Texts, names: Mapping[str, str], comment: str
    ) -> Answers:
        """The answers in ``raw``: results by the name of their control. ``names`` are the controls of the fields."""
        fields = {control: schema.field(name) for name, control in names.items()}
        values: dict[str, Any] = {}
        said: str | None = None
        for control, pieces in _by_control(raw).items():
            if control == comment:
                said = "\n".join(_words(pieces, "text", f"values.{control}")) or None
                continue
            field = fields.get(control)
            if field is None:
                values[control] = pieces  # the schema refuses it by name
                continue
            value = _value(field, pieces, texts)
            if value is not None:
                values[field.name] = value
        return Answers(values, said)


def _full(task: Mapping[str, Any], annotation: Any, place: str) -> Annotation:
    results = annotation.get("result") if isinstance(annotation, Mapping) else None
    if not isinstance(results, list) or "id" not in annotation:
        raise _no_annotation(place)
    data, meta = task.get("data"), task.get("meta")
    origin = {
        **(data if isinstance(data, Mapping) else {}),
        **(meta if isinstance(meta, Mapping) else {}),
    }
    skipped = annotation.get("was_cancelled") is True
    return _annotation(
        origin,
        identifier=annotation["id"],
        user=annotation.get("completed_by"),
        said=Said.SKIPPED if skipped else Said.ANSWERED,
        lead_time=annotation.get("lead_time"),
        raw=[_result(result, f"{place}.result[{index}]") for index, result in enumerate(results)],
        place=place,
    )


def _short(element: Mapping[str, Any]) -> Annotation:
    raw = [
        {"from_name": name, "value": piece}
        for name, value in element.items()
        if name not in NO_CONTROLS
        for piece in _pieces(value)
    ]
    return _annotation(
        element,
        identifier=element["annotation_id"],
        user=element.get("annotator"),
        said=Said.ANSWERED,
        lead_time=element.get("lead_time"),
        raw=raw,
        place="",
    )


def _annotation(
    origin: Mapping[str, Any],
    *,
    identifier: Any,
    user: Any,
    said: Said,
    lead_time: Any,
    raw: list[dict[str, Any]],
    place: str,
) -> Annotation:
    if isinstance(user, Mapping):
        user = user.get("email") or user.get("id")
    if not isinstance(user, str | int) or not isinstance(identifier, str | int):
        raise _no_annotation(place)
    case_id = _whole(origin.get("case_id"))
    request_id = origin.get("databricks_request_id")
    endpoint = origin.get("endpoint")
    return Annotation(
        external_id=f"{case_id if case_id is not None else request_id}:{identifier}",
        user=str(user),
        said=said,
        case_id=case_id,
        databricks_request_id=request_id if isinstance(request_id, str) else None,
        endpoint=endpoint if isinstance(endpoint, str) else None,
        schema_version=_whole(origin.get("schema_version")),
        raw=raw,
        duration_s=_seconds(lead_time),
    )


def _seconds(value: Any) -> float | None:
    """How long somebody took, where it is a time at all: JSON has numbers that no float holds."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= _LONGEST_S else None


def _result(result: Any, place: str) -> dict[str, Any]:
    """What of a result is an answer: not its random id, nor whether it began as a prediction."""
    if not isinstance(result, Mapping):
        raise _no_annotation(place)
    name, value = result.get("from_name"), result.get("value")
    if not isinstance(name, str) or not isinstance(value, Mapping):
        # A relation of two spans has neither; nothing of ours asks for one.
        raise Invalid(
            "it is no answer to a control",
            field=place,
            fix="Use the configuration that 'servelens relabel tasks --config' writes.",
        )
    return {"from_name": name, "value": _plain(value)}


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """A value as both exports have it: of a text area, a text that is alone is a list of one."""
    alone = isinstance(value.get("text"), str) and "start" not in value
    return {**value, "text": [value["text"]]} if alone else dict(value)


def _pieces(value: Any) -> list[dict[str, Any]]:
    """The values of a control in the short export, which unwraps single words."""
    found = []
    for each in value if isinstance(value, list) else [value]:
        found.append(_plain(each) if isinstance(each, Mapping) else {"word": each})
    return found


def _by_control(raw: Any) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for result in raw:
        found.setdefault(result["from_name"], []).append(result["value"])
    return found


def _value(field: Field, pieces: list[dict[str, Any]], texts: Texts) -> Any:
    place = f"values.{field.name}"
    if field.scale is not None:
        return _single([_number(piece, place) for piece in pieces], place)
    match field.type:
        case FieldType.RATING | FieldType.CHOICE | FieldType.PREFERENCE:
            return _single(_words(pieces, "choices", place), place)
        case FieldType.MULTIPLE_CHOICE:
            return _words(pieces, "choices", place)
        case FieldType.TAGS:
            return _words(pieces, "text", place)
        case FieldType.TEXT | FieldType.CORRECTED_ANSWER:
            return "\n".join(_words(pieces, "text", place))
        case FieldType.SPANS:
            text = texts.request if field.of == "request" else texts.response
            units = Utf16Offsets(text)
            return [_span(piece, units, f"{place}[{index}]") for index, piece in enumerate(pieces)]
        case _:
            raise AssertionError(f"no reading of {field.type}")


def _words(pieces: list[dict[str, Any]], key: str, place: str) -> list[str]:
    words: list[str] = []
    for piece in pieces:
        given = piece.get(key, [piece["word"]] if "word" in piece else None)
        if not isinstance(given, list) or not all(isinstance(word, str) for word in given):
            raise Invalid(
                f"it has no {key!r}", field=place, fix="Use the control that the configuration has."
            )
        words.extend(given)
    return words


def _single(found: list[Any], place: str) -> Any:
    if len(found) > 1:
        raise Invalid("there are several answers to it", field=place, fix="Choose one.")
    return found[0] if found else None


def _number(piece: Mapping[str, Any], place: str) -> int:
    given = next((piece[key] for key in _NUMBER if key in piece), piece.get("word"))
    if isinstance(given, float) and given.is_integer():
        return int(given)
    if not isinstance(given, int) or isinstance(given, bool):
        raise Invalid(f"{given!r} is no whole number"[:200], field=place, fix="Give a whole number.")
    return given


def _span(piece: Mapping[str, Any], units: Utf16Offsets, place: str) -> dict[str, Any]:
    labels, marked = piece.get("labels"), piece.get("text")
    if not isinstance(labels, list) or len(labels) != 1:
        raise Invalid("it has not one label", field=place, fix="Give each span one label.")
    start = checked_offset(piece.get("start"), f"{place}.start")
    end = checked_offset(piece.get("end"), f"{place}.end")
    readings = [(start, end)]
    with contextlib.suppress(Invalid):
        readings.append((units.character(start, place), units.character(end, place)))
    for first, behind in readings:
        if not isinstance(marked, str) or _seen(units.text[first:behind]) == _seen(marked):
            return {"start": first, "end": behind, "label": labels[0]}
    assert isinstance(marked, str), "else the first reading is taken"
    raise Invalid(
        f"it marks {marked[:50]!r}, and the text has {units.text[start:end][:50]!r} there",
        field=place,
        fix="The task shows another text than the case has. Make the tasks again.",
    )


def _seen(text: str) -> str:
    return _NOT_COMPARED.sub("", text)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _no_annotation(place: str) -> Invalid:
    return Invalid(
        "it is no annotation of Label Studio",
        field=place or None,
        fix="Export the project as JSON or JSON_MIN.",
    )
