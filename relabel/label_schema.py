"""What annotators are asked about the cases of an endpoint: the fields of a label, and how many people give one.

A schema has versions and a version never changes, so that a label can always be read as what it answered. Spans count in
characters (Unicode code points) from 0; ``end`` is behind the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeGuard

from relabel.label import ANSWER, TIE, Label, Rating, Value, check_text
from servelens.errors import Invalid

MAX_ANNOTATORS: Final = 20
MAX_FIELDS: Final = 30
MAX_OPTIONS: Final = 200
MAX_SPANS: Final = 1_000
MAX_MARKED: Final = 1_000_000
"""Characters of all spans of a label: each is kept with its text."""
MAX_TEXT_LENGTH: Final = 100_000
MAX_SCALE: Final = 100

Adjudicate: TypeAlias = Literal["disagreement", "no_majority", "never"]
Side: TypeAlias = Literal["request", "response"]


class FieldType(StrEnum):
    """The kinds of fields.

    ``rating``: whether the recorded answer is fit to be learnt from, as good or bad, or on a scale where ``good_from`` says
    so. ``scale``: a number from 1 to ``scale``. ``spans``: marked parts of a text, each with one of the options.
    ``preference``: which of the recorded answer and its alternatives is best.
    """

    RATING = "rating"
    SCALE = "scale"
    CHOICE = "choice"
    MULTIPLE_CHOICE = "multiple_choice"
    SPANS = "spans"
    TEXT = "text"
    CORRECTED_ANSWER = "corrected_answer"
    PREFERENCE = "preference"
    TAGS = "tags"


ONCE: Final = frozenset({FieldType.RATING, FieldType.CORRECTED_ANSWER, FieldType.PREFERENCE, FieldType.TAGS})
"""Types of which a schema has at most one field: exports are made of them."""
_WITH_OPTIONS: Final = frozenset({FieldType.CHOICE, FieldType.MULTIPLE_CHOICE, FieldType.SPANS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """Offers ``value`` for a field when the case's score of ``evaluator`` on ``target`` is over ``above`` (under ``below``),
    or, without a threshold, offers the score's label where it is one of the options.
    """

    evaluator: str
    target: Side = "response"
    above: float | None = None
    below: float | None = None
    value: str | int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One thing that annotators are asked. ``decides``: whether two who answer it differently disagree about the case;
    by default ratings, scales, choices and preferences do.
    """

    name: str
    type: FieldType
    title: str | None = None
    help: str | None = None
    required: bool = False
    options: tuple[str, ...] = ()
    scale: int | None = None
    good_from: int | None = None
    of: Side = "response"
    decides: bool = False
    suggest: tuple[Suggestion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSchema:
    """``version`` 0 is :func:`default_schema`, which every endpoint has that has no other.

    ``annotators`` is how many labels a case gets; ``adjudicate`` when they go to somebody who decides; ``adjudicators`` who
    may be that (nobody named: everybody who has not labeled the case). ``gold_every``: a gold case for each annotator after
    so many others. What one must hold to is checked by :func:`relabel.schema_definition.parse_schema`.
    """

    fields: tuple[Field, ...]
    version: int = 0
    guidelines: str | None = None
    annotators: int = 1
    adjudicate: Adjudicate = "disagreement"
    adjudicators: tuple[str, ...] = ()
    gold_every: int | None = None
    show_suggestions: bool = False

    def field(self, name: str) -> Field | None:
        """The field of that name."""
        return next((each for each in self.fields if each.name == name), None)

    def of_type(self, kind: FieldType) -> Field | None:
        """The first field of that type."""
        return next((each for each in self.fields if each.type is kind), None)

    def read(self, values: Mapping[str, Any], comment: str | None, *, texts: Texts) -> Label:
        """The label that the answers ``values`` (by the name of the field) are.

        Raises :class:`~servelens.errors.Invalid`, naming ``values.NAME``, for an answer to something that was not asked, one
        that is no option, and one that is missing.
        """
        for name in values:
            if self.field(name) is None:
                asked = ", ".join(each.name for each in self.fields)
                raise Invalid(
                    "the schema has no such field", field=f"values.{name}"[:200], fix=f"It has: {asked}."
                )
        parts: dict[str, Any] = {"comment": comment}
        kept: dict[str, Value] = {}
        for each in self.fields:
            value = values.get(each.name)
            is_blank = each.type is FieldType.TEXT and isinstance(value, str) and not value.strip()
            if value is None or value == "" or value == [] or is_blank:
                comparable = each.type is not FieldType.PREFERENCE or bool(texts.alternatives)
                if each.required and comparable:
                    raise Invalid(
                        "it is not answered", field=f"values.{each.name}", fix="Answer it, or skip."
                    )
                continue
            _read_field(each, value, parts, kept, texts)
        return Label(**parts, values=kept)

    def answers(self, label: Label) -> dict[str, Value]:
        """The answers of ``label`` by the name of the field, as :meth:`read` takes them."""
        found: dict[str, Value] = {}
        for each in self.fields:
            value: Value | None
            if each.name in label.values:
                value = label.values[each.name]
            elif each.type is FieldType.RATING:
                value = None if label.rating is None else str(label.rating)
            elif each.type is FieldType.CORRECTED_ANSWER:
                value = label.corrected_answer
            elif each.type is FieldType.PREFERENCE:
                value = label.preferred
            elif each.type is FieldType.TAGS:
                value = list(label.tags) or None
            else:
                value = None
            if value is not None:
                found[each.name] = value
        return found


@dataclass(frozen=True, slots=True)
class Texts:
    """What a case has to be answered about: the texts that spans are of, and the ids of its alternatives."""

    request: str = ""
    response: str = ""
    alternatives: tuple[str, ...] = field(default=())


class Schemas(Protocol):
    """Where label schemas are found."""

    def current(self, endpoint: str) -> LabelSchema:
        """What annotators are asked now. Raises :class:`~servelens.errors.Unavailable` when the database fails."""
        ...

    def version(self, endpoint: str, version: int) -> LabelSchema:
        """What they were asked at ``version``. Raises :class:`~servelens.errors.Missing` when there is none."""
        ...


def default_schema() -> LabelSchema:
    """What is asked where nothing is configured: good or bad, a better answer, tags."""
    return LabelSchema(
        fields=(
            Field(name="rating", type=FieldType.RATING, required=True, decides=True),
            Field(name="corrected_answer", type=FieldType.CORRECTED_ANSWER),
            Field(name="tags", type=FieldType.TAGS),
        )
    )


def _read_field(
    asked: Field, value: Any, parts: dict[str, Any], kept: dict[str, Value], texts: Texts
) -> None:
    place = f"values.{asked.name}"
    match asked.type:
        case FieldType.RATING if asked.scale is None:
            parts["rating"] = _word(value, tuple(map(str, Rating)), place)
        case FieldType.RATING:
            kept[asked.name] = number = _number(value, asked.scale or 1, place)
            good_from = asked.good_from if asked.good_from is not None else asked.scale
            parts["rating"] = Rating.GOOD if number >= (good_from or 1) else Rating.BAD
        case FieldType.SCALE:
            kept[asked.name] = _number(value, asked.scale or 1, place)
        case FieldType.CHOICE:
            kept[asked.name] = _word(value, asked.options, place)
        case FieldType.MULTIPLE_CHOICE:
            words = _words(value, place)
            kept[asked.name] = list(dict.fromkeys(_word(word, asked.options, place) for word in words))
        case FieldType.SPANS:
            text = texts.request if asked.of == "request" else texts.response
            kept[asked.name] = _spans(value, asked.options, text, place)
        case FieldType.TEXT:
            check_text(_text(value, place), place, MAX_TEXT_LENGTH)
            kept[asked.name] = value
        case FieldType.CORRECTED_ANSWER:
            parts["corrected_answer"] = _text(value, place)
        case FieldType.PREFERENCE:
            parts["preferred"] = _word(value, (ANSWER, *texts.alternatives, TIE), place)
        case FieldType.TAGS:
            parts["tags"] = tuple(_words(value, place))


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise Invalid("it is no text", field=place, fix="Give a string.")
    return value


def _word(value: Any, options: tuple[str, ...], place: str) -> str:
    if not isinstance(value, str) or value not in options:
        shown = ", ".join(map(repr, options[:20])) + (", …" if len(options) > 20 else "")
        raise Invalid(f"{value!r} is none of the options"[:300], field=place, fix=f"Use one of: {shown}.")
    return value


def _words(value: Any, place: str) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise Invalid("it is no list of words", field=place, fix='Give a list, as in ["a", "b"].')
    return list(value)


def _number(value: Any, scale: int, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= scale:
        raise Invalid(
            f"{value!r} is not on the scale"[:300], field=place, fix=f"Give a whole number from 1 to {scale}."
        )
    return value


def _spans(value: Any, options: tuple[str, ...], text: str, place: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > MAX_SPANS:
        raise Invalid(f"it is no list of at most {MAX_SPANS} spans", field=place, fix="Give a list of spans.")
    spans: dict[tuple[int, int, str], dict[str, Any]] = {}
    marked = 0
    for index, span in enumerate(value):
        here = f"{place}[{index}]"
        if not isinstance(span, Mapping):
            raise Invalid("it is no span", field=here, fix='Give {"start": 0, "end": 5, "label": "…"}.')
        start, end = span.get("start"), span.get("end")
        if not _is_whole(start) or not _is_whole(end) or not 0 <= start < end <= len(text):
            raise Invalid(
                f"{start!r} to {end!r} is no part of the text"[:300],
                field=here,
                fix=f"Give 0 ≤ start < end ≤ {len(text)}, in characters.",
            )
        label = _word(span.get("label"), options, f"{here}.label")
        if (start, end, label) in spans:
            continue
        marked += end - start
        if marked > MAX_MARKED:
            raise Invalid(
                f"they mark more than {MAX_MARKED} characters",
                field=place,
                fix="Mark the same text less often.",
            )
        spans[start, end, label] = {"start": start, "end": end, "label": label, "text": text[start:end]}
    return [spans[key] for key in sorted(spans)]


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
