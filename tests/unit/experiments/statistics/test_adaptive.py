"""Against the published formulas written out unit by unit, scipy's Welch test, and simulated bandits."""

from __future__ import annotations

import doctest
import math
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import stdtrit
from scipy.stats import ttest_ind

from experiments.statistics import adaptive
from experiments.statistics.adaptive import (
    UNITS_TO_GUESS,
    Estimate,
    Observed,
    Phase,
    Weighting,
    arm_estimate,
    contrast,
)
from experiments.statistics.sequential import always_valid, planned_r
from experiments.statistics.statistic import Moments
from experiments.statistics.thompson import Normal, weights
from tests.unit.experiments.statistics.test_statistic import moments

NAMES = ("a", "b", "c")


@dataclass
class Units:
    """Units in the order in which they came."""

    phase: np.ndarray
    arm: np.ndarray
    value: np.ndarray
    propensities: list[list[float]]

    def phases(self) -> list[Phase]:
        found = []
        for phase, chances in enumerate(self.propensities):
            here = self.phase == phase
            arms = {}
            for arm, chance in enumerate(chances):
                values = self.value[here & (self.arm == arm)]
                arms[NAMES[arm]] = Observed(moments(np.ones(len(values)), values), chance)
            found.append(Phase(int(here.sum()), arms))
        return found


def units(
    rng: np.random.Generator, propensities: list[list[float]], size: int, *, trend: float = 0.0
) -> Units:
    phase = np.repeat(np.arange(len(propensities)), size)
    arm = np.concatenate([rng.choice(3, size, p=chances) for chances in propensities])
    value = rng.normal(3.0 + 0.2 * arm + trend * phase, 1.0 + 0.3 * arm)
    return Units(phase, arm, value, propensities)


def written_out(data: Units, arm: int, weighting: Weighting) -> tuple[np.ndarray, np.ndarray]:
    """Every unit's Γ and h by the formulas of Hadad et al., with the first phase's own mean and share there."""
    gamma, h = np.empty(len(data.value)), np.empty(len(data.value))
    for t in range(len(data.value)):
        phase, taken = data.phase[t], data.arm[t] == arm
        earlier = data.value[(data.phase < phase) & (data.arm == arm)]
        here = (data.phase == phase) & (data.arm == arm)
        chance = data.propensities[phase][arm]
        guess = earlier.mean() if phase else data.value[here].mean()
        share = chance if phase else here.sum() / (data.phase == phase).sum()
        gamma[t] = guess + (data.value[t] - guess) / share * taken
        h[t] = math.sqrt(chance) if weighting == "stabilised" else 1.0
    return gamma, h


PROPENSITIES = [[0.34, 0.33, 0.33], [0.2, 0.3, 0.5], [0.05, 0.15, 0.8]]


@pytest.mark.parametrize("weighting", ["stabilised", "even"])
@pytest.mark.parametrize("arm", [0, 1, 2])
def test_an_arm_is_what_the_published_formulas_give(arm: int, weighting: Weighting) -> None:
    data = units(np.random.default_rng(1), PROPENSITIES, 200)
    gamma, h = written_out(data, arm, weighting)
    value = (h * gamma).sum() / h.sum()
    found = arm_estimate(data.phases(), NAMES[arm], weighting)
    assert found.value == pytest.approx(value)
    # In its first phase the module has Bessel's correction, which the paper has not.
    se = math.sqrt((h**2 * (gamma - value) ** 2).sum()) / h.sum()
    assert found.se == pytest.approx(se, rel=0.004)
    assert found.units == 600


@pytest.mark.parametrize("weighting", ["stabilised", "even"])
def test_a_contrast_is_that_of_the_units_differences_of_scores(weighting: Weighting) -> None:
    data = units(np.random.default_rng(2), PROPENSITIES, 200)
    ours, theirs = (written_out(data, arm, weighting)[0] for arm in (2, 0))
    chances = np.array(PROPENSITIES)[data.phase]
    h = np.sqrt(chances[:, 2] * chances[:, 0] / (chances[:, 2] + chances[:, 0]))
    if weighting == "even":
        h = np.ones_like(h)
    value = (h * (ours - theirs)).sum() / h.sum()
    found = contrast(data.phases(), "c", "a", weighting)
    assert found.value == pytest.approx(value)
    assert found.se == pytest.approx(
        math.sqrt((h**2 * (ours - theirs - value) ** 2).sum()) / h.sum(), rel=0.004
    )


def test_one_phase_is_the_ordinary_difference_with_welchs_error() -> None:
    """No factor is left: the realised shares take the propensities' place in the first phase."""
    data = units(np.random.default_rng(3), [[0.6, 0.3, 0.1]], 150)
    first, second = (data.value[data.arm == arm] for arm in (0, 1))
    welch = ttest_ind(second, first, equal_var=False)
    found = contrast(data.phases(), "b", "a")
    assert found.value == pytest.approx(second.mean() - first.mean())
    assert found.value / found.se == pytest.approx(float(welch.statistic))
    assert found.degrees == pytest.approx(float(welch.df))
    single = arm_estimate(data.phases(), "a")
    assert (single.value, single.se) == pytest.approx(
        (first.mean(), first.std(ddof=1) / math.sqrt(len(first)))
    )


def test_clustered_units_count_by_their_linearised_values() -> None:
    """In one phase that is the delta method; in the next its square is written out."""
    rng = np.random.default_rng(4)
    n = rng.integers(1, 9, 400).astype(float)
    s = n * rng.normal(2.0, 1.0, 400)
    first, second, other = (
        moments(n[:100], s[:100]),
        moments(n[100:180], s[100:180]),
        moments(n[200:], s[200:]),
    )
    start = Phase(300, {"a": Observed(first, 1 / 3), "b": Observed(other, 2 / 3)})
    single = arm_estimate([start], "a")
    assert single.value == pytest.approx(s[:100].sum() / n[:100].sum())
    assert single.se == pytest.approx(math.sqrt(first.variance_of_mean()))
    following = Phase(400, {"a": Observed(second, 0.2)})
    guess, mean_size = first.mean, n[100:180].mean()
    added = (s[100:180] - guess * n[100:180]) / mean_size / 0.2
    h, total = np.sqrt([1 / 3, 0.2]), math.sqrt(1 / 3) * 300 + math.sqrt(0.2) * 400
    value = (h[0] * 300 * guess + h[1] * (400 * guess + added.sum())) / total
    gamma = np.r_[guess + added, np.full(320, guess)]
    square = h[0] ** 2 * (300 * (guess - value) ** 2 + first.variance_of_mean() * 300**2)
    square += h[1] ** 2 * ((gamma - value) ** 2).sum()
    found = arm_estimate([start, following], "a")
    assert (found.value, found.se) == pytest.approx((value, math.sqrt(square) / total))


def test_a_contrast_compares_within_phases_so_a_common_trend_cancels() -> None:
    """Everything rises by 4 a phase while units move from a to c: Simpson's paradox for arm means."""
    data = units(np.random.default_rng(5), [[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]], 2_000, trend=4.0)
    naive = data.value[data.arm == 2].mean() - data.value[data.arm == 0].mean()
    assert naive > 2.0
    found = contrast(data.phases(), "c", "a")
    assert abs(found.value - 0.4) < 3 * found.se < 0.6


@dataclass
class Simulated:
    """Many runs of one bandit: estimates of each arm, and of the last arm against the first at each phase."""

    truth: np.ndarray
    stabilised: np.ndarray
    errors: np.ndarray
    degrees: np.ndarray
    even: np.ndarray
    naive: np.ndarray
    contrasts: list[list[Estimate]]


def bandit(seed: int, truth: tuple[float, float, float], runs: int, count: int, size: int) -> Simulated:
    """``runs`` times ``count`` phases of top-two Thompson sampling by the stabilised estimates."""
    rng = np.random.default_rng(seed)
    stabilised, errors, degrees, even, naive, contrasts = [], [], [], [], [], []
    for _ in range(runs):
        chances, phases, looks = [1 / 3] * 3, [], []
        estimates: list[Estimate] = []
        for _ in range(count):
            arms = {}
            for name, mean, chance, n in zip(
                NAMES, truth, chances, rng.multinomial(size, chances), strict=True
            ):
                y = rng.normal(mean, 1.0, n)
                total = float(y.sum())
                arms[name] = Observed(Moments(int(n), n, total, n, total, float(y @ y)), chance)
            phases.append(Phase(size, arms))
            estimates = [arm_estimate(phases, name) for name in NAMES]
            looks.append(contrast(phases, "c", "a"))
            chances = weights([Normal(found.value, found.se) for found in estimates], "higher")
        stabilised.append([found.value for found in estimates])
        errors.append([found.se for found in estimates])
        degrees.append([found.degrees for found in estimates])
        even.append([arm_estimate(phases, name, "even").value for name in NAMES])
        naive.append([sum((p.arms[name].moments for p in phases), Moments()).mean for name in NAMES])
        contrasts.append(looks)
    arrays = (np.array(values) for values in (truth, stabilised, errors, degrees, even, naive))
    return Simulated(*arrays, contrasts)


RUNS, COUNT, SIZE = 400, 7, 60


@pytest.fixture(scope="module")
def equal_arms() -> Simulated:
    """Arms that are equal are where chance rules the allocation, and the bias is largest."""
    return bandit(6, (0.0, 0.0, 0.0), RUNS, COUNT, SIZE)


@pytest.fixture(scope="module")
def unequal_arms() -> Simulated:
    return bandit(7, (0.0, 0.2, 0.5), RUNS, COUNT, SIZE)


def off(values: np.ndarray, truth: float) -> float:
    """The bias in standard errors of the simulation."""
    return float((values.mean() - truth) / (values.std() / math.sqrt(values.size)))


def test_arm_means_are_biased_and_even_scores_are_not(equal_arms: Simulated) -> None:
    assert off(equal_arms.naive.mean(axis=1), 0.0) < -4.0
    assert abs(off(equal_arms.even.mean(axis=1), 0.0)) < 2.5
    for arm in range(3):
        assert off(equal_arms.naive[:, arm], 0.0) < -3.0
        assert abs(off(equal_arms.even[:, arm], 0.0)) < 3.0


def test_the_stabilised_bias_is_smaller_than_that_of_means_and_small_beside_the_error(
    equal_arms: Simulated,
) -> None:
    bias = equal_arms.stabilised.mean()
    assert abs(bias) < 0.8 * abs(equal_arms.naive.mean())
    assert abs(bias) < 0.25 * equal_arms.errors.mean()


def test_even_scores_are_unbiased_for_unequal_arms_too(unequal_arms: Simulated) -> None:
    assert off(unequal_arms.naive[:, 0], 0.0) < -3.0
    for arm in range(3):
        assert abs(off(unequal_arms.even[:, arm], unequal_arms.truth[arm])) < 3.0


@pytest.mark.parametrize("which", ["equal_arms", "unequal_arms"])
def test_intervals_cover(which: str, request: pytest.FixtureRequest) -> None:
    found: Simulated = request.getfixturevalue(which)
    error = math.sqrt(0.95 * 0.05 / RUNS)
    misses = np.abs(found.stabilised - found.truth) / found.errors
    covered = (misses <= stdtrit(found.degrees, 0.975)).mean(axis=0)
    assert covered.mean() >= 0.95 - 2 * error
    assert covered.min() >= 0.95 - 3 * error
    last = [looks[-1] for looks in found.contrasts]
    difference = found.truth[2] - found.truth[0]
    inside = [abs(e.value - difference) <= stdtrit(e.degrees, 0.975) * e.se for e in last]
    assert np.mean(inside) >= 0.95 - 2 * error
    bias = np.mean([e.value for e in last]) - difference
    assert abs(bias) < 0.25 * np.mean([e.se for e in last])


@pytest.mark.parametrize("which", ["equal_arms", "unequal_arms"])
def test_always_valid_results_hold_at_every_look(which: str, request: pytest.FixtureRequest) -> None:
    found: Simulated = request.getfixturevalue(which)
    difference = found.truth[2] - found.truth[0]
    missed = 0
    for looks in found.contrasts:
        results = [
            always_valid(
                e.value - difference, e.se, e.degrees, planned_r(e.units / 4, COUNT * SIZE, 0.05), 0.05
            )
            for e in looks
        ]
        missed += min(result.p_value for result in results) <= 0.05
    assert missed / RUNS <= 0.05


def cell(n: int, total: float, chance: float) -> Observed:
    """``n`` units with values of 0 and 1."""
    return Observed(Moments(n, n, total, n, total, total), chance)


def test_a_phase_in_which_an_arm_was_off_does_not_count() -> None:
    on = Phase(200, {"a": cell(100, 30, 0.5), "b": cell(100, 40, 0.5)})
    rest = Phase(100, {"a": cell(0, 0, 0.0), "b": cell(100, 45, 1.0)})
    assert arm_estimate([on, rest], "a") == arm_estimate([on], "a")
    assert contrast([on, rest], "b", "a") == contrast([on], "b", "a")
    assert arm_estimate([on, rest], "b").units == 300


def test_an_arm_that_was_possible_and_came_to_nobody_keeps_its_guess() -> None:
    on = Phase(200, {"a": cell(100, 30, 0.5)})
    found = arm_estimate([on, Phase(10, {"a": cell(0, 0, 0.05)})], "a")
    assert found.value == pytest.approx(0.3)
    assert math.isfinite(found.se)


def test_a_few_early_units_make_no_guess() -> None:
    few = UNITS_TO_GUESS - 1
    first, second = cell(few, 20, 0.1), cell(100, 50, 0.5)
    found = arm_estimate([Phase(200, {"a": first}), Phase(200, {"a": second})], "a")
    h = math.sqrt(0.1), math.sqrt(0.5)
    assert found.value == pytest.approx((h[0] * 20 / few + h[1] * 0.5) / sum(h))


@pytest.mark.parametrize(
    "phases",
    [
        [],
        [Phase(10, {})],
        [Phase(10, {"a": cell(0, 0, 0.5), "b": cell(10, 5, 0.5)})],
        [Phase(10, {"a": cell(1, 1, 0.5), "b": cell(9, 5, 0.5)})],
        [Phase(100, {"a": cell(50, 10, math.nan), "b": cell(50, 5, 0.5)})],
        [Phase(100, {"a": cell(50, 10, 0.0), "b": cell(50, 5, 0.5)})],
    ],
)
def test_without_data_nothing_is_said(phases: list[Phase]) -> None:
    for found in (arm_estimate(phases, "a"), contrast(phases, "b", "a")):
        assert all(map(math.isnan, (found.value, found.se, found.degrees)))


def test_values_without_variance_have_an_estimate_and_no_error() -> None:
    found = arm_estimate([Phase(100, {"a": cell(50, 50, 0.5)})], "a")
    assert found.value == 1.0
    assert math.isnan(found.se)


@pytest.mark.parametrize("total", [math.inf, math.nan, 1e200])
def test_values_too_large_to_calculate_with_are_not_known(total: float) -> None:
    broken = Observed(Moments(50, 50, total, 50, total, math.inf), 0.5)
    fine = Phase(100, {"a": cell(50, 20, 0.5), "b": cell(50, 5, 0.5)})
    for order in ([Phase(100, {"a": broken, "b": cell(50, 5, 0.5)}), fine], [fine, Phase(50, {"a": broken})]):
        assert math.isnan(arm_estimate(order, "a").value)
        assert math.isnan(arm_estimate(order, "a").se)


def test_the_examples_in_the_documentation_are_right() -> None:
    assert doctest.testmod(adaptive).failed == 0
