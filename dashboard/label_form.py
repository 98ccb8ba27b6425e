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
from relabel.case import Case
from relabel.label import ANSWER, TIE, GivenLabel, Value
from relabel.label_schema import Field, FieldType, LabelSchema, Side

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


def presented(case: Case, annotator: str) -> tuple[str, ...]:
    """The names of the recorded answer and of the others in an order that does not tell which is which, but always the same
    to the same annotator.
    """

    def lot(name: str) -> bytes:
        return hashlib.sha256(f"{case.id}\0{annotator}\0{name}".encode()).digest()

    return tuple(sorted((ANSWER, *(each.id for each in case.alternatives)), key=lot))


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
    return {
        "id": case.id,
        "version": case.version,
        "serial": serial,
        "annotator": annotator,
        "adjudication": is_adjudication,
        "answer": answer,
        "surfaces": [{"side": each.side, "offset": each.offset, "text": each.text} for each in shown],
        "fields": [field_of(field, schema, case, order) for field in schema.fields],
        "prefill": dict(prefill) if prefill is not None else None,
        "comment": comment,
        "given": [
            {"values": schema.answers(given.label), "comment": given.label.comment} for given in case.labels
        ]
        if is_adjudication
        else [],
        "majority": majority(case, schema) if is_adjudication else None,
    }


def field_of(field: Field, schema: LabelSchema, case: Case, order: Sequence[str]) -> dict[str, Any]:
    """One field as JSON; ``options`` have a value and a title."""
    match field.type:
        case FieldType.RATING if field.scale is None:
            options = [{"value": "good", "title": "Good"}, {"value": "bad", "title": "Bad"}]
        case FieldType.RATING | FieldType.SCALE:
            options = [{"value": place, "title": str(place)} for place in range(1, (field.scale or 1) + 1)]
        case FieldType.PREFERENCE:
            options = [
                {"value": name, "title": f"Answer {place}"} for place, name in enumerate(order, start=1)
            ]
            options.append({"value": TIE, "title": "None is better"})
        case _:
            options = [{"value": option, "title": option} for option in field.options]
    good_from = field.good_from if field.good_from is not None else field.scale
    return {
        "name": field.name,
        "type": str(field.type),
        "title": title(field),
        "help": field.help,
        "required": field.required,
        "options": options,
        "scale": field.scale,
        "good_from": good_from if field.type is FieldType.RATING else None,
        "of": field.of,
        "suggestions": suggestions(field, case) if schema.show_suggestions else [],
    }


def suggestions(field: Field, case: Case) -> list[dict[str, Any]]:
    """What the evaluators' scores of the case suggest for a field, and which score does."""
    found = []
    for each in field.suggest:
        for score in case.scores:
            if score.evaluator != each.evaluator or score.target != each.target:
                continue
            value: Any = each.value
            if each.above is None and each.below is None:
                value = each.value if each.value is not None else score.label
                fits = score.label is not None and (not field.options or value in field.options)
            else:
                fits = score.score is not None and (
                    (each.above is not None and score.score > each.above)
                    or (each.below is not None and score.score < each.below)
                )
            if fits and value is not None:
                words = score.label if score.score is None else formats.significant(score.score)
                found.append({"value": value, "why": f"{each.evaluator} {words}"})
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


def value_words(value: Value | None, field: Field, order: Sequence[str] = ()) -> str:
    """A value of a label in words; ``order`` are the answers as they were presented, none where nobody is blind."""
    if value is None:
        return formats.MISSING
    if field.type is FieldType.PREFERENCE:
        if value == TIE:
            return "None is better"
        if value in order:
            return f"Answer {order.index(str(value)) + 1}"
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
