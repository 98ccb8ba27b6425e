"""Against confseq's published reference values, numerical integration and minimisation, and seeded simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.stats import halfnorm

from experiments.statistics import sequential
from experiments.statistics.one_sided import critical_value, log_e_value, one_sided, one_sided_r, tuning


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
