from __future__ import annotations

import math
from typing import Any

import pytest

from evaluators.ground_truth.comparison import compare, expected
from evaluators.ground_truth.options import read_options
from servelens.errors import Invalid


def compared(
    response: str | None,
    text: str | None,
    label: str | None = None,
    value: float | None = None,
    **options: Any,
) -> tuple[float | str | None, Any]:
    """Value or reason, and the predicted."""
    read = read_options(options)
    truth = expected(label, value, read)
    assert truth is not None
    score = compare(response, text, truth, read)
    return (score.unscored_reason if score.value is None else score.value), score.details.get("predicted")


@pytest.mark.parametrize(
    ("text", "label", "options", "value", "predicted"),
    [
        ("Positive.", "positive", {}, 1.0, "positive"),
        ("  very\n good ", "Very Good", {}, 1.0, "very good"),
        ("Positive.", "positive", {"match": "exact"}, 0.0, "Positive."),
        ("negative", "positive", {}, 0.0, "negative"),
        ("I think the label: Cat, surely", "cat", {"pattern": r"label: (\w+)"}, 1.0, "cat"),
        ("no idea", "cat", {"pattern": r"label: (\w+)"}, "prediction_not_found", None),
        ("...", "...", {}, 1.0, "..."),
        ("straße", "STRASSE", {}, 1.0, "strasse"),
    ],
)
def test_labels(text: str, label: str, options: dict[str, Any], value: Any, predicted: str | None) -> None:
    assert compared(None, text, label, **options) == (value, predicted)


def test_a_prediction_that_no_table_holds_is_written_otherwise() -> None:
    assert compared('{"predictions": ["cat\\ud800"]}', None, "cat") == (0.0, "cat?")


def test_a_pattern_that_never_ends_is_left() -> None:
    assert compared(None, "a" * 60 + "b", "cat", pattern=r"(a|aa)+$") == ("timed_out", None)


@pytest.mark.parametrize(
    ("response", "options", "value", "predicted"),
    [
        ('{"predictions": [41.5]}', {}, 0.5, 41.5),
        ('{"predictions": [[41.5]]}', {}, 0.5, 41.5),
        ('{"predictions": [{"price": 43}]}', {}, 1.0, 43.0),
        ('{"outputs": [{"name": "y", "data": [42]}]}', {}, 0.0, 42.0),
        ('{"predictions": [1, 2]}', {}, "several_predictions", None),
        ('{"predictions": [1, 2]}', {"pointer": "/predictions/1"}, 40.0, 2.0),
        ('{"a/b": {"~": "41"}}', {"pointer": "/a~1b/~0"}, 1.0, 41.0),
        ('{"predictions": [1]}', {"pointer": "/predictions/7"}, "prediction_not_found", None),
        ('{"predictions": [1]}', {"pointer": "/predictions"}, "prediction_not_found", None),
        ('{"predictions": []}', {}, "no_prediction", None),
        ('{"predictions": null}', {}, "no_prediction", None),
        ('{"outputs": [{"data": [1]}, {"data": [2]}]}', {}, "several_predictions", None),
        ('{"error": "no"}', {}, "no_prediction", None),
        ('{"predictions": [true]}', {}, "prediction_not_a_number", None),
        ('{"predictions": [1e999]}', {}, "prediction_not_a_number", None),
        ("oops", {}, "no_prediction", None),
        ("[" * 100_000, {}, "no_prediction", None),
        (None, {}, "no_prediction", None),
        ("[1]", {}, "no_prediction", None),
    ],
)
def test_numbers(response: str | None, options: dict[str, Any], value: Any, predicted: float | None) -> None:
    assert compared(response, None, value=42.0, **options) == (value, predicted)


def test_a_number_in_an_answer_of_words() -> None:
    assert compared(None, "It costs 40 euros", value=42.0, pattern=r"(\d+) euros") == (2.0, 40.0)
    assert compared(None, "It costs forty", value=42.0) == ("prediction_not_a_number", None)


def test_numbers_can_be_classes() -> None:
    assert compared('{"predictions": [1]}', None, value=1.0, task="classification") == (1.0, "1")
    assert compared('{"predictions": [1.0]}', None, "1") == (1.0, "1")
    assert compared('{"predictions": [true]}', None, "True") == (1.0, "true")


def test_long_labels_stay_apart_and_are_cut() -> None:
    value, predicted = compared(None, "x" * 5_000 + "a", "x" * 5_000 + "b")
    assert value == 0.0
    assert len(predicted) <= 200
    assert compared(None, "x" * 5_000, "x" * 5_000)[0] == 1.0


@pytest.mark.parametrize(
    ("label", "value", "task"),
    [(None, None, None), (" ", None, None), (None, math.nan, None), ("cat", None, "regression")],
)
def test_a_feedback_that_says_nothing(label: str | None, value: float | None, task: str | None) -> None:
    assert expected(label, value, read_options({"task": task})) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trut": "x"}, "unknown option 'trut'"),
        ({"truth": ""}, "options\\.truth"),
        ({"task": "ranking"}, "options\\.task"),
        ({"match": "fuzzy"}, "options\\.match"),
        ({"pattern": "("}, "options\\.pattern: '\\(' is no regular expression"),
        ({"pattern": "label"}, "options\\.pattern: it has 0 groups"),
        ({"pointer": "predictions"}, "options\\.pointer"),
        ({"wait_days": -1}, "options\\.wait_days"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        read_options(options)


def test_the_version_is_of_what_changes_a_score() -> None:
    version = read_options({}).version
    assert read_options({"wait_days": 3}).version == version
    others: list[dict[str, Any]] = [
        {"match": "exact"},
        {"pattern": "(x)"},
        {"pointer": "/a"},
        {"task": "regression"},
    ]
    assert len({read_options(each).version for each in others} | {version}) == 5
