from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from experiments.statistics.ratio_check import THRESHOLD, check_ratio

EVEN = {0: {"champion": 50.0, "challenger": 50.0}}


def test_chi_squared_against_scipy() -> None:
    weights = {0: {"a": 50.0, "b": 30.0, "c": 20.0}}
    found = check_ratio({0: {"a": 520, "b": 290, "c": 190}}, weights, running=False)
    assert found.p_value == pytest.approx(float(chisquare([520, 290, 190], [500, 300, 200]).pvalue))
    assert found.ok
    assert found.expected == {"a": 500, "b": 300, "c": 200}


def test_the_published_example_of_a_mismatch() -> None:
    """Kohavi, Tang & Xu 2020, "Trustworthy Online Controlled Experiments", ch. 3: p = 1.8e-6."""
    counts = {0: {"champion": 821_588, "challenger": 815_482}}
    found = check_ratio(counts, EVEN, running=False)
    assert found.p_value == pytest.approx(1.8e-6, rel=0.03)
    assert not found.ok


def test_propensities_serve_as_weights_on_any_scale() -> None:
    counts = {0: {"champion": 903, "challenger": 97}}
    percent = check_ratio(counts, {0: {"champion": 90.0, "challenger": 10.0}}, running=False)
    chance = check_ratio(counts, {0: {"champion": 0.045, "challenger": 0.005}}, running=False)
    assert percent.p_value == pytest.approx(chance.p_value)


def test_a_gross_mismatch_is_found_while_running() -> None:
    found = check_ratio({0: {"champion": 160, "challenger": 80}}, EVEN, running=True)
    assert found.decided_by == "sequential"
    assert not found.ok


def test_a_variant_that_got_nobody_is_a_mismatch() -> None:
    assert not check_ratio({0: {"champion": 300}}, EVEN, running=True).ok


def test_units_in_a_variant_of_weight_zero_are_a_mismatch() -> None:
    weights = {0: {"champion": 100.0, "challenger": 0.0}}
    assert not check_ratio({0: {"champion": 300, "challenger": 1}}, weights, running=True).ok
    assert check_ratio({0: {"champion": 300}}, weights, running=True).ok


def test_phases_are_judged_by_their_own_weights() -> None:
    counts = {0: {"champion": 900, "challenger": 100}, 1: {"champion": 250, "challenger": 250}}
    weights = {0: {"champion": 90.0, "challenger": 10.0}, **{1: EVEN[0]}}
    found = check_ratio(counts, weights, running=False)
    assert found.p_value == pytest.approx(1.0)
    assert found.expected == {"champion": 1150, "challenger": 350}


def test_a_mismatch_that_was_seen_is_remembered() -> None:
    found = check_ratio({0: {"champion": 500, "challenger": 500}}, EVEN, running=True, running_p=1e-5)
    assert not found.ok


def test_nobody_yet_is_no_mismatch() -> None:
    found = check_ratio({}, EVEN, running=True)
    assert found.ok
    assert found.p_value == 1.0


def test_looking_after_every_unit_raises_no_more_false_alarms_than_promised() -> None:
    """χ² would: at 5 % here, so that there is something to count."""
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(200):
        champion = np.cumsum(rng.integers(0, 2, 1000))
        looks = (
            check_ratio(
                {0: {"champion": int(champion[n - 1]), "challenger": int(n - champion[n - 1])}},
                EVEN,
                running=True,
            )
            for n in range(20, 1001, 20)
        )
        alarms += any(look.sequential_p_value <= 0.05 for look in looks)
    assert alarms <= 0.05 * 200 + 2 * (0.05 * 0.95 * 200) ** 0.5
    assert THRESHOLD < 0.05
