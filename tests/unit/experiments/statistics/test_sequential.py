"""Against confseq's published formulas, numerical integration, and scipy's distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.stats import norm, t

from experiments.statistics.sequential import (
    always_valid,
    critical_value,
    normal_from_student,
    p_value,
    planned_r,
    student_from_normal,
    tuning,
)


def confseq_two_sided_normal_mixture(v: float, alpha: float, rho: float) -> float:
    """Howard et al. 2021, eq. 14, as in confseq's ``two_sided_normal_mixture_bound``, in intrinsic time v."""
    return math.sqrt((v + rho) * math.log((v + rho) / (alpha**2 * rho)))


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("r", [0.01, 1.0, 8.2, 300.0])
def test_the_boundary_is_that_of_confseq(alpha: float, r: float) -> None:
    v, rho = r, 1.0  # r = v/rho; the boundary on z is u(v)/sqrt(v)
    expected = confseq_two_sided_normal_mixture(v, alpha, rho) / math.sqrt(v)
    assert float(critical_value(r, alpha)) == pytest.approx(expected)


def test_the_tuning_constant_is_confseqs_and_minimises_the_boundary() -> None:
    assert tuning(0.05) == pytest.approx(8.212, abs=5e-4)
    for alpha in (0.01, 0.05, 0.1):
        best = minimize_scalar(
            lambda r, a=alpha: float(critical_value(r, a)), bounds=(0.1, 100), method="bounded"
        )
        assert tuning(alpha) == pytest.approx(best.x, rel=1e-3)


def test_the_default_r_reaches_the_constant_at_the_planned_total() -> None:
    assert planned_r(2500 * 2500 / 5000, 5000, 0.05) == pytest.approx(tuning(0.05))
    assert planned_r(250 * 4750 / 5000, 5000, 0.05) == pytest.approx(0.19 * tuning(0.05))


@pytest.mark.parametrize(("z", "r"), [(0.0, 1.0), (2.0, 0.5), (3.5, 8.2), (5.0, 100.0)])
def test_p_is_the_inverse_of_the_mixture_likelihood_ratio_integrated_numerically(z: float, r: float) -> None:
    def weighted_ratio(delta: float) -> float:
        """Likelihood ratio of drift delta/se at z, times the prior density N(0, r)."""
        return math.exp(delta * z - delta**2 / 2) * float(norm.pdf(delta, scale=math.sqrt(r)))

    mixture, _ = quad(weighted_ratio, -60, 60, points=[0, z], limit=400)
    assert float(p_value(z, r)) == pytest.approx(min(1.0, 1 / mixture), rel=1e-6)


@pytest.mark.parametrize("degrees", [3.0, 12.0, 200.0, math.inf])
@pytest.mark.parametrize("r", [0.05, 2.0, 50.0])
def test_interval_p_value_and_boundary_say_the_same(r: float, degrees: float) -> None:
    for difference in np.linspace(-4, 4, 81):
        result = always_valid(float(difference), 0.3, degrees, r, 0.05)
        assert (result.p_value <= 0.05) == (not result.low <= 0 <= result.high)


@pytest.mark.parametrize("degrees", [4, 8, 20, 100])
def test_wallaces_conversion_against_scipys_t(degrees: int) -> None:
    for statistic in (0.5, 1.0, 2.0, 4.0, 8.0):
        exact = float(norm.isf(t.sf(statistic, degrees)))
        assert normal_from_student(statistic, degrees) == pytest.approx(exact, rel=0.02)
        assert normal_from_student(-statistic, degrees) == -normal_from_student(statistic, degrees)
        assert student_from_normal(normal_from_student(statistic, degrees), degrees) == pytest.approx(
            statistic
        )


def test_the_conversion_vanishes_with_many_units() -> None:
    assert normal_from_student(3.0, 1e6) == pytest.approx(3.0, abs=1e-4)
    assert normal_from_student(3.0, math.inf) == 3.0


def test_no_boundary_yet_is_an_unbounded_interval_and_not_an_error() -> None:
    result = always_valid(5.0, 1.0, 2.0, 1e-6, 0.05)
    assert (result.low, result.high) == (-math.inf, math.inf)
    assert 0.99 < result.p_value <= 1.0


def test_overwhelming_evidence_underflows_to_zero_and_not_to_nan() -> None:
    assert always_valid(1e6, 1e-6, math.inf, 8.0, 0.05).p_value == 0.0
