"""A bandit's comparisons and its next weights: by logged propensities, never by arm means.

Invariant: everything here is a function of each phase's moments and logged propensities, so the weights of the next phase depend
on the past only through what is in the tables.
"""

from __future__ import annotations

import math

from scipy.special import stdtr, stdtrit

from experiments.analysis.estimate import Estimate
from experiments.analysis.levels import level_of
from experiments.analysis.memory import Memory
from experiments.experiment import Experiment, Variant
from experiments.measurement.measured import Measured, Measurements
from experiments.report import AllocationResult
from experiments.statistics import adaptive
from experiments.statistics.effect import (
    FEWEST_EVENTS,
    FEWEST_UNITS,
    NO_VARIANCE,
    TOO_LARGE,
    Spread,
    Undecided,
)
from experiments.statistics.lift import Lift, fieller, relative
from experiments.statistics.sequential import (
    DEFAULT_PLANNED_UNITS,
    always_valid,
    log_e_value,
    normal_from_student,
    planned_r,
)
from experiments.statistics.significance import FixedHorizon
from experiments.statistics.statistic import Moments
from experiments.statistics.thompson import Beta, Normal, Posterior, probability_best, weights

METHOD = "normal mixture of weighted scores"


def bandit_estimate(
    experiment: Experiment,
    measurements: Measurements,
    measured: Measured,
    treatment: Variant,
    memory: Memory,
    *,
    trusted: bool,
) -> Estimate | Undecided:
    """The comparison of ``treatment`` with the control under adaptively chosen propensities."""
    metric, control = measured.metric, experiment.control
    for variant in (control, treatment):
        units = sum(m.units for (_, name), m in measured.cells.items() if name == variant.name)
        if units < FEWEST_UNITS:
            return Undecided(
                f"{variant.name} has only {units} measured {experiment.unit}s, and at least {FEWEST_UNITS} are needed"
                if units
                else f"{variant.name} has no measured records yet"
            )
    if sum(measured.cells.values(), Moments()).too_large:
        return Undecided(TOO_LARGE)
    phases = _phases(experiment, measurements, measured)
    found = adaptive.contrast(phases, treatment.name, control.name)
    arms = [adaptive.arm_estimate(phases, variant.name) for variant in (control, treatment)]
    if not (found.se > 0 and all(math.isfinite(arm.value) for arm in arms)):
        return Undecided(NO_VARIANCE)
    level = level_of(experiment, metric.name)
    # Units of all variants, as found.units are: a number that the weights, and so the outcomes, do not change.
    planned = experiment.planned_units or DEFAULT_PLANNED_UNITS
    r = planned_r(found.units / 4.0, planned, level)
    always = always_valid(found.value, found.se, found.degrees, r, level)
    key = (metric.name, treatment.name)
    running = memory.lower_p(*key, always.p_value, found.value) if trusted else memory.running_p(*key)
    z = found.value / found.se
    half = -float(stdtrit(found.degrees, level / 2.0)) * found.se
    return Estimate(
        metric=metric,
        treatment_name=treatment.name,
        control=arms[0].value,
        treatment=arms[0].value + found.value,
        fixed=FixedHorizon(
            2.0 * float(stdtr(found.degrees, -abs(z))),
            found.value - half,
            found.value + half,
            "adaptively weighted",
        ),
        always=always,
        lift=_lift(metric.scale, arms[0], arms[1], found, always.critical),
        log_e=float(log_e_value(normal_from_student(z, found.degrees), r)),
        z=normal_from_student(z, found.degrees),
        information_fraction=found.units / planned,
        method=METHOD,
        running=running,
    )


def allocation(experiment: Experiment, measurements: Measurements) -> tuple[AllocationResult, ...]:
    """Each variant's probability to be the best on the primary metric and its next weight; empty without a bandit."""
    if experiment.bandit is None:
        return ()
    measured = next(each for each in measurements.metrics if each.metric.name == experiment.primary_metric)
    better = measured.metric.better
    assert better is not None  # the definition's rules
    phases = _phases(experiment, measurements, measured)
    estimates = [adaptive.arm_estimate(phases, variant.name) for variant in experiment.variants]
    known = _counted(experiment, measured) or [
        Normal(found.value, found.se) if math.isfinite(found.value) and found.se > 0 else None
        for found in estimates
    ]
    complete = [each for each in known if each is not None]
    best = probability_best(complete, better) if len(complete) == len(known) else [math.nan] * len(known)
    shares = weights(known, better, experiment.bandit.floor, experiment.bandit.beta)
    return tuple(
        AllocationResult(variant.name, chance, variant.weight, share * 100.0)
        for variant, chance, share in zip(experiment.variants, best, shares, strict=True)
    )


def _counted(experiment: Experiment, measured: Measured) -> list[Posterior | None] | None:
    """Exact posteriors of rates under a uniform prior, while some variant has too few of either outcome for a normal one.

    How the units were allocated cannot change a posterior (the likelihood does not depend on it), so counts may be used
    here, where they may not be in an estimate. ``None`` where counts are no independent draws, or are many.
    """
    if measured.metric.kind != "rate":
        return None
    sums = [
        sum((m for (_, name), m in measured.cells.items() if name == variant.name), Moments())
        for variant in experiment.variants
    ]
    outcomes = [min(arm.total, arm.records - arm.total) for arm in sums]
    if min(outcomes) >= FEWEST_EVENTS or not all(arm.one_record_each for arm in sums):
        return None
    return [Beta(1.0 + arm.total, 1.0 + arm.records - arm.total) if arm.units else None for arm in sums]


def _phases(experiment: Experiment, measurements: Measurements, measured: Measured) -> list[adaptive.Phase]:
    phases = []
    for phase in sorted({phase for phase, _ in measured.cells}):
        logged = measurements.propensities.get(phase, {})
        total = math.fsum(logged.values())
        arms = {
            variant.name: adaptive.Observed(
                measured.cells.get((phase, variant.name), Moments()), logged[variant.name] / total
            )
            for variant in experiment.variants
            if logged.get(variant.name, 0.0) > 0
        }
        phases.append(adaptive.Phase(sum(arm.moments.units for arm in arms.values()), arms))
    return phases


def _lift(
    scale: str,
    control: adaptive.Estimate,
    treatment: adaptive.Estimate,
    found: adaptive.Estimate,
    critical: float,
) -> Lift:
    half = critical * found.se
    if scale == "log":
        return Lift(relative(found.value), relative(found.value - half), relative(found.value + half))
    if control.value <= 0:
        return Lift(math.nan, math.nan, math.nan)
    # The covariance that the variance of the difference implies.
    covariance = (control.se**2 + treatment.se**2 - found.se**2) / 2.0
    spread = Spread(control.se**2, treatment.se**2, covariance, found.degrees)
    low, high = fieller(control.value + found.value, control.value, spread, critical)
    return Lift(found.value / control.value, low - 1.0, high - 1.0)
