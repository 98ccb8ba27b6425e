"""A quantile of one treatment against the control's, from histograms.

Within the phase that has most records of both: quantiles of two phases cannot be averaged into one of both. Records that are
independent draws have exact ranks (:mod:`experiments.statistics.anytime_quantiles`); for units with several records the ranks
are those that a normal mixture allows the share of records under the quantile, with its clustered variance
(:mod:`experiments.statistics.sequential`), which is asymptotic. Both bound each variant's quantile at half of the level, so the
difference is conservative.

Invariant: a decision is an interval that excludes zero (or a guardrail's tolerance) at its level. It has no p-value below that
level, and none is made up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from experiments.analysis.estimate import Estimate
from experiments.analysis.levels import level_of, planned_units
from experiments.analysis.memory import Memory
from experiments.experiment import Experiment, Variant
from experiments.measurement.histogram import RELATIVE_WIDTH, Histogram
from experiments.measurement.measured import Measured
from experiments.metrics import Metric
from experiments.statistics.anytime_quantiles import QuantileBounds, quantile_difference
from experiments.statistics.effect import FEWEST_UNITS, Undecided
from experiments.statistics.lift import Lift, relative
from experiments.statistics.mann_whitney import MannWhitney, mann_whitney
from experiments.statistics.mover import Bounded, difference
from experiments.statistics.quantiles import (
    Ordered,
    clustered_quantile_interval,
    of_bins,
    quantile,
    quantile_interval,
)
from experiments.statistics.sequential import AlwaysValid, critical_value, tuning
from experiments.statistics.significance import FixedHorizon
from experiments.statistics.statistic import Moments

EXACT = "exact ranks"
CLUSTERED = "clustered ranks"

_NO_LOGARITHM = "the quantile of one variant is not above zero, so there is no logarithm to compare"


@dataclass(frozen=True, slots=True)
class _Arm:
    """One variant in one phase. ``moments`` are those of the indicator under the quantile."""

    histogram: Histogram
    moments: Moments

    @property
    def size(self) -> int:
        return self.histogram.total


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A histogram as order statistics, on the metric's scale (:class:`OrderStatistics`)."""

    upper: tuple[float, ...]
    lower: tuple[float, ...]
    reached: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.reached[-1] if self.reached else 0

    def between(self, rank: int) -> tuple[float, float]:
        position = int(np.searchsorted(self.reached, rank))
        return self.lower[position], self.upper[position]


def quantile_estimate(
    experiment: Experiment, measured: Measured, treatment: Variant, memory: Memory, *, trusted: bool
) -> Estimate | Undecided:
    """The comparison of ``treatment`` with the control on a quantile metric."""
    metric = measured.metric
    level = _level(experiment, metric)
    arms = _arms(experiment, measured, treatment)
    if isinstance(arms, Undecided):
        return arms
    control, treated = (_on_scale(metric, quantile(_ordered(arm), _p(metric))) for arm in arms)
    if not (math.isfinite(control) and math.isfinite(treated)):
        return Undecided(_NO_LOGARITHM)
    bounds = bounds_of_difference(experiment, metric, treatment, arms, level)
    key = (metric.name, treatment.name)
    running = memory.running_p(*key)
    excluded = bounds.low > 0 or bounds.high < 0
    if trusted and excluded:
        running = memory.lower_p(*key, level, treated - control)
    return Estimate(
        metric=metric,
        treatment_name=treatment.name,
        control=control,
        treatment=treated,
        fixed=_fixed(experiment, metric, arms, level),
        always=AlwaysValid(math.nan, bounds.low, bounds.high, math.nan, math.nan),
        lift=_lift(metric, control, treated, bounds),
        log_e=-math.log(level) if excluded else math.nan,
        z=math.nan,
        information_fraction=math.nan,
        method=_method(experiment, arms),
        running=running,
        ranks=_ranks(arms, level) if _is_exact(experiment, arms) else None,
    )


def _ranks(arms: tuple[_Arm, _Arm], level: float) -> MannWhitney:
    """Over the bins of both; where units have several records their ranks are not independent, and nothing is said."""
    control, treated = (arm.histogram.bins for arm in arms)
    bins = sorted({*control, *treated})
    counts = [[histogram.get(number, 0) for number in bins] for histogram in (treated, control)]
    return mann_whitney(counts[0], counts[1], level)


def quantile_bounds(
    experiment: Experiment, measured: Measured, treatment: Variant, level: float
) -> tuple[QuantileBounds, str] | Undecided:
    """Time-uniform bounds of the difference at two-sided ``level``, and their method: for a guardrail."""
    arms = _arms(experiment, measured, treatment)
    if isinstance(arms, Undecided):
        return arms
    bounds = bounds_of_difference(experiment, measured.metric, treatment, arms, level)
    if not math.isfinite(bounds.estimate):
        return Undecided(_NO_LOGARITHM)
    return bounds, _method(experiment, arms)


def bounds_of_difference(
    experiment: Experiment, metric: Metric, treatment: Variant, arms: tuple[_Arm, _Arm], level: float
) -> QuantileBounds:
    """Treatment's quantile minus control's on the metric's scale."""
    planned = planned_units(experiment, treatment) / 2.0
    if _is_exact(experiment, arms):
        control, treated = (_ranked(metric, arm.histogram) for arm in arms)
        return quantile_difference(control, treated, _p(metric), level, planned=planned)
    control_bounds, treated_bounds = (_clustered_bounds(metric, arm, planned, level / 2.0) for arm in arms)
    return QuantileBounds(
        treated_bounds.estimate - control_bounds.estimate,
        treated_bounds.low - control_bounds.high,
        treated_bounds.high - control_bounds.low,
    )


def _arms(experiment: Experiment, measured: Measured, treatment: Variant) -> tuple[_Arm, _Arm] | Undecided:
    names = (experiment.control.name, treatment.name)
    phases = sorted({phase for phase, _ in measured.histograms})

    def smaller(phase: int) -> int:
        return min(measured.histograms.get((phase, name), Histogram()).total for name in names)

    phase = max(phases, key=smaller, default=0)
    control, treated = (
        _Arm(
            measured.histograms.get((phase, name), Histogram()), measured.cells.get((phase, name), Moments())
        )
        for name in names
    )
    for name, arm in zip(names, (control, treated), strict=True):
        if not arm.size:
            return Undecided(f"{name} has no measured records yet")
        if arm.size < FEWEST_UNITS:
            return Undecided(
                f"{name} has only {arm.size} measured records, and at least {FEWEST_UNITS} are needed"
            )
        if experiment.unit != "request" and measured.pilot is None:
            return Undecided(f"{name} has too few {experiment.unit}s to say how much they differ")
    return control, treated


def _is_exact(experiment: Experiment, arms: tuple[_Arm, _Arm]) -> bool:
    return experiment.unit == "request" or all(arm.moments.one_record_each for arm in arms)


def _method(experiment: Experiment, arms: tuple[_Arm, _Arm]) -> str:
    return EXACT if _is_exact(experiment, arms) else CLUSTERED


def _level(experiment: Experiment, metric: Metric) -> float:
    """A secondary one has to hold against all others of its kind by itself: it has no larger e-value to show."""
    if metric.name in experiment.primary_metrics:
        return level_of(experiment, metric.name)
    others = len(experiment.metrics) - len(experiment.primary_metrics)
    return experiment.alpha / (len(experiment.treatments) * others)


def _clustered_bounds(metric: Metric, arm: _Arm, planned_units_of_arm: float, level: float) -> QuantileBounds:
    """From the shares p ± c·se, with c the boundary for the clustered indicator."""
    p, moments = _p(metric), arm.moments
    estimate = _on_scale(metric, quantile(_ordered(arm), p))
    variance = moments.variance_of_mean()
    if not variance > 0:
        return QuantileBounds(estimate, -math.inf, math.inf)
    r = tuning(level) * moments.units / planned_units_of_arm
    half = float(critical_value(r, level)) * math.sqrt(variance)
    ranked = _ranked(metric, arm.histogram)
    low_rank, high_rank = math.floor(ranked.size * (p - half)), math.ceil(ranked.size * (p + half)) + 1
    return QuantileBounds(
        estimate,
        ranked.between(low_rank)[0] if low_rank >= 1 else -math.inf,
        ranked.between(high_rank)[1] if high_rank <= ranked.size else math.inf,
    )


def _fixed(experiment: Experiment, metric: Metric, arms: tuple[_Arm, _Arm], level: float) -> FixedHorizon:
    exact = _is_exact(experiment, arms)
    control, treated = (
        _scaled(metric, _fixed_bounds(metric, arm, level, exact=exact), _on_scale) for arm in arms
    )
    found = difference(treated, control)
    method = "order statistics" if exact else "clustered order statistics"
    return FixedHorizon(math.nan, found.low, found.high, method)


def _fixed_bounds(metric: Metric, arm: _Arm, level: float, *, exact: bool) -> Bounded:
    if exact:
        return quantile_interval(_ordered(arm), _p(metric), level)
    return clustered_quantile_interval(_ordered(arm), _p(metric), arm.moments.variance_of_mean(), level)


def _ordered(arm: _Arm) -> Ordered:
    return of_bins(arm.histogram.edges, arm.histogram.counts)


def _ranked(metric: Metric, histogram: Histogram) -> _Ranked:
    upper = histogram.edges
    # A negative bin reaches from its end away from zero to the one near it; that of zero is a point.
    lower = np.where(upper > 0, upper / (1 + RELATIVE_WIDTH), upper * (1 + RELATIVE_WIDTH))
    return _Ranked(
        tuple(_on_scale(metric, float(value)) for value in upper),
        tuple(_on_scale(metric, float(value)) for value in lower),
        tuple(np.cumsum(histogram.counts).tolist()),
    )


def _scaled(metric: Metric, bounds: Bounded, scale: Callable[[Metric, float], float]) -> Bounded:
    return Bounded(*(scale(metric, value) for value in (bounds.estimate, bounds.low, bounds.high)))


def _on_scale(metric: Metric, value: float) -> float:
    if metric.scale != "log" or math.isnan(value):
        return value
    return math.log(value) if value > 0 else -math.inf


def _p(metric: Metric) -> float:
    assert metric.quantile is not None
    return metric.quantile


def _lift(metric: Metric, control: float, treated: float, bounds: QuantileBounds) -> Lift:
    if metric.scale == "log":
        return Lift(relative(treated - control), relative(bounds.low), relative(bounds.high))
    return Lift(treated / control - 1.0 if control > 0 else math.nan, math.nan, math.nan)
