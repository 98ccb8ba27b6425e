from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from experiments.experiment import Experiment
from experiments.measurement.exposures import exposures
from experiments.measurement.measure import Measured, Measurements, measure
from experiments.measurement.outcomes import Outcomes, score_rows, with_outcomes
from experiments.measurement.values import reading_for
from experiments.statistics.statistic import Moments
from tests.unit.experiments.records import START, experiment, payload, payload_frame, score, score_frame


def _measure(
    rows: Sequence[dict[str, Any]],
    scores: Sequence[dict[str, Any]] = (),
    definition: Experiment | None = None,
) -> Measurements:
    return measure(payload_frame(rows), score_frame(scores), definition or experiment())


def _metric(name: str, rows: Sequence[dict[str, Any]], scores: Sequence[dict[str, Any]] = ()) -> Measured:
    found = _measure(rows, scores, experiment(primary_metric=name, secondary_metrics=())).metrics
    return found[0]


def test_records_of_a_unit_are_summed_before_they_are_squared() -> None:
    rows = [
        payload("ann", "champion", execution_duration_ms=100),
        payload("ann", "champion", execution_duration_ms=400),
        payload("bob", "champion", execution_duration_ms=200),
    ]
    ann, bob = math.log(100) + math.log(400), math.log(200)
    found = _metric("latency_ms", rows).cells[0, "champion"]
    assert found.units == 2
    expected = Moments(2, 3, ann + bob, 5, 2 * ann + bob, ann**2 + bob**2)
    for name in ("records", "total", "records_squared", "records_total", "total_squared"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name))


def test_only_the_experiments_own_unshadowed_records_count() -> None:
    rows = [
        payload("ann", "champion"),
        payload("bob", "champion", experiment="other"),
        payload("cyd", "champion", experiment=None),
        payload("dan", "champion", is_shadow=True),
    ]
    found = _measure(rows)
    assert found.exposures == {0: {"champion": 1}}
    assert found.excluded == {}


def test_requests_at_fault_are_excluded_and_counted() -> None:
    rows = [
        payload("ann", "champion"),
        payload("bob", "champion", status_code=400, error_type="invalid_request"),
        payload("cyd", None, status_code=404, error_type="unknown_endpoint", served_entity=None),
        payload("dan", "champion", status_code=413, error_type="body_too_large"),
        payload(None, "champion"),
        payload("", "champion"),
        payload("eve", "nobody"),
    ]
    found = _measure(rows)
    assert found.exposures == {0: {"champion": 1}}
    assert found.excluded == {"reached_no_entity": 3, "no_unit": 2, "unknown_variant": 1}


def test_an_entitys_own_failure_counts() -> None:
    rows = [
        payload("ann", "champion"),
        payload("bob", "champion", status_code=502, error_type="upstream_connect"),
        payload("cyd", "champion", status_code=200, error_type="upstream_reset"),
        payload("dan", "champion", status_code=400, error_type="upstream_status"),
        payload(
            "eve", "champion", status_code=499, error_type="client_disconnected", client_disconnected=True
        ),
        payload("fay", "champion", status_code=429, error_type="upstream_status"),
    ]
    assert _metric("success_rate", rows).cells[0, "champion"].total == 1
    assert _metric("error_rate", rows).cells[0, "champion"].total == 3
    latency = _metric("latency_ms", rows)
    assert latency.cells[0, "champion"].units == 1
    assert latency.excluded == {"champion": {"no_whole_answer": 5}}


def test_a_unit_seen_in_two_variants_is_excluded_everywhere_and_counted() -> None:
    rows = [
        payload("ann", "champion"),
        payload("ann", "challenger"),
        payload("ann", "challenger", phase=1),
        payload("bob", "champion"),
        payload("cyd", "challenger", output_tokens=None),
        payload("ann", "champion", output_tokens=None),
    ]
    found = _measure(rows)
    assert found.excluded == {"unit_in_two_variants": 4}
    assert found.exposures == {0: {"champion": 1, "challenger": 1}}
    assert found.records == {"champion": 1, "challenger": 1}
    assert _metric("output_tokens", rows).excluded == {"challenger": {"not_measured": 1}}


def test_a_unit_may_change_its_variant_between_phases() -> None:
    rows = [
        payload("ann", "champion"),
        payload("ann", "challenger", phase=1, execution_duration_ms=300),
        payload("bob", "champion"),
        payload("bob", "champion", phase=1),
    ]
    found = _measure(rows)
    assert found.excluded == {}
    assert found.exposures == {0: {"champion": 2}}, "a unit counts in its first phase only"
    latency = found.metrics[0]
    assert set(latency.cells) == {(0, "champion"), (1, "champion"), (1, "challenger")}
    cross = latency.cross[(0, "champion"), (1, "challenger")]
    assert cross.records_records == 1
    assert cross.total_total == pytest.approx(math.log(100) * math.log(300))


def test_the_request_stands_in_as_its_own_unit() -> None:
    rows = [payload(None, "champion"), payload(None, "champion"), payload("given", "champion")]
    found = _measure(rows, definition=experiment(unit="request"))
    assert found.exposures == {0: {"champion": 3}}


def test_time_to_first_token_is_measured_on_streams_only() -> None:
    rows = [
        payload("ann", "champion", is_stream=True, time_to_first_token_ms=50.0),
        payload("bob", "champion", is_stream=True, time_to_first_token_ms=None),
        payload("cyd", "champion", is_stream=False, time_to_first_token_ms=None),
        payload("dan", "champion", is_stream=True, time_to_first_token_ms=float("nan")),
        payload("eve", "champion", is_stream=True, time_to_first_token_ms=float("inf")),
    ]
    found = _metric("time_to_first_token_ms", rows)
    assert found.cells[0, "champion"].total == pytest.approx(math.log(50))
    assert found.excluded == {"champion": {"not_measured": 1, "not_streamed": 1, "not_finite": 2}}


def test_an_answer_within_the_clocks_resolution_has_a_finite_logarithm() -> None:
    found = _metric("latency_ms", [payload("ann", "champion", execution_duration_ms=0)])
    assert found.cells[0, "champion"].total == pytest.approx(math.log(0.5))


def test_scores_are_joined_and_what_has_none_is_counted_by_reason() -> None:
    rows = [payload(name, "champion") for name in ("ann", "bob", "cyd", "dan", "eve", "fay")]
    ann, bob, cyd, dan, eve, _ = rows
    scores = [
        score(ann, 20.0),
        score(ann, 500.0, target="request"),
        score(ann, 0.9, evaluator="toxicity"),
        score(bob, None, unscored_reason="empty"),
        score(cyd, float("nan")),
        score(dan, 10.0),
        score(dan, 30.0, scored_at=START + timedelta(hours=1)),
        score(eve, -1.0),
    ]
    found = _metric("score:perplexity", rows, scores)
    assert found.cells[0, "champion"].units == 2
    assert found.cells[0, "champion"].total == pytest.approx(math.log(20) + math.log(30))
    assert found.excluded == {"champion": {"unscored: empty": 1, "not_finite": 2, "not_scored_yet": 1}}


def test_toxicity_is_on_the_plain_scale_and_zero_is_a_value() -> None:
    rows = [payload("ann", "challenger"), payload("bob", "challenger")]
    scores = [score(rows[0], 0.0, "toxicity"), score(rows[1], 0.25, "toxicity")]
    found = _metric("score:toxicity", rows, scores).cells[0, "challenger"]
    assert (found.units, found.total, found.total_squared) == (2, 0.25, 0.0625)


def test_no_records_measure_nothing() -> None:
    found = _measure([])
    assert found.exposures == {}
    assert all(metric.cells == {} for metric in found.metrics)


def test_missing_phases_count_as_the_first() -> None:
    assert _measure([payload("ann", "champion", phase=None)]).exposures == {0: {"champion": 1}}


def test_moments_against_numpy_on_random_traffic() -> None:
    rng = np.random.default_rng(7)
    rows = [
        payload(f"user-{user}", "champion" if user % 2 else "challenger", output_tokens=int(tokens))
        for user, tokens in zip(rng.integers(0, 60, 500), rng.poisson(40, 500), strict=True)
    ]
    found = _metric("output_tokens", rows).cells[0, "champion"]
    by_user: dict[str, list[int]] = {}
    for row in rows:
        if row["variant"] == "champion":
            by_user.setdefault(row["unit"], []).append(row["output_tokens"])
    n = np.array([len(tokens) for tokens in by_user.values()], dtype=float)
    s = np.array([sum(tokens) for tokens in by_user.values()], dtype=float)
    assert found == Moments(len(n), n.sum(), s.sum(), n @ n, n @ s, s @ s)


def test_periods_are_days_of_first_exposure_and_add_up() -> None:
    next_day = START + timedelta(days=1)
    rows = [
        payload("ann", "champion", request_time=START, output_tokens=1),
        payload("ann", "champion", request_time=next_day, output_tokens=2),
        payload("bob", "champion", request_time=next_day, output_tokens=4),
        payload("bob", "challenger", request_time=START - timedelta(seconds=1), output_tokens=8, phase=1),
    ]
    found = _metric("output_tokens", rows)
    assert found.periods == {
        (START - timedelta(days=1)).date(): {
            (0, "champion"): Moments(1, 1, 4, 1, 4, 16),
            (1, "challenger"): Moments(1, 1, 8, 1, 8, 64),
        },
        START.date(): {(0, "champion"): Moments(1, 2, 3, 4, 6, 9)},
    }
    assert found.cells[0, "champion"] == Moments(2, 3, 7, 5, 10, 25)
    by_request = experiment(primary_metric="output_tokens", secondary_metrics=(), unit="request")
    periods = _measure(rows, definition=by_request).metrics[0].periods
    assert periods[next_day.date()] == {(0, "champion"): Moments(2, 2, 6, 2, 6, 20)}


def test_propensities_are_the_mean_of_what_was_logged() -> None:
    rows = [
        payload("ann", "champion", propensity=0.2),
        payload("bob", "champion", propensity=0.4),
        payload("cyd", "champion", propensity=None),
        payload("dan", "challenger", propensity=None),
    ]
    assert _measure(rows).propensities == {0: {"champion": pytest.approx(0.3)}}


def test_slices_of_a_large_table_are_joined_with_all_scores_of_their_records() -> None:
    rng = np.random.default_rng(9)
    rows = [payload(f"user-{n}", "champion", request_time=START + timedelta(seconds=n)) for n in range(400)]
    values = rng.normal(size=400)
    scores = [score(row, float(value), "toxicity") for row, value in zip(rows, values, strict=True)]
    scores += [score(row, 1.0, "toxicity", scored_at=START - timedelta(days=1)) for row in rows[::7]]
    nearly_sorted = sorted(
        scores, key=lambda row: row["request_time"] + timedelta(seconds=int(rng.integers(0, 9)))
    )
    reading = reading_for(experiment(primary_metric="score:toxicity", secondary_metrics=()))
    records = exposures(payload_frame(rows), reading).collect()
    for order in (nearly_sorted, rng.permutation(np.array(scores, dtype=object)).tolist()):
        read = score_rows(score_frame(order), reading).collect()
        outcomes = Outcomes(read, pl.DataFrame()).with_targets(reading)
        found = with_outcomes(records, outcomes, reading, slice_rows=16)
        assert found["value:score:toxicity"].to_list() == values.tolist()
