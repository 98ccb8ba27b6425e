"""Shadow verdicts: the treatment's answers beside the control's to the same requests.

Differences are within pairs, so what makes requests easy or hard cancels. There is no split that could be off: every request
that is mirrored is in both variants. Rates with one pair a unit are decided exactly: under no difference a pair whose two
answers differ in success is as likely to favour one variant as the other, so the e-process of Lindon and Malek applies with π = ½
(the anytime form of McNemar's test).

Invariant: nobody saw the treatment's answers, so nothing is said of what users did, nor of quantiles, of which no difference
within a pair exists.
"""

from __future__ import annotations

import math
from dataclasses import replace

from experiments.analysis.estimate import Estimate, of_effect
from experiments.analysis.findings import Finding, adjust, comparison_of, role_of, waiting_for
from experiments.analysis.levels import level_of
from experiments.analysis.memory import Memory
from experiments.analysis.moment import Moment
from experiments.experiment import Experiment, Variant
from experiments.measurement.measured import Measurements, PairedMetric, Pairs
from experiments.metrics import Metric, metric_for
from experiments.report import MetricResult, ShadowResult, VariantResult
from experiments.statistics.e_process import EventCounts
from experiments.statistics.effect import FEWEST_UNITS, TOO_LARGE, Effect, Spread, Stratum, Undecided
from experiments.statistics.mcnemar import Pairs as Outcomes
from experiments.statistics.mcnemar import mcnemar
from experiments.statistics.paired import paired_difference
from experiments.statistics.significance import FixedHorizon
from experiments.statistics.statistic import Moments


def shadow_metrics(
    experiment: Experiment, measurements: Measurements, memory: Memory, moment: Moment
) -> tuple[MetricResult, ...]:
    """One result for each metric, over all treatments."""
    by_treatment = {pairs.treatment: pairs for pairs in measurements.pairs}
    findings = [
        _finding(experiment, metric_for(name), treatment, by_treatment.get(treatment.name), memory)
        for name in experiment.metrics
        for treatment in experiment.treatments
    ]
    adjust(findings)
    waiting = waiting_for(experiment, pair_counts(experiment, measurements), moment)
    return tuple(
        _result(experiment, metric_for(name), findings, by_treatment, waiting) for name in experiment.metrics
    )


def pair_counts(experiment: Experiment, measurements: Measurements) -> dict[str, int]:
    """Pairs by variant; the control is in all of them."""
    counts = {pairs.treatment: pairs.mirrored for pairs in measurements.pairs}
    return {
        experiment.control.name: max(counts.values(), default=0),
        **{variant.name: counts.get(variant.name, 0) for variant in experiment.treatments},
    }


def shadow_results(measurements: Measurements) -> tuple[ShadowResult, ...]:
    """How many answers there are, and how alike."""
    return tuple(
        ShadowResult(
            pairs.treatment,
            pairs.mirrored,
            sum(pairs.without_answer.values()),
            dict(pairs.without_answer),
            _mean(pairs.answers_identical),
            _mean(pairs.word_overlap),
        )
        for pairs in measurements.pairs
    )


def _finding(
    experiment: Experiment, metric: Metric, treatment: Variant, pairs: Pairs | None, memory: Memory
) -> Finding:
    found: Estimate | Undecided
    if metric.kind == "quantile" or metric.feedback is not None:
        what = (
            "a quantile has" if metric.kind == "quantile" else "feedback is about what users saw, so it has"
        )
        found = Undecided(f"{what} no difference within a pair")
    else:
        measured = None
        if pairs is not None:
            measured = next(each for each in pairs.metrics if each.metric.name == metric.name)
        found = paired_estimate(experiment, measured, treatment, memory)
    return Finding(metric, treatment, role_of(experiment, metric.name), found)


def paired_estimate(
    experiment: Experiment, measured: PairedMetric | None, treatment: Variant, memory: Memory
) -> Estimate | Undecided:
    """The comparison on one metric."""
    if measured is None or not measured.differences.units:
        return Undecided(f"{treatment.name} has no answers beside the control's yet")
    differences = measured.differences
    if differences.units < FEWEST_UNITS:
        return Undecided(
            f"only {differences.units} {experiment.unit}s have answers of both, and at least {FEWEST_UNITS} are needed"
        )
    if any(each.too_large for each in (differences, measured.control, measured.treatment)):
        return Undecided(TOO_LARGE)
    variance = differences.variance_of_mean()
    found = _effect(measured, variance)
    # Beside the spread of either variant's values, that of a difference can be lost in rounding.
    if not (variance > 0 and found.sequential.se > 0):
        return Undecided("both variants' values are the same in every pair, or differ by the same")
    numbers = of_effect(
        experiment, measured.metric, treatment, found, memory, events=_events(measured), trusted=True
    )
    fixed = _fixed(measured, level_of(experiment, measured.metric.name))
    return replace(numbers, fixed=fixed, ratio=None)


def _effect(measured: PairedMetric, variance: float) -> Effect:
    """In the shape of two samples whose covariance is that of the pairs."""
    control, treatment, units = measured.control, measured.treatment, measured.differences.units
    own = (control.variance_of_mean(), treatment.variance_of_mean())
    spread = Spread(*own, (own[0] + own[1] - variance) / 2.0, float(units - 1))
    # Units in both variants carry as much as a split of twice as many would, in each: n/2 for n pairs.
    return Effect(
        control.mean,
        control.mean + measured.differences.mean,
        spread,
        spread,
        units / 4.0,
        (Stratum(control, treatment),),
    )


def _events(measured: PairedMetric) -> list[EventCounts] | None:
    """The pairs that differ in success, by who failed; where each unit has one."""
    counts = measured.counts
    if counts is None or not measured.differences.one_record_each:
        return None
    fewer, more = counts.only_control, counts.only_treatment
    if measured.metric.better == "higher":
        fewer, more = more, fewer
    return [EventCounts(more, fewer, 0.5)]


def _fixed(measured: PairedMetric, level: float) -> FixedHorizon:
    counts = measured.counts
    if counts is not None and measured.differences.one_record_each:
        found = mcnemar(
            Outcomes(counts.both, counts.only_treatment, counts.only_control, counts.neither), level
        )
        return FixedHorizon(found.mid_p_value, found.difference.low, found.difference.high, "McNemar mid-p")
    paired = paired_difference(measured.differences, level)
    return FixedHorizon(paired.p_value, paired.low, paired.high, "paired t")


def _result(
    experiment: Experiment,
    metric: Metric,
    findings: list[Finding],
    by_treatment: dict[str, Pairs],
    waiting: str | None,
) -> MetricResult:
    own = [each for each in findings if each.metric.name == metric.name]
    variants: dict[str, VariantResult] = {}
    for name, pairs in by_treatment.items():
        measured = next((each for each in pairs.metrics if each.metric.name == metric.name), None)
        if measured is not None:
            variants.setdefault(experiment.control.name, _variant(metric, measured, "control"))
            variants[name] = _variant(metric, measured, "treatment")
    nothing = VariantResult(0, 0, 0, {}, None, None)
    return MetricResult(
        name=metric.name,
        label=metric.label,
        role=role_of(experiment, metric.name),
        unit=metric.unit,
        scale=metric.scale,
        better=metric.better,
        variants={variant.name: variants.get(variant.name, nothing) for variant in experiment.variants},
        comparisons=tuple(comparison_of(experiment, each, distrust=None, waiting=waiting) for each in own),
    )


def _variant(metric: Metric, measured: PairedMetric, side: str) -> VariantResult:
    """Over the pairs in which both have a value."""
    moments: Moments = measured.control if side == "control" else measured.treatment
    reasons = measured.excluded.get(side, {})
    estimate, se = math.nan, math.nan
    if moments.units:
        estimate, se = moments.mean, math.sqrt(moments.variance_of_mean())
        if metric.scale == "log":
            estimate = math.exp(min(estimate, 700.0))
            se *= estimate
    return VariantResult(
        moments.units, round(moments.records), sum(reasons.values()), dict(reasons), estimate, se
    )


def _mean(moments: Moments) -> float | None:
    return moments.mean if moments.units else None
