"""Plans from real tables of recent traffic."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.power import tt_ind_solve_power

from collector.catalog import EndpointTables
from experiments.experiment import Experiment, Variant
from experiments.guardrail import Guardrail
from experiments.plan import ExperimentPlan, make_plan
from servelens.errors import Invalid
from tests.unit.experiments.records import (
    START,
    experiment,
    feedback,
    feedback_frame,
    payload,
    payload_frame,
    score,
    score_frame,
    tables,
)

NOW = START + timedelta(days=2)


@pytest.fixture
def recent(tmp_path: Path) -> EndpointTables:
    """Two days of 400 users who called once each, before there was any experiment."""
    rng = np.random.default_rng(4)
    rows = [
        payload(
            f"user-{user}",
            None,
            experiment=None,
            phase=None,
            request_time=START + timedelta(minutes=7 * user % 2880),
            execution_duration_ms=max(round(float(rng.lognormal(5, 0.5))), 1),
            status_code=500 if user % 20 == 1 else 200,
            error_type="upstream_status" if user % 20 == 1 else None,
            served_entity="smol" if user % 4 else "other",
        )
        for user in range(400)
    ]
    found = tables(tmp_path / "tables")
    found.payload.append(payload_frame(rows).collect())
    return found


def _planned(found: EndpointTables, definition: Experiment, **options: Any) -> ExperimentPlan:
    return make_plan(definition, found, NOW, **{"days": 2.0, **options})


def test_the_units_are_those_of_the_textbook_formula(recent: EndpointTables) -> None:
    """One look at log-normal times, against statsmodels' t-test power."""
    plan = _planned(recent, experiment(), effect=0.2)
    latency = plan.metrics[0]
    one_look = next(need for need in latency.needs if need.design == "one look")
    assert (plan.units_per_day, latency.metric) == (150.0, "latency_ms")
    per_arm = tt_ind_solve_power(effect_size=-math.log(0.8) / 0.5, alpha=0.05, power=0.8)
    assert one_look.units / 2 == pytest.approx(per_arm, rel=0.15)
    assert one_look.days == pytest.approx(one_look.units / 140), "only whole answers have a latency"
    always = latency.needs[0]
    assert always.design == "always valid"
    assert one_look.units < always.units < 2.5 * one_look.units
    assert always.median_units is not None
    assert always.median_units < always.units
    json.dumps(plan.to_dict(), allow_nan=False)


def test_the_planned_units_say_what_can_be_found(recent: EndpointTables) -> None:
    small, large = (_planned(recent, experiment(planned_units=n)).metrics[0] for n in (400, 40_000))
    assert small.detectable is not None
    assert large.detectable is not None
    assert -1 < small.detectable < large.detectable < 0, "faster is what one hopes for"
    assert _planned(recent, experiment(planned_units=None)).metrics[0].detectable is None
    days = _planned(recent, experiment(planned_units=None), run_days=400 / 140).metrics[0].detectable
    assert days == pytest.approx(small.detectable, rel=0.01), "a day brings 140 users with a latency"


def test_a_rate_that_cannot_rise_is_planned_for_its_fall(recent: EndpointTables) -> None:
    latency, success = _planned(recent, experiment(), effect=0.1).metrics
    assert (latency.effect, success.effect) == (-0.1, -0.1)
    assert success.needs
    (errors,) = _planned(
        recent, experiment(primary_metric="error_rate", secondary_metrics=()), effect=0.1
    ).metrics
    assert errors.effect == -0.1


def test_a_canary_is_planned_by_its_guardrails(recent: EndpointTables) -> None:
    canary = experiment(
        kind="canary",
        control=Variant("champion", "smol", 99),
        treatments=(Variant("challenger", "smol-hot", 1),),
        guardrails=(Guardrail("error_rate", 0.02), Guardrail("latency_ms:p95", 0.1)),
    )
    errors, slowest = _planned(recent, canary).guardrails
    assert errors.needs[0].units > 100
    assert (slowest.needs, slowest.reason) == (
        (),
        "use latency_ms to plan: a quantile needs about as much or more",
    )


def test_what_traffic_does_not_say_is_not_planned(recent: EndpointTables) -> None:
    plan = _planned(recent, experiment(primary_metric="score:toxicity", secondary_metrics=()))
    assert plan.metrics[0].needs == ()
    assert "measured for 0 units" in (plan.metrics[0].reason or "")


@pytest.mark.parametrize(
    ("options", "field"),
    [({"effect": 0.0}, "effect"), ({"power": 1.0}, "power"), ({"days": math.nan}, "days")],
)
def test_impossible_wishes_are_refused_by_field(
    recent: EndpointTables, options: dict[str, float], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        _planned(recent, experiment(), **options)
    assert refused.value.field == field


def test_feedback_is_planned_from_the_feedback_that_came(recent: EndpointTables) -> None:
    rng = np.random.default_rng(5)
    rows = [
        payload(f"rater-{n}", None, experiment=None, request_time=START + timedelta(minutes=n))
        for n in range(200)
    ]
    recent.payload.append(payload_frame(rows).collect())
    told = [feedback(row, float(rng.random() < 0.7)) for row in rows]
    recent.feedback.append(feedback_frame(told).collect())
    plan = _planned(
        recent,
        experiment(
            primary_metric="feedback:thumbs",
            guardrails=(Guardrail("feedback:thumbs", 0.1),),
            outcome_window_s=60.0,
        ),
    )
    for found in (plan.metrics[0], *plan.guardrails):
        assert found.reason is None
        assert found.baseline == pytest.approx(0.7, abs=0.1)
        assert found.needs


def test_a_guardrail_may_say_itself_what_harm_is(recent: EndpointTables) -> None:
    """Whether a judge's score is good or bad, only the experiment knows."""
    rng = np.random.default_rng(6)
    rows = [
        payload(f"judged-{n}", None, experiment=None, request_time=START + timedelta(minutes=n))
        for n in range(200)
    ]
    recent.payload.append(payload_frame(rows).collect())
    scores = [score(row, float(rng.normal(0.6, 0.1)), "judge") for row in rows]
    recent.scores.append(score_frame(scores).collect())
    (found,) = _planned(
        recent, experiment(guardrails=(Guardrail("score:judge", 0.1, better="higher"),))
    ).guardrails
    assert (found.reason, found.baseline) == (None, pytest.approx(0.6, abs=0.05))
