"""Against Newcombe's published interval, the normal interval it must reduce to, and coverage of correlated estimates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from experiments.statistics.mover import Bounded, difference


def test_wilson_intervals_give_newcombes() -> None:
    """Newcombe 1998, table II (a): 56/70 and 48/80, with Wilson's intervals from statsmodels."""
    treatment, control = (
        Bounded(x / n, *proportion_confint(x, n, method="wilson")) for x, n in ((56, 70), (48, 80))
    )
    found = difference(treatment, control)
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


@pytest.mark.parametrize("correlation", [0.0, 0.7, -0.4])
def test_symmetric_intervals_give_the_normal_one(correlation: float) -> None:
    found = difference(Bounded(7.0, 4.0, 10.0), Bounded(1.0, -1.0, 3.0), correlation=correlation)
    half = math.sqrt(9 + 4 - 2 * correlation * 6)
    assert (found.low, found.high) == (pytest.approx(6 - half), pytest.approx(6 + half))


def test_the_interval_of_correlated_lognormal_means_keeps_its_level() -> None:
    """Asymmetric parts: estimates that are lognormal around 1 and 2, and correlated."""
    rng = np.random.default_rng(1)
    runs, width = 4000, 0.2
    errors = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], runs) * width
    hits = 0
    for one, other in errors:
        parts = [
            Bounded(at, at * math.exp(-1.96 * width), at * math.exp(1.96 * width))
            for at in (2 * math.exp(one), math.exp(other))
        ]
        found = difference(*parts, correlation=0.6)
        hits += found.low <= 1.0 <= found.high
    assert hits / runs == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_what_is_not_bounded_leaves_that_side_open(correlation: float) -> None:
    found = difference(Bounded(5.0, 4.0, math.nan), Bounded(1.0, 0.5, 2.0), correlation=correlation)
    assert found.estimate == 4.0
    assert math.isfinite(found.low)
    assert math.isnan(found.high)
