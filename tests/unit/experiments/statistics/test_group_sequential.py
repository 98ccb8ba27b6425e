"""Against the tables of gsDesign and ldbounds, Jennison & Turnbull's, scipy's multivariate normal, and simulation."""

from __future__ import annotations

import doctest
import math
import time

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from experiments.statistics import group_sequential
from experiments.statistics.group_sequential import (
    GroupSequentialDesign,
    Spending,
    crossing_probabilities,
    obrien_fleming_spending,
    pocock_spending,
)
from servelens.errors import Invalid

# Two-sided 0.05 at equally spaced looks: gsDesign(k, test.type=2, alpha=0.025, sfu=sfLDOF | sfLDPocock), which
# are also ldbounds' iuse=1 and 2 and those of Reboussin, DeMets, Kim & Lan 2000.
PUBLISHED: list[tuple[Spending, list[float]]] = [
    (obrien_fleming_spending, [2.963, 1.969]),
    (obrien_fleming_spending, [3.710, 2.511, 1.993]),
    (obrien_fleming_spending, [4.333, 2.963, 2.359, 2.014]),
    (obrien_fleming_spending, [4.877, 3.357, 2.680, 2.290, 2.031]),
    (pocock_spending, [2.157, 2.201]),
    (pocock_spending, [2.279, 2.295, 2.296]),
    (pocock_spending, [2.368, 2.368, 2.358, 2.350]),
    (pocock_spending, [2.438, 2.427, 2.410, 2.397, 2.386]),
]


def equal(looks: int) -> list[float]:
    return [k / looks for k in range(1, looks + 1)]


@pytest.mark.parametrize(("spending", "published"), PUBLISHED)
def test_the_boundaries_are_those_of_gsdesign_and_ldbounds(
    spending: Spending, published: list[float]
) -> None:
    found = GroupSequentialDesign(0.05, spending).boundaries(equal(len(published)))
    assert found == pytest.approx(published, abs=6e-4)


@pytest.mark.parametrize("spending", [obrien_fleming_spending, pocock_spending])
def test_everything_is_spent_at_the_end_and_never_more_on_the_way(spending: Spending) -> None:
    fractions, design = [0.07, 0.2, 0.21, 0.6, 0.95, 1.0], GroupSequentialDesign(0.1, spending)
    critical = design.boundaries(fractions)
    crossing = crossing_probabilities(fractions, critical)
    for look, t in enumerate(fractions):
        spent = math.fsum(crossing.upper[: look + 1])
        assert spent == pytest.approx(spending(t, 0.05), abs=1e-10)
        assert math.fsum(crossing.lower[: look + 1]) == pytest.approx(spent, abs=1e-12)
    assert design.power(0.0, fractions) == pytest.approx(0.1, abs=1e-9)


def test_one_look_is_the_ordinary_test() -> None:
    assert GroupSequentialDesign(0.05).boundaries([1.0]) == pytest.approx([norm.isf(0.025)])
    assert GroupSequentialDesign(0.05).power(2.8, [1.0]) == pytest.approx(
        norm.sf(norm.isf(0.025) - 2.8) + norm.cdf(-norm.isf(0.025) - 2.8)
    )


# Jennison & Turnbull 2000, tables 2.1 to 2.4: constants at two-sided 0.05, and the inflation of the maximum
# information at power 0.8 and 0.9, of Pocock's and O'Brien & Fleming's classical tests.
POCOCK = {
    2: (2.178, 1.110, 1.100),
    3: (2.289, 1.166, 1.151),
    5: (2.413, 1.229, 1.207),
    10: (2.555, 1.301, 1.270),
}
FLEMING = {
    2: (1.977, 1.008, 1.007),
    3: (2.004, 1.017, 1.016),
    5: (2.040, 1.028, 1.026),
    10: (2.087, 1.040, 1.037),
}


@pytest.mark.parametrize("looks", [2, 3, 5, 10])
@pytest.mark.parametrize("table", [POCOCK, FLEMING])
def test_size_and_power_of_the_classical_tests_are_jennison_and_turnbulls(
    table: dict[int, tuple[float, float, float]], looks: int
) -> None:
    constant, *inflations = table[looks]
    fractions = equal(looks)
    critical = [constant * (1.0 if table is POCOCK else t**-0.5) for t in fractions]
    assert crossing_probabilities(fractions, critical).total == pytest.approx(0.05, abs=1e-4)
    for power, inflation in zip((0.8, 0.9), inflations, strict=True):
        drift = math.sqrt(inflation) * float(norm.isf(0.025) + norm.ppf(power))
        assert crossing_probabilities(fractions, critical, drift=drift).total == pytest.approx(
            power, abs=5e-4
        )


@pytest.mark.parametrize("drift", [0.0, 1.5])
def test_the_integral_is_scipys_multivariate_normal(drift: float) -> None:
    t, upper, lower = np.array([0.2, 0.5, 0.55]), np.array([2.0, 1.5, 1.8]), np.array([-1.0, -2.5, -0.5])
    correlation = np.sqrt(np.minimum.outer(t, t) / np.maximum.outer(t, t))
    found = crossing_probabilities(t.tolist(), upper.tolist(), lower.tolist(), drift=drift)
    for looks in (1, 2, 3):
        law = multivariate_normal(drift * np.sqrt(t[:looks]), correlation[:looks, :looks], seed=1)
        inside = law.cdf(upper[:looks], lower_limit=lower[:looks])
        left = math.fsum(found.upper[:looks]) + math.fsum(found.lower[:looks])
        assert left == pytest.approx(1.0 - inside, abs=2e-5)


def test_power_and_expected_end_against_simulation() -> None:
    fractions, drift, paths = [0.15, 0.4, 0.8, 1.0], 2.9, 200_000
    design = GroupSequentialDesign(0.05, pocock_spending)
    rng = np.random.default_rng(5)
    steps = np.diff([0.0, *fractions])
    z = np.cumsum(rng.normal(drift * steps, np.sqrt(steps), (paths, 4)), axis=1) / np.sqrt(fractions)
    crossed = np.abs(z) >= design.boundaries(fractions)
    power = crossed.any(axis=1).mean()
    ends = np.where(crossed.any(axis=1), np.array(fractions)[crossed.argmax(axis=1)], 1.0)
    assert design.power(drift, fractions) == pytest.approx(power, abs=4 * math.sqrt(0.25 / paths))
    assert design.expected_fraction(drift, fractions) == pytest.approx(
        ends.mean(), abs=4 * ends.std() / math.sqrt(paths)
    )


def test_the_inflated_end_has_the_power_that_was_asked_for() -> None:
    fractions, design = [0.3, 0.6, 1.0], GroupSequentialDesign(0.05)
    inflation = design.inflation(0.8, fractions)
    assert 1.0 < inflation < 1.03
    drift = math.sqrt(inflation) * float(norm.isf(0.025) + norm.ppf(0.8))
    assert design.power(drift, fractions) == pytest.approx(0.8, abs=1e-6)
    assert design.inflation(0.8, [1.0]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("spending", [obrien_fleming_spending, pocock_spending])
def test_the_adjusted_p_value_says_what_the_boundaries_say(spending: Spending) -> None:
    rng = np.random.default_rng(6)
    design = GroupSequentialDesign(0.05, spending)
    rejected = 0
    for _ in range(60):
        fractions = np.sort(rng.uniform(0.1, 1.0, 4)).tolist()
        z = rng.normal(0.0, 2.2, 4)
        reject = bool(np.any(np.abs(z) >= design.boundaries(fractions)))
        rejected += reject
        assert (design.adjusted_p(fractions, z.tolist()) <= 0.05) == reject
    assert 10 < rejected < 50


def test_the_adjusted_p_value_of_one_final_look_is_the_ordinary_one_and_a_boundary_is_worth_its_level() -> (
    None
):
    assert GroupSequentialDesign().adjusted_p([1.0], [2.5]) == pytest.approx(2 * norm.sf(2.5))
    strict = GroupSequentialDesign(0.01, pocock_spending)
    fractions = [0.25, 0.5, 1.0]
    z = [0.3, strict.boundaries(fractions)[1], 0.2]
    assert GroupSequentialDesign(0.05, pocock_spending).adjusted_p(fractions, z) == pytest.approx(
        0.01, rel=1e-6
    )


def test_the_adjusted_p_value_is_uniform_or_larger_under_no_difference() -> None:
    rng = np.random.default_rng(7)
    fractions = [0.4, 0.7, 1.0]
    steps = np.diff([0.0, *fractions])
    z = np.cumsum(rng.normal(0, np.sqrt(steps), (400, 3)), axis=1) / np.sqrt(fractions)
    design = GroupSequentialDesign(0.05, pocock_spending)
    p = np.array([design.adjusted_p(fractions, row.tolist()) for row in z])
    assert (p <= 0.2).mean() == pytest.approx(0.2, abs=3 * math.sqrt(0.16 / 400))


def test_repeated_intervals_cover_at_all_looks_at_once() -> None:
    fractions, truth = [0.2, 0.5, 1.0], 1.3
    rng = np.random.default_rng(8)
    steps = np.diff([0.0, *fractions])
    estimates = np.cumsum(rng.normal(truth * steps, np.sqrt(steps), (40_000, 3)), axis=1) / fractions
    half = GroupSequentialDesign().half_widths(fractions, [t**-0.5 for t in fractions])
    covered = np.all(np.abs(estimates - truth) <= half, axis=1).mean()
    assert covered == pytest.approx(0.95, abs=3 * math.sqrt(0.05 * 0.95 / 40_000))


def test_more_than_was_planned_spends_what_is_left_once() -> None:
    design = GroupSequentialDesign()
    fractions = [0.5, 1.3, 1.5]
    first, second, third = design.boundaries(fractions)
    assert first == design.boundaries([0.5])[0]
    assert math.isinf(third)
    assert design.power(0.0, fractions) == pytest.approx(0.05, abs=1e-9)
    assert second > design.boundaries([0.5, 1.0])[1], "more is new, so more could be crossed by chance"


def test_a_look_with_nothing_new_cannot_decide_and_costs_nothing() -> None:
    found = GroupSequentialDesign().boundaries([0.0, 0.3, 0.3, 0.2, math.nan, 0.30001, 0.6, 1.0])
    without = GroupSequentialDesign().boundaries([0.3, 0.6, 1.0])
    assert [found[1], found[6], found[7]] == without
    assert [found[0], found[2], found[3], found[5]] == [math.inf] * 4
    assert math.isnan(found[4])
    last = GroupSequentialDesign().boundaries([0.99999, 1.0])
    assert math.isfinite(last[1]), "the end always decides"


def test_very_early_looks_have_nothing_to_spend() -> None:
    assert GroupSequentialDesign().boundaries([1e-4])[0] == math.inf
    assert GroupSequentialDesign().boundaries([]) == []
    assert GroupSequentialDesign().power(3.0, []) == 0.0
    assert math.isnan(GroupSequentialDesign().expected_fraction(3.0, []))


def test_what_is_not_known_gives_no_p_value() -> None:
    design = GroupSequentialDesign()
    assert math.isnan(design.adjusted_p([], []))
    assert math.isnan(design.adjusted_p([0.5], [math.nan]))
    assert math.isnan(design.adjusted_p([0.0], [3.0]))
    assert design.adjusted_p([0.5, 1.0], [math.nan, 3.0]) < 0.05
    assert design.adjusted_p([0.5], [math.inf]) < 1e-100
    assert design.adjusted_p([1.0], [-math.inf]) == 0.0
    assert design.adjusted_p([0.5], [0.0]) == 1.0


@pytest.mark.parametrize("alpha", [0.0, 0.5, -1.0, math.nan])
def test_an_impossible_level_is_refused(alpha: float) -> None:
    with pytest.raises(Invalid, match="alpha"):
        GroupSequentialDesign(alpha)


def test_an_impossible_power_or_plan_is_refused() -> None:
    with pytest.raises(Invalid, match="power"):
        GroupSequentialDesign().inflation(1.0, [1.0])
    with pytest.raises(Invalid, match="information_fractions"):
        GroupSequentialDesign().inflation(0.8, [0.0])


def test_ten_looks_take_milliseconds() -> None:
    design = GroupSequentialDesign()
    fastest = math.inf
    for _ in range(5):
        start = time.perf_counter()
        design.boundaries(equal(10))
        fastest = min(fastest, time.perf_counter() - start)
    assert fastest < 0.05


def test_the_examples_in_the_documentation_are_right() -> None:
    assert doctest.testmod(group_sequential).failed == 0
