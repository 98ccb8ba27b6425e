from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from experiments.analysis.guardrails import guardrail_results
from experiments.analysis.memory import TransientMemory
from experiments.experiment import Experiment, Variant
from experiments.guardrail import Guardrail
from experiments.measurement.measure import measure
from experiments.report import GuardrailResult
from tests.unit.experiments.records import experiment, payload, payload_frame, score_frame

ERRORS = Guardrail("error_rate", margin=0.02)
CANARY = Variant("challenger", "smol-hot", 20)


def _definition(*guardrails: Guardrail, **changes: Any) -> Experiment:
    values: dict[str, Any] = {
        "control": Variant("champion", "smol", 80),
        "treatments": (CANARY,),
        "kind": "canary",
        "unit": "request",
        "primary_metric": "success_rate",
        "secondary_metrics": (),
        "guardrails": guardrails,
        "planned_units": 4000,
    }
    return experiment(**{**values, **changes})


def _rows(
    control: int, treatment: int, failing: tuple[int, int] = (0, 0), **more: Any
) -> list[dict[str, Any]]:
    """So many requests of each arm, of which the first ``failing`` fail."""
    return [
        payload(
            None,
            variant,
            propensity=propensity,
            status_code=500 if number < bad else 200,
            error_type="upstream_status" if number < bad else None,
            **{name: value(variant, number) for name, value in more.items()},
        )
        for variant, count, bad, propensity in (
            ("champion", control, failing[0], 0.8),
            ("challenger", treatment, failing[1], 0.2),
        )
        for number in range(count)
    ]


def _results(
    definition: Experiment, rows: list[dict[str, Any]], memory: TransientMemory | None = None
) -> tuple[GuardrailResult, ...]:
    return guardrail_results(
        definition, measure(payload_frame(rows), score_frame([]), definition), memory or TransientMemory()
    )


def test_a_harmful_canary_is_caught_with_exact_evidence() -> None:
    (found,) = _results(_definition(ERRORS), _rows(1600, 400, (16, 30)))
    assert (found.state, found.method) == ("breached", "exact e-process")
    assert found.running_log_e is not None
    assert found.running_log_e >= found.threshold == pytest.approx(math.log(20))
    assert "and the evidence for more harm than none is " in found.reason
    assert "6.5 points worse" in found.reason


def test_an_equal_canary_is_cleared_once_the_bound_is_under_the_margin() -> None:
    (early,) = _results(_definition(ERRORS), _rows(160, 40, (2, 1)))
    (late,) = _results(_definition(ERRORS), _rows(4000, 1000, (40, 10)))
    assert (early.state, late.state) == ("open", "cleared")
    assert early.upper is not None
    assert late.upper is not None
    assert late.upper < 0.02 < early.upper
    assert late.reason.endswith("where 2 points would be allowed")


def test_a_canary_without_any_failure_can_be_cleared() -> None:
    """Five failures are needed for the normal mixture; a perfect service never has them."""
    (few,) = _results(_definition(ERRORS), _rows(160, 40))
    (many,) = _results(_definition(ERRORS), _rows(4000, 1000))
    assert (few.state, many.state) == ("open", "cleared")
    assert many.method == "exact bounds of the rates"


def test_evidence_once_reached_stays() -> None:
    memory = TransientMemory()
    definition = _definition(ERRORS)
    assert _results(definition, _rows(1600, 400, (16, 30)), memory)[0].state == "breached"
    diluted = _rows(16000, 4000, (300, 76))
    assert _results(definition, diluted)[0].state != "breached"
    assert _results(definition, diluted, memory)[0].state == "breached"


def test_several_guardrails_share_the_error_probability() -> None:
    latency = Guardrail("latency_ms", margin=0.1)
    results = _results(_definition(ERRORS, latency), _rows(400, 100, (4, 1)))
    assert [each.threshold for each in results] == pytest.approx([math.log(40)] * 2)
    assert results[1].state == "unknown"
    assert results[1].reason.startswith("all values are the same")


def test_a_tolerated_harm_is_no_harm_and_success_is_the_other_way_round() -> None:
    rows = _rows(1600, 400, (16, 30))
    (success,) = _results(_definition(Guardrail("success_rate", margin=0.02)), rows)
    assert (success.state, success.method) == ("breached", "exact e-process")
    assert success.harm == pytest.approx(30 / 400 - 0.01)
    (tolerant,) = _results(_definition(Guardrail("error_rate", margin=0.2, tolerance=0.1)), rows)
    assert (tolerant.state, tolerant.method) == ("cleared", "one-sided normal mixture")


def test_slower_answers_are_harm_on_the_log_scale() -> None:
    rng = np.random.default_rng(5)

    def duration(variant: str, number: int) -> int:
        return round(float(np.exp(rng.normal(5.0, 0.5))) * (1.4 if variant == "challenger" else 1.0))

    rows = _rows(1200, 300, execution_duration_ms=duration)
    (found,) = _results(_definition(Guardrail("latency_ms", margin=0.1)), rows)
    assert found.state == "breached"
    assert found.harm == pytest.approx(math.log(1.4), abs=0.1)
    assert found.margin == pytest.approx(math.log(1.1))
    (better,) = _results(
        _definition(Guardrail("latency_ms", margin=0.1)),
        _rows(
            1200, 300, execution_duration_ms=lambda v, n: duration("", n) // (2 if v == "challenger" else 1)
        ),
    )
    assert better.state == "cleared"
    assert better.log_e is not None
    assert better.log_e < 0


def test_users_with_several_requests_are_one_draw_each() -> None:
    rows = []
    for user in range(900):
        variant = "challenger" if user % 5 == 0 else "champion"
        for _ in range(4):
            bad = variant == "challenger" and user % 10 == 0
            rows.append(
                payload(
                    f"user-{user}",
                    variant,
                    propensity=0.2 if variant == "challenger" else 0.8,
                    status_code=500 if bad else 200,
                    error_type="upstream_status" if bad else None,
                )
            )
    (found,) = _results(_definition(ERRORS, unit="user"), rows)
    assert (found.state, found.method) == ("breached", "one-sided normal mixture")


def test_without_traffic_nothing_is_known() -> None:
    (found,) = _results(_definition(ERRORS), [])
    assert (found.state, found.harm, found.running_log_e) == ("unknown", None, None)
    assert "no measured records" in found.reason


def test_units_that_come_back_in_other_phases_are_counted_once() -> None:
    """Four steps of a canary with the same users are no four times as many draws."""
    definition = _definition(ERRORS, unit="user")

    def rows(phase: int, prefix: str) -> list[dict[str, Any]]:
        return [
            {**row, "unit": f"{prefix}-{row['variant']}-{number}", "phase": phase}
            for number, row in enumerate(_rows(1600, 400))
        ]

    once, again, more = (
        _results(definition, found)[0]
        for found in (
            rows(0, "same"),
            rows(0, "same") + rows(1, "same"),
            rows(0, "same") + rows(1, "other"),
        )
    )
    assert once.method == "exact bounds of the rates"
    assert once.upper is not None
    assert again.upper is not None
    assert more.upper is not None
    assert again.upper == pytest.approx(once.upper)
    assert more.upper < 0.6 * once.upper


def test_who_is_harmed_by_fewer_failures_is_heard() -> None:
    """A test that should fail, for example; the exact evidence is for the direction that was asked for."""
    turned = Guardrail("error_rate", margin=0.02, better="higher")
    worse, better = (
        _results(_definition(turned), _rows(1600, 400, failing))[0] for failing in ((320, 8), (64, 80))
    )
    assert (worse.method, worse.state) == ("exact e-process", "breached")
    assert better.state == "cleared"
