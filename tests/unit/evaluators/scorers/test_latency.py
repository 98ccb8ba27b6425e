from __future__ import annotations

from typing import Any

import pytest

from evaluators.scorers.latency import FAILED, NOT_MEASURED
from tests.unit.evaluators.scorers.rules import one, refused, rule

STREAM: dict[str, Any] = {
    "status_code": 200,
    "error_type": None,
    "execution_duration_ms": 1_100,
    "time_to_first_token_ms": 100.5,
    "output_tokens": 21,
}


@pytest.mark.parametrize(
    ("measure", "value"), [("total", 1_100), ("first_token", 100.5), ("per_output_token", 49.975)]
)
def test_measures(measure: str, value: float) -> None:
    score = one(rule("latency", measure=measure), "answer", **STREAM)
    assert score.value == pytest.approx(value)
    assert score.label is None


def test_slow_is_over_the_threshold() -> None:
    evaluator = rule("latency", threshold_ms=1_100)
    assert one(evaluator, "answer", **STREAM).label == "ok"
    assert one(evaluator, "answer", **STREAM | {"execution_duration_ms": 1_101}).label == "slow"


@pytest.mark.parametrize(
    ("measure", "without"),
    [
        ("first_token", {"time_to_first_token_ms": None}),
        ("per_output_token", {"time_to_first_token_ms": None}),
        ("per_output_token", {"output_tokens": None}),
        ("per_output_token", {"output_tokens": 1}),
        ("total", {"execution_duration_ms": None}),
    ],
)
def test_what_was_not_measured_is_unscored(measure: str, without: dict[str, Any]) -> None:
    assert one(rule("latency", measure=measure), "answer", **STREAM | without).unscored_reason == NOT_MEASURED


@pytest.mark.parametrize(
    "failed",
    [
        {"error_type": "upstream_timeout"},
        {"status_code": 429},
        {"status_code": 0, "error_type": "x"},
        {"status_code": None},
    ],
)
def test_a_failed_call_has_no_latency(failed: dict[str, Any]) -> None:
    assert one(rule("latency"), None, **STREAM | failed).unscored_reason == FAILED


def test_an_answer_within_the_rounding_of_its_first_token() -> None:
    quick = STREAM | {"execution_duration_ms": 100}
    assert one(rule("latency", measure="per_output_token"), "answer", **quick).value == 0


def test_options_that_make_no_sense() -> None:
    refused("latency", "measure is one of total, first_token, per_output_token, not 'p99'", measure="p99")
    refused("latency", "threshold_ms is a number of at least 0, not nan", threshold_ms=float("nan"))
    refused("latency", "unknown option 'target'", target="request")
