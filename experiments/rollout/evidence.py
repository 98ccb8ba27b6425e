"""What a report says of a canary, as :func:`~experiments.rollout.decision.decide` needs it and as the log keeps it.

Invariant: a guardrail that the report does not judge is unknown, not absent, so that it cannot be overlooked;
and a report of an earlier phase says nothing about this step's traffic, but its evidence of harm counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, Protocol

from experiments.experiment import Experiment, Variant
from experiments.guardrail import Guardrail
from experiments.metrics import metric_for
from experiments.ramp import Ramp
from experiments.report import GuardrailResult, SampleRatio
from experiments.rollout.decision import Evidence, Progress

DECIDED_ON: Final = "decided_on"


class Look(Protocol):
    """What a rollout needs of a :class:`~experiments.report.Report`; ``phase_records`` counts the records of
    ``phase`` by variant.
    """

    @property
    def as_of(self) -> str: ...
    @property
    def phase(self) -> int: ...
    @property
    def unit(self) -> str: ...
    @property
    def payload_version(self) -> int | None: ...
    @property
    def scores_version(self) -> int | None: ...
    @property
    def feedback_version(self) -> int | None: ...
    @property
    def sample_ratio(self) -> SampleRatio: ...
    @property
    def guardrails(self) -> tuple[GuardrailResult, ...]: ...
    @property
    def phase_records(self) -> Mapping[str, int]: ...


def evidence_of(experiment: Experiment, look: Look | None) -> Evidence:
    """The evidence on the experiment's first treatment; ``None``: nothing has been analysed yet."""
    treatment = experiment.treatments[0]
    results = () if look is None else tuple(g for g in look.guardrails if g.treatment == treatment.name)
    judged = {result.metric for result in results}
    missing = tuple(
        _not_judged(experiment, treatment, each)
        for each in experiment.guardrails
        if each.metric not in judged
    )
    of_this_phase = look is not None and look.phase == experiment.phase
    return Evidence(
        control=experiment.control.name,
        treatment=treatment.name,
        guardrails=results + missing,
        step_events=look.phase_records.get(treatment.name, 0) if look is not None and of_this_phase else 0,
        sample_ratio_ok=look is None or look.sample_ratio.ok,
        sample_ratio_reason="" if look is None else _split_words(look),
        as_of=datetime.fromisoformat(look.as_of) if look is not None and of_this_phase else None,
        falling=frozenset(each.metric for each in experiment.guardrails if each.harm_sign < 0),
    )


def to_json(
    ramp: Ramp, progress: Progress, evidence: Evidence, now: datetime, look: Look | None, code_version: str
) -> dict[str, Any]:
    """What the log keeps of it: the numbers, the tables' versions and the code's, and under ``decided_on`` the rest of what
    was decided on, so that the decision can be taken again (:mod:`experiments.replay_decisions`).
    """
    return {
        DECIDED_ON: {
            "ramp": asdict(ramp),
            "progress": asdict(progress),
            "now": now,
            "control": evidence.control,
            "treatment": evidence.treatment,
            "sample_ratio_ok": evidence.sample_ratio_ok,
            "sample_ratio_reason": evidence.sample_ratio_reason,
            "as_of": evidence.as_of,
            "falling": sorted(evidence.falling),
        },
        "guardrails": evidence.guardrails,
        "step_events": evidence.step_events,
        "sample_ratio": None if look is None else look.sample_ratio,
        "as_of": None if look is None else look.as_of,
        "versions": None
        if look is None
        else {
            "payload": look.payload_version,
            "scores": look.scores_version,
            "feedback": look.feedback_version,
        },
        "code_version": code_version,
    }


def _not_judged(experiment: Experiment, treatment: Variant, guardrail: Guardrail) -> GuardrailResult:
    metric = metric_for(guardrail.metric)
    return GuardrailResult(
        metric=metric.name,
        label=metric.label,
        treatment=treatment.name,
        scale=metric.scale,
        unit=metric.unit,
        margin=guardrail.on_scale(guardrail.margin),
        tolerance=guardrail.on_scale(guardrail.tolerance),
        harm=None,
        upper=None,
        log_e=None,
        running_log_e=None,
        threshold=math.log(len(experiment.guardrails) / experiment.alpha),
        state="unknown",
        method=None,
        reason="the analysis says nothing about it yet",
    )


def _split_words(look: Look) -> str:
    ratio = look.sample_ratio
    if ratio.ok or not ratio.observed:
        return ""
    worst = max(ratio.observed, key=lambda name: abs(ratio.observed[name] - ratio.expected.get(name, 0.0)))
    return (
        f"{worst} got {ratio.observed[worst]:,} of {sum(ratio.observed.values()):,} {look.unit}s "
        f"where about {ratio.expected.get(worst, 0.0):,.0f} were expected"
    )
