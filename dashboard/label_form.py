"""A label schema and a case as the form in the browser needs them (``assets/relabel_form.js``), and labels in words.

Invariants: the browser learns of an answer's source nothing but what the annotator may know while they choose; places in a
text are characters (Unicode code points) of exactly the text that the queue reads spans of.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboard import formats
from dashboard.conversation import Turn
from relabel.alternatives import Presented, preferred, presented
from relabel.case import Case
from relabel.label import ANSWER, TIE, GivenLabel, Value
from relabel.label_schema import Field, FieldType, LabelSchema, Side
from relabel.suggestions import Suggested, suggestions
from servelens.errors import Invalid

_TITLES = {
    FieldType.RATING: "Rating",
    FieldType.CORRECTED_ANSWER: "Corrected answer",
    FieldType.PREFERENCE: "Better answer",
    FieldType.TAGS: "Tags",
}
_SHORT = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """A text on the screen in which spans are marked. It is the part of the side's text from ``offset`` on; ``turn`` is the
    place of the message that shows it, ``None`` when it is shown apart from the conversation.
    """

    side: Side
    offset: int
    text: str
    turn: int | None


def title(field: Field) -> str:
    """What a field is called on the screen."""
    if field.title:
        return field.title
    return _TITLES.get(field.type) or field.name.replace("_", " ").capitalize()


def surfaces(case: Case, schema: LabelSchema, turns: Sequence[Turn]) -> tuple[Surface, ...]:
    """Where spans are marked; none without a field for them."""
    sides = {field.of for field in schema.fields if field.type is FieldType.SPANS}
    found: list[Surface] = []
    if "request" in sides and case.prompt_text:
        found += _request_surfaces(case.prompt_text, turns)
    if "response" in sides and case.response_text:
        place = len(turns) - 1 if case.answered and turns else None
        found.append(Surface(side="response", offset=0, text=case.response_text, turn=place))
    return tuple(found)


def _request_surfaces(text: str, turns: Sequence[Turn]) -> list[Surface]:
    """One for each message, where the text is made of the messages; else one of the whole text."""
    found: list[Surface] = []
    position = 0
    for place, turn in enumerate(turns):
        if turn.is_answer or not turn.text:
            continue
        start = text.find(turn.text, position)
        if start < 0:
            return [Surface(side="request", offset=0, text=text, turn=None)]
        found.append(Surface(side="request", offset=start, text=turn.text, turn=place))
        position = start + len(turn.text)
    return found or [Surface(side="request", offset=0, text=text, turn=None)]


def form(
    case: Case,
    schema: LabelSchema,
    annotator: str,
    *,
    answer: str,
    shown: Sequence[Surface],
    serial: int,
    prefill: Mapping[str, Value] | None = None,
    comment: str | None = None,
    is_adjudication: bool = False,
) -> dict[str, Any]:
    """The form of a case as JSON. ``answer`` is the recorded answer as text, ``serial`` another number for each time that a
    case is shown anew.
    """
    order = presented(case, annotator)
    suggested = suggestions(schema, case.scores)
    most = majority(case, schema) if is_adjudication else None
    answers = [(schema.answers(given.label), given.label.comment) for given in case.labels]
    return {
        "id": case.id,
        "version": case.version,
        "serial": serial,
        "annotator": annotator,
        "adjudication": is_adjudication,
        "compares": schema.of_type(FieldType.PREFERENCE) is not None,
        "marks": {each.key: _mark(case, annotator, each.id) for each in order},
        "answer": answer,
        "surfaces": [{"side": each.side, "offset": each.offset, "text": each.text} for each in shown],
        "fields": [
            field_of(field, case, [each.key for each in order], suggested.get(field.name, ()))
            for field in schema.fields
        ],
        "prefill": None if prefill is None else _for_browser(prefill, schema, order),
        "comment": comment,
        "given": [
            {"values": _for_browser(values, schema, order), "comment": said} for values, said in answers
        ]
        if is_adjudication
        else [],
        "majority": None if most is None else _for_browser(most, schema, order),
    }


def _mark(case: Case, annotator: str, answer: str) -> str:
    """Stays with an answer when others come and the letters move on, and does not name it."""
    return hashlib.sha256(f"mark\0{case.id}\0{annotator}\0{answer}".encode()).hexdigest()[:16]


def field_of(
    field: Field, case: Case, answers: Sequence[str], suggested: Sequence[Suggested] = ()
) -> dict[str, Any]:
    """One field as JSON; ``options`` have a value and a title. ``answers`` are what a preference names the answers by."""
    options: list[dict[str, Any]]
    match field.type:
        case FieldType.RATING if field.scale is None:
            options = [{"value": "good", "title": "Good"}, {"value": "bad", "title": "Bad"}]
        case FieldType.RATING | FieldType.SCALE:
            options = [{"value": place, "title": str(place)} for place in range(1, (field.scale or 1) + 1)]
        case FieldType.PREFERENCE:
            options = [
                {"value": name, "title": f"Answer {place}"} for place, name in enumerate(answers, start=1)
            ]
            options.append({"value": TIE, "title": "None is better"})
        case _:
            options = [{"value": option, "title": option} for option in field.options]
    good_from = field.good_from if field.good_from is not None else field.scale
    # Of one answer alone nothing is asked, as in LabelSchema.read.
    alone = field.type is FieldType.PREFERENCE and not case.alternatives
    return {
        "name": field.name,
        "type": str(field.type),
        "title": title(field),
        "help": "There is only one answer to this request." if alone else field.help,
        "required": field.required and not alone,
        "options": [] if alone else options,
        "scale": field.scale,
        "good_from": good_from if field.type is FieldType.RATING else None,
        "of": field.of,
        "suggestions": [
            {"value": each.value, "why": f"{each.evaluator} {formats.significant(each.score)}"}
            if each.score is not None
            else {"value": each.value, "why": each.evaluator}
            for each in suggested
        ],
    }


def from_browser(
    values: Mapping[str, Any], schema: LabelSchema, case: Case, annotator: str
) -> dict[str, Any]:
    """The values of a form as the queue reads them: an answer is preferred by the letter that it was shown under.

    Raises :class:`~servelens.errors.Invalid` naming the field.
    """
    found = dict(values)
    field = schema.of_type(FieldType.PREFERENCE)
    if field is not None and isinstance(found.get(field.name), str):
        try:
            found[field.name] = preferred(case, annotator, found[field.name])
        except Invalid as error:
            raise Invalid(error.message, field=f"values.{field.name}", fix=error.fix) from error
    return found


def _for_browser(
    values: Mapping[str, Value], schema: LabelSchema, order: Sequence[Presented]
) -> dict[str, Value]:
    field = schema.of_type(FieldType.PREFERENCE)
    found = dict(values)
    if field is not None and field.name in found:
        letters = {each.id: each.key for each in order} | {TIE: TIE}
        found[field.name] = letters.get(str(found[field.name]), TIE)
    return found


def majority(case: Case, schema: LabelSchema) -> dict[str, Value] | None:
    """What more than half of the labels say, field by field; ``None`` when they have nothing in common."""
    answers = [schema.answers(given.label) for given in case.labels]
    found: dict[str, Value] = {}
    for field in schema.fields:
        values = [each[field.name] for each in answers if field.name in each]
        counted = Counter(map(_comparable, values))
        if counted and counted.most_common(1)[0][1] * 2 > len(answers):
            most = counted.most_common(1)[0][0]
            found[field.name] = next(value for value in values if _comparable(value) == most)
    return found or None


def value_words(value: Value | None, field: Field, order: Sequence[Presented] = ()) -> str:
    """A value of a label in words; ``order`` are the answers as they were presented, none where nobody is blind."""
    if value is None:
        return formats.MISSING
    if field.type is FieldType.PREFERENCE:
        if value == TIE:
            return "None is better"
        for place, each in enumerate(order, start=1):
            if each.id == value:
                return f"Answer {place}"
        return "Recorded answer" if value == ANSWER else str(value)
    if field.type is FieldType.SPANS and isinstance(value, list):
        return "\n".join(
            f"{span['label']}: “{_shortened(str(span.get('text', '')))}”"
            for span in value
            if isinstance(span, Mapping)
        )
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).capitalize() if field.type is FieldType.RATING else str(value)


def differing(labels: Sequence[GivenLabel], schema: LabelSchema) -> frozenset[str]:
    """The names of the fields to which not everybody gave the same answer."""
    answers = [schema.answers(given.label) for given in labels]
    return frozenset(
        field.name
        for field in schema.fields
        if len({_comparable(each.get(field.name)) for each in answers}) > 1
    )


def _comparable(value: Value | None) -> str:
    return repr(sorted(map(repr, value)) if isinstance(value, list) else value)


def _shortened(text: str) -> str:
    return text if len(text) <= _SHORT else text[:_SHORT].rstrip() + "…"
