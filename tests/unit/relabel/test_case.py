"""relabel.case: a label says what is wrong with it, and names the field."""

from __future__ import annotations

import pytest

from relabel.label import Label, Rating
from servelens.errors import Invalid


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"rating": "fine"}, "rating"),
        ({"corrected_answer": " \n"}, "corrected_answer"),
        ({"corrected_answer": ""}, "corrected_answer"),
        ({"corrected_answer": "a\x00b"}, "corrected_answer"),
        ({"corrected_answer": "x" * 1_000_001}, "corrected_answer"),
        ({"tags": ("a", " ")}, "tags[1]"),
        ({"tags": ("x" * 101,)}, "tags[0]"),
        ({"tags": tuple(map(str, range(51)))}, "tags"),
        ({"comment": "x" * 10_001}, "comment"),
        ({"comment": "\udc00"}, "comment"),
    ],
)
def test_a_label_that_cannot_be_kept_names_the_field(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        Label(**{"rating": Rating.GOOD, **arguments})
    assert caught.value.field == field
    assert caught.value.fix


def test_a_rating_may_be_given_by_name() -> None:
    assert Label("bad").rating is Rating.BAD


def test_tags_are_stripped_and_kept_once_in_their_order() -> None:
    assert Label(Rating.GOOD, tags=(" b", "a", "b ")).tags == ("b", "a")


def test_a_blank_comment_is_no_comment() -> None:
    assert Label(Rating.GOOD, comment="  ") == Label(Rating.GOOD)


def test_html_in_a_label_is_only_text() -> None:
    assert Label(Rating.BAD, "<b>x</b>").corrected_answer == "<b>x</b>"
