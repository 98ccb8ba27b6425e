"""Shadow experiments over real tables: pairs of answers to the same request."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_rel
from statsmodels.stats.contingency_tables import mcnemar

from experiments.experiment import Experiment, Variant
from experiments.report import MetricResult, Report
from servelens.errors import Invalid
from tests.unit.experiments.analysis.test_analyzer import Scene
from tests.unit.experiments.records import experiment, payload, score


def _definition(**changes: Any) -> Experiment:
    values: dict[str, Any] = {
        "kind": "shadow",
        "unit": "request",
        "control": Variant("champion", "smol"),
        "treatments": (Variant("next", "smol-next"),),
        "primary_metric": "latency_ms",
        "secondary_metrics": ("success_rate", "score:toxicity", "latency_ms:p95", "feedback:thumbs"),
        "planned_units": 400,
    }
    return experiment(**{**values, **changes})


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    found = Scene(tmp_path)
    yield found
    found.database.dispose()


def _pairs(
    rng: np.random.Generator, count: int, *, slower: float, failing: float = 0.0
) -> list[dict[str, Any]]:
    """Requests of very different length, each answered by both; the shadow fails more often."""
    rows = []
    for number in range(count):
        own = rng.normal(5.0, 1.0)
        original = payload(
            f"user-{number}",
            None,
            experiment=None,
            execution_duration_ms=max(round(float(np.exp(own + rng.normal(0, 0.1)))), 1),
            response_text="yes it is",
            served_entity="smol",
        )
        failed = bool(rng.random() < failing)
        mirror = payload(
            f"user-{number}",
            None,
            experiment=None,
            is_shadow=True,
            shadow_of=original["databricks_request_id"],
            served_entity="smol-next",
            propensity=1.0,
            execution_duration_ms=max(round(float(np.exp(own + rng.normal(0, 0.1))) * slower), 1),
            response_text=None if failed else ("yes  it is" if number % 2 else "no it never was"),
            status_code=500 if failed else 200,
            error_type="upstream_status" if failed else None,
        )
        rows += [original, mirror]
    return rows


def _metric(report: Report, name: str) -> MetricResult:
    return next(metric for metric in report.metrics if metric.name == name)


def test_differences_within_pairs_find_what_differences_between_requests_hide(scene: Scene) -> None:
    rows = _pairs(scene.rng, 150, slower=1.1)
    scene.write(rows, [score(row, float(scene.rng.random())) for row in rows])
    report = scene.look(_definition())
    (found,) = _metric(report, "latency_ms").comparisons
    assert found.verdict == "worse", "10 % among requests that differ by a factor of e"
    logs = [np.log([row["execution_duration_ms"] for row in rows[side::2]]) for side in (0, 1)]
    reference = ttest_rel(logs[1], logs[0])
    assert found.fixed.p_value == pytest.approx(float(reference.pvalue))
    assert found.fixed.method == "paired t"
    assert found.difference == pytest.approx(float(np.mean(logs[1] - logs[0])))
    assert report.units == 150
    assert report.verdict.startswith("next is worse than champion on typical latency: ")
    assert report.rests_on.startswith("150 pairs")
    assert _metric(report, "latency_ms").variants["champion"].estimate == pytest.approx(
        math.exp(np.mean(logs[0]))
    )
    json.dumps(report.to_dict(), allow_nan=False)


def test_rates_are_decided_by_the_pairs_that_differ(scene: Scene) -> None:
    rows = _pairs(scene.rng, 300, slower=1.0, failing=0.1)
    scene.write(rows)
    report = scene.look(_definition(primary_metric="success_rate", secondary_metrics=()))
    (found,) = _metric(report, "success_rate").comparisons
    failures = sum(row["status_code"] == 500 for row in rows)
    assert found.always_valid.method == "exact e-process"
    assert found.verdict == "worse"
    assert found.difference == pytest.approx(-failures / 300)
    reference = mcnemar([[300 - failures, failures], [0, 0]], exact=True)
    assert found.fixed.p_value is not None
    assert found.fixed.p_value <= reference.pvalue


def test_how_alike_the_answers_are_is_said(scene: Scene) -> None:
    scene.write(
        [*_pairs(scene.rng, 40, slower=1.0), payload("lonely", None, experiment=None, served_entity="smol")]
    )
    (found,) = scene.look(_definition()).shadows
    assert (found.pairs, found.unpaired, found.identical) == (40, 1, 0.5)
    assert found.word_overlap == pytest.approx((1.0 + 1 / 6) / 2)
    assert found.unpaired_reasons == {"dropped": 1}


def test_what_no_pair_can_say_is_inconclusive_with_a_reason(scene: Scene) -> None:
    scene.write(_pairs(scene.rng, 40, slower=1.0))
    report = scene.look(_definition())
    reasons = {metric.name: metric.comparisons[0].reason for metric in report.metrics}
    assert reasons["latency_ms:p95"] == "a quantile has no difference within a pair"
    assert reasons["feedback:thumbs"].startswith("feedback is about what users saw")
    assert reasons["score:toxicity"] == "next has no answers beside the control's yet"
    assert reasons["success_rate"].startswith("both variants' values are the same in every pair")


def test_before_any_pair_there_is_nothing_to_judge(scene: Scene) -> None:
    report = scene.look(_definition())
    assert report.units == 0
    assert report.verdict.startswith("There is nothing to judge yet")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"treatments": (Variant("same", "smol"),)}, "treatments"),
        ({"committed_looks": 3}, "committed_looks"),
    ],
)
def test_what_makes_no_sense_of_a_shadow_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        _definition(**changes)
    assert refused.value.field == field
