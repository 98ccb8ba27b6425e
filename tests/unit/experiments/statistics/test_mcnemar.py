"""Against statsmodels, scipy, and the examples of Fagerland, Lydersen & Laake; coverage by enumeration."""

from __future__ import annotations

import math

import pytest
from scipy.stats import binomtest, multinomial
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels

from experiments.statistics.mcnemar import Pairs, mcnemar

# Complete response before and after consolidation therapy (Cavo et al. 2012)
CAVO = Pairs(both=59, treatment_only=6, control_only=16, neither=80)
# Airway hyper-responsiveness before and after stem cell transplantation (Bentur et al. 2009)
BENTUR = Pairs(both=1, treatment_only=1, control_only=7, neither=12)


@pytest.mark.parametrize(
    "counts", [CAVO, BENTUR, Pairs(30, 9, 9, 50), Pairs(0, 12, 0, 3), Pairs(500, 80, 131, 900)]
)
def test_the_exact_p_against_statsmodels(counts: Pairs) -> None:
    table = [[counts.both, counts.treatment_only], [counts.control_only, counts.neither]]
    assert mcnemar(counts, 0.05).exact_p_value == pytest.approx(float(mcnemar_of_statsmodels(table).pvalue))


def test_the_published_p_values() -> None:
    """Fagerland, Lydersen & Laake: 2013, BMC Medical Research Methodology 13:91 (Bentur); Statistical Analysis of
    Contingency Tables, 2017, chapter 8 (Cavo).
    """
    assert mcnemar(BENTUR, 0.05).exact_p_value == pytest.approx(0.070, abs=5e-4)
    assert mcnemar(BENTUR, 0.05).mid_p_value == pytest.approx(0.039, abs=5e-4)
    assert mcnemar(CAVO, 0.05).exact_p_value == pytest.approx(0.052479, abs=5e-7)
    assert mcnemar(CAVO, 0.05).mid_p_value == pytest.approx(0.034690, abs=5e-7)


def test_newcombes_interval_as_published() -> None:
    """Statistical Analysis of Contingency Tables, 2017, chapter 8: the square-and-add interval for Cavo et al."""
    found = mcnemar(CAVO, 0.05).difference
    assert found.estimate == pytest.approx(-0.0621, abs=5e-5)
    assert (found.low, found.high) == (pytest.approx(-0.1186, abs=5e-5), pytest.approx(-0.0046, abs=5e-5))


@pytest.mark.parametrize(("one", "other"), [(4, 11), (11, 4), (0, 6)])
def test_mid_p_is_the_mean_of_the_tail_with_and_without_what_was_seen(one: int, other: int) -> None:
    least, n = min(one, other), one + other
    closed = binomtest(least, n, alternative="less").pvalue
    opened = binomtest(least - 1, n, alternative="less").pvalue if least else 0.0
    assert mcnemar(Pairs(5, one, other, 5), 0.05).mid_p_value == pytest.approx(closed + opened)


def test_the_mid_p_of_an_even_split_is_one_less_half_of_its_probability() -> None:
    """Fagerland, Lydersen & Laake 2013, the case n₁₂ = n₂₁."""
    assert mcnemar(Pairs(5, 7, 7, 5), 0.05).mid_p_value == pytest.approx(1 - math.comb(14, 7) / 2**15)


def test_swapping_the_variants_mirrors_the_result() -> None:
    found, mirrored = mcnemar(CAVO, 0.05), mcnemar(Pairs(59, 16, 6, 80), 0.05)
    assert found.mid_p_value == mirrored.mid_p_value
    assert found.difference.low == pytest.approx(-mirrored.difference.high)


def test_the_interval_keeps_its_level_for_pairs_that_mostly_agree() -> None:
    shares, n = (0.6, 0.12, 0.05, 0.23), 25
    law = multinomial(n, shares)
    covered = total = 0.0
    for both in range(n + 1):
        for one in range(min(n - both, 12) + 1):
            for other in range(min(n - both - one, 8) + 1):
                cells = (both, one, other, n - both - one - other)
                weight = float(law.pmf(cells)) if both >= 4 else 0.0
                if weight > 1e-7:
                    found = mcnemar(Pairs(*cells), 0.05).difference
                    covered += weight * (found.low <= 0.07 <= found.high)
                    total += weight
    assert total > 0.999
    assert 0.94 < covered / total < 0.985


def test_pairs_that_never_differ_give_no_p_but_an_interval() -> None:
    found = mcnemar(Pairs(both=40, neither=60), 0.05)
    assert math.isnan(found.exact_p_value)
    assert math.isnan(found.mid_p_value)
    assert found.difference.low < 0 < found.difference.high


def test_events_in_every_pair_still_bound_the_difference() -> None:
    found = mcnemar(Pairs(both=50), 0.05).difference
    assert found.estimate == 0
    assert found.low < 0 < found.high


@pytest.mark.parametrize(
    "counts", [Pairs(), Pairs(3, -1, 2, 5), Pairs(3, 1, math.nan, 5), Pairs(3, 1, math.inf, 5)]
)
def test_without_pairs_there_are_no_numbers(counts: Pairs) -> None:
    found = mcnemar(counts, 0.05)
    assert math.isnan(found.exact_p_value)
    assert math.isnan(found.difference.estimate)


def test_disjoint_pairs_add_up() -> None:
    assert Pairs(60, 7, 23, 92) == CAVO + BENTUR
