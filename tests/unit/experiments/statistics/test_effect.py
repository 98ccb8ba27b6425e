from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.metrics import metric_for
from experiments.statistics.effect import Effect, Stratum, Undecided, effect
from experiments.statistics.statistic import Moments
from tests.unit.experiments.statistics.test_statistic import moments

ERRORS, LATENCY, TOXICITY = metric_for("error_rate"), metric_for("latency_ms"), metric_for("score:toxicity")


def binary(events: int, units: int) -> Moments:
    """``units`` units with one record each, ``events`` of which are 1."""
    return Moments(units, units, events, units, events, events)


def _decided(found: Effect | Undecided) -> Effect:
    assert isinstance(found, Effect)
    return found


def test_rates_get_the_null_pooled_standard_error() -> None:
    found = _decided(effect(ERRORS, [Stratum(binary(30, 1000), binary(2, 50))]))
    pooled = 32 / 1050
    assert found.difference == pytest.approx(2 / 50 - 0.03)
    assert found.sequential.se == pytest.approx(math.sqrt(pooled * (1 - pooled) * (1 / 1000 + 1 / 50)))
    assert math.isinf(found.sequential.degrees)
    assert found.half_harmonic == pytest.approx(1000 * 50 / 1050)


def test_a_clustered_rate_is_pooled_over_units_and_not_over_records() -> None:
    """Users that fail always or never: ten records each say no more than one."""
    rng = np.random.default_rng(1)
    fails = (rng.random(400) < 0.3).astype(float)
    clustered = _decided(
        effect(
            ERRORS,
            [
                Stratum(
                    moments(np.full(200, 10), 10 * fails[:200]), moments(np.full(200, 10), 10 * fails[200:])
                )
            ],
        )
    )
    single = _decided(
        effect(ERRORS, [Stratum(moments(np.ones(200), fails[:200]), moments(np.ones(200), fails[200:]))])
    )
    assert clustered.sequential.se == pytest.approx(single.sequential.se, rel=0.01)
    assert clustered.sequential.degrees == 398


def test_a_small_arm_without_spread_does_not_look_certain() -> None:
    """Rare toxic answers that a small arm happened to miss."""
    control = moments(np.ones(1000), np.r_[np.zeros(980), np.ones(20)])
    treatment = moments(np.ones(20), np.full(20, 0.001))
    found = _decided(effect(TOXICITY, [Stratum(control, treatment)]))
    assert found.fixed.se < 0.005
    assert found.sequential.se == pytest.approx(math.sqrt(0.0192 * (1 / 1000 + 1 / 20)), rel=0.01)


def test_the_log_scale_keeps_each_variants_own_variance() -> None:
    rng = np.random.default_rng(2)
    found = _decided(
        effect(
            LATENCY,
            [Stratum(moments(np.ones(90), rng.normal(0, 1, 90)), moments(np.ones(20), rng.normal(0, 5, 20)))],
        )
    )
    assert found.sequential == found.fixed


def test_phases_are_combined_and_never_pooled() -> None:
    """Simpson's paradox: in each phase the treatment has fewer errors, pooled it would have more."""
    strata = [Stratum(binary(20, 1000), binary(1, 100)), Stratum(binary(30, 100), binary(280, 1000))]
    pooled = effect(ERRORS, [Stratum(binary(50, 1100), binary(281, 1100))])
    assert _decided(pooled).difference > 0.2
    assert _decided(effect(ERRORS, strata)).difference < 0


def test_a_phase_that_has_only_one_variant_is_left_out() -> None:
    strata = [Stratum(binary(40, 1000), Moments()), Stratum(binary(20, 500), binary(25, 500))]
    found = _decided(effect(ERRORS, strata))
    assert found.difference == pytest.approx(0.01)
    assert len(found.strata) == 1


def test_a_tiny_phase_that_seems_to_have_no_spread_does_not_outweigh_the_others() -> None:
    rng = np.random.default_rng(3)
    large = Stratum(*(moments(np.ones(200), rng.normal(5, 1, 200)) for _ in range(2)))
    lucky = Stratum(
        moments(np.ones(6), 4 + np.arange(6) * 1e-3), moments(np.ones(6), 6 + np.arange(6) * 1e-3)
    )
    assert effect(LATENCY, [lucky, large]) == effect(LATENCY, [large])
    assert (
        _decided(effect(LATENCY, [lucky])).sequential.se
        < 0.01
        < _decided(effect(LATENCY, [large])).sequential.se
    )


def test_units_spread_thinly_over_phases_are_too_few() -> None:
    thin = Stratum(moments(np.ones(4), np.arange(4.0)), moments(np.ones(4), np.arange(4.0)))
    found = effect(LATENCY, [thin, thin], unit="user")
    assert found == Undecided("no phase has 5 measured users in each variant")


@pytest.mark.parametrize(
    ("control", "treatment", "words"),
    [
        (binary(3, 50), Moments(), "the treatment has no measured records"),
        (Moments(), binary(3, 50), "the control has no measured records"),
        (binary(3, 50), binary(1, 1), "the treatment has only 1 measured unit,"),
        (binary(0, 500), binary(0, 500), "nothing has failed yet"),
        (binary(500, 500), binary(500, 500), "nothing has succeeded yet"),
        (binary(2, 500), binary(1, 500), "too few failures: 3 in 1000"),
        (binary(499, 500), binary(498, 500), "too few successes: 3 in 1000"),
    ],
)
def test_a_rate_that_cannot_be_judged_says_why(control: Moments, treatment: Moments, words: str) -> None:
    found = effect(ERRORS, [Stratum(control, treatment)])
    assert isinstance(found, Undecided)
    assert found.reason.startswith(words)


def test_a_success_rate_without_failures_says_so() -> None:
    found = effect(metric_for("success_rate"), [Stratum(binary(500, 500), binary(500, 500))])
    assert found == Undecided("nothing has failed yet, so there is no difference to judge")


def test_no_phases_at_all_is_no_crash() -> None:
    assert isinstance(effect(ERRORS, []), Undecided)


@pytest.mark.parametrize("values", [(2.0, 2.0), (2.0, 3.0)])
def test_no_variance_is_inconclusive_even_when_the_means_differ(values: tuple[float, float]) -> None:
    arms = [moments(np.ones(50), np.full(50, value)) for value in values]
    found = effect(LATENCY, [Stratum(*arms)])
    assert isinstance(found, Undecided)
    assert "all values are the same" in found.reason


def test_values_beyond_floats_are_inconclusive() -> None:
    huge = Moments(5, 5, 5e200, 5, 5e200, math.inf)
    found = effect(TOXICITY, [Stratum(huge, huge)])
    assert found == Undecided("some values are too large to calculate with")
