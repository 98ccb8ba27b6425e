"""Against confseq's published reference values, numerical integration and minimisation, and seeded simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.stats import halfnorm

from experiments.metrics import Metric, metric_for
from experiments.statistics import sequential
from experiments.statistics.effect import Effect, Spread, Stratum, effect
from experiments.statistics.one_sided import (
    critical_value,
    guardrail,
    log_e_value,
    one_sided,
    one_sided_r,
    tuning,
)
from experiments.statistics.statistic import Moments
from tests.unit.experiments.statistics.test_effect import binary
from tests.unit.experiments.statistics.test_statistic import moments


def confseq_rho(v: float, alpha: float) -> float:
    """confseq's ``OneSidedNormalMixture::best_rho``."""
    return v / (2 * math.log(1 / (2 * alpha)) + math.log(1 + 2 * math.log(1 / (2 * alpha))))


def test_the_values_of_confseqs_own_tests() -> None:
    """github.com/gostevehoward/confseq, uniform_boundaries_unittest.cpp, TestOneSidedNormalMixture: from a reference
    implementation in R, at intrinsic time 100.
    """
    r = 100 / confseq_rho(100, 0.05)
    assert float(log_e_value(10 / math.sqrt(100), r)) == pytest.approx(-0.06502391, abs=1e-8)
    assert critical_value(r, 0.05) * math.sqrt(100) == pytest.approx(27.66071, abs=1e-5)


@pytest.mark.parametrize("z", [-6.0, -1.0, 0.0, 2.0, 4.5])
@pytest.mark.parametrize("r", [0.05, 1.0, 8.2, 300.0])
def test_e_is_the_likelihood_ratio_averaged_over_positive_drifts(z: float, r: float) -> None:
    def weighted_ratio(delta: float) -> float:
        return math.exp(delta * z - delta**2 / 2) * float(halfnorm.pdf(delta, scale=math.sqrt(r)))

    mixture, _ = quad(weighted_ratio, 0, 60, points=[max(z, 0.1)], limit=400, epsabs=0.0)
    assert float(log_e_value(z, r)) == pytest.approx(math.log(mixture), abs=1e-7)


def test_far_below_nothing_cancels() -> None:
    """ln E → −½·ln(1+r) − ln(−x·√(π/2)) with x = z√(r/(1+r)): Mills' ratio."""
    z, r = -1e7, 8.0
    x = z * math.sqrt(r / (1 + r))
    expected = -0.5 * math.log1p(r) - math.log(-x * math.sqrt(math.pi / 2))
    assert float(log_e_value(z, r)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("r", [1e-3, 1.0, 8.2, 1e4])
def test_the_boundary_is_where_e_reaches_its_threshold_and_below_the_two_sided_one(
    r: float, alpha: float
) -> None:
    boundary = critical_value(r, alpha)
    assert float(log_e_value(boundary, r)) == pytest.approx(-math.log(alpha))
    assert float(sequential.critical_value(r, min(2 * alpha, 0.999))) <= boundary
    assert boundary < float(sequential.critical_value(r, alpha))


@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.05, 0.1])
def test_the_tuning_constant_minimises_the_boundary(alpha: float) -> None:
    best = minimize_scalar(lambda r: critical_value(r, alpha), bounds=(0.1, 100), method="bounded")
    assert tuning(alpha) == pytest.approx(best.x, rel=1e-3)
    assert tuning(alpha) == pytest.approx(100 / confseq_rho(100, alpha), rel=0.15)


def test_r_for_one_sided_use_is_best_at_the_same_planned_size() -> None:
    at_the_plan = sequential.planned_r(2_500 * 2_500 / 5_000, 5_000, 0.05)
    assert one_sided_r(at_the_plan, 0.05) == pytest.approx(tuning(0.05))


@pytest.mark.parametrize("degrees", [3.0, 12.0, 200.0, math.inf])
def test_e_value_p_value_and_bounds_say_the_same(degrees: float) -> None:
    for harm in np.linspace(-4, 4, 161):
        result = one_sided(float(harm), 0.25, 0.3, degrees, 2.0, 0.05)
        assert (result.log_e >= math.log(20)) == (result.low >= 0.25) == (result.p_value <= 0.05)
        mirrored = one_sided(-float(harm), -0.25, 0.3, degrees, 2.0, 0.05)
        assert (mirrored.log_e >= math.log(20)) == (result.high <= 0.25)


def test_more_degrees_of_freedom_are_more_evidence() -> None:
    found = [one_sided(1.0, 0.0, 0.25, degrees, 5.0, 0.05).log_e for degrees in (3.0, 10.0, 100.0, math.inf)]
    assert found == sorted(found)


def test_a_tolerated_harm_is_no_harm() -> None:
    assert one_sided(0.1, 0.1, 0.01, math.inf, 5.0, 0.05).log_e < 0
    assert one_sided(0.1, 0.0, 0.01, math.inf, 5.0, 0.05).log_e > math.log(20)


@pytest.mark.parametrize(
    ("harm", "tolerance", "se", "degrees", "r", "alpha"),
    [
        (1.0, 0.0, 0.0, 30.0, 5.0, 0.05),
        (1.0, 0.0, math.nan, 30.0, 5.0, 0.05),
        (1.0, 0.0, math.inf, 30.0, 5.0, 0.05),
        (math.nan, 0.0, 0.1, 30.0, 5.0, 0.05),
        (math.inf, 0.0, 0.1, 30.0, 5.0, 0.05),
        (1.0, math.nan, 0.1, 30.0, 5.0, 0.05),
        (1.0, 0.0, 0.1, math.nan, 5.0, 0.05),
        (1.0, 0.0, 0.1, 0.0, 5.0, 0.05),
        (1.0, 0.0, 0.1, 30.0, 0.0, 0.05),
        (1.0, 0.0, 0.1, 30.0, 5.0, 0.0),
    ],
)
def test_what_cannot_be_said_is_nan(
    harm: float, tolerance: float, se: float, degrees: float, r: float, alpha: float
) -> None:
    found = one_sided(harm, tolerance, se, degrees, r, alpha)
    assert all(math.isnan(value) for value in (found.log_e, found.p_value, found.low, found.high))


def test_certainty_is_infinite_and_not_an_error() -> None:
    assert one_sided(1e300, 0.0, 1e-300, math.inf, 8.0, 0.05).p_value == 0.0
    assert one_sided(-1e300, 0.0, 1e-300, math.inf, 8.0, 0.05).log_e == -math.inf


def test_no_boundary_yet_is_an_unbounded_interval() -> None:
    found = one_sided(1.0, 0.0, 1.0, 2.0, 1e-8, 0.05)
    assert (found.low, found.high) == (-math.inf, math.inf)


@pytest.mark.parametrize("drift", [0.0, -0.1])
def test_ville_holds_at_every_look(drift: float) -> None:
    """5,000 paths of a normal mean that is looked at 400 times, with no harm and with a benefit."""
    rng = np.random.default_rng(11)
    n = np.arange(1, 401)
    alarms = 0
    for _ in range(10):
        means = np.cumsum(rng.normal(drift, 1.0, (500, 400)), axis=1) / n
        alarms += int(np.sum(np.any(log_e_value(means * np.sqrt(n), 0.02 * n) >= math.log(20), axis=1)))
    assert alarms <= 0.05 * 5_000 + 2 * math.sqrt(0.05 * 0.95 * 5_000)
    assert alarms > 0 or drift < 0


def _effect(metric: Metric, control: Moments, treatment: Moments) -> Effect:
    found = effect(metric, [Stratum(control, treatment)])
    assert isinstance(found, Effect)
    return found


def test_a_guardrail_on_times_uses_the_standard_error_that_the_verdict_uses() -> None:
    rng = np.random.default_rng(2)
    latency = metric_for("latency_ms")
    found = _effect(
        latency, moments(np.ones(300), rng.normal(0, 1, 300)), moments(np.ones(90), rng.normal(0.4, 1, 90))
    )
    spread = found.sequential
    expected = one_sided(found.difference, 0.1, spread.se, spread.degrees, one_sided_r(3.0, 0.05), 0.05)
    assert guardrail(found, "lower", 0.1, 3.0, 0.05) == expected


def test_harm_is_a_difference_against_the_good_direction() -> None:
    found = _effect(metric_for("success_rate"), binary(9_500, 10_000), binary(440, 500))
    harmed, praised = (guardrail(found, better, 0.0, 3.0, 0.05) for better in ("higher", "lower"))
    assert harmed.log_e > math.log(20) > 0 > praised.log_e
    assert harmed.low > 0
    assert praised.high < 0


@pytest.mark.parametrize("events", [30, 60, 100])
def test_rare_events_in_a_small_arm_are_judged_on_the_scale_of_square_roots(events: int) -> None:
    """Anscombe 1948: 2(√k − √m) for k Poisson events where m are expected; 20 here, and a huge control."""
    found = _effect(metric_for("error_rate"), binary(20_000, 100_000_000), binary(events, 100_000))
    r = one_sided_r(5.0, 0.05)
    root = 2 * (math.sqrt(events) - math.sqrt(20))
    result = guardrail(found, "lower", 0.0, 5.0, 0.05)
    z = found.difference / (result.high - found.difference) * result.critical
    assert z == pytest.approx(root, rel=0.01)
    assert result.log_e == pytest.approx(float(log_e_value(z, result.r)))
    assert result.r == pytest.approx(r * (z / (found.difference / found.sequential.se)) ** 2)


def test_a_guardrail_without_a_standard_error_is_nan() -> None:
    nothing = Spread(0.0, 0.0, 0.0, math.inf)
    found = Effect(0.1, 0.2, nothing, nothing, 10.0, ())
    assert math.isnan(guardrail(found, "lower", 0.0, 3.0, 0.05).log_e)
