"""evaluators.alerts.findings: thresholds, changes and anomalies, with their error rates by simulation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators.alerts.findings import changed, past_threshold, unusual
from evaluators.alerts.rule import Anomaly, Change, LagMeasure, Threshold, TrafficMeasure
from evaluators.alerts.samples import Count, Mean, Plain, Quantile, Sample, Share
from tests.unit.evaluators.alerts.rules import rule


def mean(values: NDArray[np.float64]) -> Mean:
    return Mean(values.size, float(values.mean()), float(values.var(ddof=1)))


@pytest.mark.parametrize(
    ("condition", "value", "kind"),
    [
        (Threshold(above=0.1), 0.11, "breached"),
        (Threshold(above=0.1), 0.1, "clear"),
        (Threshold(below=0.1), 0.09, "breached"),
        (Threshold(below=0.1), 0.1, "clear"),
        (Threshold(above=0.0), 0.0, "clear"),
    ],
)
def test_thresholds(condition: Threshold, value: float, kind: str) -> None:
    finding = past_threshold(rule(), condition, Plain(value, 40))
    assert (finding.kind, finding.value, finding.samples) == (kind, value, 40)


def test_too_few_values_say_nothing() -> None:
    finding = past_threshold(rule(min_samples=30), Threshold(above=0.1), Share(3, 3))
    assert finding.kind == "insufficient"
    assert "3 values, and 30 are needed" in finding.reason


def test_no_traffic_is_a_number_of_calls() -> None:
    one = rule(measure=TrafficMeasure("requests"), min_samples=30)
    assert past_threshold(one, Threshold(below=10), Count(0)).kind == "breached"


CHANGES: list[tuple[str, Any]] = [
    ("share", lambda rng: Share(int(rng.binomial(400, 0.05)), 400)),
    ("rare", lambda rng: Share(int(rng.binomial(100, 0.005)), 100)),
    ("mean", lambda rng: mean(rng.normal(5.0, 2.0, 60))),
    ("count", lambda rng: Count(int(rng.poisson(80)))),
    ("quantile", lambda rng: Quantile(0.95, np.sort(rng.lognormal(size=300)))),
]


@pytest.mark.parametrize(("name", "draw"), CHANGES, ids=[name for name, _ in CHANGES])
def test_noise_does_not_alarm(name: str, draw: Any) -> None:
    """Two windows of one distribution, without any margin: at most alpha, within three standard errors."""
    rng = np.random.default_rng(7)
    alpha, looks = 0.05, 300
    condition = Change(relative=0.0, direction="both", alpha=alpha)
    found = [changed(rule(min_samples=2), condition, draw(rng), draw(rng)).kind for _ in range(looks)]
    assert found.count("breached") <= looks * alpha + 3 * np.sqrt(looks * alpha * (1 - alpha))


@pytest.mark.parametrize(
    ("condition", "sample", "reference"),
    [
        (Change(relative=0.5, direction="up"), Share(90, 400), Share(20, 400)),
        (Change(absolute=0.02, direction="up"), Share(60, 400), Share(20, 400)),
        (Change(relative=0.3, direction="down"), Share(100, 400), Share(240, 400)),
        (Change(relative=0.5, direction="down"), Count(5), Count(100)),
        (Change(relative=0.5, direction="up"), Count(300), Count(100)),
        (Change(relative=0.2, direction="both"), Share(5, 400), Share(60, 400)),
        (Change(relative=0.2, direction="up"), Mean(100, 13.0, 4.0), Mean(100, 10.0, 4.0)),
        (Change(relative=0.2, direction="down"), Mean(100, -13.0, 4.0), Mean(100, -10.0, 4.0)),
        (Change(relative=0.2, direction="up"), Mean(100, -7.0, 4.0), Mean(100, -10.0, 4.0)),
        (Change(absolute=1.0, direction="down"), Mean(100, 8.0, 4.0), Mean(100, 10.0, 4.0)),
        (Change(relative=0.2, direction="up"), Mean(100, 2.0, 0.0), Mean(100, 1.0, 0.0)),
    ],
)
def test_a_real_change_is_found_and_not_the_other_way(
    condition: Change, sample: Sample, reference: Sample
) -> None:
    one = rule(min_samples=2)
    assert changed(one, condition, sample, reference).kind == "breached"
    if condition.direction != "both":
        turned = Change(
            relative=condition.relative,
            absolute=condition.absolute,
            direction="down" if condition.direction == "up" else "up",
        )
        assert changed(one, turned, sample, reference).kind == "clear"


def test_a_change_within_the_margin_is_none_however_sure() -> None:
    condition = Change(relative=0.2, direction="both")
    million = 1_000_000
    within = changed(rule(min_samples=2), condition, Share(115_000, million), Share(100_000, million))
    beyond = changed(rule(min_samples=2), condition, Share(130_000, million), Share(100_000, million))
    assert (within.kind, beyond.kind) == ("clear", "breached")
    assert beyond.reference == 0.1
    assert beyond.evidence["reference_samples"] == million


def test_a_large_change_of_few_is_none() -> None:
    finding = changed(rule(min_samples=2), Change(relative=0.2), Share(3, 20), Share(1, 20))
    assert finding.kind == "clear"


def test_few_values_on_either_side_are_insufficient() -> None:
    one = rule(min_samples=30)
    assert changed(one, Change(relative=0.2), Share(1, 29), Share(1, 100)).kind == "insufficient"
    finding = changed(one, Change(relative=0.2), Share(1, 100), Share(1, 29))
    assert finding.kind == "insufficient"
    assert "in the reference" in finding.reason


def test_traffic_that_stops_is_a_change() -> None:
    one = rule(measure=TrafficMeasure("requests"), min_samples=30)
    condition = Change(relative=0.5, direction="down")
    assert changed(one, condition, Count(0), Count(200)).kind == "breached"
    assert changed(one, condition, Count(0), Count(3)).kind == "insufficient"


WEEKS = [[100.0, 104.0, 96.0], [98.0, 101.0, 103.0], [102.0, 99.0, 97.0]]


@pytest.mark.parametrize(
    ("direction", "value", "kind"),
    [
        ("both", 200, "breached"),
        ("both", 10, "breached"),
        ("up", 10, "clear"),
        ("down", 200, "clear"),
        ("up", 200, "breached"),
        ("down", 10, "breached"),
        ("both", 110, "clear"),
    ],
)
def test_unusual_values(direction: Any, value: int, kind: str) -> None:
    one = rule(measure=TrafficMeasure("requests"), min_samples=2)
    finding = unusual(one, Anomaly(direction=direction), Count(value), WEEKS)
    assert (finding.kind, finding.reference) == (kind, 100.0)


def test_without_enough_weeks_it_is_insufficient() -> None:
    one = rule(measure=TrafficMeasure("requests"), min_samples=2)
    finding = unusual(one, Anomaly(min_weeks=3), Count(500), [*WEEKS[:2], [], []])
    assert finding.kind == "insufficient"
    assert "2 past weeks" in finding.reason


def test_a_history_without_spread_makes_no_alarm_of_a_small_sample() -> None:
    flat = [[0.0] * 3] * 6
    one = rule(min_samples=2)
    assert unusual(one, Anomaly(), Share(1, 100), flat).kind == "clear"
    assert unusual(one, Anomaly(), Share(30, 100), flat).kind == "breached"


def test_a_difference_too_small_to_matter_makes_no_alarm() -> None:
    steady = [[1_000_000.0] * 3] * 6
    one = rule(measure=TrafficMeasure("requests"), min_samples=2)
    assert unusual(one, Anomaly(min_change=0.1), Count(1_050_000), steady).kind == "clear"
    assert unusual(one, Anomaly(min_change=0.01), Count(1_050_000), steady).kind == "breached"


def test_usual_hours_seldom_alarm() -> None:
    rng = np.random.default_rng(11)
    one = rule(measure=TrafficMeasure("requests"), min_samples=2)
    kinds = []
    for _ in range(500):
        level = rng.uniform(50, 500)
        weeks = [list(rng.poisson(level * rng.normal(1, 0.05), 3).astype(float)) for _ in range(6)]
        kinds.append(unusual(one, Anomaly(), Count(int(rng.poisson(level))), weeks).kind)
    assert kinds.count("breached") <= 5


def test_lag_is_compared_as_it_is() -> None:
    one = rule(measure=LagMeasure("toxicity"), min_samples=0, window=timedelta(hours=1))
    assert past_threshold(one, Threshold(above=60), Plain(61.0, 0)).kind == "breached"
