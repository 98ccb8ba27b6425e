"""A label schema made of its definition (JSON, YAML), and the definition of a schema.

Invariant: ``parse_schema(definition_of(schema), schema.version) == schema`` for every schema that :func:`parse_schema` gave,
and a definition says all that it means, so that a default that changes later changes no version that there is.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from relabel.case import checked_annotator
from relabel.label import MAX_TAG_LENGTH, Rating, check_text
from relabel.label_schema import ONCE, Field, FieldType, LabelSchema, Side, Suggestion
from relabel.schema_shape import (
    MAX_GUIDELINES_LENGTH,
    MAX_HELP_LENGTH,
    MAX_OPTION_LENGTH,
    FieldShape,
    SchemaShape,
    SuggestionShape,
)
from servelens.errors import Invalid

DECIDING: Final = frozenset({FieldType.RATING, FieldType.SCALE, FieldType.CHOICE, FieldType.PREFERENCE})
"""Types on which two annotators disagree unless the schema says otherwise."""

_NAME: Final = re.compile(r"[A-Za-z_][\w-]{0,99}", re.ASCII)
_NOT_ONE_LINE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CHOSEN: Final = frozenset({FieldType.CHOICE, FieldType.MULTIPLE_CHOICE})
_WITH_OPTIONS: Final = _CHOSEN | {FieldType.SPANS}
_SUGGESTED: Final = _CHOSEN | {FieldType.RATING, FieldType.SCALE, FieldType.TAGS}


def parse_schema(definition: Mapping[str, Any], version: int = 0) -> LabelSchema:
    """The schema that ``definition`` describes, as ``version``. Raises :class:`~servelens.errors.Invalid` that names the
    key (``fields[2].options``) and the fix.
    """
    if not isinstance(definition, Mapping):
        raise Invalid("it is no mapping", field="schema", fix='Give keys, as in {"fields": [{"name": …}]}.')
    try:
        shape = SchemaShape.model_validate(dict(definition))
    except ValidationError as error:
        raise _mistake(error) from error
    return built(shape, version)


def built(shape: SchemaShape, version: int = 0) -> LabelSchema:
    """The schema of keys whose types are right. Raises as :func:`parse_schema`."""
    fields: list[Field] = []
    for index, each in enumerate(shape.fields):
        try:
            field = _field(each)
        except Invalid as error:
            raise error.within(f"fields[{index}]") from None
        for earlier in fields:
            if earlier.name == field.name:
                raise Invalid(
                    f"there are two fields {field.name!r}",
                    field=f"fields[{index}].name",
                    fix="Give each its own name.",
                )
            if earlier.type is field.type and field.type in ONCE:
                raise Invalid(
                    f"{earlier.name!r} is a {field.type} already, and a label has one",
                    field=f"fields[{index}].type",
                    fix="Leave one out, or use another type.",
                )
        fields.append(field)
    if shape.guidelines is not None:
        check_text(shape.guidelines, "guidelines", MAX_GUIDELINES_LENGTH)
    return LabelSchema(
        fields=tuple(fields),
        version=version,
        guidelines=_said(shape.guidelines),
        annotators=shape.annotators,
        adjudicate=shape.adjudicate,
        adjudicators=_adjudicators(shape.adjudicators),
        gold_every=shape.gold_every,
        show_suggestions=shape.show_suggestions,
    )


def definition_of(schema: LabelSchema) -> dict[str, Any]:
    """JSON that :func:`parse_schema` makes the same schema of; without the version."""
    return {
        "fields": [_field_definition(field) for field in schema.fields],
        **_given(guidelines=schema.guidelines),
        "annotators": schema.annotators,
        "adjudicate": schema.adjudicate,
        "adjudicators": list(schema.adjudicators),
        **_given(gold_every=schema.gold_every),
        "show_suggestions": schema.show_suggestions,
    }


def _field_definition(field: Field) -> dict[str, Any]:
    definition: dict[str, Any] = {"name": field.name, "type": str(field.type)}
    definition |= _given(title=field.title, help=field.help)
    definition["required"] = field.required
    if field.options:
        definition["options"] = list(field.options)
    definition |= _given(scale=field.scale, good_from=field.good_from)
    if field.type is FieldType.SPANS:
        definition["of"] = field.of
    definition["decides"] = field.decides
    if field.suggest:
        definition["suggest"] = [
            {
                "evaluator": each.evaluator,
                "target": each.target,
                **_given(above=each.above, below=each.below, value=each.value),
            }
            for each in field.suggest
        ]
    return definition


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _field(shape: FieldShape) -> Field:
    if not _NAME.fullmatch(shape.name):
        raise Invalid(
            f"{shape.name!r} is not a name"[:200],
            field="name",
            fix="Begin with a letter or '_', then up to 99 letters, digits, '_' and '-'.",
        )
    kind = FieldType(shape.type)
    for name in ("title", "help"):
        check_text(getattr(shape, name) or "", name, MAX_HELP_LENGTH)
    field = Field(
        name=shape.name,
        type=kind,
        title=_said(shape.title),
        help=_said(shape.help),
        required=shape.required,
        options=_options(shape, kind),
        scale=_scale(shape, kind),
        good_from=_good_from(shape, kind),
        of=_of(shape, kind),
        decides=kind in DECIDING if shape.decides is None else shape.decides,
    )
    suggest = []
    for index, each in enumerate(shape.suggest):
        try:
            suggest.append(_suggestion(each, field))
        except Invalid as error:
            raise error.within(f"suggest[{index}]") from None
    return replace(field, suggest=tuple(suggest))


def _said(text: str | None) -> str | None:
    """Blank text is none."""
    return text if text is not None and text.strip() else None


def _options(shape: FieldShape, kind: FieldType) -> tuple[str, ...]:
    if kind not in _WITH_OPTIONS:
        if shape.options is not None:
            raise Invalid(
                f"a {kind} has none",
                field="options",
                fix="Leave it out, or use the type choice, multiple_choice or spans.",
            )
        return ()
    if not shape.options:
        what = "names of the spans" if kind is FieldType.SPANS else "answers"
        raise Invalid("there is none", field="options", fix=f"List the {what}.")
    seen: dict[str, int] = {}
    for index, option in enumerate(shape.options):
        here = f"options[{index}]"
        word = _line(option, here, MAX_OPTION_LENGTH)
        if word in seen:
            raise Invalid(
                f"{word!r} is options[{seen[word]}] already"[:300],
                field=here,
                fix="Give each option once.",
            )
        seen[word] = index
    return tuple(seen)


def _line(text: str, place: str, limit: int) -> str:
    check_text(text, place, limit)
    word = text.strip()
    if not word or _NOT_ONE_LINE.search(word):
        raise Invalid("it must be text on one line", field=place, fix="Give a word or a few.")
    return word


def _scale(shape: FieldShape, kind: FieldType) -> int | None:
    if kind is FieldType.SCALE and shape.scale is None:
        raise Invalid("it is missing", field="scale", fix="Give the highest number, such as 5.")
    if shape.scale is not None and kind not in (FieldType.SCALE, FieldType.RATING):
        raise Invalid(
            f"a {kind} has none", field="scale", fix="Leave it out, or use the type scale or rating."
        )
    return shape.scale


def _good_from(shape: FieldShape, kind: FieldType) -> int | None:
    if shape.good_from is not None:
        if kind is not FieldType.RATING or shape.scale is None:
            raise Invalid(
                "it says from which number on a rating is good, and there are no numbers here",
                field="good_from",
                fix="Leave it out, or use the type rating and give its 'scale'.",
            )
        if not 1 <= shape.good_from <= shape.scale:
            raise Invalid(
                f"{shape.good_from} is not on the scale",
                field="good_from",
                fix=f"Give a number from 1 to {shape.scale}.",
            )
        return shape.good_from
    return shape.scale if kind is FieldType.RATING else None


def _of(shape: FieldShape, kind: FieldType) -> Side:
    if shape.of is not None and kind is not FieldType.SPANS:
        raise Invalid(f"a {kind} marks no text", field="of", fix="Leave it out, or use the type spans.")
    return shape.of or "response"


def _suggestion(shape: SuggestionShape, field: Field) -> Suggestion:
    if field.type not in _SUGGESTED:
        raise Invalid(
            f"nothing can be suggested for a {field.type}",
            fix=f"Suggest for a field of the types {', '.join(sorted(_SUGGESTED))}.",
        )
    evaluator = _line(shape.evaluator, "evaluator", 255)
    if shape.above is not None and shape.below is not None:
        raise Invalid("'below' is given as well", field="above", fix="Give one of the two.")
    if shape.above is None and shape.below is None:
        if shape.value is not None:
            raise Invalid(
                "it does not say for which scores",
                field="value",
                fix="Give 'above' or 'below' with it, or leave it out to suggest the score's label.",
            )
        if field.scale is not None:
            raise Invalid(
                "a score's label is no number on a scale",
                field="value",
                fix="Give 'above' or 'below' and it.",
            )
        return Suggestion(evaluator=evaluator, target=shape.target)
    return Suggestion(
        evaluator=evaluator,
        target=shape.target,
        above=shape.above,
        below=shape.below,
        value=_suggested_value(shape.value, field),
    )


def _suggested_value(value: str | int | None, field: Field) -> str | int:
    if value is None:
        raise Invalid("it is missing", field="value", fix="Say what is suggested.")
    if field.scale is not None:
        if not isinstance(value, int) or not 1 <= value <= field.scale:
            raise Invalid(
                f"{value!r} is not on the scale"[:200],
                field="value",
                fix=f"Give a whole number from 1 to {field.scale}.",
            )
        return value
    if not isinstance(value, str):
        raise Invalid(f"{value!r} is no text"[:200], field="value", fix="Write it in quotes.")
    if field.type is FieldType.TAGS:
        return _line(value, "value", MAX_TAG_LENGTH)
    options = tuple(map(str, Rating)) if field.type is FieldType.RATING else field.options
    word = value.strip()
    if word not in options:
        shown = ", ".join(map(repr, options[:20])) + (", …" if len(options) > 20 else "")
        raise Invalid(f"{value!r} is none of the options"[:300], field="value", fix=f"Use one of: {shown}.")
    return word


def _adjudicators(names: Sequence[str]) -> tuple[str, ...]:
    checked: list[str] = []
    for index, name in enumerate(names):
        here = f"adjudicators[{index}]"
        try:
            word = checked_annotator(name)
        except Invalid as error:
            raise Invalid(error.message, field=here, fix=error.fix) from None
        if word in checked:
            raise Invalid(f"{word!r} is named twice"[:300], field=here, fix="Name everybody once.")
        checked.append(word)
    return tuple(checked)


def _mistake(error: ValidationError) -> Invalid:
    """The first of the mistakes in types and bounds; how many more there are is said at its end."""
    first, *others = error.errors(include_url=False)
    parts = list(first["loc"])
    if "value" in parts:  # what follows is which type was tried
        del parts[parts.index("value") + 1 :]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).strip(".")
    place = place[:200] or "schema"
    more = f" ({len(others)} more after this.)" if others else ""
    given = first["input"]
    if first["type"] == "extra_forbidden":
        known = _known_keys(parts[:-1])
        close = difflib.get_close_matches(str(parts[-1]), known, n=1)
        hint = f"Did you mean '{close[0]}'?" if close else f"Known keys here: {', '.join(known)}."
        return Invalid("there is no such key", field=place, fix=hint + more)
    if first["type"] == "missing":
        return Invalid("it is missing", field=place, fix=f"Give it.{more}")
    if first["type"] == "string_type" and isinstance(given, bool | int | float):
        return Invalid(f"{given!r} is no text", field=place, fix=f"Write it in quotes.{more}")
    shown = f" (it is {given!r})"[:200] if isinstance(given, str | int | float | bool) else ""
    return Invalid(f"{first['msg']}{shown}", field=place, fix=f"Correct the value.{more}")


def _known_keys(parts: Sequence[int | str]) -> list[str]:
    model: type[BaseModel] = SchemaShape
    if "suggest" in parts:
        model = SuggestionShape
    elif "fields" in parts:
        model = FieldShape
    return list(model.model_fields)
