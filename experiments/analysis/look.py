"""One look at one experiment: from measurements to a report.

Invariant: the report follows from definition, measurements, moment and memory alone, so it can be computed again.
Looks may come at any time and as often as anybody likes: what they leave behind is κ, frozen once, and the smallest
p-values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from experiments.analysis.bandit import allocation, bandit_estimate
from experiments.analysis.code_version import code_version
from experiments.analysis.committed import committed
from experiments.analysis.estimate import Estimate, estimate
from experiments.analysis.findings import Finding, adjust, comparison_of, role_of, waiting_for
from experiments.analysis.guardrails import guardrail_results
from experiments.analysis.levels import level_of, primary_level
from experiments.analysis.memory import Memory, RecordingMemory
from experiments.analysis.moment import Moment
from experiments.analysis.outlook import rests_on, would_change
from experiments.analysis.quantile_estimate import quantile_estimate
from experiments.analysis.shadow import pair_counts, shadow_metrics, shadow_results
from experiments.analysis.variant_results import variant_result
from experiments.analysis.verdict import sentence, split_reason
from experiments.experiment import Experiment, Variant
from experiments.measurement.measured import Measured, Measurements
from experiments.report import (
    AlwaysValidResult,
    Basis,
    FixedResult,
    LiftResult,
    MetricResult,
    Report,
    SampleRatio,
)
from experiments.statistics.effect import Undecided
from experiments.statistics.ratio_check import RatioCheck, check_ratio

_NO_FIXED = FixedResult(None, None, None, None)
_NO_ALWAYS = AlwaysValidResult(None, None, None, None, None)
_NO_LIFT = LiftResult(None, None, None)


# Every request that is mirrored is in both variants of a shadow experiment.
_NO_SPLIT = RatioCheck(True, math.nan, "chi_squared", math.nan, math.nan, {}, {})


def look(experiment: Experiment, measurements: Measurements, memory: Memory, moment: Moment) -> Report:
    """The report of this look; what it leaves behind is written to ``memory``."""
    recorded = RecordingMemory(memory)
    running = moment.state in ("running", "paused")
    noun: str = experiment.unit
    if experiment.assigns:
        weights = _weights(experiment, measurements, recorded)
        measurements = replace(measurements, propensities=_propensities(measurements, weights))
        ratio = _ratio(measurements, weights, recorded, running=running)
        metrics = _assigned_metrics(experiment, measurements, recorded, ratio, moment)
        exposures = {variant.name: ratio.observed.get(variant.name, 0) for variant in experiment.variants}
        units = sum(exposures.values())
        records = {variant.name: measurements.records.get(variant.name, 0) for variant in experiment.variants}
    else:
        ratio = _NO_SPLIT
        metrics = shadow_metrics(experiment, measurements, recorded, moment)
        exposures = records = pair_counts(experiment, measurements)
        units, noun = exposures[experiment.control.name], "pair"
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
        records=records,
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
        shadows=shadow_results(measurements),
        allocation=allocation(experiment, measurements),
        verdict=sentence(ratio, metrics, units, noun, running=running, guardrails=guardrails),
        rests_on=rests_on(
            experiment, noun, units, exposures, moment.started_at, moment.until or moment.as_of
        ),
        would_change=would_change(metrics, guardrails, running=running),
        basis=Basis(
            code_version=code_version(),
            definition=experiment.to_dict(),
            since=moment.since.isoformat() if moment.since else None,
            until=moment.until.isoformat() if moment.until else None,
            memory=recorded.used.to_dict(),
            pilots=dict(measurements.pilots),
            history=None if measurements.history is None else asdict(measurements.history),
        ),
    )


def _assigned_metrics(
    experiment: Experiment,
    measurements: Measurements,
    memory: Memory,
    ratio: RatioCheck,
    moment: Moment,
) -> tuple[MetricResult, ...]:
    findings = [
        _find(experiment, measurements, measured, treatment, memory, ratio, moment)
        for measured in measurements.metrics
        for treatment in experiment.treatments
    ]
    adjust(findings)
    distrust = None if ratio.ok else split_reason(ratio, experiment.unit)
    waiting = waiting_for(experiment, measurements.records, moment)
    return tuple(
        _metric(
            experiment,
            measured,
            [each for each in findings if each.metric is measured.metric],
            distrust,
            waiting,
        )
        for measured in measurements.metrics
    )


def _weights(
    experiment: Experiment, measurements: Measurements, memory: Memory
) -> dict[int, dict[str, float]]:
    """Each phase's, by variant."""
    weights = memory.weights()
    for phase in measurements.exposures:
        # A phase that was never registered here: only the records know what was meant.
        logged = measurements.propensities.get(phase, {})
        known = sum(value for value in logged.values() if value > 0) > 0
        meant = {v.name: logged.get(v.name, 0.0) if known else v.weight for v in experiment.variants}
        weights.setdefault(phase, meant)
    return weights


def _propensities(
    measurements: Measurements, weights: Mapping[int, Mapping[str, float]]
) -> dict[int, dict[str, float]]:
    """The probabilities, within the experiment, of the phases in which they were logged.

    A share that changes within a phase changes all of a phase's logged probabilities alike, but by chance not the mean
    over each variant's own records; so what all of them are multiples of is taken: the phase's weights.
    """
    found = {}
    for phase, logged in measurements.propensities.items():
        meant = weights.get(phase, {})
        whole = math.fsum(meant.values())
        possible = {name: meant[name] / whole for name in logged if meant.get(name, 0.0) > 0}
        found[phase] = possible if all(value > 0 for value in logged.values()) else {}
    return found


def _ratio(
    measurements: Measurements,
    weights: Mapping[int, Mapping[str, float]],
    memory: Memory,
    *,
    running: bool,
) -> RatioCheck:
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
) -> Finding:
    found = _estimate(experiment, measurements, measured, treatment, memory, trusted=ratio.ok)
    finding = Finding(measured.metric, treatment, role_of(experiment, measured.metric.name), found)
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


def _metric(
    experiment: Experiment,
    measured: Measured,
    findings: Sequence[Finding],
    distrust: str | None,
    waiting: str | None,
) -> MetricResult:
    metric = measured.metric
    return MetricResult(
        name=metric.name,
        label=metric.label,
        role=role_of(experiment, metric.name),
        unit=metric.unit,
        scale=metric.scale,
        better=metric.better,
        variants={variant.name: variant_result(measured, variant) for variant in experiment.variants},
        comparisons=tuple(
            comparison_of(experiment, finding, distrust=distrust, waiting=waiting) for finding in findings
        ),
    )
