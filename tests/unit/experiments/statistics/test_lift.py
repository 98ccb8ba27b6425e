"""By the definition of Fieller's interval, its coverage, and the ratio of geometric means."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from experiments.metrics import Metric, metric_for
from experiments.statistics.effect import Effect, Spread, Stratum, effect
from experiments.statistics.lift import fieller, lift
from experiments.statistics.statistic import Moments
from tests.unit.experiments.statistics.test_effect import binary
from tests.unit.experiments.statistics.test_statistic import moments

ERRORS, LATENCY, TOXICITY = metric_for("error_rate"), metric_for("latency_ms"), metric_for("score:toxicity")


def _effect(metric: Metric, control: Moments, treatment: Moments) -> Effect:
    found = effect(metric, [Stratum(control, treatment)])
    assert isinstance(found, Effect)
    return found


def test_fieller_bounds_are_where_the_test_of_that_ratio_just_rejects() -> None:
    spread = Spread(control=0.04, treatment=0.09, covariance=0.01, degrees=math.inf)
    for ratio in fieller(3.0, 2.0, spread, 1.96):
        variance = spread.treatment - 2 * ratio * spread.covariance + ratio**2 * spread.control
        assert (3.0 - ratio * 2.0) ** 2 == pytest.approx(1.96**2 * variance)


def test_fieller_covers_the_true_ratio_at_its_level() -> None:
    rng = np.random.default_rng(3)
    spread = Spread(control=0.25, treatment=0.36, covariance=0.0, degrees=math.inf)
    hits = 0
    for control, treatment in zip(rng.normal(2.0, 0.5, 4000), rng.normal(3.0, 0.6, 4000), strict=True):
        low, high = fieller(float(treatment), float(control), spread, 1.96)
        # Unbounded sets are no miss: they hold every ratio but some far away.
        hits += math.isnan(low) or low <= 1.5 <= high
    assert hits / 4000 >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 4000)


def test_a_control_near_zero_has_no_bounded_lift() -> None:
    found = _effect(
        TOXICITY, moments(np.ones(20), np.r_[np.zeros(19), 0.1]), moments(np.ones(20), np.full(20, 0.3))
    )
    relative = lift(TOXICITY, found, found.sequential, 3.0)
    assert relative.estimate > 0
    assert math.isnan(relative.low)
    assert math.isnan(relative.high)


def test_a_control_of_zero_has_no_lift() -> None:
    found = _effect(ERRORS, binary(0, 200), binary(30, 200))
    assert math.isnan(lift(ERRORS, found, found.sequential, 2.0).estimate)


def test_the_lift_of_a_log_metric_is_the_ratio_of_geometric_means() -> None:
    rng = np.random.default_rng(4)
    control, treatment = rng.lognormal(5, 1, 300), rng.lognormal(5.2, 1, 300)
    found = _effect(LATENCY, moments(np.ones(300), np.log(control)), moments(np.ones(300), np.log(treatment)))
    relative = lift(LATENCY, found, found.sequential, 1.96)
    ratio = math.exp(np.log(treatment).mean() - np.log(control).mean())
    assert relative.estimate == pytest.approx(ratio - 1)
    assert relative.low < relative.estimate < relative.high


def test_lift_and_difference_agree_on_whether_zero_is_inside() -> None:
    """Both rest on the same variances, so a verdict never contradicts the interval beside it."""
    for events, later in pairwise(range(20, 60)):
        found = _effect(ERRORS, binary(20, 500), binary(later, 500))
        for critical in (1.96, 3.0):
            relative = lift(ERRORS, found, found.sequential, critical)
            excluded = abs(found.difference) > critical * found.sequential.se
            if math.isfinite(relative.low):
                assert excluded == (not relative.low <= 0 <= relative.high), events
