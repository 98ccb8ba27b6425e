from __future__ import annotations

from typing import Any

import pytest

from relabel.human_labels import HumanLabel
from relabel.label import Rating
from relabel.label_schema import Field, FieldType, LabelSchema, default_schema
from relabel.positive import parse_positive
from servelens.errors import Invalid
from tests.unit.relabel.agreement.labeled_cases import RICH


def given(**parts: Any) -> HumanLabel:
    whole: dict[str, Any] = {
        "case_id": 1,
        "databricks_request_id": "r",
        "rating": None,
        "tags": (),
        "preferred": None,
        "values": {},
        "schema_version": 1,
        "resolution": None,
        "labels": 1,
        "choices": (),
    }
    return HumanLabel(**{**whole, **parts})


FULL = given(
    rating=Rating.BAD,
    tags=("Toxic",),
    preferred="shadow",
    values={
        "helpful": 2,
        "topic": "bug",
        "faults": ["rude"],
        "marked": [{"start": 0, "end": 1, "label": "name"}],
    },
)


@pytest.mark.parametrize(
    ("text", "full", "empty"),
    [
        ("rating=bad", True, None),
        ("rating = good", False, None),
        ("verdict=bad", True, None),
        ("helpful=2", True, None),
        ("helpful<=2", True, None),
        ("helpful>=3", False, None),
        ("topic=bug", True, None),
        ("topic=other", False, None),
        ("faults=rude", True, False),
        ("faults=long", False, False),
        ("marked=name", True, False),
        ("marked=claim", False, False),
        ("better=shadow", True, None),
        ("better=answer", False, None),
        ("tags=toxic", True, False),
    ],
)
def test_what_a_label_says(text: str, full: bool, empty: bool | None) -> None:
    positive = parse_positive(text, RICH)
    assert positive.of(FULL, RICH) is full
    assert positive.of(given(), RICH) is empty
    assert str(positive) == text.replace(" ", "")


def test_a_rating_on_a_scale_is_good_or_bad_as_well() -> None:
    stars = LabelSchema(
        version=2, fields=(Field(name="stars", type=FieldType.RATING, scale=5, good_from=4, decides=True),)
    )
    label = given(rating=Rating.BAD, values={"stars": 3})
    assert parse_positive("rating=bad", stars).of(label, stars) is True
    assert parse_positive("rating=bad", stars).of(label, default_schema()) is True
    assert parse_positive("stars<=3", stars).of(label, stars) is True
    assert parse_positive("stars<=2", stars).of(label, stars) is False


def test_another_question_of_the_same_name_is_no_answer() -> None:
    longer = LabelSchema(version=2, fields=(Field(name="helpful", type=FieldType.SCALE, scale=7),))
    assert parse_positive("helpful<=2", longer).of(FULL, RICH) is None
    assert parse_positive("topic=bug", RICH).of(FULL, longer) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bad", "is no answer"),
        ("=bad", "is no answer"),
        ("verdict=awful", "no answer to verdict"),
        ("verdict<=bad", "verdict is no scale"),
        ("helpful=9", "not on the scale"),
        ("helpful<=much", "not on the scale"),
        ("topic=sales", "billing, bug, other"),
        ("why=because", "It has: verdict"),
        ("mood=bad", "no field 'mood'"),
    ],
)
def test_what_cannot_be_asked_is_said(text: str, message: str) -> None:
    with pytest.raises(Invalid) as raised:
        parse_positive(text, RICH)
    assert raised.value.field == "positive"
    assert message in f"{raised.value.message} {raised.value.fix}"


def test_words() -> None:
    assert parse_positive("rating=bad", default_schema()).words == "rated bad"
    assert parse_positive("tags=toxic", default_schema()).words == "tagged toxic"
    assert parse_positive("helpful<=2", RICH).words == "whose helpful is at most 2"
