"""relabel.interchange.argilla: settings, records, and responses back. The SDK reads them in tests/integration."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relabel.case import RecordedScore
from relabel.interchange.argilla import Argilla, question_names
from relabel.interchange.task_case import Choosable, Line, TaskCase
from relabel.interchange.tool import Annotation, Said
from relabel.label import Label
from relabel.label_schema import Field, FieldType, LabelSchema, Texts, default_schema
from servelens.errors import Invalid
from tests.interchange_cases import ANSWER, EVERYTHING, PROMPT, SHADOW, origin

TOOL = Argilla()
TEXTS = Texts(PROMPT, ANSWER, (SHADOW,))
ANN, BOB = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
CASE = TaskCase(
    id=7,
    endpoint="chat",
    databricks_request_id="request-000007",
    dialogue=(Line("user", PROMPT), Line("assistant", ANSWER)),
    prompt=PROMPT,
    answer=ANSWER,
    alternatives=(Choosable(SHADOW, "hello"),),
    scores=(RecordedScore("toxicity", "response", 0.93),),
)


def from_api(values: dict[str, Any], status: str = "submitted") -> dict[str, Any]:
    wrapped = {question: {"value": value} for question, value in values.items()}
    response = {"id": "r", "user_id": ANN, "status": status, "values": wrapped}
    return {"id": "case-1", "metadata": {**origin(1), "alternatives": [SHADOW]}, "responses": [response]}


def read(values: dict[str, Any]) -> Label:
    [annotation] = TOOL.annotations(from_api(values))
    assert isinstance(annotation, Annotation)
    answers = TOOL.answers(annotation, EVERYTHING, TEXTS)
    return EVERYTHING.read({"rating": "bad", **answers.values}, answers.comment, texts=TEXTS)


def test_each_field_has_its_question() -> None:
    settings = json.loads(TOOL.config(EVERYTHING))
    assert {each["name"]: each["settings"]["type"] for each in settings["questions"]} == {
        "rating": "label_selection",
        "quality": "rating",
        "percent": "label_selection",
        "topic": "label_selection",
        "issues": "multi_label_selection",
        "marks": "span",
        "asked": "span",
        "answer_": "text",
        "note-1": "text",
        "better": "label_selection",
        "tags": "text",
        "comment": "text",
    }
    assert [each["name"] for each in settings["questions"] if each["required"]] == ["rating"]
    fields = {each["name"]: each for each in settings["fields"]}
    assert list(fields) == ["dialogue", "prompt", "answer", *(f"alternative_{n}" for n in range(1, 5))]
    assert not any(each["settings"]["use_markdown"] for each in fields.values())
    assert settings["distribution"] == {"strategy": "overlap", "min_submitted": 1}


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (Field(name="note", type=FieldType.TEXT), "a question that has to be answered"),
        (Field(name="only", type=FieldType.CHOICE, options=("one",), required=True), "'only' has one"),
    ],
)
def test_what_argilla_does_not_take_is_said(field: Field, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        TOOL.config(LabelSchema(fields=(field,)))


def test_names_are_small_and_unlike() -> None:
    names = ("Id", "id_", "___", "Tone", "TONE", "comment")
    schema = LabelSchema(fields=tuple(Field(name=name, type=FieldType.TEXT) for name in names))
    questions = question_names(schema)
    assert list(questions.by_field.values()) == ["id_", "id__", "field___", "tone", "tone_", "comment"]
    assert questions.comment == "comment_"


def test_a_record_has_the_case_and_what_is_suggested() -> None:
    record = TOOL.task(CASE, EVERYTHING)
    assert record["id"] == "case-7"
    assert record["fields"]["dialogue"][0] == {"role": "user", "content": PROMPT}
    assert record["fields"]["alternative_1"] == "hello"
    assert record["metadata"] == {
        **origin(7),
        "alternatives": [SHADOW],
    }
    assert record["suggestions"] == {
        "rating": {"value": "bad", "score": 0.93, "agent": "toxicity"},
        "quality": {"value": 1, "score": 0.93, "agent": "toxicity"},
        "percent": {"value": "7", "score": 0.93, "agent": "toxicity"},
        "issues": {"value": ["rude"], "score": None, "agent": "toxicity"},
        "tags": {"value": "toxic", "score": 0.93, "agent": "toxicity"},
    }
    plain = TOOL.task(CASE, default_schema())
    assert (list(plain["fields"]), plain["suggestions"]) == (["dialogue"], {})


def test_every_answer_comes_back() -> None:
    label = read(
        {
            "quality": 4,
            "percent": "55",
            "topic": "health & care",
            "issues": ["rude", "long"],
            "answer_": "better 😀",
            "note-1": "a note",
            "better": "alternative_1",
            "tags": "one, two\nthree,",
            "comment": "hm",
        }
    )
    assert (label.corrected_answer, label.preferred, label.comment) == ("better 😀", SHADOW, "hm")
    assert label.tags == ("one", "two", "three")
    assert label.values == {
        "quality": 4,
        "percent": 55,
        "topic": "health & care",
        "issues": ["rude", "long"],
        "note-1": "a note",
    }


def test_spans_count_in_utf_16_code_units() -> None:
    marks = [{"start": 7, "end": 11, "label": "insult"}, {"start": 4, "end": 6, "label": "claim"}]
    assert read({"marks": marks}).values["marks"] == [
        {"start": 4, "end": 5, "label": "claim", "text": "😀"},
        {"start": 6, "end": 10, "label": "insult", "text": "fool"},
    ]
    for start, end, message in ((5, 11, "in the middle of a character"), (0, 99, "behind the text")):
        with pytest.raises(Invalid, match=message):
            read({"marks": [{"start": start, "end": end, "label": "insult"}]})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"better": "alternative_2"}, "values.Better: the record has no 'alternative_2'"),
        ({"topic": "war"}, "values.topic: 'war' is none of the options"),
        ({"percent": "101"}, "values.percent: 101 is not on the scale"),
        ({"mood": "sunny"}, "values.mood: the schema has no such field"),
        ({"comment": 7}, "values.comment: it is no text"),
        ({"marks": ["fool"]}, r"values.marks\[0\]: it is no span"),
    ],
)
def test_an_answer_that_was_not_to_be_given_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        read(values)


def test_the_flat_export_has_one_annotation_a_person() -> None:
    record = {
        "id": "case-1",
        **origin(1),
        "rating.responses": ["bad", "good"],
        "rating.responses.users": [ANN, BOB],
        "rating.responses.status": ["submitted", "draft"],
        "quality.responses": [4],
        "quality.responses.users": [ANN],
        "quality.responses.status": ["submitted"],
        "tags.responses": None,
    }
    ann, bob = TOOL.annotations(record)
    assert isinstance(ann, Annotation)
    assert isinstance(bob, Annotation)
    assert (ann.external_id, ann.said, bob.said) == (f"1:{ANN}", Said.ANSWERED, Said.DRAFT)
    assert TOOL.answers(ann, EVERYTHING, TEXTS).values == {"rating": "bad", "quality": 4}
    [same] = TOOL.annotations(from_api({"rating": "bad", "quality": 4}))
    assert isinstance(same, Annotation)
    assert (same.external_id, same.case_id, same.user) == (ann.external_id, ann.case_id, ann.user)


def test_statuses_are_read_and_must_be_there() -> None:
    [discarded] = TOOL.annotations(from_api({"rating": "bad"}, "discarded"))
    assert isinstance(discarded, Annotation)
    assert discarded.said is Said.SKIPPED
    [unknown] = TOOL.annotations(from_api({"rating": "bad"}, "sent"))
    assert isinstance(unknown, Invalid)
    nested = {"id": "case-1", "responses": {"rating": [{"value": "bad", "user_id": ANN}]}}
    with pytest.raises(Invalid, match="which responses were submitted"):
        list(TOOL.annotations(nested))
    assert list(TOOL.annotations({"id": "case-1", "responses": {}})) == []
    with pytest.raises(Invalid, match="no record of Argilla"):
        list(TOOL.annotations({"rating": "bad"}))
