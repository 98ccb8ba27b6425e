from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta, binom

from experiments.statistics.bernoulli import log_e_below, lower_bound, upper_bound


@pytest.mark.parametrize(
    ("events", "draws", "rate"), [(0, 50, 0.1), (3, 40, 0.2), (10, 20, 0.7), (1, 400, 0.01)]
)
def test_the_mixture_is_the_integral_of_the_likelihood_ratio(events: int, draws: int, rate: float) -> None:
    """Against numerical integration of the definition with scipy's Beta and binomial laws."""
    prior = beta(0.5, 0.5)

    def ratio(angle: float) -> float:  # θ = sin² makes the Beta(½, ½) density bounded
        theta = math.sin(angle) ** 2
        return float(binom.pmf(events, draws, theta) / binom.pmf(events, draws, rate)) * 2 / math.pi

    mixed, _ = quad(ratio, 0, math.asin(math.sqrt(rate)), epsabs=1e-12)
    assert log_e_below(events, draws, rate) == pytest.approx(
        math.log(mixed / float(prior.cdf(rate))), abs=1e-6
    )


def test_the_bounds_hold_at_every_look() -> None:
    rng = np.random.default_rng(3)
    runs, missed = 300, 0
    for _ in range(runs):
        events = np.cumsum(rng.random(1500) < 0.03)
        looks = range(25, 1501, 25)
        high = any(upper_bound(int(events[n - 1]), n, 0.05) < 0.03 for n in looks)
        low = any(lower_bound(int(events[n - 1]), n, 0.05) > 0.03 for n in looks)
        missed += high or low
    assert missed / runs <= 0.1 + 2 * math.sqrt(0.1 * 0.9 / runs)


def test_no_event_at_all_bounds_the_rate_and_no_draw_does_not() -> None:
    assert upper_bound(0, 1000, 0.05) < 0.005
    assert upper_bound(0, 100, 0.05) > upper_bound(0, 1000, 0.05)
    assert (upper_bound(0, 0, 0.05), lower_bound(0, 0, 0.05)) == (1.0, 0.0)
    assert (lower_bound(0, 50, 0.05), upper_bound(50, 50, 0.05)) == (pytest.approx(0.0), 1.0)
    assert lower_bound(50, 50, 0.05) == pytest.approx(1 - upper_bound(0, 50, 0.05))


def test_what_is_no_count_has_no_bound() -> None:
    assert math.isnan(upper_bound(5, 4, 0.05))
    assert math.isnan(upper_bound(-1, 4, 0.05))
    assert math.isnan(upper_bound(math.nan, 4, 0.05))
