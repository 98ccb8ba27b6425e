"""relabel.schema_definition: what a label schema may be, and how a wrong one is told."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel.label import Rating
from relabel.label_schema import FieldType, LabelSchema, Suggestion, Texts, default_schema
from relabel.schema_definition import definition_of, parse_schema
from relabel.schema_shape import TypeName
from servelens.errors import Invalid

EVERYTHING: dict[str, Any] = {
    "guidelines": "Read the <b>whole</b> answer.",
    "annotators": 3,
    "adjudicate": "no_majority",
    "adjudicators": ["ada ", "bob"],
    "gold_every": 20,
    "show_suggestions": True,
    "fields": [
        {
            "name": "quality",
            "type": "rating",
            "scale": 5,
            "good_from": 4,
            "required": True,
            "title": "Quality",
            "help": "5 is best.",
            "suggest": [{"evaluator": "toxicity", "above": 0.5, "value": 1}],
        },
        {"name": "clarity", "type": "scale", "scale": 7, "decides": False},
        {
            "name": "kind",
            "type": "choice",
            "options": [" rude", "wrong"],
            "suggest": [{"evaluator": "judge"}, {"evaluator": "refusal", "below": 1, "value": "wrong"}],
        },
        {"name": "flaws", "type": "multiple_choice", "options": ["a", "b"], "decides": True},
        {"name": "where", "type": "spans", "options": ["insult"], "of": "request"},
        {"name": "why", "type": "text"},
        {"name": "better", "type": "corrected_answer"},
        {"name": "best", "type": "preference"},
        {
            "name": "marks",
            "type": "tags",
            "suggest": [
                {"evaluator": "personal_data", "target": "request", "above": 0, "value": "personal data"}
            ],
        },
    ],
}


def test_a_definition_becomes_a_schema() -> None:
    schema = parse_schema(EVERYTHING, 4)
    assert schema.version == 4
    assert (schema.annotators, schema.adjudicate, schema.gold_every) == (3, "no_majority", 20)
    assert schema.adjudicators == ("ada", "bob")
    assert schema.guidelines == "Read the <b>whole</b> answer."  # text, whatever it looks like
    quality, clarity, kind, flaws, where, *_, marks = schema.fields
    assert (quality.scale, quality.good_from, quality.required, quality.decides) == (5, 4, True, True)
    assert quality.suggest == (Suggestion(evaluator="toxicity", above=0.5, value=1),)
    assert clarity.decides is False
    assert kind.options == ("rude", "wrong")
    assert flaws.decides is True
    assert where.of == "request"
    assert marks.suggest[0].target == "request"


def test_who_answers_differently_disagrees_on_these_types() -> None:
    extra: dict[str, dict[str, Any]] = {
        "scale": {"scale": 3},
        "choice": {"options": ["a"]},
        "multiple_choice": {"options": ["a"]},
        "spans": {"options": ["a"]},
    }
    fields = [{"name": f"f_{kind}", "type": str(kind), **extra.get(kind, {})} for kind in FieldType]
    schema = parse_schema({"fields": fields})
    assert {each.type for each in schema.fields if each.decides} == {
        "rating",
        "scale",
        "choice",
        "preference",
    }


def test_the_shape_knows_every_type() -> None:
    assert set(get_args(TypeName)) == set(FieldType)


@pytest.mark.parametrize("schema", [parse_schema(EVERYTHING, 7), default_schema()])
def test_a_schema_is_what_its_definition_says(schema: LabelSchema) -> None:
    definition = definition_of(schema)
    assert parse_schema(json.loads(json.dumps(definition)), schema.version) == schema
    assert definition_of(parse_schema(definition)) == definition


def test_a_definition_leaves_nothing_to_a_default() -> None:
    definition = definition_of(parse_schema({"fields": [{"name": "r", "type": "rating", "scale": 5}]}))
    [field] = definition["fields"]
    assert field == {
        "name": "r",
        "type": "rating",
        "required": False,
        "scale": 5,
        "good_from": 5,
        "decides": True,
    }
    assert definition["annotators"] == 1
    assert definition["adjudicate"] == "disagreement"
    assert definition["show_suggestions"] is False


_NAMES = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_-]{0,20}\Z")
_WORDS = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Zs"]), min_size=1, max_size=20
).filter(lambda word: bool(word.strip()))


@settings(max_examples=30, deadline=None)
@given(
    names=st.lists(_NAMES, min_size=1, max_size=5, unique=True),
    options=st.lists(_WORDS, min_size=1, max_size=5, unique_by=str.strip),
    kinds=st.lists(st.sampled_from(["choice", "multiple_choice", "spans"]), min_size=5, max_size=5),
)
def test_any_words_can_be_options(names: list[str], options: list[str], kinds: list[str]) -> None:
    fields = [
        {"name": name, "type": kind, "options": options} for name, kind in zip(names, kinds, strict=False)
    ]
    schema = parse_schema({"fields": fields})
    assert parse_schema(definition_of(schema)) == schema
    assert schema.fields[0].options == tuple(option.strip() for option in options)


def one(**field: Any) -> dict[str, Any]:
    return {"fields": [{"name": "x", **field}]}


CHOICE = {"type": "choice", "options": ["a", "b"]}


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ({}, "fields: it is missing. Give it."),
        ({"fields": []}, "fields: List should have at least 1 item"),
        ({"fields": [], "anotators": 2}, "fields: List should have at least 1 item"),
        ({**one(type="text"), "anotators": 2}, "anotators: there is no such key. Did you mean 'annotators'?"),
        ({**one(type="text"), "zzz": 2}, "zzz: there is no such key. Known keys here: fields, guidelines, "),
        ({**one(type="text"), "annotators": 0}, "annotators: Input should be greater than or equal to 1"),
        ({**one(type="text"), "annotators": 21}, "annotators: Input should be less than or equal to 20"),
        ({**one(type="text"), "annotators": True}, "annotators: Input should be a valid integer"),
        ({**one(type="text"), "annotators": "2"}, "annotators: Input should be a valid integer"),
        ({**one(type="text"), "gold_every": 0}, "gold_every: Input should be greater than or equal to 1"),
        ({**one(type="text"), "adjudicate": "always"}, "adjudicate: Input should be 'disagreement', "),
        ({**one(type="text"), "adjudicators": ["a", "b\nc"]}, "adjudicators[1]: it must be a name on one"),
        ({**one(type="text"), "adjudicators": ["a", " a"]}, "adjudicators[1]: 'a' is named twice."),
        ({**one(type="text"), "adjudicators": "ada"}, "adjudicators: Input should be a valid list"),
        ({**one(type="text"), "guidelines": "\x00"}, "guidelines: it contains a NUL"),
        ({**one(type="text"), "guidelines": "\ud800"}, "guidelines: Input should be a valid string"),
        ({**one(type="text"), "show_suggestions": "yes"}, "show_suggestions: Input should be a valid bool"),
        ({"fields": [1]}, "fields[0]: Input should be"),
        ({"fields": [{"name": "x", "type": "text"}] * 2}, "fields[1].name: there are two fields 'x'."),
        (
            {"fields": [{"name": f"x{number}", "type": "text"} for number in range(31)]},
            "fields: List should have at most 30 items",
        ),
        (
            {"fields": [{"name": "x", "type": "tags"}, {"name": "y", "type": "tags"}]},
            "fields[1].type: 'x' is a tags already, and a label has one.",
        ),
        (one(type="stars"), "fields[0].type: Input should be 'rating', "),
        (one(type="text", optoins=[]), "fields[0].optoins: there is no such key. Did you mean 'options'?"),
        ({"fields": [{"name": "", "type": "text"}]}, "fields[0].name: '' is not a name. Begin with"),
        ({"fields": [{"name": "1x", "type": "text"}]}, "fields[0].name: '1x' is not a name."),
        ({"fields": [{"name": "é", "type": "text"}]}, "fields[0].name: 'é' is not a name."),
        ({"fields": [{"name": "x\n", "type": "text"}]}, "fields[0].name: 'x\\n' is not a name."),
        ({"fields": [{"name": "x" * 101, "type": "text"}]}, "fields[0].name: 'xxx"),
        ({"fields": [{"type": "text"}]}, "fields[0].name: it is missing."),
        (one(type="text", title="\x00"), "fields[0].title: it contains a NUL"),
        (one(type="choice"), "fields[0].options: there is none. List the answers."),
        (one(type="spans", options=[]), "fields[0].options: there is none. List the names of the spans."),
        (one(type="choice", options=["a", "a "]), "fields[0].options[1]: 'a' is options[0] already."),
        (one(type="choice", options=["a", " "]), "fields[0].options[1]: it must be text on one line."),
        (one(type="choice", options=["a\nb"]), "fields[0].options[0]: it must be text on one line."),
        (one(type="choice", options=["a" * 201]), "fields[0].options[0]: it has 201 characters."),
        (one(type="choice", options=[True]), "fields[0].options[0]: True is no text. Write it in quotes."),
        (
            one(type="choice", options=[str(number) for number in range(201)]),
            "fields[0].options: List should have at most 200 items",
        ),
        (one(type="text", options=["a"]), "fields[0].options: a text has none. Leave it out, or use"),
        (one(type="scale"), "fields[0].scale: it is missing. Give the highest number, such as 5."),
        (one(type="scale", scale=1), "fields[0].scale: Input should be greater than or equal to 2"),
        (one(type="scale", scale=101), "fields[0].scale: Input should be less than or equal to 100"),
        (one(type="scale", scale=2.5), "fields[0].scale: Input should be a valid integer"),
        (one(type="text", scale=5), "fields[0].scale: a text has none."),
        (one(type="rating", good_from=1), "fields[0].good_from: it says from which number on"),
        (one(type="scale", scale=5, good_from=1), "fields[0].good_from: it says from which number on"),
        (one(type="rating", scale=5, good_from=6), "fields[0].good_from: 6 is not on the scale."),
        (one(type="rating", scale=5, good_from=0), "fields[0].good_from: 0 is not on the scale."),
        (one(type="text", of="request"), "fields[0].of: a text marks no text."),
        (one(type="spans", options=["a"], of="both"), "fields[0].of: Input should be 'request' or 'respon"),
        (
            one(type="text", suggest=[{"evaluator": "judge"}]),
            "fields[0].suggest[0]: nothing can be suggested for a text.",
        ),
        (one(**CHOICE, suggest=[{"above": 1}]), "fields[0].suggest[0].evaluator: it is missing."),
        (
            one(**CHOICE, suggest=[{"evaluator": "t", "above": 1, "below": 2, "value": "a"}]),
            "fields[0].suggest[0].above: 'below' is given as well.",
        ),
        (
            one(**CHOICE, suggest=[{"evaluator": "t", "value": "a"}]),
            "fields[0].suggest[0].value: it does not say for which scores.",
        ),
        (
            one(**CHOICE, suggest=[{"evaluator": "t", "above": 1}]),
            "fields[0].suggest[0].value: it is missing. Say what is suggested.",
        ),
        (
            one(**CHOICE, suggest=[{"evaluator": "t", "above": 1, "value": "c"}]),
            "fields[0].suggest[0].value: 'c' is none of the options. Use one of: 'a', 'b'.",
        ),
        (
            one(**CHOICE, suggest=[{"evaluator": "t", "above": 1, "value": 1}]),
            "fields[0].suggest[0].value: 1 is no text. Write it in quotes.",
        ),
        (
            one(**CHOICE, suggest=[{"evaluator": "t", "above": float("nan"), "value": "a"}]),
            "fields[0].suggest[0].above: Input should be a finite number",
        ),
        (
            one(type="rating", suggest=[{"evaluator": "t", "above": 1, "value": "fine"}]),
            "fields[0].suggest[0].value: 'fine' is none of the options. Use one of: 'good', 'bad'.",
        ),
        (
            one(type="rating", scale=5, suggest=[{"evaluator": "t", "above": 1, "value": "good"}]),
            "fields[0].suggest[0].value: 'good' is not on the scale. Give a whole number from 1 to 5.",
        ),
        (
            one(type="scale", scale=5, suggest=[{"evaluator": "t", "above": 1, "value": 6}]),
            "fields[0].suggest[0].value: 6 is not on the scale.",
        ),
        (
            one(type="scale", scale=5, suggest=[{"evaluator": "t"}]),
            "fields[0].suggest[0].value: a score's label is no number on a scale.",
        ),
        (
            one(type="tags", suggest=[{"evaluator": "t", "above": 1, "value": "x" * 101}]),
            "fields[0].suggest[0].value: it has 101 characters.",
        ),
        (
            one(type="tags", suggest=[{"evaluator": "t", "above": 1, "value": [1]}]),
            "fields[0].suggest[0].value: Input should be",
        ),
    ],
)
def test_a_mistake_is_told_by_its_key_with_the_fix(definition: dict[str, Any], expected: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_schema(definition)
    assert str(caught.value).startswith(expected)
    assert caught.value.fix


@pytest.mark.parametrize("definition", [None, [], "fields", 3])
def test_what_is_no_mapping_is_refused(definition: Any) -> None:
    with pytest.raises(Invalid, match="schema: it is no mapping"):
        parse_schema(definition)


def test_the_highest_number_is_good_unless_the_schema_says_from_where() -> None:
    top = parse_schema(one(type="rating", scale=5))
    from_three = parse_schema(one(type="rating", scale=5, good_from=3))
    assert top.read({"x": 4}, None, texts=Texts()).rating is Rating.BAD
    assert top.read({"x": 5}, None, texts=Texts()).rating is Rating.GOOD
    assert from_three.read({"x": 3}, None, texts=Texts()).rating is Rating.GOOD
    assert from_three.read({"x": 2}, None, texts=Texts()).rating is Rating.BAD


def test_a_preference_is_asked_only_where_there_is_something_to_compare() -> None:
    schema = parse_schema(one(type="preference", required=True))
    assert schema.read({}, None, texts=Texts()).preferred is None
    with pytest.raises(Invalid, match=r"values.x: it is not answered"):
        schema.read({}, None, texts=Texts(alternatives=("s1",)))
    assert schema.read({"x": "s1"}, None, texts=Texts(alternatives=("s1",))).preferred == "s1"
