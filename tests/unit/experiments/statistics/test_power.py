"""Against statsmodels' power calculations, and simulation where it has none."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from statsmodels.stats.power import NormalIndPower, tt_ind_solve_power
from statsmodels.stats.proportion import samplesize_proportions_2indep_onetail

from experiments.metrics import metric_for
from experiments.statistics import power
from experiments.statistics.group_sequential import GroupSequentialDesign, pocock_spending
from experiments.statistics.power import (
    Baseline,
    Looks,
    Split,
    always_valid_looks,
    baseline,
    detectable_effect,
    group_sequential_looks,
    guardrail_plan,
    one_look,
    plan,
    units_in,
)
from experiments.statistics.sequential import critical_value, tuning
from experiments.statistics.statistic import Moments
from servelens.errors import Invalid
from tests.unit.experiments.statistics.test_statistic import moments

EVEN, CANARY, THIRDS = Split(50, 50), Split(95, 5), Split(100 / 3, 100 / 3)
TOKENS = Baseline(metric_for("output_tokens"), 200.0, 90.0**2, 1_000.0)
LATENCY = Baseline(metric_for("latency_ms"), math.log(800.0), 0.49, 1_000.0)
ERRORS = Baseline(metric_for("error_rate"), 0.04, 0.04 * 0.96, 1_000.0)
SUCCESSES = Baseline(metric_for("success_rate"), 0.96, 0.04 * 0.96, 1_000.0)


@pytest.mark.parametrize("power", [0.8, 0.95])
@pytest.mark.parametrize("split", [EVEN, CANARY])
def test_means_at_a_fixed_horizon_need_what_statsmodels_says(split: Split, power: float) -> None:
    found = plan(TOKENS, split, 0.05, one_look(0.05), power)
    ratio = split.control / split.treatment
    normal = NormalIndPower().solve_power(10.0 / 90.0, None, 0.05, power, ratio)
    assert found.units == math.ceil(normal * (1 + ratio))
    student = tt_ind_solve_power(10.0 / 90.0, None, 0.05, power, ratio)
    assert found.units == pytest.approx(student * (1 + ratio), rel=0.004)
    assert found.power == pytest.approx(power, abs=1e-3)
    assert found.expected_units == pytest.approx(found.units)


@pytest.mark.parametrize("effect", [0.25, -0.25, 1.5])
@pytest.mark.parametrize("split", [EVEN, CANARY])
def test_rates_at_a_fixed_horizon_need_what_statsmodels_says(split: Split, effect: float) -> None:
    ratio = split.control / split.treatment
    treatment = samplesize_proportions_2indep_onetail(0.04 * effect, 0.04, 0.9, ratio, 0.05)
    found = plan(ERRORS, split, effect, one_look(0.05), 0.9)
    assert found.units == pytest.approx(treatment * (1 + ratio), rel=1e-4, abs=1)


def test_a_change_on_the_log_scale_is_the_logarithm_of_the_ratio() -> None:
    normal = NormalIndPower().solve_power(math.log(0.9) / 0.7, None, 0.05, 0.8)
    assert plan(LATENCY, EVEN, -0.1, one_look(0.05)).units == math.ceil(2 * normal)


def test_a_small_canary_pays_for_being_small() -> None:
    even, canary = (plan(TOKENS, split, 0.05, one_look(0.05)).units for split in (EVEN, CANARY))
    assert canary / even == pytest.approx(0.25 / (0.05 * 0.95), rel=1e-3)


def test_days_count_the_share_and_units_all_treatments() -> None:
    whole = plan(TOKENS, THIRDS, 0.05, one_look(0.05))
    pair = plan(TOKENS, EVEN, 0.05, one_look(0.05))
    assert whole.units == pytest.approx(1.5 * pair.units, abs=2)
    assert whole.control_units == pair.control_units
    tenth = plan(TOKENS, Split(50, 50, share=10), 0.05, one_look(0.05))
    assert tenth.units == pair.units
    assert tenth.days == pytest.approx(pair.units / 100)
    assert units_in(7.0, TOKENS, Split(50, 50, share=10)) == 700


def test_clustered_traffic_needs_more_units_by_its_design_effect() -> None:
    """Users of eight calls who fail always or never say no more than one call each."""
    rng = np.random.default_rng(1)
    fails = (rng.random(5_000) < 0.04).astype(float)
    once = baseline(metric_for("error_rate"), moments(np.ones(5_000), fails), 5.0)
    clustered = baseline(metric_for("error_rate"), moments(np.full(5_000, 8), 8 * fails), 5.0)
    assert (once.units_per_day, clustered.units_per_day) == (1_000.0, 1_000.0)
    assert once.mean == pytest.approx(fails.mean())
    units = [plan(found, EVEN, 0.3, one_look(0.05)).units for found in (once, clustered)]
    assert units[0] == pytest.approx(units[1], abs=1)
    mixed = baseline(metric_for("error_rate"), moments(rng.integers(1, 16, 5_000), fails), 5.0)
    sizes = plan(mixed, EVEN, 0.3, one_look(0.05)).units, mixed.variance / (mixed.mean * (1 - mixed.mean))
    independent = Baseline(mixed.metric, mixed.mean, mixed.mean * (1 - mixed.mean), 1.0)
    assert sizes[0] == pytest.approx(sizes[1] * plan(independent, EVEN, 0.3, one_look(0.05)).units, abs=3)


def paths(rng: np.random.Generator, drift: float, looks: int, count: int) -> np.ndarray:
    """z at evenly spaced looks."""
    t = np.arange(1, looks + 1) / looks
    steps = rng.normal(drift / looks, math.sqrt(1 / looks), (count, looks))
    return np.asarray(np.cumsum(steps, axis=1) / np.sqrt(t))


@pytest.mark.parametrize("split", [EVEN, CANARY])
def test_always_valid_power_and_stopping_against_simulation(split: Split) -> None:
    found = plan(TOKENS, split, 0.05, always_valid_looks(split, 0.05), 0.8)
    variance = 90.0**2 * (100 / split.control + 100 / split.treatment)
    z = paths(np.random.default_rng(2), 10.0 / math.sqrt(variance / found.units), 30, 40_000)
    t = np.arange(1, 31) / 30
    r = tuning(0.05) * 4 * split.control * split.treatment / 1e4 * t
    crossed = np.abs(z) >= critical_value(r, 0.05)
    assert crossed.any(axis=1).mean() == pytest.approx(0.8, abs=4 * 0.4 / 200)
    ends = np.where(crossed.any(axis=1), t[crossed.argmax(axis=1)], 1.0) * found.units
    assert found.expected_units == pytest.approx(ends.mean(), rel=0.01)
    assert found.median_units == pytest.approx(np.median(ends), rel=0.04)


def test_looking_more_often_than_planned_only_helps() -> None:
    found = plan(TOKENS, EVEN, 0.05, always_valid_looks(EVEN, 0.05), 0.8)
    z = paths(np.random.default_rng(3), 10.0 / math.sqrt(4 * 90.0**2 / found.units), 600, 4_000)
    r = tuning(0.05) * np.arange(1, 601) / 600
    assert (np.abs(z) >= critical_value(r, 0.05)).any(axis=1).mean() > 0.8
    once = plan(TOKENS, EVEN, 0.05, always_valid_looks(EVEN, 0.05, count=1), 0.8)
    assert plan(TOKENS, EVEN, 0.05, one_look(0.05), 0.8).units < found.units < once.units


@pytest.mark.parametrize("effect", [0.5, -0.5])
def test_always_valid_power_for_rates_against_simulated_traffic(effect: float) -> None:
    """Counts with the null-pooled error that the analysis uses, not the normal theory of the plan."""
    found = plan(ERRORS, EVEN, effect, always_valid_looks(EVEN, 0.05, count=20), 0.8)
    rng, per_look = np.random.default_rng(4), found.units / 40
    n = np.round(per_look * np.arange(1, 21)).astype(int)
    new = np.diff(n, prepend=0)
    control = np.cumsum(rng.binomial(new, 0.04, (8_000, 20)), axis=1)
    treatment = np.cumsum(rng.binomial(new, 0.04 * (1 + effect), (8_000, 20)), axis=1)
    pooled = (control + treatment) / (2 * n)
    z = (treatment - control) / n / np.sqrt(np.maximum(pooled * (1 - pooled), 1e-9) * 2 / n)
    crossed = np.abs(z) >= critical_value(tuning(0.05) * np.arange(1, 21) / 20, 0.05)
    assert crossed.any(axis=1).mean() == pytest.approx(0.8, abs=0.02)


def test_a_group_sequential_plan_is_the_fixed_one_inflated() -> None:
    fractions, design = [0.25, 0.5, 0.75, 1.0], GroupSequentialDesign(0.05, pocock_spending)
    fixed = plan(TOKENS, EVEN, 0.02, one_look(0.05), 0.9)
    found = plan(TOKENS, EVEN, 0.02, group_sequential_looks(design, fractions), 0.9)
    assert found.units / fixed.units == pytest.approx(design.inflation(0.9, fractions), rel=1e-4)
    assert found.expected_units < fixed.units
    drift = 0.02 * 200.0 / math.sqrt(4 * 90.0**2 / found.units)
    assert found.expected_units == pytest.approx(found.units * design.expected_fraction(drift, fractions))


@pytest.mark.parametrize("start", [TOKENS, LATENCY, ERRORS, SUCCESSES])
@pytest.mark.parametrize("effect", [0.02, -0.03])
def test_the_detectable_effect_is_the_inverse_of_the_plan(start: Baseline, effect: float) -> None:
    for looks in (one_look(0.05), always_valid_looks(CANARY, 0.05, count=5)):
        units = plan(start, CANARY, effect, looks, 0.85).units
        found = detectable_effect(start, CANARY, units, looks, 0.85, increase=effect > 0)
        assert found == pytest.approx(effect, rel=1e-3)


def test_with_too_few_units_no_change_of_a_rate_would_be_found() -> None:
    assert math.isnan(detectable_effect(ERRORS, EVEN, 40, one_look(0.05), increase=False))
    assert detectable_effect(ERRORS, EVEN, 40, one_look(0.05)) > 5.0
    assert math.isinf(detectable_effect(LATENCY, EVEN, 1e-6, one_look(0.05)))


@pytest.mark.parametrize("start", [LATENCY, ERRORS, SUCCESSES])
def test_a_guardrail_rules_harm_out_as_often_as_planned(start: Baseline) -> None:
    """A one-sided z-test against the margin, as statsmodels has it."""
    found = guardrail_plan(start, CANARY, 0.01, one_look(0.05, sides=1), 0.9)
    higher = start.metric.better == "higher"
    margin = math.log1p(0.01) if start is LATENCY else 0.01 * start.mean
    assert found.difference == pytest.approx(-margin if higher else margin)
    per_arm = NormalIndPower().solve_power(
        margin / math.sqrt(start.variance), None, 0.05, 0.9, 19.0, alternative="larger"
    )
    assert found.units == pytest.approx(20 * per_arm, rel=1e-5, abs=1)


def test_a_guardrail_under_continuous_looks_against_simulation() -> None:
    looks = always_valid_looks(EVEN, 0.05)
    found = guardrail_plan(TOKENS, EVEN, 0.05, looks, 0.8)
    z = paths(np.random.default_rng(5), 0.0, 30, 40_000)
    se = np.sqrt(4 * 90.0**2 / (found.units * np.array(looks.fractions)))
    below = z * se + se * np.array(looks.critical) < 10.0
    assert below.any(axis=1).mean() == pytest.approx(0.8, abs=4 * 0.4 / 200)
    assert found.units > guardrail_plan(TOKENS, EVEN, 0.05, one_look(0.05, sides=1), 0.8).units


def test_a_gross_effect_still_needs_enough_units_to_be_analysed() -> None:
    found = plan(LATENCY, CANARY, 1e6, one_look(0.05))
    assert (found.units, found.treatment_units) == (100, 5)
    assert found.power == 1.0
    assert found.median_units == 100


def test_a_plan_that_stops_in_less_than_half_of_the_cases_has_no_median() -> None:
    assert math.isnan(plan(TOKENS, EVEN, 0.05, one_look(0.05), 0.4).median_units)


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("units_per_day", lambda: Baseline(TOKENS.metric, 1.0, 1.0, 0.0)),
        ("mean", lambda: Baseline(TOKENS.metric, 0.0, 1.0, 1.0)),
        ("mean", lambda: Baseline(ERRORS.metric, 1.0, 0.1, 1.0)),
        ("mean", lambda: Baseline(LATENCY.metric, math.nan, 0.1, 1.0)),
        ("variance", lambda: Baseline(TOKENS.metric, 1.0, 0.0, 1.0)),
        ("variance", lambda: Baseline(TOKENS.metric, 1.0, math.inf, 1.0)),
        ("units", lambda: baseline(TOKENS.metric, Moments(), 1.0)),
        ("days", lambda: baseline(TOKENS.metric, Moments(2, 2, 2, 2, 2, 3), 0.0)),
        ("control", lambda: Split(0, 100)),
        ("treatment", lambda: Split(60, 50)),
        ("share", lambda: Split(50, 50, share=math.nan)),
        ("alpha", lambda: one_look(0.0)),
        ("alpha", lambda: always_valid_looks(EVEN, 1.0)),
        ("looks", lambda: always_valid_looks(EVEN, 0.05, count=0)),
        ("looks", lambda: plan(TOKENS, EVEN, 0.1, Looks((), ()))),
        ("information_fractions", lambda: group_sequential_looks(GroupSequentialDesign(), [0.5])),
        ("information_fractions", lambda: group_sequential_looks(GroupSequentialDesign(), [])),
        ("effect", lambda: plan(TOKENS, EVEN, 0.0, one_look(0.05))),
        ("effect", lambda: plan(SUCCESSES, EVEN, 0.05, one_look(0.05))),
        ("effect", lambda: plan(LATENCY, EVEN, -1.0, one_look(0.05))),
        ("effect", lambda: plan(LATENCY, EVEN, math.nan, one_look(0.05))),
        ("power", lambda: plan(TOKENS, EVEN, 0.1, one_look(0.05), 0.04)),
        ("power", lambda: plan(TOKENS, EVEN, 0.1, one_look(0.05), 1.0)),
        ("margin", lambda: guardrail_plan(TOKENS, EVEN, 0.0, one_look(0.05))),
        ("margin", lambda: guardrail_plan(SUCCESSES, EVEN, 1.0, one_look(0.05))),
        (
            "metric",
            lambda: guardrail_plan(
                Baseline(metric_for("score:tone"), 1.0, 1.0, 1.0), EVEN, 0.1, one_look(0.05)
            ),
        ),
        ("units", lambda: detectable_effect(TOKENS, EVEN, 0.0, one_look(0.05))),
        ("days", lambda: units_in(0.0, TOKENS, EVEN)),
    ],
)
def test_what_cannot_be_planned_is_refused_by_its_name(field: str, call: object) -> None:
    assert callable(call)
    with pytest.raises(Invalid) as raised:
        call()
    assert raised.value.field == field


def test_the_examples_in_the_documentation_are_right() -> None:
    assert doctest.testmod(power).failed == 0
