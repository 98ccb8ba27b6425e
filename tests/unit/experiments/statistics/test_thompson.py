"""Against closed forms, scipy's adaptive quadrature, enumeration of the sampling scheme, and simulation."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta as beta_law
from scipy.stats import norm

from experiments.statistics import thompson
from experiments.statistics.thompson import Beta, Normal, Posterior, probability_best, top_two, weights
from servelens.errors import Invalid


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Normal(0.0, 1.0), Normal(0.3, 0.2)),
        (Normal(5.0, 1e-6), Normal(5.0, 3.0)),
        (Normal(-2.0, 0.4), Normal(1.0, 0.5)),
        (Normal(1e6, 2.0), Normal(1e6 + 1, 2e-3)),
        (Normal(0.98, 1e-4), Normal(0.9801, 1e-2)),
    ],
)
def test_two_normal_arms_have_the_closed_form(first: Normal, second: Normal) -> None:
    wins = float(norm.cdf((first.mean - second.mean) / math.hypot(first.se, second.se)))
    assert probability_best([first, second], "higher") == pytest.approx([wins, 1 - wins], rel=1e-6, abs=1e-12)
    assert probability_best([first, second], "lower") == pytest.approx([1 - wins, wins], rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("a", "b"), [(1, 1), (3, 9), (40, 2), (1, 200)])
def test_two_beta_arms_have_the_published_closed_form(a: int, b: int) -> None:
    """Evan Miller's finite sum ("Formulas for Bayesian A/B testing"): P(p_2 > p_1) for integers."""
    other_a, other_b = 5, 30
    log_beta = math.lgamma
    terms = [
        math.exp(
            log_beta(other_a + i)
            + log_beta(b + other_b)
            - log_beta(other_a + i + b + other_b)
            - math.log(b + i)
            - (log_beta(1 + i) + log_beta(b) - log_beta(1 + i + b))
            - (log_beta(other_a) + log_beta(other_b) - log_beta(other_a + other_b))
        )
        for i in range(a)
    ]
    wins = math.fsum(terms)
    found = probability_best([Beta(other_a, other_b), Beta(a, b)], "higher")
    assert found[1] == pytest.approx(wins, rel=1e-7)


THREE: list[list[Posterior]] = [
    [Normal(0.1, 0.2), Normal(0.2, 0.1), Normal(0.0, 0.5)],
    [Beta(3, 40), Beta(2, 60), Beta(8, 90)],
    [Beta(12, 400), Normal(0.03, 0.004), Beta(1, 30)],
]


def _density(arm: Posterior, x: float) -> float:
    return float(norm.pdf(x, arm.mean, arm.se) if isinstance(arm, Normal) else beta_law.pdf(x, arm.a, arm.b))


def _below(arm: Posterior, x: float) -> float:
    return float(norm.cdf(x, arm.mean, arm.se) if isinstance(arm, Normal) else beta_law.cdf(x, arm.a, arm.b))


@pytest.mark.parametrize("arms", THREE)
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_three_arms_against_scipys_adaptive_quadrature(arms: list[Posterior], better: str) -> None:
    higher = better == "higher"
    expected = []
    for index, arm in enumerate(arms):
        others = [other for position, other in enumerate(arms) if position != index]

        def integrand(x: float, arm: Posterior = arm, others: list[Posterior] = others) -> float:
            worse = [_below(other, x) if higher else 1 - _below(other, x) for other in others]
            return _density(arm, x) * math.prod(worse)

        low, high = (-3.0, 3.0) if isinstance(arm, Normal) else (0.0, 1.0)
        value, _ = quad(integrand, low, high, points=[0.01, 0.03, 0.05, 0.1, 0.2], limit=500, epsabs=1e-12)
        expected.append(value)
    assert probability_best(arms, "higher" if higher else "lower") == pytest.approx(expected, abs=1e-8)


def test_many_arms_of_different_kinds_against_draws() -> None:
    arms: list[Posterior] = [Normal(0.02 * i, 0.01 * (1 + i % 4)) for i in range(1, 7)]
    arms += [Beta(1 + i, 12) for i in range(4)]
    rng = np.random.default_rng(1)
    draws = np.array(
        [
            rng.normal(arm.mean, arm.se, 200_000)
            if isinstance(arm, Normal)
            else rng.beta(arm.a, arm.b, 200_000)
            for arm in arms
        ]
    )
    frequencies = np.bincount(draws.argmax(axis=0), minlength=len(arms)) / 200_000
    assert probability_best(arms, "higher") == pytest.approx(frequencies.tolist(), abs=0.005)


def test_top_two_shares_are_those_of_the_sampling_scheme() -> None:
    """Draw a leader, keep it with probability 0.6, otherwise draw until another arm comes."""
    best = np.array([0.55, 0.3, 0.1, 0.05])
    rng = np.random.default_rng(2)
    leader = rng.choice(4, 200_000, p=best)
    chosen = leader.copy()
    again = rng.random(200_000) >= 0.6
    while again.any():
        chosen[again] = rng.choice(4, int(again.sum()), p=best)
        again &= chosen == leader
    frequencies = np.bincount(chosen, minlength=4) / 200_000
    assert top_two(best.tolist(), 0.6) == pytest.approx(frequencies.tolist(), abs=0.005)


def test_top_two_keeps_half_for_the_challengers_of_a_certain_leader() -> None:
    assert top_two([1.0, 0.0, 0.0]) == pytest.approx([0.5, 0.25, 0.25])
    assert top_two([1.0 - 3e-18, 2e-18, 1e-18]) == pytest.approx([0.5, 1 / 3, 1 / 6])
    assert top_two([0.7, 0.2, 0.1], 1.0) == pytest.approx([0.7, 0.2, 0.1])
    assert top_two([1.0]) == [1.0]


@pytest.mark.parametrize("floor", [0.0, 0.01, 0.05, 0.2, 0.25])
def test_the_floor_always_holds_and_the_weights_are_exactly_one(floor: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(100):
        arms: list[Posterior | None] = [
            Normal(rng.normal(), math.exp(rng.normal(-2, 3))) if rng.random() < 0.9 else None
            for _ in range(4)
        ]
        found = weights(arms, "higher", floor)
        assert min(found) >= floor - 1e-15
        assert math.fsum(found) == 1.0
        assert found == weights(arms, "higher", floor)


def test_the_projection_is_the_nearest_point() -> None:
    """Against a fine search of the floored simplex."""
    arms = [Normal(0.0, 0.1), Normal(0.05, 0.1), Normal(0.6, 0.1)]
    plain, found = np.array(weights(arms, "higher", 0.0)), np.array(weights(arms, "higher", 0.3))
    grid = np.linspace(0.3, 0.4, 101)
    first, second = np.meshgrid(grid, grid)
    third = 1 - first - second
    square = np.where(
        third >= 0.3, (first - plain[0]) ** 2 + (second - plain[1]) ** 2 + (third - plain[2]) ** 2, np.inf
    )
    assert ((found - plain) ** 2).sum() <= square.min() + 1e-12
    assert found.min() == 0.3


def test_arms_that_look_the_same_get_the_same_and_order_does_not_matter() -> None:
    assert weights([Normal(1.0, 0.2)] * 4, "lower") == pytest.approx([0.25] * 4)
    assert weights([Beta(4, 9)] * 3, "higher") == pytest.approx([1 / 3] * 3)
    arms: list[Posterior] = [Normal(0.1, 0.2), Beta(3, 9), Normal(0.4, 0.1)]
    assert weights(arms[::-1], "higher") == pytest.approx(weights(arms, "higher")[::-1])
    mirrored = [Normal(-0.1, 0.2), Normal(0.7, 0.3)]
    assert weights(mirrored, "lower", 0.0) == pytest.approx(
        weights([Normal(0.1, 0.2), Normal(-0.7, 0.3)], "higher", 0.0)
    )


def test_arms_without_data_share_evenly() -> None:
    assert weights([None, None, None], "higher") == pytest.approx([1 / 3] * 3)
    found = weights([Normal(0.0, 0.1), None, Normal(1.0, 0.1), Normal(math.nan, 1.0)], "higher")
    assert found[1] == pytest.approx(0.25)
    assert found[3] == pytest.approx(0.25)
    assert found[0] == pytest.approx(0.25), "two arms: each challenges the other half of the time"
    assert weights([Normal(0.0, 0.0), Normal(1.0, 0.1)], "higher") == pytest.approx([0.5, 0.5])
    assert weights([Beta(0.0, 1.0), Normal(1.0, 0.1)], "higher") == pytest.approx([0.5, 0.5])
    assert weights([Normal(0.0, 1.0)], "higher") == [1.0]


def test_arms_far_apart_or_barely_known_are_no_trouble() -> None:
    far = weights([Normal(0.0, 1e-9), Normal(1e9, 1e-9), Normal(-1e9, 1e-9)], "higher")
    assert far == pytest.approx([0.25, 0.5, 0.25])
    assert weights([Normal(1e200, 1.0), Normal(0.0, 1e-99), Normal(0.0, 1e99)], "higher") == pytest.approx(
        [1 / 3] * 3
    )
    assert probability_best([Beta(1, 1), Beta(1e7, 1e5)], "higher")[0] == pytest.approx(
        1 - 1e7 / 1.01e7, rel=1e-5
    )
    assert math.fsum(probability_best([Beta(0.5, 0.5), Beta(0.5, 20)], "higher")) == pytest.approx(1.0)
    assert probability_best([], "higher") == []


@pytest.mark.parametrize(
    ("field", "arms", "floor", "beta"),
    [
        ("posteriors", 0, 0.05, 0.5),
        ("floor", 3, 0.34, 0.5),
        ("floor", 3, -0.1, 0.5),
        ("floor", 3, math.nan, 0.5),
        ("beta", 3, 0.05, 1.1),
        ("beta", 3, 0.05, math.nan),
    ],
)
def test_impossible_input_is_refused_by_its_name(field: str, arms: int, floor: float, beta: float) -> None:
    with pytest.raises(Invalid) as raised:
        weights([Normal(0.0, 1.0)] * arms, "higher", floor, beta)
    assert raised.value.field == field


def test_the_examples_in_the_documentation_are_right() -> None:
    assert doctest.testmod(thompson).failed == 0
