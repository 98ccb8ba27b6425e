"""relabel.interchange.label_studio: the configuration, the tasks, and what a real Label Studio 1.23.2 exported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from relabel.case import RecordedScore
from relabel.interchange.label_studio import LabelStudio, control_names
from relabel.interchange.task_case import TaskCase, task_cases
from relabel.interchange.tool import Annotation, Answers, Said
from relabel.label import Rating
from relabel.label_schema import Field, FieldType, LabelSchema, Suggestion, Texts, default_schema
from servelens.errors import Invalid
from tests.interchange_cases import ANSWER, EVERYTHING, PROMPT, SHADOW, add_rich_cases, origin
from tests.new_database import new_database

TOOL = LabelStudio()
TEXTS = Texts(PROMPT, ANSWER, (SHADOW,))
RECORDED = Path(__file__).parent / "recorded"


@pytest.fixture
def case(tmp_path: Path) -> Iterator[TaskCase]:
    database = new_database(tmp_path / "servelens.db")
    add_rich_cases(database, range(7, 8))
    yield next(task_cases(database, "chat"))
    database.dispose()


def recorded(name: str) -> list[Annotation]:
    """What the release exported of the tasks of cases 1 (annotated over its API), 2 (on its page) and 3 (skipped)."""
    exported = json.loads((RECORDED / f"label_studio_1.23.2_{name}.json").read_text("utf-8"))
    found = [annotation for element in exported for annotation in TOOL.annotations(element)]
    assert all(isinstance(annotation, Annotation) for annotation in found)
    return sorted(
        (each for each in found if isinstance(each, Annotation)), key=lambda each: each.case_id or 0
    )


def answered(results: list[dict[str, Any]], schema: LabelSchema = EVERYTHING) -> Answers:
    task = {"data": origin(1), "annotations": [{"id": 1, "completed_by": 1, "result": results}]}
    [annotation] = TOOL.annotations(task)
    assert isinstance(annotation, Annotation)
    return TOOL.answers(annotation, schema, TEXTS)


def marked(start: int, end: int, text: str | None, control: str = "marks") -> dict[str, Any]:
    value = {"start": start, "end": end, "labels": ["insult"], **({} if text is None else {"text": text})}
    return {"id": "x", "from_name": control, "to_name": "answer", "type": "labels", "value": value}


def test_each_field_has_its_control() -> None:
    view = ElementTree.fromstring(TOOL.config(EVERYTHING))
    controls = {each.get("name"): each for each in view if each.get("toName")}
    assert {name: each.tag for name, each in controls.items()} == {
        "rating": "Choices",
        "quality": "Rating",
        "percent": "Number",
        "topic": "Choices",
        "issues": "Choices",
        "marks": "Labels",
        "asked": "Labels",
        "answer_": "TextArea",
        "note-1": "TextArea",
        "Better": "Choices",
        "tags": "TextArea",
        "comment": "TextArea",
    }
    assert controls["rating"].get("required") == "true"
    assert controls["topic"].get("required") is None
    assert [option.get("value") for option in controls["topic"]] == ["law", "health & care"]
    assert (controls["topic"].get("choice"), controls["issues"].get("choice")) == ("single-radio", "multiple")
    assert (controls["marks"].get("toName"), controls["asked"].get("toName")) == ("answer", "prompt")
    assert (controls["quality"].get("maxRating"), controls["percent"].get("max")) == ("5", "100")
    assert controls["Better"].get("value") == "$preference_options"
    headers = [each.get("value") for each in view.iter("Header")]
    assert 'Be <b>kind</b> & "fair"' in headers
    assert " $ A better answer" in headers  # a dollar at the beginning would name a part of the task


def test_only_what_is_asked_about_is_shown() -> None:
    view = ElementTree.fromstring(TOOL.config(default_schema()))
    assert [each.get("name") for each in view if (each.get("value") or "").startswith("$")] == ["dialogue"]


def test_an_option_that_would_name_a_part_of_the_task_is_refused() -> None:
    schema = LabelSchema(fields=(Field(name="cost", type=FieldType.CHOICE, options=("$5", "more")),))
    with pytest.raises(Invalid, match=r"option '\$5' of 'cost'"):
        TOOL.config(schema)


def test_no_control_is_named_as_a_part_of_the_task_or_of_the_export() -> None:
    names = ("id", "answer", "answer_", "comment", "annotator", "lead_time_")
    schema = LabelSchema(fields=tuple(Field(name=name, type=FieldType.TEXT) for name in names))
    fields, comment = control_names(schema)
    assert fields == {
        "id": "id_",
        "answer": "answer__",
        "answer_": "answer_",
        "comment": "comment",
        "annotator": "annotator_",
        "lead_time_": "lead_time_",
    }
    assert comment == "comment_"


def test_a_task_has_the_case_and_what_is_suggested(case: TaskCase) -> None:
    task = TOOL.task(case, EVERYTHING)
    assert task["meta"] == origin(1, databricks_request_id="request-000007")
    assert {key: task["data"][key] for key in task["meta"]} == task["meta"]
    assert task["data"]["dialogue"][1] == {"author": "assistant", "text": ANSWER}
    assert (task["data"]["prompt"], task["data"]["answer"]) == (PROMPT, ANSWER)
    assert task["data"]["answers"] == [
        {"author": "answer", "text": ANSWER},
        {"author": SHADOW, "text": "hello 😀"},
    ]
    assert task["data"]["preference_options"] == [{"value": name} for name in ("answer", SHADOW, "tie")]
    [prediction] = task["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("servelens", 0.93)
    assert {each["from_name"]: (each["type"], each["value"]) for each in prediction["result"]} == {
        "rating": ("choices", {"choices": ["bad"]}),
        "quality": ("rating", {"rating": 1}),
        "percent": ("number", {"number": 7}),
        "issues": ("choices", {"choices": ["rude"]}),
        "tags": ("textarea", {"text": ["toxic"]}),
    }


def test_nothing_is_suggested_unless_the_schema_says_so_and_the_score_does(case: TaskCase) -> None:
    assert "predictions" not in TOOL.task(case, replace(EVERYTHING, show_suggestions=False))
    low = replace(case, scores=(RecordedScore("toxicity", "response", 0.5),))
    assert "predictions" not in TOOL.task(low, EVERYTHING)
    unscored = replace(case, scores=(RecordedScore("toxicity", "response", None),))
    assert "predictions" not in TOOL.task(unscored, EVERYTHING)


def test_a_label_of_a_score_is_suggested_where_it_is_an_option(case: TaskCase) -> None:
    topic = Field(
        name="topic",
        type=FieldType.CHOICE,
        options=("law", "care"),
        suggest=(Suggestion(evaluator="router"),),
    )
    schema = LabelSchema(fields=(topic,), show_suggestions=True)
    for label, expected in (("care", ["care"]), ("cars", None), (None, None)):
        scored = replace(case, scores=(RecordedScore("router", "response", None, label),))
        task = TOOL.task(scored, schema)
        found = task["predictions"][0]["result"][0]["value"]["choices"] if "predictions" in task else None
        assert found == expected


@pytest.mark.parametrize("name", ["json", "json_min"])
def test_what_was_annotated_over_the_api_comes_back(name: str) -> None:
    annotation = recorded(name)[0]
    assert (annotation.external_id, annotation.user, annotation.said) == ("1:1", "1", Said.ANSWERED)
    assert (annotation.case_id, annotation.schema_version, annotation.endpoint) == (1, 3, "chat")
    assert (annotation.databricks_request_id, annotation.duration_s) == ("request-000001", 12.5)
    answers = TOOL.answers(annotation, EVERYTHING, TEXTS)
    label = EVERYTHING.read(answers.values, answers.comment, texts=TEXTS)
    assert (label.rating, label.preferred, label.comment) == (Rating.BAD, SHADOW, "hm")
    assert (label.corrected_answer, label.tags) == ("better\nanswer 😀", ("one", "two"))
    assert label.values == {
        "quality": 4,
        "percent": 55,
        "topic": "health & care",
        "issues": ["rude", "long"],
        # The first was sent in UTF-16 code units, the second in characters.
        "marks": [
            {"start": 6, "end": 17, "label": "insult", "text": "fool\nreally"},
            {"start": 26, "end": 31, "label": "claim", "text": "alert"},
        ],
        "asked": [{"start": 13, "end": 18, "label": "pii", "text": "a@b.c"}],
        "note-1": "a note",
    }


@pytest.mark.parametrize("name", ["json", "json_min"])
def test_what_was_annotated_on_the_page_comes_back(name: str) -> None:
    annotation = recorded(name)[1]
    answers = TOOL.answers(annotation, EVERYTHING, TEXTS)
    label = EVERYTHING.read(answers.values, answers.comment, texts=TEXTS)
    assert (label.rating, label.tags, label.preferred) == (Rating.BAD, ("toxic",), SHADOW)
    assert label.corrected_answer == "from the page 😀"
    assert label.values["marks"] == [
        {"start": 6, "end": 10, "label": "insult", "text": "fool"},
        {"start": 26, "end": 31, "label": "claim", "text": "alert"},
    ]
    assert label.values["asked"] == [{"start": 13, "end": 18, "label": "pii", "text": "a@b.c"}]


def test_a_skipped_task_is_said_to_be_one() -> None:
    assert [annotation.said for annotation in recorded("json")][2] is Said.SKIPPED
    assert [annotation.case_id for annotation in recorded("json_min")] == [1, 2]


def test_spans_are_read_by_the_text_that_is_kept_with_them() -> None:
    in_characters, in_units = marked(6, 10, "fool"), marked(7, 11, "fool")
    assert answered([in_characters]).values == answered([in_units]).values
    assert answered([marked(6, 10, None)]).values["marks"] == [{"start": 6, "end": 10, "label": "insult"}]
    # Label Studio writes a line break as two characters.
    assert answered([marked(7, 18, "fool\\nreally")]).values["marks"] == [
        {"start": 6, "end": 17, "label": "insult"}
    ]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (marked(0, 3, "fool"), "it marks 'fool', and the text has 'you' there"),
        (marked(-1, 3, "you"), r"values.marks\[0\].start: -1 is no place"),
        ({**marked(0, 3, "you"), "value": {"start": 0, "end": 3, "labels": []}}, "not one label"),
        ({"from_name": "rating", "value": {"choices": ["good", "bad"]}}, "values.rating: there are several"),
        ({"from_name": "quality", "value": {"rating": 2.5}}, "values.quality: 2.5 is no whole number"),
        ({"from_name": "rating", "value": {"text": ["good"]}}, "values.rating: it has no 'choices'"),
    ],
)
def test_what_cannot_be_translated_is_said(result: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        answered([result])


def test_a_control_that_the_schema_does_not_have_is_left_to_the_schema() -> None:
    answers = answered([{"from_name": "mood", "value": {"choices": ["sunny"]}}])
    with pytest.raises(Invalid, match=r"values\.mood: the schema has no such field"):
        EVERYTHING.read(answers.values, answers.comment, texts=TEXTS)


def test_an_annotation_that_cannot_be_read_stops_no_other() -> None:
    good = {"id": 2, "completed_by": {"id": 5, "email": "ann@example.com"}, "result": []}
    task = {"data": origin(1), "annotations": [7, {"id": 1, "result": [{"type": "relation"}]}, good]}
    first, second, third = TOOL.annotations(task)
    assert isinstance(first, Invalid)
    assert isinstance(second, Invalid)
    assert isinstance(third, Annotation)
    assert third.user == "ann@example.com"


def test_a_task_without_annotations_has_none_and_anything_else_is_refused() -> None:
    assert list(TOOL.annotations({"id": 1, "data": origin(1)})) == []
    with pytest.raises(Invalid, match="Export the project as JSON or JSON_MIN"):
        list(TOOL.annotations({"rating": "good"}))
