"""What one metric says of one treatment against the control, before anything is concluded from it.

Invariant: whatever cannot be estimated says why; no number stands in for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from experiments.analysis.levels import level_of, planned_units
from experiments.analysis.memory import Memory
from experiments.experiment import Experiment, Variant
from experiments.measurement.measured import Measured, Measurements
from experiments.metrics import Metric
from experiments.statistics.cuped import CovariateMoments, CovariateStratum, adjusted, coefficients
from experiments.statistics.e_process import EventCounts, RateRatio, p_from_log_e, rate_ratio, two_arm_log_e
from experiments.statistics.effect import CONTROL, TREATMENT, Crossing, Effect, Stratum, Undecided, effect
from experiments.statistics.lift import Lift, lift
from experiments.statistics.mann_whitney import MannWhitney
from experiments.statistics.poisson import PoissonRates, poisson_rates
from experiments.statistics.sequential import AlwaysValid, always_valid, log_e_value, normal_from_student
from experiments.statistics.significance import FixedHorizon, fixed_horizon
from experiments.statistics.statistic import CrossMoments, Moments
from experiments.statistics.tuning import tune
from experiments.store import RunningP

# Rates that every record has a value for, so that the share of the units is the share of the measured ones.
_ALWAYS_MEASURED = ("success_rate", "error_rate")

NORMAL = "normal mixture"
EXACT = "exact e-process"


@dataclass(frozen=True, slots=True)
class Estimate:
    """One comparison's numbers. ``control`` and ``treatment`` are on the metric's scale.

    ``log_e`` is the evidence of this look alone (NaN where the method has none), ``running`` the smallest p-value of all
    looks (``None`` where none may be remembered). ``z`` and ``information_fraction`` are for a committed horizon. ``ratio``
    bounds the rates' ratio where that is exact; ``fixed_ratio`` and ``ranks`` are for one look.
    """

    metric: Metric
    treatment_name: str
    control: float
    treatment: float
    fixed: FixedHorizon
    always: AlwaysValid
    lift: Lift
    log_e: float
    z: float
    information_fraction: float
    method: str
    ratio: RateRatio | None = None
    fixed_ratio: PoissonRates | None = None
    ranks: MannWhitney | None = None
    running: RunningP | None = None
    variance_removed: float | None = None

    @property
    def difference(self) -> float:
        """Treatment minus control."""
        return self.treatment - self.control


def estimate(
    experiment: Experiment,
    measurements: Measurements,
    measured: Measured,
    treatment: Variant,
    memory: Memory,
    *,
    trusted: bool,
) -> Estimate | Undecided:
    """The comparison of ``treatment`` with the control on one metric.

    What an untrusted split shows is not remembered as evidence.
    """
    metric, control = measured.metric, experiment.control.name
    strata, crossings = strata_of(measured, control, treatment.name)
    found = effect(metric, strata, crossings, names=(control, treatment.name), unit=experiment.unit)
    if isinstance(found, Undecided):
        return found
    events = event_counts(measurements, measured, control, treatment.name)
    less_variance = None if events is not None else _by_history(measured, control, treatment.name)
    removed = None
    if less_variance is not None:
        found, removed = less_variance
    return of_effect(
        experiment, metric, treatment, found, memory, events=events, trusted=trusted, variance_removed=removed
    )


def _by_history(measured: Measured, control: str, treatment: str) -> tuple[Effect, float] | None:
    """The difference without what the units' history explains, and the share of the variance that is gone.

    ``None`` without a history, where it explains nothing that could be estimated, and over several phases: what returning
    units have in common is kept for unadjusted sums only.
    """
    phases = {phase for phase, _ in measured.covariates}
    if len(phases) != 1:
        return None
    (phase,) = phases
    nobody = CovariateMoments()
    arms = [measured.covariates.get((phase, name), nobody) for name in (control, treatment)]
    found = adjusted([CovariateStratum(*arms)], coefficients(measured.covariates.values()))
    if math.isnan(found.removed):
        return None
    # Adjusted sums are no counts, also when the metric is a rate.
    result = effect(replace(measured.metric, kind="mean"), found.strata)
    return None if isinstance(result, Undecided) else (result, found.removed)


def of_effect(
    experiment: Experiment,
    metric: Metric,
    treatment: Variant,
    found: Effect,
    memory: Memory,
    *,
    events: list[EventCounts] | None = None,
    trusted: bool,
    variance_removed: float | None = None,
) -> Estimate:
    """The results that follow from a difference and its spread; the exact e-process decides where it has ``events``."""
    level = level_of(experiment, metric.name)
    spread = found.sequential
    r = frozen_r(experiment, metric.name, treatment, found, memory, level)
    always = always_valid(found.difference, spread.se, spread.degrees, r, level)
    log_e = float(log_e_value(normal_from_student(found.difference / spread.se, spread.degrees), r))
    relative = lift(metric, found, spread, always.critical)
    method, ratio, fixed_ratio, p_value = NORMAL, None, None, always.p_value
    if events is not None:
        exact = two_arm_log_e(events)
        if not math.isnan(exact):
            method, log_e, p_value = EXACT, exact, p_from_log_e(exact)
            always = AlwaysValid(p_value, always.low, always.high, always.critical, always.r)
            ratio = rate_ratio(events, level)
            fixed_ratio = _poisson(metric, found, level)
    key = (evidence_key(metric, method, variance_removed), treatment.name)
    known = trusted and not math.isnan(p_value)
    running = memory.lower_p(*key, p_value, found.difference) if known else memory.running_p(*key)
    # Sums without what history explains are no counts, also when the metric is a rate.
    fixed = fixed_horizon(metric if variance_removed is None else replace(metric, kind="mean"), found, level)
    fixed_se = found.fixed.se
    return Estimate(
        metric=metric,
        treatment_name=treatment.name,
        control=found.control,
        treatment=found.treatment,
        fixed=fixed,
        always=always,
        lift=relative,
        log_e=log_e,
        z=normal_from_student(found.difference / fixed_se, found.fixed.degrees) if fixed_se > 0 else math.nan,
        information_fraction=_information_fraction(experiment, treatment, found),
        method=method,
        ratio=ratio,
        fixed_ratio=fixed_ratio,
        running=running,
        variance_removed=variance_removed,
    )


def _poisson(metric: Metric, found: Effect, level: float) -> PoissonRates | None:
    """Failures per record; over several phases their exposures would have to be alike."""
    if len(found.strata) != 1:
        return None
    (stratum,) = found.strata
    arms = (stratum.treatment, stratum.control)
    failures = [round(arm.records - arm.total if metric.better == "higher" else arm.total) for arm in arms]
    return poisson_rates(failures[0], arms[0].records, failures[1], arms[1].records, level)


def evidence_key(metric: Metric, method: str, variance_removed: float | None) -> str:
    """What the smallest p-value is kept under: each method's own, since the smaller of two would be worth half as much.

    Which method applies is a matter of the design and of the units (whether they come back, whether they have a past),
    never of the outcome.
    """
    if variance_removed is not None:
        return f"{metric.name} by history"
    return metric.name if method == NORMAL else f"{metric.name} by {method}"


def frozen_r(
    experiment: Experiment, key: str, treatment: Variant, found: Effect, memory: Memory, level: float
) -> float:
    """The boundary's r at this look, by the κ that is frozen under ``key`` (or now becomes so)."""
    planned = planned_units(experiment, treatment)
    kappa = memory.kappa(key, treatment.name)
    tuning = tune(found, kappa, planned, level)
    if kappa is None and tuning.kappa is not None:
        # Another process may have frozen it in the meantime; what is remembered counts.
        tuning = tune(found, memory.freeze_kappa(key, treatment.name, tuning.kappa), planned, level)
    return tuning.r


def strata_of(
    measured: Measured, control: str, treatment: str
) -> tuple[list[Stratum], Mapping[Crossing, CrossMoments]]:
    """One stratum for each phase, and what units that are in several of them have in common."""
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


def has_returning(measured: Measured, *variants: str) -> bool:
    """Whether a unit of one of ``variants`` in one phase is one of them in another, too."""
    return any(
        first in variants and second in variants and sums.records_records > 0
        for ((_, first), (_, second)), sums in measured.cross.items()
    )


def event_counts(
    measurements: Measurements, measured: Measured, control: str, treatment: str
) -> list[EventCounts] | None:
    """The failures of both arms in each phase, where they are independent draws with logged probabilities.

    ``None`` where units have several records, in one phase or in several, where some records have no value (whose number
    may depend on the variant), or where a phase's probabilities are not known.
    """
    metric = measured.metric
    if metric.value not in _ALWAYS_MEASURED or has_returning(measured, control, treatment):
        return None
    counts = []
    for phase in sorted({phase for phase, _ in measured.cells}):
        arms = [measured.cells.get((phase, name), Moments()) for name in (control, treatment)]
        shares = measurements.propensities.get(phase, {})
        chances = [shares.get(name, 0.0) for name in (control, treatment)]
        if not all(arm.one_record_each for arm in arms):
            return None
        if min(chances) <= 0:
            if any(arm.units for arm in arms):
                return None
            continue
        failures = [
            round(arm.records - arm.total if metric.better == "higher" else arm.total) for arm in arms
        ]
        counts.append(EventCounts(failures[1], failures[0], chances[1] / math.fsum(chances)))
    return counts or None


def _information_fraction(experiment: Experiment, treatment: Variant, found: Effect) -> float:
    weights = (experiment.control.weight, treatment.weight)
    total = math.fsum(weights)
    if total <= 0 or min(weights) <= 0:
        return math.nan
    shares = [weight / total for weight in weights]
    return found.half_harmonic / (planned_units(experiment, treatment) * shares[0] * shares[1])
