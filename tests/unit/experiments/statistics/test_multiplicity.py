"""Against statsmodels' multipletests, Benjamini and Hochberg's published example, and the definition of e-BH."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from experiments.statistics.multiplicity import (
    benjamini_hochberg,
    bonferroni_level,
    e_benjamini_hochberg,
    holm,
)

# Benjamini & Hochberg 1995, §3.2: thrombolysis, fifteen hypotheses.
PUBLISHED = [
    0.0001,
    0.0004,
    0.0019,
    0.0095,
    0.0201,
    0.0278,
    0.0298,
    0.0344,
    0.0459,
    0.3240,
    0.4262,
    0.5719,
    0.6528,
    0.7590,
    1.0000,
]


def test_the_published_example_rejects_four_by_their_step_up() -> None:
    assert [q <= 0.05 for q in benjamini_hochberg(PUBLISHED)] == [True] * 4 + [False] * 11


@pytest.mark.parametrize("seed", range(5))
def test_adjusted_values_are_those_of_statsmodels_in_any_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.beta(0.4, 2, 25)
    p[3] = p[7]  # a tie
    assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1])
    assert benjamini_hochberg(p.tolist()) == pytest.approx(multipletests(p, method="fdr_bh")[1])


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_what_has_no_p_value_stays_nan_and_does_not_count(adjust: object) -> None:
    assert callable(adjust)
    p = [0.01, None, 0.04, math.nan, 0.03, math.inf, -0.1]
    found = adjust(p)
    assert [found[0], found[2], found[4]] == pytest.approx(adjust([0.01, 0.04, 0.03]))
    assert all(math.isnan(found[index]) for index in (1, 3, 5, 6))


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg, e_benjamini_hochberg])
def test_no_question_has_no_answer_and_one_question_needs_no_adjustment(adjust: object) -> None:
    assert callable(adjust)
    assert adjust([]) == []
    assert math.isnan(adjust([None])[0])
    one = adjust([0.04])[0]
    assert one == pytest.approx(0.04 if adjust is not e_benjamini_hochberg else math.exp(-0.04))


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("seed", range(5))
def test_e_bh_rejects_by_the_definition(seed: int, alpha: float) -> None:
    """Wang & Ramdas 2022, §4: the k* largest, with k* the largest k such that k·e₍ₖ₎/m ≥ 1/α."""
    rng = np.random.default_rng(seed)
    log_e = rng.normal(1.5, 3, 30)
    m, largest = len(log_e), np.sort(np.exp(log_e))[::-1]
    count = max((k for k in range(1, m + 1) if k * largest[k - 1] / m >= 1 / alpha), default=0)
    expected = np.exp(log_e) >= (largest[count - 1] if count else math.inf)
    assert [q <= alpha for q in e_benjamini_hochberg(log_e.tolist())] == expected.tolist()


def test_e_values_beyond_floats_and_missing_ones() -> None:
    found = e_benjamini_hochberg([1e4, -1e4, None, math.nan, math.log(80)])
    assert found[:2] == [0.0, 1.0]
    assert math.isnan(found[2])
    assert math.isnan(found[3])
    assert found[4] == pytest.approx(3 / (2 * 80))


def test_the_false_discovery_rate_of_e_bh_holds_at_the_worst_moment_and_under_full_dependence() -> None:
    """Twenty true nulls share one E, stopped at its maximum 1/U, which is as large as Ville's inequality lets it be."""
    rng = np.random.default_rng(1)
    runs = 2_000
    found = sum(
        any(q <= 0.05 for q in e_benjamini_hochberg([-math.log(1.0 - rng.random())] * 20))
        for _ in range(runs)
    )
    assert 0 < found <= 0.05 * runs + 2 * math.sqrt(0.05 * 0.95 * runs)


def test_the_bonferroni_level_counts_what_was_asked() -> None:
    assert bonferroni_level(0.05, [0.2, 0.3, None, math.nan]) == 0.025
    assert math.isnan(bonferroni_level(0.05, [None]))


def test_holm_never_rejects_less_than_bonferroni() -> None:
    rng = np.random.default_rng(6)
    p = rng.beta(0.3, 2, 40).tolist()
    level = bonferroni_level(0.05, p)
    assert all(adjusted <= 0.05 for adjusted, own in zip(holm(p), p, strict=True) if own <= level)
