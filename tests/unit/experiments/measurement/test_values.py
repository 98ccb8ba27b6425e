from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from experiments.experiment import Price
from experiments.measurement.measure import Measured, measure
from experiments.statistics.statistic import Moments
from tests.unit.experiments.records import (
    START,
    experiment,
    feedback,
    feedback_frame,
    payload,
    payload_frame,
    score,
    score_frame,
)


def _metric(
    name: str,
    rows: Sequence[dict[str, Any]],
    scores: Sequence[dict[str, Any]] = (),
    told: Sequence[dict[str, Any]] = (),
    *,
    as_of_h: float | None = None,
    pilots: dict[str, float] | None = None,
    **changes: Any,
) -> Measured:
    found = measure(
        payload_frame(rows),
        score_frame(scores),
        experiment(primary_metric=name, secondary_metrics=(), **changes),
        feedback=feedback_frame(told),
        as_of=None if as_of_h is None else START + timedelta(hours=as_of_h),
        pilots=pilots,
    )
    return found.metrics[0]


def test_tokens_are_those_of_whole_answers() -> None:
    rows = [
        payload("ann", "champion", input_tokens=7, output_tokens=5),
        payload(
            "bob", "champion", input_tokens=9, output_tokens=1, status_code=502, error_type="upstream_reset"
        ),
        payload("cyd", "champion", input_tokens=None, output_tokens=3),
    ]
    found = _metric("input_tokens", rows)
    assert found.cells[0, "champion"].total == 7
    assert found.excluded == {"champion": {"no_whole_answer": 1, "not_measured": 1}}
    assert _metric("output_tokens", rows).cells[0, "champion"].total == 8


def test_cost_is_by_the_entity_that_answered() -> None:
    prices = (Price("smol", 1.0, 2.0), Price("smol-hot", 10.0, 20.0))
    rows = [
        payload("ann", "champion", input_tokens=1_000_000, output_tokens=500_000),
        payload("bob", "challenger", served_entity="smol-hot", input_tokens=100, output_tokens=0),
        payload("cyd", "challenger", served_entity="fallback", input_tokens=100, output_tokens=100),
        payload("dan", "challenger", served_entity="smol-hot", input_tokens=None, output_tokens=100),
        payload("eve", "challenger", served_entity="smol-hot", status_code=500, error_type="upstream_status"),
    ]
    found = _metric("cost", rows, prices=prices)
    assert found.cells[0, "champion"].total == pytest.approx(2.0)
    assert found.cells[0, "challenger"].total == pytest.approx(0.001)
    assert found.excluded == {"challenger": {"no_whole_answer": 1, "not_measured": 2}}


def test_a_share_beyond_a_limit_leaves_out_what_was_not_measured() -> None:
    rows = [
        payload("ann", "champion", execution_duration_ms=2000),
        payload("bob", "champion", execution_duration_ms=2001),
        payload("cyd", "champion", execution_duration_ms=None),
        payload(
            "dan", "champion", execution_duration_ms=9000, status_code=504, error_type="upstream_timeout"
        ),
    ]
    found = _metric("latency_ms:over:2000", rows)
    assert found.cells[0, "champion"] == Moments(2, 2, 1, 2, 1, 1)
    assert found.excluded == {"champion": {"no_whole_answer": 1, "not_measured": 1}}


def test_a_score_may_be_zero_beyond_a_limit_though_it_has_no_logarithm() -> None:
    rows = [payload(name, "champion") for name in ("ann", "bob")]
    scores = [score(rows[0], 0.0), score(rows[1], 50.0)]
    assert _metric("score:perplexity", rows, scores).excluded == {"champion": {"not_finite": 1}}
    assert _metric("score:perplexity:over:10", rows, scores).cells[0, "champion"].records == 2
    assert _metric("score:perplexity:p50", rows, scores).histograms[0, "champion"].total == 2


def test_an_evaluator_that_reads_prompts_only_is_measured_on_them() -> None:
    rows = [payload(name, "champion") for name in ("ann", "bob")]
    of_prompts = [score(row, 4.0, "length", target="request") for row in rows]
    assert _metric("score:length", rows, of_prompts).cells[0, "champion"].total == 8.0
    both = [*of_prompts, score(rows[0], 1.0, "length")]
    found = _metric("score:length", rows, both)
    assert found.cells[0, "champion"].total == 1.0
    assert found.excluded == {"champion": {"not_scored_yet": 1}}


def test_two_evaluators_do_not_mix() -> None:
    rows = [payload("ann", "champion")]
    scores = [score(rows[0], 4.0, "toxicity"), score(rows[0], math.e)]
    definition = experiment(primary_metric="score:toxicity", secondary_metrics=("score:perplexity",))
    toxicity, perplexity = measure(payload_frame(rows), score_frame(scores), definition).metrics
    assert (toxicity.cells[0, "champion"].total, perplexity.cells[0, "champion"].total) == (4.0, 1.0)


def test_the_newest_feedback_within_the_window_counts() -> None:
    at_start = {"request_time": START}
    rows = [payload(name, "champion", **at_start) for name in ("ann", "bob", "cyd", "dan", "eve")]
    ann, bob, cyd, dan, _ = rows
    told = [
        feedback(ann, 1.0, after_s=60),
        feedback(ann, 0.0, after_s=120),
        feedback(ann, 5.0, after_s=7201),
        feedback(bob, 1.0, after_s=7200),
        feedback(cyd, 1.0, name="stars"),
        feedback(dan, None, label="good"),
    ]
    found = _metric("feedback:thumbs", rows, told=told, as_of_h=3, outcome_window_s=7200)
    assert found.cells[0, "champion"] == Moments(2, 2, 1, 2, 1, 1)
    assert found.excluded == {"champion": {"no_feedback": 2, "not_measured": 1}}


def test_a_record_waits_until_its_window_is_over_whatever_it_was_told() -> None:
    rows = [
        payload("ann", "champion", request_time=START),
        payload("bob", "champion", request_time=START + timedelta(seconds=1)),
    ]
    told = [feedback(row, 1.0) for row in rows]
    found = _metric("feedback:thumbs", rows, told=told, as_of_h=1, outcome_window_s=3600)
    assert found.cells[0, "champion"].records == 1
    assert found.excluded == {"champion": {"window_open": 1}}


def test_a_quantile_has_histograms_and_no_moments_before_it_has_units() -> None:
    rows = [
        payload(f"user-{n}", ("champion", "challenger")[n % 2], execution_duration_ms=n + 1)
        for n in range(58)
    ]
    found = _metric("latency_ms:p95", rows)
    assert (found.cells, found.periods, found.pilot) == ({}, {}, None)
    assert {cell: histogram.total for cell, histogram in found.histograms.items()} == {
        (0, "champion"): 29,
        (0, "challenger"): 29,
    }


def test_a_pilot_is_the_pooled_quantile_and_the_moments_are_of_the_share_below_it() -> None:
    rng = np.random.default_rng(5)
    durations = np.rint(rng.lognormal(6.0, 1.0, 600)).astype(int).tolist()
    rows = [
        payload(f"user-{n % 80}", ("champion", "challenger")[n % 2], execution_duration_ms=duration)
        for n, duration in enumerate(durations)
    ]
    found = _metric("latency_ms:p90", rows)
    assert found.pilot is not None
    exact = float(np.quantile(durations, 0.9, method="inverted_cdf"))
    assert exact <= found.pilot <= exact * 1.005
    for variant, own in (("champion", durations[::2]), ("challenger", durations[1::2])):
        cell = found.cells[0, variant]
        assert (cell.units, cell.records, cell.total) == (40, 300, sum(value <= found.pilot for value in own))
        assert cell.records_squared > 300, "several records of a unit count as one draw"


def test_a_pilot_that_is_given_is_kept() -> None:
    rows = [payload("ann", "champion", execution_duration_ms=value) for value in (100, 200, 300)]
    found = _metric("latency_ms:p95", rows, pilots={"latency_ms:p95": 200.0})
    assert found.pilot == 200.0
    assert found.cells[0, "champion"] == Moments(1, 3, 2, 9, 6, 4)
