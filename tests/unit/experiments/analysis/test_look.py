"""Rules that hold for a whole look: several questions, what was agreed on before, committed horizons, quantiles, bandits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from experiments.analysis.memory import TransientMemory, memory_from_dict
from experiments.experiment import Experiment, Variant
from experiments.guardrail import Guardrail
from experiments.report import Comparison, MetricResult, Report
from experiments.statistics.sequential import tuning
from tests.unit.experiments.analysis.looks import NOW, report_of
from tests.unit.experiments.records import START, experiment, payload

RNG = np.random.default_rng(23)


def _rows(
    units: int,
    *,
    slower: float = 1.0,
    records: int = 1,
    failing: Callable[[str, int], bool] = lambda variant, unit: False,
    **more: Any,
) -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)
    rows = []
    for unit in range(units):
        variant = "challenger" if unit % 2 else "champion"
        own = rng.normal(5.0, 0.3)
        for _ in range(records):
            duration = float(np.exp(rng.normal(own, 0.4))) * (slower if variant == "challenger" else 1.0)
            failed = failing(variant, unit)
            rows.append(
                payload(
                    f"user-{unit}",
                    variant,
                    execution_duration_ms=max(round(duration), 1),
                    status_code=500 if failed else 200,
                    error_type="upstream_status" if failed else None,
                    **more,
                )
            )
    return rows


def _metric(report: Report, name: str) -> MetricResult:
    return next(metric for metric in report.metrics if metric.name == name)


def _first(report: Report, name: str) -> Comparison:
    return _metric(report, name).comparisons[0]


def test_rates_with_one_record_a_unit_are_decided_exactly() -> None:
    definition = experiment(primary_metric="error_rate", secondary_metrics=(), planned_units=2000)
    rows = _rows(2000, failing=lambda variant, unit: unit % (12 if variant == "challenger" else 60) in (1, 0))
    found = _first(report_of(definition, rows), "error_rate")
    assert found.always_valid.method == "exact e-process"
    assert found.verdict == "worse"
    assert found.failure_ratio is not None
    assert found.failure_ratio.low is not None
    assert found.failure_ratio.low > 1
    assert found.failure_ratio.fixed_low is not None
    assert found.failure_ratio.fixed_low > found.failure_ratio.low, "looking always costs width"
    assert found.failure_ratio.fixed_p_value is not None
    assert found.failure_ratio.fixed_p_value < 0.001
    clustered = _first(
        report_of(definition, _rows(600, records=3, failing=lambda v, u: u % 30 == 0)), "error_rate"
    )
    assert clustered.always_valid.method == "normal mixture"
    assert clustered.failure_ratio is None


def test_co_primaries_share_the_error_probability_by_holm() -> None:
    rows = _rows(400, slower=1.35, records=2)
    alone = report_of(experiment(secondary_metrics=()), rows)
    shared = report_of(
        experiment(secondary_metrics=(), co_primary_metrics=("success_rate", "output_tokens")), rows
    )
    one, three = _first(alone, "latency_ms"), _first(shared, "latency_ms")
    assert (alone.alpha, shared.alpha) == (0.05, pytest.approx(0.05 / 3))
    assert one.adjusted_p == pytest.approx(one.always_valid.running_p)
    assert _metric(shared, "output_tokens").role == "primary"
    assert three.always_valid.running_p is not None
    assert three.adjusted_p == pytest.approx(min(3 * three.always_valid.running_p, 1.0)), (
        "those that cannot be judged yet are counted as well"
    )
    assert three.verdict == "worse"


def test_secondary_metrics_are_explored_by_their_e_values() -> None:
    rows = _rows(600, slower=1.3)
    report = report_of(
        experiment(
            primary_metric="success_rate",
            secondary_metrics=("latency_ms", "latency_ms:over:150", "latency_ms:over:100000"),
        ),
        rows,
    )
    latency, slow = _first(report, "latency_ms"), _first(report, "latency_ms:over:150")
    assert (latency.verdict, slow.verdict) == ("worse", "worse")
    assert latency.fixed_q is not None
    assert latency.fixed_q < 0.05
    assert latency.adjusted_p is not None
    assert latency.always_valid.p_value is not None
    assert latency.adjusted_p >= latency.always_valid.p_value
    assert _first(report, "latency_ms:over:100000").verdict == "inconclusive"


@pytest.mark.parametrize(
    ("agreed", "words"),
    [
        ({"minimum_duration_s": 7 * 86_400.0}, "it has run for 3 days of at least 7 days"),
        ({"minimum_events": 1000}, "champion has 400 of at least 1,000 records"),
    ],
)
def test_before_what_was_agreed_on_there_is_no_verdict(agreed: dict[str, Any], words: str) -> None:
    rows = _rows(400, slower=2.0, records=2)
    waiting = _first(report_of(experiment(**agreed), rows), "latency_ms")
    assert (waiting.verdict, waiting.reason) == ("inconclusive", words)
    assert _first(report_of(experiment(), rows), "latency_ms").verdict == "worse"


def test_a_committed_horizon_decides_at_its_looks_only_and_keeps_them() -> None:
    definition = experiment(committed_looks=4, planned_units=800, secondary_metrics=())
    memory = TransientMemory()
    rows = _rows(800, slower=1.25)
    early = _first(report_of(definition, rows[:100], memory), "latency_ms")
    assert early.committed is not None
    assert (early.committed.looks, early.verdict) == ((), "inconclusive")
    first = _first(report_of(definition, rows[:220], memory), "latency_ms").committed
    again = _first(report_of(definition, rows[:230], memory), "latency_ms").committed
    assert first is not None
    assert again is not None
    assert [look.look for look in first.looks] == [1]
    assert again.looks == first.looks, "between two looks nothing is added"
    last = _first(report_of(definition, rows, memory), "latency_ms")
    assert last.committed is not None
    assert [look.look for look in last.committed.looks] == [1, 4], "looks that nobody took are not made up"
    assert last.committed.crossed
    assert last.verdict == "worse"
    assert last.committed.looks[0].boundary is not None
    assert last.committed.looks[1].boundary is not None
    assert last.committed.looks[0].boundary > last.committed.looks[1].boundary > 1.959


def test_quantiles_are_compared_by_ranks() -> None:
    definition = experiment(
        primary_metric="latency_ms:p90", secondary_metrics=(), unit="request", planned_units=4000
    )
    slower, same = (
        _first(report_of(definition, _rows(4000, slower=factor)), "latency_ms:p90") for factor in (1.5, 1.0)
    )
    assert (slower.verdict, same.verdict) == ("worse", "inconclusive")
    assert slower.always_valid.method == "exact ranks"
    assert math.isnan(slower.always_valid.p_value or 0.0), "an interval that excludes zero is all there is"
    assert slower.relative_lift.low is not None
    assert slower.relative_lift.high is not None
    assert slower.relative_lift.low < 0.5 < slower.relative_lift.high
    assert same.always_valid.low is not None
    assert same.always_valid.high is not None
    assert same.always_valid.low < 0 < same.always_valid.high
    assert same.fixed.low is not None
    assert same.always_valid.low < same.fixed.low, "looking always costs width"
    assert slower.ranks is not None
    assert slower.ranks.low is not None
    assert slower.ranks.low > 0.5
    assert slower.ranks.p_value is not None
    assert slower.ranks.p_value < 0.001


def test_clustered_quantiles_are_wider() -> None:
    definition = experiment(primary_metric="latency_ms:p90", secondary_metrics=(), planned_units=1000)
    clustered = _first(report_of(definition, _rows(1000, records=4)), "latency_ms:p90")
    independent = _first(
        report_of(replace(definition, unit="request"), _rows(1000, records=4)), "latency_ms:p90"
    )
    assert clustered.always_valid.method == "clustered ranks"
    assert clustered.ranks is None, "ranks of a user's answers are not independent"

    def width(found: Comparison) -> float:
        assert found.fixed.low is not None
        assert found.fixed.high is not None
        return found.fixed.high - found.fixed.low

    assert width(clustered) > 1.1 * width(independent)


def test_a_quantile_guardrail_alarms_and_clears() -> None:
    guardrail = Guardrail("latency_ms:p90", margin=0.2)
    definition = experiment(unit="request", guardrails=(guardrail,), planned_units=6000)
    slow = report_of(definition, _rows(6000, slower=1.5)).guardrails[0]
    same = report_of(definition, _rows(6000)).guardrails[0]
    assert (slow.state, same.state) == ("breached", "cleared")
    assert slow.running_log_e == pytest.approx(slow.threshold)
    assert "breaks the guardrail on p90 latency" in report_of(definition, _rows(6000, slower=1.5)).verdict


def _bandit(weights: tuple[float, float, float] = (34, 33, 33)) -> Experiment:
    return experiment(
        kind="bandit",
        unit="request",
        control=Variant("champion", "smol", weights[0]),
        treatments=(Variant("warm", "smol-warm", weights[1]), Variant("hot", "smol-hot", weights[2])),
        primary_metric="success_rate",
        secondary_metrics=(),
        planned_units=3000,
    )


def _bandit_rows(definition: Experiment, count: int, rates: dict[str, float]) -> list[dict[str, Any]]:
    rng = np.random.default_rng(count + definition.phase)
    names = [variant.name for variant in definition.variants]
    chances = [variant.weight / 100 for variant in definition.variants]
    rows = []
    for name in rng.choice(names, size=count, p=chances):
        failed = bool(rng.random() > rates[str(name)])
        rows.append(
            payload(
                None,
                str(name),
                phase=definition.phase,
                propensity=chances[names.index(str(name))],
                status_code=500 if failed else 200,
                error_type="upstream_status" if failed else None,
            )
        )
    return rows


def test_a_bandit_moves_to_what_is_better_and_is_judged_by_logged_propensities() -> None:
    rates = {"champion": 0.6, "warm": 0.8, "hot": 0.6}
    first = _bandit()
    rows = _bandit_rows(first, 600, rates)
    report = report_of(first, rows)
    allocation = {each.variant: each for each in report.allocation}
    assert sum(each.next_weight for each in report.allocation) == pytest.approx(100)
    assert min(each.next_weight for each in report.allocation) >= 5 - 1e-9
    assert allocation["warm"].next_weight > 45
    assert allocation["warm"].probability_best is not None
    assert allocation["warm"].probability_best > 0.9
    second = first.with_weights({each.variant: each.next_weight for each in report.allocation})
    rows += _bandit_rows(second, 2000, rates)
    later = report_of(second, rows)
    warm, hot = _metric(later, "success_rate").comparisons
    assert warm.always_valid.method == "normal mixture of weighted scores"
    assert (warm.verdict, hot.verdict) == ("better", "inconclusive")
    assert warm.difference == pytest.approx(0.2, abs=0.06)


def test_a_bandit_with_a_handful_of_failures_goes_by_their_counts() -> None:
    """No variant has a standard error yet that would mean anything: one has never failed."""
    definition = _bandit()
    rows = _bandit_rows(definition, 90, {"champion": 0.9, "warm": 1.0, "hot": 0.5})
    allocation = {each.variant: each for each in report_of(definition, rows).allocation}
    assert allocation["warm"].probability_best is not None
    assert allocation["warm"].probability_best > 0.85
    assert allocation["hot"].next_weight < allocation["champion"].next_weight < allocation["warm"].next_weight


def test_a_bandit_without_data_shares_evenly() -> None:
    report = report_of(_bandit(), [])
    assert [each.next_weight for each in report.allocation] == pytest.approx([100 / 3] * 3)
    assert [each["probability_best"] for each in report.to_dict()["allocation"]] == [None] * 3
    assert json.dumps(report.to_dict(), allow_nan=False)


def test_the_report_says_what_it_rests_on_and_what_would_change_it() -> None:
    report = report_of(experiment(), _rows(300, slower=1.03))
    assert report.rests_on == (
        "300 users in 3 days (150 with champion, 150 with challenger); at most 5 % wrong verdicts over any number of "
        "looks (always valid)."
    )
    assert report.would_change.startswith(
        "challenger on typical latency: if the difference stays as it is, about "
    )
    decided = report_of(experiment(), _rows(300, slower=3))
    assert "it stands" in decided.would_change
    ended = report_of(experiment(), _rows(300), state="stopped", until=NOW)
    assert ended.would_change == "Nothing: it has ended."


def test_the_memory_of_a_look_survives_json() -> None:
    memory = TransientMemory(now=lambda: NOW)
    definition = experiment(
        committed_looks=2,
        guardrails=(Guardrail("error_rate", 0.01),),
        co_primary_metrics=("success_rate",),
        secondary_metrics=(),
    )
    report = report_of(definition, _rows(400, slower=1.4), memory)
    again = memory_from_dict(json.loads(json.dumps(report.to_dict()["basis"]["memory"])))
    assert again.kappas == memory.kappas
    assert again.running == memory.running
    assert again.seen == memory.seen
    assert report.basis.definition == definition.to_dict()


@pytest.mark.parametrize("values", [[math.inf] * 6, [5] * 6, [1]])
def test_odd_values_are_inconclusive_with_a_reason(values: list[float]) -> None:
    rows = [
        payload(
            f"user-{n}", "challenger" if n % 2 else "champion", time_to_first_token_ms=value, is_stream=True
        )
        for n, value in enumerate(values * 2)
    ]
    definition = experiment(primary_metric="time_to_first_token_ms", secondary_metrics=())
    found = _first(report_of(definition, rows), "time_to_first_token_ms")
    assert found.verdict == "inconclusive"
    assert found.reason
    assert found.always_valid.p_value is None


def test_records_before_the_start_of_the_clock_do_not_make_time_negative() -> None:
    report = report_of(experiment(minimum_duration_s=60.0), _rows(50), as_of=START - timedelta(seconds=5))
    assert _first(report, "latency_ms").reason.startswith("it has run for 0 seconds")


def test_a_unit_that_comes_back_in_another_phase_is_no_independent_draw() -> None:
    """Whoever always fails would otherwise be counted as evidence in each phase anew."""
    definition = experiment(primary_metric="error_rate", secondary_metrics=(), planned_units=2000)
    first = _rows(600, failing=lambda variant, unit: unit % 10 == 1 and variant == "challenger")
    back = [
        {**row, "phase": 1, "databricks_request_id": f"{row['databricks_request_id']}-1"} for row in first
    ]
    others = [{**row, "unit": f"other-{row['unit']}"} for row in back]
    methods = [
        _first(report_of(definition, rows), "error_rate").always_valid.method
        for rows in (first, first + back, first + others)
    ]
    assert methods == ["exact e-process", "normal mixture", "exact e-process"]


def test_a_share_that_grows_within_a_phase_changes_no_evidence() -> None:
    """The logged probabilities of both variants grow alike, but one variant may by chance have more of the later units."""
    definition = experiment(primary_metric="error_rate", secondary_metrics=(), planned_units=2000)
    rows = _rows(1000, failing=lambda variant, unit: unit % 8 in (0, 1))
    grown = [
        {**row, "propensity": 0.05 if unit < (300 if row["variant"] == "champion" else 500) else 0.5}
        for unit, row in enumerate(rows)
    ]
    weights = {0: {"champion": 50.0, "challenger": 50.0}}
    steady, growing = (
        _first(report_of(definition, each, TransientMemory(phase_weights=weights)), "error_rate")
        for each in (rows, grown)
    )
    assert growing.always_valid.method == "exact e-process"
    assert growing.always_valid == steady.always_valid
    assert growing.failure_ratio == steady.failure_ratio


@pytest.mark.parametrize("others", [(), ("success_rate",), ("success_rate", "output_tokens", "error_rate")])
def test_a_secondary_quantile_is_decided_when_its_bounds_exclude_zero(others: tuple[str, ...]) -> None:
    """Its level is a share of alpha, and the shares of all add up to alpha but for rounding."""
    definition = experiment(
        primary_metric="output_tokens" if "output_tokens" not in others else "input_tokens",
        secondary_metrics=("latency_ms:p90", *others),
        unit="request",
        planned_units=4000,
    )
    found = _first(report_of(definition, _rows(4000, slower=1.8)), "latency_ms:p90")
    assert found.always_valid.low is not None
    assert found.always_valid.low > 0
    assert found.verdict == "worse"


def test_a_quantile_is_decided_at_any_look_of_a_committed_horizon() -> None:
    definition = experiment(
        primary_metric="latency_ms:p90",
        secondary_metrics=(),
        unit="request",
        planned_units=40_000,
        committed_looks=4,
    )
    slower, same = (
        _first(report_of(definition, _rows(4000, slower=factor)), "latency_ms:p90") for factor in (2.0, 1.0)
    )
    assert (slower.verdict, slower.committed) == ("worse", None)
    assert same.outlook == "how much more traffic decides it cannot be said yet"


def test_after_the_last_planned_look_nobody_waits_for_another() -> None:
    definition = experiment(committed_looks=2, planned_units=400, secondary_metrics=())
    found = _first(report_of(definition, _rows(400)), "latency_ms")
    assert found.verdict == "inconclusive"
    assert found.outlook == "all planned looks have been taken, so more traffic changes nothing"


def test_the_boundary_of_a_bandit_does_not_follow_its_weights() -> None:
    rates = {"champion": 0.6, "warm": 0.7, "hot": 0.6}
    first = _bandit()
    rows = _bandit_rows(first, 900, rates)
    moved = first.with_weights({"champion": 10.0, "warm": 80.0, "hot": 10.0})
    before, after = (
        _metric(report_of(definition, rows), "success_rate").comparisons[0].always_valid.r
        for definition in (first, moved)
    )
    assert before == after == pytest.approx(tuning(0.05 / 2) * 900 / 3000)


def test_what_an_untrusted_split_shows_is_not_the_smallest_p_value_so_far() -> None:
    skewed = _rows(600, slower=3.0) + [
        payload(f"extra-{n}", "challenger", execution_duration_ms=900) for n in range(400)
    ]
    found = _first(report_of(experiment(), skewed), "latency_ms")
    assert "cannot be trusted" in found.reason
    assert found.always_valid.p_value is not None
    assert found.always_valid.running_p is None
