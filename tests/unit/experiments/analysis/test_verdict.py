from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from experiments.analysis.committed import Committed
from experiments.analysis.estimate import of_effect
from experiments.analysis.memory import TransientMemory
from experiments.analysis.verdict import judge, lift_words, value_words
from experiments.metrics import metric_for
from experiments.statistics.effect import Effect, Stratum, effect
from experiments.statistics.lift import Lift
from experiments.store import RunningP, SeenLook
from tests.unit.experiments.records import CHALLENGER, experiment
from tests.unit.experiments.statistics.test_statistic import moments


def _judged(
    name: str, shift: float, *, earlier: RunningP | None = None, committed: Committed | None = None
) -> tuple[str, str]:
    metric = metric_for(name)
    rng = np.random.default_rng(1)
    control = rng.normal(5.0, 1.0, 500)
    found = effect(metric, [Stratum(moments(np.ones(500), control), moments(np.ones(500), control + shift))])
    assert isinstance(found, Effect)
    definition = experiment(primary_metric=name, secondary_metrics=(), planned_units=1000)
    numbers = of_effect(definition, metric, CHALLENGER, found, TransientMemory(), trusted=True)
    if earlier is not None:
        numbers = replace(numbers, running=earlier)
    assert numbers.running is not None
    decided = committed.crossed is not None if committed else numbers.running.p_value <= 0.05
    return judge(numbers, committed, decided=decided)


@pytest.mark.parametrize(
    ("metric", "shift", "verdict"),
    [
        ("latency_ms", -1.0, "better"),
        ("latency_ms", 1.0, "worse"),
        ("time_to_first_token_ms", -1.0, "better"),
        ("score:perplexity", 1.0, "worse"),
        ("score:toxicity", -1.0, "better"),
        ("score:helpfulness", 1.0, "different"),
        ("latency_ms", 0.01, "inconclusive"),
    ],
)
def test_the_verdict_knows_the_good_direction(metric: str, shift: float, verdict: str) -> None:
    assert _judged(metric, shift)[0] == verdict


def test_no_evidence_says_how_large_the_difference_may_still_be() -> None:
    _, reason = _judged("latency_ms", 0.01)
    assert reason.startswith("not enough evidence, it may still be anywhere between ")
    assert "% lower and " in reason
    assert reason.endswith("% higher")


def test_evidence_once_reached_stands_when_todays_is_weaker() -> None:
    earlier = RunningP(0.01, -0.5, datetime(2026, 2, 1, tzinfo=UTC))
    assert _judged("latency_ms", -0.01, earlier=earlier)[0] == "better"


def test_evidence_that_turned_around_is_no_verdict() -> None:
    earlier = RunningP(0.01, -0.5, datetime(2026, 2, 1, tzinfo=UTC))
    verdict, reason = _judged("latency_ms", 0.01, earlier=earlier)
    assert verdict == "inconclusive"
    assert "2026-02-01" in reason


def test_a_committed_horizon_rests_on_the_look_that_crossed() -> None:
    day = datetime(2026, 2, 1, tzinfo=UTC)
    open_look = Committed(5, (SeenLook(1, 0.2, 1.0, 4.88, day),), None, 0.3, 0.4)
    verdict, reason = _judged("latency_ms", -1.0, committed=open_look)
    assert (verdict, reason[:48]) == ("inconclusive", "not enough evidence at 1 of 5 planned looks, it ")
    crossed = replace(open_look, crossed=SeenLook(2, 0.4, -4.0, 3.36, day))
    assert _judged("latency_ms", -1.0, committed=crossed)[0] == "better"
    turned = replace(open_look, crossed=SeenLook(2, 0.4, 4.0, 3.36, day))
    verdict, reason = _judged("latency_ms", -1.0, committed=turned)
    assert verdict == "inconclusive"
    assert "2026-02-01" in reason


@pytest.mark.parametrize(
    ("name", "estimate", "words"),
    [
        ("success_rate", 0.98123, "98.12 %"),
        ("latency_ms", math.log(812.4), "812 ms"),
        ("latency_ms", math.log(1.234), "1.23 ms"),
        ("score:toxicity", 0.0312, "0.0312"),
        ("output_tokens", 1234.5, "1,234"),
    ],
)
def test_values_are_shown_in_their_unit(name: str, estimate: float, words: str) -> None:
    assert value_words(metric_for(name), estimate) == words


def test_changes_are_in_words() -> None:
    assert lift_words(Lift(-0.12, -0.16, -0.08)) == "12 % lower (8 % to 16 %)"
    assert lift_words(Lift(6.0, 4.0, 9.0)) == "7 times as high (5 to 10 times)"
    assert lift_words(Lift(0.8, 0.6, 1.2)) == "80 % higher (between 60 % higher and 2.2 times as high)"
    wide = "7 times as high (between 50 % lower and over a million times as high)"
    assert lift_words(Lift(6.0, -0.5, 1.2782670590960315e22)) == wide
    assert lift_words(Lift(6e5, 5.0, 2e6)) == "600,001 times as high (6 to over a million times)"
    assert lift_words(Lift(0.5, math.nan, math.nan)) == "50 % higher"
    assert "cannot be put in percent" in lift_words(Lift(math.nan, math.nan, math.nan))
