from __future__ import annotations

from typing import Any

import pytest

from tests.unit.evaluators.scorers.rules import one, refused, rule


def test_words_and_characters() -> None:
    text = "Two  words,\nthen three more."
    assert one(rule("length"), text).value == 5
    score = one(rule("length", unit="characters"), text)
    assert score.value == 28
    assert score.details == {"characters": 28.0, "words": 5.0}
    assert score.label is None


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({"min": 3}, "ok"),
        ({"min": 4}, "short"),
        ({"max": 3}, "ok"),
        ({"max": 2}, "long"),
        ({"min": 1, "max": 5}, "ok"),
        ({"unit": "characters", "min": 20}, "short"),
    ],
)
def test_bounds_are_allowed_themselves(options: dict[str, Any], label: str) -> None:
    assert one(rule("length", **options), "one two three").label == label


def test_options_that_make_no_sense() -> None:
    refused("length", "unit is one of words, characters, not 'tokens'", unit="tokens")
    refused("length", r"min \(9\) is more than max \(8\)", min=9, max=8)
    refused("length", "max is a whole number of at least 0, not '8'", max="8")
    refused("length", "min is a whole number of at least 0, not -1", min=-1)
    refused("length", "min is a whole number of at least 0, not True", min=True)
