from __future__ import annotations

import re
from typing import Any

import pytest

from collector.intake.arrival import REQUEST_MISSING, RESPONSE_MISSING
from collector.record import Record
from evaluators.scorers.error import INCOMPLETE
from tests.unit.evaluators.scorers.rules import one, refused, rule


@pytest.mark.parametrize(
    ("columns", "value", "label"),
    [
        ({"status_code": 200, "finish_reason": "stop"}, 0, "ok"),
        ({"status_code": 200}, 0, "ok"),
        ({"status_code": 200, "finish_reason": "length"}, 1, "truncated"),
        ({"status_code": 200, "finish_reason": "MAX_TOKENS"}, 1, "truncated"),
        ({"status_code": 200, "finish_reason": "max_output_tokens"}, 1, "truncated"),
        ({"status_code": 200, "finish_reason": "content_filter"}, 1, "content_filter"),
        ({"status_code": 503}, 1, "status_5xx"),
        ({"status_code": 404}, 1, "status_4xx"),
        ({"status_code": 502, "error_type": "upstream_connect"}, 1, "upstream_connect"),
        (
            {"status_code": 200, "error_type": "upstream_reset", "finish_reason": "length"},
            1,
            "upstream_reset",
        ),
    ],
)
def test_how_a_call_failed(columns: dict[str, Any], value: float, label: str) -> None:
    score = one(rule("error"), None, **columns)
    assert (score.value, score.label) == (value, label)


def test_details_of_a_failure() -> None:
    score = one(rule("error"), "cut", status_code=200, finish_reason="length", attempts=3, error_type=None)
    assert score.details == {"status_code": 200.0, "attempts": 3.0, "finish_reason": "length"}


def test_what_is_ignored_keeps_its_label() -> None:
    evaluator = rule("error", ignore=["truncated", "rate_limited"])
    for columns in (
        {"status_code": 200, "finish_reason": "length"},
        {"status_code": 429, "error_type": "rate_limited"},
    ):
        score = one(evaluator, None, **columns)
        assert score.value == 0
        assert score.label in ("truncated", "rate_limited")
    assert one(evaluator, None, status_code=500).value == 1


@pytest.mark.parametrize("half", [REQUEST_MISSING, RESPONSE_MISSING])
def test_half_a_record_says_nothing(half: str) -> None:
    assert one(rule("error"), None, status_code=0, error_type=half).unscored_reason == INCOMPLETE


def test_everything_that_a_record_calls_an_error_can_be_ignored() -> None:
    described = (Record.__doc__ or "").partition("``error_type`` is")[2].partition("when all went well")[0]
    words = [word for word in re.findall(r"``(\w+)``", described) if word != "None"]
    assert len(words) > 10
    rule("error", ignore=words)
    refused("error", "ignore does not know 'timeout'. It knows: blocked", ignore="timeout")
