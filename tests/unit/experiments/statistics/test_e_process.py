"""Against scipy's laws, numerical integration, exact enumeration, and what the definitions promise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import simpson
from scipy.stats import beta, binom, dirichlet_multinomial, multinomial

from experiments.statistics.e_process import (
    EventCounts,
    default_concentration,
    multinomial_log_e,
    one_sided_log_e,
    p_from_log_e,
    rate_ratio,
    two_arm_log_e,
)


def integrated_e(counts: EventCounts, low: float, high: float, prior_high: float | None = None) -> float:
    """ln of the likelihood ratio averaged over the Beta law on (low, high), by Simpson's rule; ``prior_high`` is
    where the law ends when what is beyond ``high`` adds nothing to the average.
    """
    k1, k0, pi = counts.treatment, counts.control, counts.share
    c = default_concentration(pi)
    law = beta(c * pi, c * (1 - pi))
    theta = np.linspace(max(low, 1e-12), min(high, 1 - 1e-12), 200_001)
    log_ratio = k1 * np.log(theta / pi) + k0 * np.log((1 - theta) / (1 - pi)) + law.logpdf(theta)
    peak = float(np.max(log_ratio))
    mass = float(simpson(np.exp(log_ratio - peak), x=theta))
    whole = float(law.cdf(high if prior_high is None else prior_high) - law.cdf(low))
    return peak + math.log(mass) - math.log(whole)


COUNTS = [
    EventCounts(40, 380, 0.05),
    EventCounts(0, 12, 0.05),
    EventCounts(3, 0, 0.05),
    EventCounts(70, 30, 0.5),
    EventCounts(9, 40, 0.2),
    EventCounts(900, 100, 0.9),
]


@pytest.mark.parametrize("counts", COUNTS)
def test_all_three_mixtures_against_numerical_integration(counts: EventCounts) -> None:
    pi = counts.share
    assert two_arm_log_e([counts]) == pytest.approx(integrated_e(counts, 0, 1), abs=1e-6)
    assert one_sided_log_e([counts], "greater") == pytest.approx(integrated_e(counts, pi, 1), abs=1e-6)
    assert one_sided_log_e([counts], "less") == pytest.approx(integrated_e(counts, 0, pi), abs=1e-6)


@pytest.mark.parametrize(
    "counts", [EventCounts(0, 3_000, 0.5), EventCounts(100, 5_000, 0.4), EventCounts(1, 40_000, 0.05)]
)
def test_a_tail_that_underflows_is_summed_as_a_logarithm(counts: EventCounts) -> None:
    c = default_concentration(counts.share)
    posterior = beta(c * counts.share + counts.treatment, c * (1 - counts.share) + counts.control)
    assert float(posterior.sf(counts.share)) < 1e-200
    expected = integrated_e(counts, counts.share, counts.share * 1.2, prior_high=1.0)
    assert one_sided_log_e([counts], "greater") == pytest.approx(expected, abs=1e-6)


def test_the_tail_joins_the_body_without_a_step() -> None:
    values = [one_sided_log_e([EventCounts(100, k, 0.5)], "greater") for k in range(1_300, 1_700)]
    steps = np.diff(values)
    assert np.all(steps < 0)
    assert np.all(np.abs(np.diff(steps)) < 1e-5)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_under_equal_rates_the_mean_of_e_is_one_exactly(share: float) -> None:
    n = 60
    law = binom(n, share)
    for log_e in (
        two_arm_log_e,
        lambda counts: one_sided_log_e(counts, "greater"),
        lambda counts: one_sided_log_e(counts, "less"),
    ):
        mean = sum(law.pmf(k) * math.exp(log_e([EventCounts(k, n - k, share)])) for k in range(n + 1))
        assert float(mean) == pytest.approx(1.0)


@pytest.mark.parametrize("ratio", [0.3, 0.8, 1.0])
def test_one_sided_e_is_a_supermartingale_when_the_treatment_is_no_worse(ratio: float) -> None:
    """Its mean, by enumeration, never rises with the number of events."""
    share = 0.2
    theta = share * ratio / (share * ratio + 1 - share)
    means = [
        sum(
            float(binom.pmf(k, n, theta))
            * math.exp(one_sided_log_e([EventCounts(k, n - k, share)], "greater"))
            for k in range(n + 1)
        )
        for n in range(0, 60, 5)
    ]
    assert means[0] == 1.0
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(means))


def test_in_blocks_of_fixed_composition_the_mean_of_e_stays_below_one() -> None:
    """19 units of the control to each of the treatment, by enumeration over both arms' events."""
    rate, treated = 0.1, 4
    k1, k0 = np.arange(treated + 1), np.arange(19 * treated + 1)
    chances = np.outer(binom.pmf(k1, treated, rate), binom.pmf(k0, 19 * treated, rate))
    values = [[one_sided_log_e([EventCounts(int(a), int(b), 0.05)], "greater") for b in k0] for a in k1]
    assert float(np.sum(chances * np.exp(values))) <= 1.0


def test_a_one_sided_e_value_gains_on_the_two_sided_one_by_up_to_two() -> None:
    for counts in (EventCounts(40, 380, 0.05), EventCounts(80, 40, 0.5)):
        gain = one_sided_log_e([counts], "greater") - two_arm_log_e([counts])
        assert 0.5 < gain < 1.0


def test_the_other_direction_is_the_same_question_about_the_other_arm() -> None:
    assert one_sided_log_e([EventCounts(5, 95, 0.3)], "less") == pytest.approx(
        one_sided_log_e([EventCounts(95, 5, 0.7)], "greater")
    )


def test_against_a_tolerated_ratio_it_is_the_share_at_that_ratio_that_is_tested() -> None:
    """Rates of 2 and 1 at even shares: of three events two are the treatment's."""
    counts = EventCounts(70, 30, 0.5)
    tolerated = one_sided_log_e([counts], "greater", ratio=2.0)
    assert tolerated == pytest.approx(one_sided_log_e([EventCounts(70, 30, 2 / 3)], "greater"))
    assert tolerated < one_sided_log_e([counts], "greater")


def test_independent_phases_add() -> None:
    first, second = EventCounts(20, 150, 0.05), EventCounts(30, 25, 0.5)
    for log_e in (two_arm_log_e, lambda counts: one_sided_log_e(counts, "greater")):
        assert log_e([first, second]) == pytest.approx(log_e([first]) + log_e([second]))


@pytest.mark.parametrize(
    "strata", [COUNTS[:1], COUNTS[3:4], [EventCounts(20, 150, 0.05), EventCounts(30, 25, 0.5)]]
)
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_the_ratios_bounds_are_where_e_of_the_fixed_law_is_one_over_alpha(
    strata: list[EventCounts], alpha: float
) -> None:
    found = rate_ratio(strata, alpha)
    for ratio in (found.low, found.high):
        log_e = 0.0
        for s in strata:
            theta = s.share * ratio / (s.share * ratio + 1 - s.share)
            a = default_concentration(s.share) * np.array([s.share, 1 - s.share])
            n = s.treatment + s.control
            log_e += float(dirichlet_multinomial.logpmf([s.treatment, s.control], a, n))
            log_e -= float(multinomial.logpmf([s.treatment, s.control], n, [theta, 1 - theta]))
        assert log_e == pytest.approx(-math.log(alpha), abs=1e-6)
    assert found.low < found.estimate < found.high


def test_the_estimate_of_one_phase_is_the_ratio_of_the_rates() -> None:
    found = rate_ratio([EventCounts(40, 380, 0.05)], 0.05)
    assert found.estimate == pytest.approx((40 / 1000) / (380 / 19_000))


def test_the_interval_and_the_two_sided_test_say_the_same() -> None:
    for k in range(101):
        counts = [EventCounts(k, 100 - k, 0.4)]
        found = rate_ratio(counts, 0.05)
        assert (two_arm_log_e(counts) >= math.log(20)) == (not found.low < 1 < found.high), k


def test_without_events_in_an_arm_only_one_side_is_bounded() -> None:
    none_in_treatment, none_in_control = (
        rate_ratio([EventCounts(0, 50, 0.05)], 0.05),
        rate_ratio([EventCounts(50, 0, 0.05)], 0.05),
    )
    assert (none_in_treatment.estimate, none_in_treatment.low) == (0.0, 0.0)
    assert 1 < none_in_treatment.high < math.inf
    assert (none_in_control.estimate, none_in_control.high) == (math.inf, math.inf)
    assert none_in_control.low > 1


def test_no_event_is_no_evidence_and_no_estimate() -> None:
    nothing = [EventCounts(0, 0, 0.05)]
    assert two_arm_log_e(nothing) == 0.0
    assert one_sided_log_e(nothing, "greater") == 0.0
    found = rate_ratio(nothing, 0.05)
    assert math.isnan(found.estimate)
    assert (found.low, found.high) == (0.0, math.inf)


def test_phases_that_contradict_each_other_have_no_common_ratio() -> None:
    found = rate_ratio([EventCounts(100, 2, 0.5), EventCounts(2, 100, 0.5)], 0.05)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize(
    "counts",
    [
        EventCounts(-1, 3, 0.5),
        EventCounts(3, 3, 0.0),
        EventCounts(3, 3, 1.0),
        EventCounts(3, 3, math.nan),
        EventCounts(3, 3, 1e-12),
    ],
)
def test_what_cannot_be_said_is_nan(counts: EventCounts) -> None:
    good = EventCounts(3, 4, 0.5)
    assert math.isnan(two_arm_log_e([good, counts]))
    assert math.isnan(one_sided_log_e([counts], "greater"))
    assert math.isnan(rate_ratio([counts], 0.05).low)


def test_no_phase_and_senseless_parameters_are_nan() -> None:
    good = [EventCounts(3, 4, 0.5)]
    assert math.isnan(two_arm_log_e([]))
    assert math.isnan(two_arm_log_e(good, concentration=0.0))
    assert math.isnan(one_sided_log_e(good, "greater", ratio=math.inf))
    assert math.isnan(rate_ratio(good, 1.0).low)


@pytest.mark.parametrize("events", [10**6, 10**9])
def test_very_many_events_stay_finite(events: int) -> None:
    for counts in (
        EventCounts(events, events, 0.5),
        EventCounts(events, 0, 0.5),
        EventCounts(0, events, 0.5),
    ):
        assert math.isfinite(two_arm_log_e([counts]))
        assert math.isfinite(one_sided_log_e([counts], "greater"))
        assert math.isfinite(rate_ratio([counts], 0.05).estimate) or counts.control == 0


def test_the_default_law_spreads_the_log_ratio_alike_at_every_share() -> None:
    rng = np.random.default_rng(1)
    for share in (0.01, 0.05, 0.5):
        c = default_concentration(share)
        theta = rng.beta(c * share, c * (1 - share), 40_000)
        log_ratio = np.log(theta * (1 - share) / (share * (1 - theta)))
        assert float(np.std(log_ratio)) == pytest.approx(0.78, abs=0.06)


def test_p_is_one_over_e_and_at_most_one() -> None:
    assert p_from_log_e(math.log(40)) == pytest.approx(0.025)
    assert p_from_log_e(-3.0) == 1.0
    assert p_from_log_e(math.inf) == 0.0
    assert math.isnan(p_from_log_e(math.nan))


@pytest.mark.parametrize("counts", [(12, 30, 9), (0, 0, 5), (100, 210, 95)])
def test_the_multinomial_e_value_is_the_ratio_of_scipys_two_laws(counts: tuple[int, ...]) -> None:
    pi, concentration = np.array([0.25, 0.5, 0.25]), 40.0
    total = sum(counts)
    expected = dirichlet_multinomial.logpmf(counts, concentration * pi, total) - multinomial.logpmf(
        counts, total, pi
    )
    assert multinomial_log_e(counts, pi.tolist(), concentration) == pytest.approx(float(expected))


def test_the_multinomial_e_value_for_two_is_the_published_beta_form() -> None:
    """Lindon & Malek: B(a1+k1, a0+k0)/B(a1, a0)/(π^k1 (1−π)^k0), as a product of Pólya-urn predictions."""
    pi, concentration, k1, k0 = 0.3, 10.0, 7, 4
    e, ones, seen = 1.0, 0, 0
    for draw in [1] * k1 + [0] * k0:
        chance = (concentration * pi + ones) / (concentration + seen)
        e *= chance / pi if draw else (1 - chance) / (1 - pi)
        ones, seen = ones + draw, seen + 1
    assert math.exp(multinomial_log_e([k1, k0], [pi, 1 - pi], concentration)) == pytest.approx(e)


def test_the_multinomial_e_value_has_mean_one_when_the_counts_are_right() -> None:
    """Exactly, by enumeration: that is what makes it safe to look at any time."""
    pi, n = [0.2, 0.5, 0.3], 12
    mean = sum(
        math.exp(multinomial_log_e([a, b, n - a - b], pi, 15.0)) * multinomial.pmf([a, b, n - a - b], n, pi)
        for a, b in itertools.product(range(n + 1), repeat=2)
        if a + b <= n
    )
    assert float(mean) == pytest.approx(1.0)
