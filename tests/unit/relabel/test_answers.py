"""relabel.queue.answers: answers by the field's name and by what they are."""

from __future__ import annotations

from typing import Any

import pytest

from relabel.label import Label, Rating
from relabel.label_schema import MAX_MARKED, Field, FieldType, LabelSchema, Texts
from relabel.queue.answers import read_answers
from servelens.errors import Invalid

SCHEMA = LabelSchema(
    fields=(
        Field(name="quality", type=FieldType.RATING, required=True),
        Field(name="better", type=FieldType.CORRECTED_ANSWER),
        Field(name="labels", type=FieldType.TAGS),
        Field(name="topic", type=FieldType.CHOICE, options=("food", "law")),
    )
)


def _read(values: dict[str, Any], **short: Any) -> Label:
    return read_answers(SCHEMA, values, "why", texts=Texts(), short=short)


def test_both_ways_mean_the_same() -> None:
    label = Label(Rating.BAD, "x", ("a",), "why", None, {"topic": "law"})
    assert _read({"quality": "bad", "better": "x", "labels": ["a"], "topic": "law"}) == label
    assert _read({"topic": "law"}, rating="bad", corrected_answer="x", tags=["a"]) == label
    assert _read({"topic": "law", "quality": "bad"}, rating=None, corrected_answer="x", tags=["a"]) == label


@pytest.mark.parametrize(
    ("values", "short", "field"),
    [
        ({}, {}, "values.quality"),
        ({"quality": "fine"}, {}, "values.quality"),
        ({}, {"rating": "fine"}, "rating"),
        ({"quality": "good"}, {"rating": "good"}, "rating"),
        ({"quality": "good"}, {"preferred": "answer"}, "preferred"),
        ({"quality": "good"}, {"corrected_answer": ""}, "corrected_answer"),
        ({"quality": "good"}, {"corrected_answer": " "}, "corrected_answer"),
        ({"quality": "good", "better": " "}, {}, "values.better"),
        ({"quality": "good", "labels": ["a", " "]}, {}, "values.labels[1]"),
        ({"quality": "good"}, {"tags": ["a", " "]}, "tags[1]"),
        ({"quality": "good", "topic": "sport"}, {}, "values.topic"),
        ({"quality": "good", "unknown": 1}, {}, "values.unknown"),
    ],
)
def test_what_the_schema_does_not_allow_names_what_was_given(
    values: dict[str, Any], short: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as caught:
        _read(values, **short)
    assert caught.value.field == field
    assert caught.value.fix


def test_the_text_of_spans_is_bounded_and_a_span_counts_once() -> None:
    marks = Field(name="marks", type=FieldType.SPANS, options=("a", "b"), required=True)
    schema = LabelSchema(fields=(marks, Field(name="why", type=FieldType.TEXT, required=True)))
    texts = Texts(response="x" * MAX_MARKED)
    whole = {"start": 0, "end": MAX_MARKED, "label": "a"}
    label = schema.read({"marks": [whole] * 3, "why": "so"}, None, texts=texts)
    assert label.values["marks"] == [{**whole, "text": texts.response}]
    for values, field in (
        ({"marks": [whole, {**whole, "label": "b"}], "why": "so"}, "values.marks"),
        ({"marks": [whole], "why": " \n"}, "values.why"),
    ):
        with pytest.raises(Invalid) as caught:
            schema.read(values, None, texts=texts)
        assert caught.value.field == field
