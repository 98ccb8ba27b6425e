from __future__ import annotations

import math

import pytest

from evaluators.evaluator import EMPTY, Score, Text, target_text, unscored


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_is_never_a_number_that_is_none(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Score(value=value)


def test_a_score_has_a_value_or_a_reason_and_not_both() -> None:
    with pytest.raises(ValueError, match="either"):
        Score(value=None)
    with pytest.raises(ValueError, match="either"):
        Score(value=1.0, unscored_reason=EMPTY)


def test_unscored_keeps_its_details() -> None:
    assert unscored("too_short", tokens=1.0).details == {"tokens": 1.0}


@pytest.mark.parametrize("blank", [None, "", " \n\t"])
def test_white_space_is_no_text(blank: str | None) -> None:
    assert target_text(Text("asked", blank), "response") is None
    assert target_text(Text(blank, "answered"), "request") is None
    assert target_text(Text(blank, " answered "), "response") == " answered "


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    assert target_text(Text(None, "a\ud83dz"), "response") == "a?z"
