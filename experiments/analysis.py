"""One look at an experiment: from the tables at fixed versions to a report that is kept.

Invariant: a look changes nothing that a later look could be biased by, except what is meant to be: κ is
frozen once, and the smallest p-values so far are remembered. Looks may come at any time and as often as
anybody likes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from collector.catalog import EndpointTables
from experiments.experiment import Experiment, Variant
from experiments.measurement.measure import Measured, Measurements, measure
from experiments.metrics import Metric
from experiments.report import (
    AlwaysValidResult,
    Comparison,
    FixedResult,
    LiftResult,
    MetricResult,
    Report,
    SampleRatio,
    VariantResult,
)
from experiments.statistics.effect import CONTROL, TREATMENT, Crossing, Effect, Stratum, Undecided, effect
from experiments.statistics.lift import lift
from experiments.statistics.ratio_check import RatioCheck, check_ratio
from experiments.statistics.sequential import DEFAULT_PLANNED_UNITS, always_valid
from experiments.statistics.significance import fixed_horizon
from experiments.statistics.statistic import CrossMoments, Moments
from experiments.statistics.tuning import tune
from experiments.store import ExperimentStore, RunningP
from experiments.verdict import judge, sentence, split_reason
from servelens.clock import Clock

logger = logging.getLogger(__name__)

_NO_FIXED = FixedResult(None, None, None, None)
_NO_ALWAYS = AlwaysValidResult(None, None, None, None, None)
_NO_LIFT = LiftResult(None, None, None)


class Analyzer:
    """Analyses the experiments of one endpoint."""

    def __init__(self, tables: EndpointTables, store: ExperimentStore, clock: Clock) -> None:
        self._tables = tables
        self._store = store
        self._clock = clock

    def analyze(self, experiment: Experiment) -> Report:
        """Look at the experiment now, registering it if need be, and keep the report.

        Raises :class:`~servelens.errors.Conflict` when the definition contradicts the one that was started,
        and :class:`~servelens.errors.Unavailable` when tables or database cannot be read.
        """
        registered = self._store.register(experiment)
        as_of = self._clock.now()
        payload_version, scores_version = self._tables.payload.version(), self._tables.scores.version()
        measurements = measure(
            self._tables.payload.scan(until=registered.stopped_at, version=payload_version),
            self._tables.scores.scan(version=scores_version),
            experiment,
        )
        running = registered.state == "running"
        ratio = self._ratio(experiment, measurements, running=running)
        metrics = tuple(
            self._metric(experiment, measurements, measured, ratio) for measured in measurements.metrics
        )
        exposures = {name: ratio.observed.get(name, 0) for name in (v.name for v in experiment.variants)}
        units = sum(exposures.values())
        report = Report(
            experiment=experiment.name,
            endpoint=experiment.endpoint,
            state=registered.state,
            as_of=as_of.isoformat(),
            payload_version=payload_version,
            scores_version=scores_version,
            unit=experiment.unit,
            phase=experiment.phase,
            alpha=_alpha(experiment),
            units=units,
            exposures=exposures,
            records={
                variant.name: measurements.records.get(variant.name, 0) for variant in experiment.variants
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
            verdict=sentence(ratio, metrics, units, experiment.unit, running=running),
        )
        self._store.add_analysis(experiment.name, as_of, payload_version, scores_version, report.to_dict())
        logger.info(
            "experiment analysed: experiment=%s units=%d verdict=%s", experiment.name, units, report.verdict
        )
        return report

    def _ratio(self, experiment: Experiment, measurements: Measurements, *, running: bool) -> RatioCheck:
        weights = self._store.weights(experiment.name)
        for phase in measurements.exposures:
            # A phase that was never registered here: only the records know what was meant.
            logged = measurements.propensities.get(phase)
            meant = {v.name: logged.get(v.name, 0.0) if logged else v.weight for v in experiment.variants}
            weights.setdefault(phase, meant)
        earlier = self._store.running_p(experiment.name, "sample_ratio", "")
        ratio = check_ratio(
            measurements.exposures,
            weights,
            running=running,
            running_p=1.0 if earlier is None else earlier.p_value,
        )
        self._store.lower_p(experiment.name, "sample_ratio", "", ratio.sequential_p_value, 0.0)
        return ratio

    def _metric(
        self, experiment: Experiment, measurements: Measurements, measured: Measured, ratio: RatioCheck
    ) -> MetricResult:
        metric = measured.metric
        return MetricResult(
            name=metric.name,
            label=metric.label,
            role="primary" if metric.name == experiment.primary_metric else "secondary",
            unit=metric.unit,
            scale=metric.scale,
            better=metric.better,
            variants={variant.name: _variant_result(measured, variant) for variant in experiment.variants},
            comparisons=tuple(
                self._comparison(experiment, measured, treatment, ratio)
                for treatment in experiment.treatments
            ),
        )

    def _comparison(
        self, experiment: Experiment, measured: Measured, treatment: Variant, ratio: RatioCheck
    ) -> Comparison:
        control, metric = experiment.control.name, measured.metric
        strata, crossings = _strata(measured, control, treatment.name)
        estimate = effect(metric, strata, crossings, names=(control, treatment.name), unit=experiment.unit)
        if isinstance(estimate, Undecided):
            return Comparison(
                treatment.name,
                control,
                None,
                _NO_LIFT,
                _NO_FIXED,
                _NO_ALWAYS,
                "inconclusive",
                estimate.reason,
            )
        alpha = _alpha(experiment)
        spread = estimate.sequential
        result = always_valid(
            estimate.difference,
            spread.se,
            spread.degrees,
            self._r(experiment, metric, treatment, estimate),
            alpha,
        )
        relative = lift(metric, estimate, spread, result.critical)
        running = self._running(experiment, metric, treatment, result.p_value, estimate, ratio)
        verdict, reason = (
            judge(metric, estimate, result, running, relative, alpha)
            if ratio.ok
            else ("inconclusive", split_reason(ratio, experiment.unit))
        )
        fixed = fixed_horizon(metric, estimate, alpha)
        return Comparison(
            treatment=treatment.name,
            control=control,
            difference=estimate.difference,
            relative_lift=LiftResult(relative.estimate, relative.low, relative.high),
            fixed=FixedResult(fixed.p_value, fixed.low, fixed.high, fixed.method),
            always_valid=AlwaysValidResult(
                result.p_value, result.low, result.high, min(running.p_value, result.p_value), result.r
            ),
            verdict=verdict,
            reason=reason,
        )

    def _r(self, experiment: Experiment, metric: Metric, treatment: Variant, estimate: Effect) -> float:
        key = (experiment.name, metric.name, treatment.name)
        planned, alpha = _planned_units(experiment, treatment), _alpha(experiment)
        kappa = self._store.kappa(*key)
        tuning = tune(estimate, kappa, planned, alpha)
        if kappa is None and tuning.kappa is not None:
            # Another process may have frozen it in the meantime; what is in the store counts.
            frozen = self._store.freeze_kappa(*key, tuning.kappa)
            tuning = tune(estimate, frozen, planned, alpha)
        return tuning.r

    def _running(
        self,
        experiment: Experiment,
        metric: Metric,
        treatment: Variant,
        p_value: float,
        estimate: Effect,
        ratio: RatioCheck,
    ) -> RunningP:
        key = (experiment.name, metric.name, treatment.name)
        if ratio.ok:
            return self._store.lower_p(*key, p_value, estimate.difference)
        # What an untrusted split shows must not be remembered as evidence.
        known = self._store.running_p(*key)
        return known or RunningP(p_value, estimate.difference, self._clock.now())


def _alpha(experiment: Experiment) -> float:
    """Bonferroni over the treatments, so that every interval shown agrees with its verdict."""
    return experiment.alpha / len(experiment.treatments)


def _planned_units(experiment: Experiment, treatment: Variant) -> float:
    if experiment.planned_units is None:
        return DEFAULT_PLANNED_UNITS
    share = (experiment.control.weight + treatment.weight) / 100.0
    return experiment.planned_units * share if share > 0 else float(experiment.planned_units)


def _strata(
    measured: Measured, control: str, treatment: str
) -> tuple[list[Stratum], Mapping[Crossing, CrossMoments]]:
    phases = sorted({phase for phase, _ in measured.cells})
    strata = [
        Stratum(
            measured.cells.get((phase, control), Moments()), measured.cells.get((phase, treatment), Moments())
        )
        for phase in phases
    ]
    index = {phase: position for position, phase in enumerate(phases)}
    arm = {control: CONTROL, treatment: TREATMENT}
    crossings = {
        (index[phase], arm[variant], index[phase2], arm[variant2]): sums
        for ((phase, variant), (phase2, variant2)), sums in measured.cross.items()
        if variant in arm and variant2 in arm and phase in index and phase2 in index
    }
    return strata, crossings


def _variant_result(measured: Measured, variant: Variant) -> VariantResult:
    """Over several phases the estimate is the mean of the phases', weighted by the phase's units in all
    variants.
    """
    reasons = measured.excluded.get(variant.name, {})
    own = {phase: moments for (phase, name), moments in measured.cells.items() if name == variant.name}
    sizes = {
        phase: sum(moments.units for (other, _), moments in measured.cells.items() if other == phase)
        for phase in own
    }
    total = sum(sizes.values())
    estimate, se = math.nan, math.nan
    if total:
        estimate = math.fsum(sizes[phase] / total * moments.mean for phase, moments in own.items())
        square = math.fsum((sizes[phase] / total) ** 2 * m.variance_of_mean() for phase, m in own.items())
        se = math.sqrt(square)
    if measured.metric.scale == "log":
        estimate = math.exp(estimate) if estimate < 700.0 else math.nan
        se = estimate * se
    return VariantResult(
        n_units=sum(moments.units for moments in own.values()),
        n_records=round(math.fsum(moments.records for moments in own.values())),
        excluded=sum(reasons.values()),
        excluded_reasons=dict(reasons),
        estimate=estimate,
        se=se,
    )
