"""One look at one experiment: from measurements to a report.

Invariant: the report follows from definition, measurements, moment and memory alone, so it can be computed again.
Looks may come at any time and as often as anybody likes: what they leave behind is κ, frozen once, and the smallest
p-values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from experiments.analysis.bandit import allocation, bandit_estimate
from experiments.analysis.code_version import code_version
from experiments.analysis.committed import Committed, committed
from experiments.analysis.estimate import Estimate, estimate
from experiments.analysis.guardrails import guardrail_results
from experiments.analysis.levels import level_of, primary_level
from experiments.analysis.memory import Memory, RecordingMemory
from experiments.analysis.outlook import outlook, rests_on, would_change
from experiments.analysis.quantile_estimate import quantile_estimate
from experiments.analysis.variant_results import variant_result
from experiments.analysis.verdict import judge, sentence, split_reason
from experiments.experiment import Experiment, Variant
from experiments.measurement.measured import Measured, Measurements
from experiments.report import (
    AlwaysValidResult,
    Basis,
    CommittedResult,
    Comparison,
    FixedResult,
    LiftResult,
    LookResult,
    MetricResult,
    RatioResult,
    Report,
    SampleRatio,
)
from experiments.statistics.effect import Undecided
from experiments.statistics.multiplicity import benjamini_hochberg, e_benjamini_hochberg, holm
from experiments.statistics.ratio_check import RatioCheck, check_ratio

_NO_FIXED = FixedResult(None, None, None, None)
_NO_ALWAYS = AlwaysValidResult(None, None, None, None, None)
_NO_LIFT = LiftResult(None, None, None)


@dataclass(frozen=True, slots=True)
class Moment:
    """When and on what a look is made. ``since`` and ``until`` bound the records that count."""

    as_of: datetime
    state: str
    started_at: datetime | None = None
    since: datetime | None = None
    until: datetime | None = None
    payload_version: int | None = None
    scores_version: int | None = None
    feedback_version: int | None = None


@dataclass(slots=True)
class _Finding:
    """One comparison on its way to a verdict."""

    measured: Measured
    treatment: Variant
    role: str
    found: Estimate | Undecided
    committed: Committed | None = None
    adjusted_p: float = math.nan
    fixed_q: float = math.nan

    @property
    def running_p(self) -> float:
        if isinstance(self.found, Undecided):
            return math.nan
        if self.committed is not None:
            return self.committed.p_value
        return math.nan if self.found.running is None else self.found.running.p_value


def look(experiment: Experiment, measurements: Measurements, memory: Memory, moment: Moment) -> Report:
    """The report of this look; what it leaves behind is written to ``memory``."""
    recorded = RecordingMemory(memory)
    running = moment.state in ("running", "paused")
    ratio = _ratio(experiment, measurements, recorded, running=running)
    findings = [
        _find(experiment, measurements, measured, treatment, recorded, ratio, moment)
        for measured in measurements.metrics
        for treatment in experiment.treatments
    ]
    _adjust(findings)
    waiting = _waiting(experiment, measurements, moment)
    metrics = tuple(
        _metric(
            experiment, measured, [each for each in findings if each.measured is measured], ratio, waiting
        )
        for measured in measurements.metrics
    )
    exposures = {variant.name: ratio.observed.get(variant.name, 0) for variant in experiment.variants}
    units = sum(exposures.values())
    guardrails = guardrail_results(experiment, measurements, recorded)
    return Report(
        experiment=experiment.name,
        endpoint=experiment.endpoint,
        kind=experiment.kind,
        state=moment.state,
        as_of=moment.as_of.isoformat(),
        started_at=moment.started_at.isoformat() if moment.started_at else None,
        payload_version=moment.payload_version,
        scores_version=moment.scores_version,
        feedback_version=moment.feedback_version,
        unit=experiment.unit,
        phase=experiment.phase,
        alpha=primary_level(experiment),
        units=units,
        exposures=exposures,
        records={variant.name: measurements.records.get(variant.name, 0) for variant in experiment.variants},
        phase_records={
            variant.name: measurements.phase_records.get((experiment.phase, variant.name), 0)
            for variant in experiment.variants
        },
        excluded=measurements.excluded,
        sample_ratio=SampleRatio(
            ratio.p_value,
            ratio.ok,
            ratio.expected,
            ratio.observed,
            ratio.decided_by,
            ratio.chi_squared_p_value,
            ratio.sequential_p_value,
        ),
        metrics=metrics,
        guardrails=guardrails,
        shadows=(),
        allocation=allocation(experiment, measurements),
        verdict=sentence(ratio, metrics, units, experiment.unit, running=running, guardrails=guardrails),
        rests_on=rests_on(experiment, units, exposures, moment.started_at, moment.until or moment.as_of),
        would_change=would_change(metrics, guardrails, running=running),
        basis=Basis(
            code_version=code_version(),
            definition=experiment.to_dict(),
            since=moment.since.isoformat() if moment.since else None,
            until=moment.until.isoformat() if moment.until else None,
            memory=recorded.used.to_dict(),
            pilots=dict(measurements.pilots),
        ),
    )


def _ratio(
    experiment: Experiment, measurements: Measurements, memory: Memory, *, running: bool
) -> RatioCheck:
    weights = memory.weights()
    for phase in measurements.exposures:
        # A phase that was never registered here: only the records know what was meant.
        logged = measurements.propensities.get(phase)
        meant = {v.name: logged.get(v.name, 0.0) if logged else v.weight for v in experiment.variants}
        weights.setdefault(phase, meant)
    earlier = memory.running_p("sample_ratio", "")
    ratio = check_ratio(
        measurements.exposures,
        weights,
        running=running,
        running_p=1.0 if earlier is None else earlier.p_value,
    )
    memory.lower_p("sample_ratio", "", ratio.sequential_p_value, 0.0)
    return ratio


def _find(
    experiment: Experiment,
    measurements: Measurements,
    measured: Measured,
    treatment: Variant,
    memory: Memory,
    ratio: RatioCheck,
    moment: Moment,
) -> _Finding:
    found = _estimate(experiment, measurements, measured, treatment, memory, trusted=ratio.ok)
    finding = _Finding(measured, treatment, _role(experiment, measured.metric.name), found)
    if not isinstance(found, Undecided) and ratio.ok:
        finding.committed = committed(
            experiment, found, memory, level_of(experiment, measured.metric.name), lambda: moment.as_of
        )
    return finding


def _estimate(
    experiment: Experiment,
    measurements: Measurements,
    measured: Measured,
    treatment: Variant,
    memory: Memory,
    *,
    trusted: bool,
) -> Estimate | Undecided:
    if measured.metric.kind == "quantile":
        return quantile_estimate(experiment, measured, treatment, memory, trusted=trusted)
    if experiment.kind == "bandit":
        return bandit_estimate(experiment, measurements, measured, treatment, memory, trusted=trusted)
    return estimate(experiment, measurements, measured, treatment, memory, trusted=trusted)


def _role(experiment: Experiment, name: str) -> str:
    if name in experiment.primary_metrics:
        return "primary"
    return "secondary" if name in experiment.secondary_metrics else "guardrail"


def _adjust(findings: Sequence[_Finding]) -> None:
    """Primary ones by Holm on p-values that hold at every look; the others by e-BH on this look's e-values."""
    primary = [each for each in findings if each.role == "primary"]
    for each, adjusted in zip(primary, holm([one.running_p for one in primary]), strict=True):
        each.adjusted_p = adjusted
    others = [each for each in findings if each.role != "primary"]
    numbers = [None if isinstance(each.found, Undecided) else each.found for each in others]
    log_e = [None if found is None else found.log_e for found in numbers]
    fixed = [None if found is None else found.fixed.p_value for found in numbers]
    for each, adjusted, q in zip(others, e_benjamini_hochberg(log_e), benjamini_hochberg(fixed), strict=True):
        each.adjusted_p, each.fixed_q = adjusted, q


def _waiting(experiment: Experiment, measurements: Measurements, moment: Moment) -> str | None:
    """Why there is no verdict yet although there may be evidence: what was agreed on before the start."""
    if moment.started_at is not None and experiment.minimum_duration_s:
        wanted = timedelta(seconds=experiment.minimum_duration_s)
        ran = (moment.until or moment.as_of) - moment.started_at
        if ran < wanted:
            return f"it has run for {_span(ran)} of at least {_span(wanted)}"
    if experiment.minimum_events:
        for variant in experiment.variants:
            seen = measurements.records.get(variant.name, 0)
            if seen < experiment.minimum_events:
                return f"{variant.name} has {seen:,} of at least {experiment.minimum_events:,} records"
    return None


def _span(length: timedelta) -> str:
    seconds = max(length.total_seconds(), 0.0)
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} seconds"


def _metric(
    experiment: Experiment,
    measured: Measured,
    findings: Sequence[_Finding],
    ratio: RatioCheck,
    waiting: str | None,
) -> MetricResult:
    metric = measured.metric
    return MetricResult(
        name=metric.name,
        label=metric.label,
        role=_role(experiment, metric.name),  # type: ignore[arg-type]
        unit=metric.unit,
        scale=metric.scale,
        better=metric.better,
        variants={variant.name: variant_result(measured, variant) for variant in experiment.variants},
        comparisons=tuple(_comparison(experiment, finding, ratio, waiting) for finding in findings),
    )


def _comparison(
    experiment: Experiment, finding: _Finding, ratio: RatioCheck, waiting: str | None
) -> Comparison:
    treatment, control, found = finding.treatment.name, experiment.control.name, finding.found
    if isinstance(found, Undecided):
        return Comparison(
            treatment, control, None, _NO_LIFT, _NO_FIXED, _NO_ALWAYS, "inconclusive", found.reason
        )
    decided = finding.adjusted_p <= experiment.alpha
    if not ratio.ok:
        verdict, reason = "inconclusive", split_reason(ratio, experiment.unit)
    elif waiting is not None:
        verdict, reason = "inconclusive", waiting
    else:
        verdict, reason = judge(found, finding.committed, decided=decided)
    running_p = found.running.p_value if found.running else None
    return Comparison(
        treatment=treatment,
        control=control,
        difference=found.difference,
        relative_lift=LiftResult(found.lift.estimate, found.lift.low, found.lift.high),
        fixed=FixedResult(found.fixed.p_value, found.fixed.low, found.fixed.high, found.fixed.method),
        always_valid=AlwaysValidResult(
            found.always.p_value,
            found.always.low,
            found.always.high,
            running_p if ratio.ok else min(found.always.p_value, running_p or 1.0),
            found.always.r,
            found.method,
        ),
        verdict=verdict,  # type: ignore[arg-type]
        reason=reason,
        adjusted_p=finding.adjusted_p,
        fixed_q=finding.fixed_q,
        outlook=outlook(found, experiment, level_of(experiment, found.metric.name), verdict),
        failure_ratio=None
        if found.ratio is None
        else RatioResult(found.ratio.estimate, found.ratio.low, found.ratio.high),
        committed=_committed_result(finding.committed),
        variance_removed=found.variance_removed,
    )


def _committed_result(found: Committed | None) -> CommittedResult | None:
    if found is None:
        return None
    return CommittedResult(
        planned_looks=found.planned_looks,
        fraction=found.fraction,
        looks=tuple(LookResult(one.look, one.fraction, one.z, one.boundary) for one in found.looks),
        crossed=found.crossed is not None,
        p_value=found.p_value,
    )
