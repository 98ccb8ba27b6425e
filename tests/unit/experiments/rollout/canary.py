"""A canary and what an analysis may say of it, for the tests of rollouts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from experiments.experiment import Experiment, Variant
from experiments.guardrail import Guardrail
from experiments.ramp import Ramp, Step
from experiments.report import GuardrailResult, SampleRatio
from servelens.errors import Conflict, Missing
from tests.unit.experiments.records import START

V7, V8 = Variant("v7", "chat-7", 95), Variant("v8", "chat-8", 5)
RAMP = Ramp((Step(5, 600, 100), Step(25, 600, 300), Step(50, 600, 500)), deadline_s=86_400.0)


def canary(**changes: Any) -> Experiment:
    """v8 against v7 on endpoint ``chat``, with guardrails on errors and latency."""
    values: dict[str, Any] = {
        "name": "v8-rollout",
        "endpoint": "chat",
        "kind": "canary",
        "control": V7,
        "treatments": (V8,),
        "primary_metric": "error_rate",
        "guardrails": (Guardrail("error_rate", 0.01), Guardrail("latency_ms", 0.1)),
        "rollout": RAMP,
    }
    return Experiment(**{**values, **changes})


def guardrail(state: str = "cleared", **changes: Any) -> GuardrailResult:
    """What the error rate's guardrail says in that state."""
    values: dict[str, Any] = {
        "metric": "error_rate",
        "label": "error rate",
        "treatment": "v8",
        "scale": "plain",
        "unit": "rate",
        "margin": 0.01,
        "tolerance": 0.0,
        "harm": 0.001,
        "upper": 0.02,
        "log_e": -1.0,
        "running_log_e": 0.5,
        "threshold": math.log(2 / 0.05),
        "state": state,
        "method": "one-sided",
        "reason": "",
    }
    by_state: dict[str, dict[str, Any]] = {
        "cleared": {"upper": 0.006},
        "open": {},
        "breached": {"harm": 0.019, "upper": 0.04, "log_e": 6.02, "running_log_e": math.log(412)},
        "unknown": {"harm": None, "upper": None, "log_e": None, "reason": "v8 has no measured records yet"},
    }
    return GuardrailResult(**{**values, **by_state[state], **changes})


def latency(state: str = "cleared", **changes: Any) -> GuardrailResult:
    """What the latency's guardrail says in that state; numbers are logarithms."""
    scale: dict[str, Any] = {"metric": "latency_ms", "label": "typical latency", "scale": "log", "unit": "ms"}
    numbers = {"breached": {"harm": math.log(1.3), "upper": math.log(1.5)}, "unknown": {}}.get(
        state, {"harm": math.log(1.01), "upper": math.log(1.05 if state == "cleared" else 1.2)}
    )
    return guardrail(state, **{**scale, "margin": math.log1p(0.1), **numbers, **changes})


@dataclass(frozen=True)
class Seen:
    """A report, as far as a rollout looks at it."""

    as_of: str
    phase: int
    guardrails: tuple[GuardrailResult, ...]
    phase_records: Mapping[str, int]
    sample_ratio: SampleRatio = field(
        default=SampleRatio(
            0.8, True, {"v7": 950.0, "v8": 50.0}, {"v7": 940, "v8": 60}, "sequential", 0.5, 0.8
        )
    )
    unit: str = "user"
    payload_version: int | None = 12
    scores_version: int | None = 3
    feedback_version: int | None = None


def seen(at: datetime, phase: int, events: int, *guardrails: GuardrailResult, **changes: Any) -> Seen:
    """A report of ``at``; both guardrails are cleared unless named."""
    results = guardrails or (guardrail(), latency())
    return replace(Seen(at.isoformat(), phase, results, {"v7": 19 * events, "v8": events}), **changes)


@dataclass(frozen=True)
class Stands:
    """Where an experiment stands."""

    experiment: Experiment
    state: str = "running"
    outcome: str | None = None
    reason: str | None = None
    step: int = 0
    step_started_at: datetime | None = None
    started_at: datetime | None = START
    revision: int = 1
    changed_by: str = "file"


class Lifecycles:
    """Experiments in memory, changed by the rules of those in the database, and every change that was made.

    ``cross`` is called before and after each change, so that a test can let it fail there.
    """

    def __init__(self, clock: Any, *experiments: Experiment) -> None:
        self._clock = clock
        self.cross: Callable[[], None] = lambda: None
        self._standings = {
            experiment.name: Stands(experiment, step_started_at=clock.now()) for experiment in experiments
        }
        self.changes: list[tuple[Any, ...]] = []
        self.routes = {experiment.endpoint: experiment.control.served_entity for experiment in experiments}

    def standing(self, name: str) -> Stands:
        if name not in self._standings:
            raise Missing(f"there is no experiment {name!r}")
        return self._standings[name]

    def begin_phase(
        self,
        name: str,
        weights: dict[str, float],
        *,
        step: int | None = None,
        by: str,
        expected_revision: int | None = None,
    ) -> Experiment:
        before = self._expected(name, expected_revision)
        experiment = before.experiment.with_weights(weights)
        at = before.step if step is None else step
        change = ("begin_phase", weights, step, by)
        self._change(name, by, change, experiment=experiment, step=at, step_started_at=self._clock.now())
        return experiment

    def stop(
        self, name: str, by: str, outcome: str, reason: str, expected_revision: int | None = None
    ) -> Stands:
        if self.standing(name).outcome == outcome:
            return self.standing(name)
        self._expected(name, expected_revision)
        change = ("stop", outcome, by)
        return self._change(name, by, change, state="stopped", outcome=outcome, reason=reason)

    def pause(self, name: str, by: str) -> Stands:
        return self._change(name, by, None, state="paused")

    def resume(self, name: str, by: str) -> Stands:
        return self._change(name, by, None, state="running")

    def promote(self, endpoint: str, control: str, treatment: str, by: str) -> None:
        assert control != treatment
        self.cross()
        if self.routes[endpoint] != treatment:
            self.changes.append(("promote", endpoint, treatment, by))
            self.routes[endpoint] = treatment
        self.cross()

    def _expected(self, name: str, revision: int | None) -> Stands:
        now = self.standing(name)
        if now.state == "stopped":
            raise Conflict("the experiment has stopped", field="state")
        if revision is not None and revision != now.revision:
            raise Conflict(f"revision {now.revision}, not {revision}", field="revision")
        return now

    def _change(self, name: str, by: str, change: tuple[Any, ...] | None, **changes: Any) -> Stands:
        self.cross()
        before = self._standings[name]
        after = replace(before, **changes, changed_by=by, revision=before.revision + 1)
        self._standings[name] = after
        if change is not None:
            self.changes.append(change)
        self.cross()
        return after


def minutes(count: float) -> timedelta:
    """``count`` minutes."""
    return timedelta(minutes=count)
