"""What holds for every rule."""

from __future__ import annotations

from typing import Any

import pytest

from evaluators.evaluator import EMPTY, Evaluator, Text, wanted_columns
from tests.unit.evaluators.scorers.rules import one, refused, rule

OPTIONS: dict[str, dict[str, Any]] = {
    "error": {"ignore": ["truncated"]},
    "json_schema": {"schema": {"type": "object"}},
    "language": {"expected": ["en"]},
    "latency": {"threshold_ms": 100},
    "length": {"max": 10},
    "pattern": {"must_match": "a+"},
    "personal_data": {"kinds": ["EMAIL_ADDRESS"]},
    "refusal": {"threshold": 0.3},
}
OTHER: dict[str, dict[str, Any]] = {**{name: {} for name in OPTIONS}, "pattern": {"must_match": "b+"}}
READ_TEXT = sorted(OPTIONS.keys() - {"error", "latency"})
WITH_TARGET = sorted(OPTIONS.keys() - {"error", "latency", "refusal"})
HARD = [
    *(
        "\ud83d",
        "\x00",
        "a" * 50_000,
        "1" * 5_000,
        "[" * 20_000,
        '{"a":' * 20_000,
        "ü" * 999,
        "\u202e",
        "```",
        "@" * 999,
    ),
    *(
        "+49 " * 2_000,
        "I can't " * 3_000,
        "ich kann nicht " * 2_000,
        "je ne peux pas " * 2_000,
        '"refusal": "',
        "NaN",
    ),
]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_rule_is_an_evaluator_whose_version_follows_its_options(name: str) -> None:
    evaluator = rule(name, **OPTIONS[name])
    assert isinstance(evaluator, Evaluator)
    assert (evaluator.name, evaluator.device, evaluator.target) == (name, "cpu", "response")
    assert evaluator.model
    assert evaluator.version == rule(name, **OPTIONS[name]).version
    assert evaluator.version != rule(name, **OTHER[name]).version


@pytest.mark.parametrize("name", WITH_TARGET)
def test_the_target_is_what_is_scored(name: str) -> None:
    evaluator = rule(name, target="request", **OPTIONS[name])
    assert evaluator.target == "request"
    assert evaluator.version != rule(name, **OPTIONS[name]).version
    assert one(evaluator, "answered", None).unscored_reason == EMPTY
    assert one(evaluator, None, "What is the capital of France, please?").unscored_reason != EMPTY
    refused(name, "target is one of request, response, not 'answer'", target="answer", **OPTIONS[name])


@pytest.mark.parametrize("name", READ_TEXT)
def test_no_text_is_unscored(name: str) -> None:
    assert one(rule(name, **OPTIONS[name]), " \n", "asked").unscored_reason == EMPTY


@pytest.mark.parametrize("name", OPTIONS)
def test_no_text_makes_a_rule_raise_and_scores_keep_their_order(name: str) -> None:
    evaluator = rule(name, **OPTIONS[name])
    texts = [Text(text, text, {"response": text, "request": text, "status_code": 200}) for text in HARD]
    together = evaluator.score(texts)
    assert together == [evaluator.score([text])[0] for text in texts]


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_that_it_does_not_have_is_named(name: str) -> None:
    refused(name, "unknown option 'volume'", volume=11)


def test_what_rules_read_beside_the_texts() -> None:
    assert {name: wanted_columns(rule(name, **OPTIONS[name])) for name in OPTIONS} == {
        **dict.fromkeys(OPTIONS, ()),
        "error": ("status_code", "error_type", "finish_reason", "attempts"),
        "latency": (
            *("status_code", "error_type", "execution_duration_ms", "time_to_first_token_ms"),
            "output_tokens",
        ),
        "refusal": ("finish_reason", "response"),
    }
    assert wanted_columns(rule("language", same_as_prompt=True)) == ("request",)
