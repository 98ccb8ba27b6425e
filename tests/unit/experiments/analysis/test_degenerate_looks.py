"""Looks at data that says nothing, for every kind of metric and of experiment: a verdict is inconclusive with its reason,
what cannot be said is null, nothing is remembered that is no number, and nothing crashes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from experiments.analysis.look import look
from experiments.analysis.memory import TransientMemory, memory_from_dict
from experiments.analysis.moment import Moment
from experiments.experiment import Experiment, Price, Variant
from experiments.guardrail import Guardrail
from experiments.measurement.measure import measure
from experiments.measurement.pairs import measure_pairs
from experiments.measurement.totals import Totals, measurements
from experiments.measurement.values import reading_for
from experiments.report import Comparison, Report
from tests.unit.experiments.analysis.looks import NOW
from tests.unit.experiments.records import (
    START,
    experiment,
    feedback,
    feedback_frame,
    payload,
    payload_frame,
    score,
    score_frame,
)

Row = dict[str, Any]
UNITS = 40
SCORES = ("perplexity", "judge")
EVERY_METRIC = (
    "error_rate",
    "latency_ms",
    "time_to_first_token_ms",
    "output_tokens",
    "cost",
    "score:perplexity",
    "score:judge",
    "feedback:thumbs",
    "latency_ms:p95",
    "score:judge:p50",
    "score:perplexity:p95",
    "latency_ms:over:200",
    "feedback:thumbs:over:0",
)
GUARDRAILS = (
    Guardrail("error_rate", 0.01),
    Guardrail("latency_ms", 0.1),
    Guardrail("latency_ms:p95", 0.1),
    Guardrail("score:judge", 0.1, tolerance=0.05, better="higher"),
    Guardrail("feedback:thumbs", 0.1),
)


def _definition(kind: str, unit: str) -> Experiment:
    values: Row = {
        "kind": kind,
        "unit": unit,
        "primary_metric": "success_rate",
        "secondary_metrics": EVERY_METRIC,
        "prices": (Price("smol", 1.0, 2.0), Price("smol-hot", 1.0, 2.0)),
        "outcome_window_s": 60.0,
    }
    if kind == "shadow":
        control, treatment = Variant("champion", "smol"), Variant("challenger", "smol-hot")
        return experiment(**values, control=control, treatments=(treatment,))
    return experiment(**values, guardrails=GUARDRAILS)


class Table:
    """The rows that a case makes: of each unit and variant one record, with what else is known of it."""

    def __init__(self, *, shadow: bool) -> None:
        self._shadow = shadow
        self.payload: list[Row] = []
        self.scores: list[Row] = []
        self.feedback: list[Row] = []

    def add(self, unit: str, variant: str, value: float | None = 100.0, **changes: Any) -> None:
        """``value`` is what every metric of the record is made of that may be any number."""
        entity = "smol" if variant == "champion" else "smol-hot"
        number = len(self.payload)
        row = payload(
            unit,
            variant,
            **{
                "databricks_request_id": f"request-{number}",
                "request_time": START + timedelta(seconds=number),
                "served_entity": entity,
                "is_stream": True,
                "time_to_first_token_ms": value,
                "input_tokens": 10,
                "response_text": "yes",
                **changes,
            },
        )
        if self._shadow:
            row |= {"experiment": None, "variant": None}
            if variant == "challenger":
                row |= {"is_shadow": True, "propensity": 1.0}
                row["shadow_of"] = next(
                    (
                        each["databricks_request_id"]
                        for each in reversed(self.payload)
                        if each["served_entity"] == "smol" and each["unit"] == unit
                    ),
                    "nobody",
                )
        self.payload.append(row)
        if value is not None:
            self.scores += [score(row, value, evaluator) for evaluator in SCORES]
            self.feedback.append(feedback(row, value, after_s=1.0))

    def both(self, unit: int, values: Sequence[float | None] = (100.0, 100.0), **changes: Any) -> None:
        """A unit with the control and another one with the treatment; in a shadow experiment one with both."""
        names = [f"user-{unit}"] * 2 if self._shadow else [f"user-{unit}", f"user-{unit + 1_000_000}"]
        for name, variant, value in zip(names, ("champion", "challenger"), values, strict=True):
            self.add(name, variant, value, **changes)


def _empty(table: Table) -> None:
    del table


def _one_variant(table: Table) -> None:
    for unit in range(UNITS):
        table.add(f"user-{unit}", "champion", float(unit))


def _one_unit(table: Table) -> None:
    table.both(0, (1.0, 2.0))


def _one_unit_often(table: Table) -> None:
    for number in range(UNITS):
        table.both(0, (float(number), number + 0.5))


def _all_the_same(table: Table) -> None:
    for unit in range(UNITS):
        table.both(unit)


def _all_failed(table: Table) -> None:
    for unit in range(UNITS):
        table.both(unit, status_code=500, error_type="upstream_error")


def _in_two_variants(table: Table) -> None:
    for unit in range(UNITS):
        for variant in ("champion", "challenger"):
            table.add(f"user-{unit}", variant, unit + 1.0)


def _never_measured(table: Table) -> None:
    for unit in range(UNITS):
        table.both(unit, (None, None), execution_duration_ms=None, output_tokens=None, input_tokens=None)


def _constant(value: float) -> Callable[[Table], None]:
    def fill(table: Table) -> None:
        for unit in range(UNITS):
            table.both(unit, (value, value))

    return fill


def _spread(size: float) -> Callable[[Table], None]:
    def fill(table: Table) -> None:
        for unit in range(UNITS):
            table.both(unit, (size * (1.0 + unit % 7 / 10), size * (1.0 + unit % 5 / 10)))

    return fill


def _outlier(value: float) -> Callable[[Table], None]:
    def fill(table: Table) -> None:
        for unit in range(UNITS):
            table.both(unit, (1.0 + unit % 7, value if unit == 3 else 1.0 + unit % 5))

    return fill


def _nearly_the_same(table: Table) -> None:
    """Beside how much the units differ, what the variants differ by is lost in rounding."""
    for unit in range(UNITS):
        table.both(unit, (1.0 + unit, (1.0 + unit) * (1.0 + unit % 3 * 2e-16)))


def _propensity(value: float | None) -> Callable[[Table], None]:
    def fill(table: Table) -> None:
        for unit in range(UNITS):
            table.both(unit, propensity=value)

    return fill


SAY_NOTHING = {
    "no traffic": _empty,
    "an empty variant": _one_variant,
    "one unit": _one_unit,
    "one unit, often": _one_unit_often,
    "no variance, no failure": _all_the_same,
    "no variance, no success": _all_failed,
    "a metric that never arrives": _never_measured,
    "not a number": _constant(math.nan),
    "infinite": _constant(math.inf),
    "zero": _constant(0.0),
    "no propensity": _propensity(None),
    "a propensity of zero": _propensity(0.0),
    "a propensity that is no number": _propensity(math.nan),
}
SAY_HARDLY_ANYTHING = {
    "units in two variants": _in_two_variants,
    "far too large": _spread(1e300),
    "large": _spread(1e90),
    "small": _spread(1e-90),
    "far too small": _spread(1e-200),
    "negative": _spread(-1.0),
    "one far too large": _outlier(1e300),
    "one large": _outlier(1e90),
    "one infinite": _outlier(math.inf),
    "lost in rounding": _nearly_the_same,
}
KINDS = (
    ("ab", "user"),
    ("ab", "request"),
    ("canary", "session"),
    ("canary", "request"),
    ("bandit", "user"),
    ("bandit", "request"),
    ("shadow", "user"),
    ("shadow", "request"),
)


def _look(definition: Experiment, fill: Callable[[Table], None]) -> tuple[Report, TransientMemory]:
    table = Table(shadow=not definition.assigns)
    fill(table)
    records, scores = payload_frame(table.payload), score_frame(table.scores)
    if definition.assigns:
        found = measure(
            records,
            scores,
            definition,
            feedback=feedback_frame(table.feedback),
            as_of=NOW + timedelta(days=1),
        )
    else:
        pairs = measure_pairs(records, scores, definition)
        found = replace(measurements(Totals(), reading_for(definition), {}), pairs=pairs)
    memory = TransientMemory()
    return look(definition, found, memory, Moment(NOW, "running", START)), memory


def _comparisons(report: Report) -> list[Comparison]:
    return [comparison for metric in report.metrics for comparison in metric.comparisons]


def _check(report: Report, memory: TransientMemory) -> None:
    document = json.dumps(report.to_dict(), allow_nan=False)
    assert " nan" not in document
    assert len(_comparisons(report)) == len(EVERY_METRIC) + 1
    for one in _comparisons(report):
        assert one.reason
        if one.difference is None:
            assert (one.verdict, one.adjusted_p) == ("inconclusive", None)
            assert (one.fixed.p_value, one.always_valid.p_value, one.always_valid.running_p) == (None,) * 3
    for result in report.guardrails:
        assert result.reason
        assert result.state != "breached"
    for remembered in memory.running.values():
        assert 0.0 <= remembered.p_value <= 1.0
        assert math.isfinite(remembered.difference)
    assert memory_from_dict(json.loads(document)["basis"]["memory"]).running == memory.running


@pytest.mark.parametrize(("kind", "unit"), KINDS)
@pytest.mark.parametrize("case", SAY_NOTHING)
def test_what_says_nothing_is_inconclusive_with_its_reason(case: str, kind: str, unit: str) -> None:
    report, memory = _look(_definition(kind, unit), SAY_NOTHING[case])
    _check(report, memory)
    assert {one.verdict for one in _comparisons(report)} == {"inconclusive"}


@pytest.mark.parametrize(("kind", "unit"), KINDS)
@pytest.mark.parametrize("case", SAY_HARDLY_ANYTHING)
def test_what_can_hardly_be_calculated_with_makes_no_number_up(case: str, kind: str, unit: str) -> None:
    report, memory = _look(_definition(kind, unit), SAY_HARDLY_ANYTHING[case])
    _check(report, memory)
