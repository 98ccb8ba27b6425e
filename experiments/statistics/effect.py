"""The difference between a treatment and the control, stratified by phase.

Phases have other weights and other times, so pooling them would compare different mixtures (Simpson's
paradox; Crook, Frasca, Kohavi & Longbotham 2009, "Seven pitfalls", §6). Each phase gives its own
difference; they are combined with inverse-variance weights, and the variance of the combination includes
the covariance that units returning in a later phase bring.

Two variances are kept. ``fixed`` is each variant's own (Welch). ``sequential`` is meant for many looks,
where a plug-in variance is treacherous: with a rare event and a small arm, the arm that happens to have
none also seems to have no variance. So it is null-pooled for rates, p̂(1−p̂)(1/n₀+1/n₁) (and its clustered
form); for other plain means the larger of the pooled and Welch's; on the log scale, where mean and spread
do not go together, Welch's. That null pooling keeps the error rate under many looks is shown by simulation
(``tests/statistics``), not by a theorem.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.metrics import Metric
from experiments.statistics.statistic import CrossMoments, Moments

CONTROL, TREATMENT = 0, 1

# Fewer say nothing about how units vary, and with fewer events a single one decides.
FEWEST_UNITS = 5
FEWEST_EVENTS = 5
# Where there are several phases, one with fewer units in an arm is left out.
UNITS_OF_A_PHASE = 30

NO_VARIANCE = "all values are the same, so there is no variance to judge a difference by"
TOO_LARGE = "some values are too large to calculate with"

# (earlier stratum, arm, later stratum, arm)
Crossing = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Stratum:
    """Control and treatment in one phase."""

    control: Moments
    treatment: Moments


@dataclass(frozen=True, slots=True)
class Spread:
    """Variances of the two estimates and their covariance, with Welch-Satterthwaite degrees of freedom."""

    control: float
    treatment: float
    covariance: float
    degrees: float

    @property
    def se(self) -> float:
        """Standard error of the difference."""
        return math.sqrt(max(self.control + self.treatment - 2 * self.covariance, 0.0))


@dataclass(frozen=True, slots=True)
class Effect:
    """Estimates on the metric's scale. ``half_harmonic`` is Σ n₀n₁/(n₀+n₁) over the strata, in units."""

    control: float
    treatment: float
    fixed: Spread
    sequential: Spread
    half_harmonic: float
    strata: tuple[Stratum, ...]

    @property
    def difference(self) -> float:
        """Treatment minus control."""
        return self.treatment - self.control


@dataclass(frozen=True, slots=True)
class Undecided:
    """No estimate, and why, in words for a person."""

    reason: str


def effect(
    metric: Metric,
    strata: Sequence[Stratum],
    crossings: Mapping[Crossing, CrossMoments] | None = None,
    *,
    names: tuple[str, str] = ("the control", "the treatment"),
    unit: str = "unit",
) -> Effect | Undecided:
    """Combine the phases. Those without variance are left out, and so are small ones beside larger ones.

    ``names`` of control and treatment and ``unit`` are the words in which a reason is given.
    """
    reason = _unusable(metric, strata, names, unit)
    if reason is not None:
        return Undecided(reason)
    kept: list[tuple[int, Stratum, Spread, Spread]] = []
    for index, stratum in enumerate(strata):
        if _smaller_arm(stratum) < FEWEST_UNITS:
            continue
        fixed = _welch(stratum)
        sequential = _for_many_looks(metric, stratum, fixed)
        if math.isfinite(sequential.se) and sequential.se > 0:
            kept.append((index, stratum, fixed, sequential))
    if not kept and any(_smaller_arm(stratum) >= FEWEST_UNITS for stratum in strata):
        return Undecided(NO_VARIANCE)
    if not kept:
        return Undecided(f"no phase has {FEWEST_UNITS} measured {unit}s in each variant")
    # A variance from a handful of units can be close to zero by luck, and would then outweigh all other phases.
    large = [phase for phase in kept if _smaller_arm(phase[1]) >= UNITS_OF_A_PHASE]
    kept = large or [max(kept, key=lambda phase: _smaller_arm(phase[1]))]
    precision = [1.0 / sequential.se**2 for _, _, _, sequential in kept]
    weights = [value / math.fsum(precision) for value in precision]
    indexed = [(index, stratum) for index, stratum, _, _ in kept]
    between = _between(indexed, weights, crossings or {})
    sequential = _combined([spread for _, _, _, spread in kept], weights, between)
    # What returning units have in common can take away all that the phases' own variances say.
    if not (math.isfinite(sequential.se) and sequential.se > 0):
        return Undecided(NO_VARIANCE)
    return Effect(
        control=math.fsum(w * stratum.control.mean for w, (_, stratum) in zip(weights, indexed, strict=True)),
        treatment=math.fsum(
            w * stratum.treatment.mean for w, (_, stratum) in zip(weights, indexed, strict=True)
        ),
        fixed=_combined([fixed for _, _, fixed, _ in kept], weights, between),
        sequential=sequential,
        half_harmonic=math.fsum(
            s.control.units * s.treatment.units / (s.control.units + s.treatment.units) for _, s in indexed
        ),
        strata=tuple(stratum for _, stratum in indexed),
    )


def _unusable(metric: Metric, strata: Sequence[Stratum], names: tuple[str, str], unit: str) -> str | None:
    control = sum((stratum.control for stratum in strata), Moments())
    treatment = sum((stratum.treatment for stratum in strata), Moments())
    arms = sorted(zip((control.units, treatment.units), names, strict=True))
    fewest, name = arms[0]
    if fewest == 0:
        return f"{name} has no measured records yet"
    if fewest < FEWEST_UNITS:
        noun = unit if fewest == 1 else f"{unit}s"
        return f"{name} has only {fewest} measured {noun}, and at least {FEWEST_UNITS} are needed"
    both = control + treatment
    if both.too_large:
        return TOO_LARGE
    if metric.kind != "rate":
        return None
    events, others = both.total, both.records - both.total
    if min(events, others) == 0:
        word = "failed" if _all_good(metric, events) else "succeeded"
        return f"nothing has {word} yet, so there is no difference to judge"
    if min(events, others) < FEWEST_EVENTS:
        few, kind = (
            int(min(events, others)),
            "failures" if (events < others) != (metric.better == "higher") else "successes",
        )
        return (
            f"too few {kind}: {few} in {int(both.records)} records, and at least {FEWEST_EVENTS} are needed"
        )
    return None


def _all_good(metric: Metric, events: float) -> bool:
    return (events > 0) == (metric.better == "higher")


def _smaller_arm(stratum: Stratum) -> int:
    return min(stratum.control.units, stratum.treatment.units)


def _welch(stratum: Stratum) -> Spread:
    control, treatment = stratum.control.variance_of_mean(), stratum.treatment.variance_of_mean()
    return Spread(control, treatment, 0.0, _satterthwaite(stratum, control, treatment))


def _satterthwaite(stratum: Stratum, control: float, treatment: float) -> float:
    below = control**2 / (stratum.control.units - 1) + treatment**2 / (stratum.treatment.units - 1)
    return (control + treatment) ** 2 / below if below > 0 else math.inf


def _for_many_looks(metric: Metric, stratum: Stratum, welch: Spread) -> Spread:
    if metric.scale == "log":
        return welch
    control, treatment = stratum.control, stratum.treatment
    units = control.units + treatment.units
    if metric.kind == "rate":
        both = control + treatment
        # Independent 0/1 draws: the variance is a function of the pooled rate, so nothing else is estimated.
        bernoulli = control.one_record_each and treatment.one_record_each
        degrees = math.inf if bernoulli else float(units - 2)
        per_unit = both.residual_square(both.mean) / (units if bernoulli else units - 1)
        return _pooled(stratum, per_unit, degrees)
    within = control.residual_square(control.mean) + treatment.residual_square(treatment.mean)
    pooled = _pooled(stratum, within / (units - 2), float(units - 2))
    return pooled if pooled.se >= welch.se else welch


def _pooled(stratum: Stratum, per_unit: float, degrees: float) -> Spread:
    control, treatment = stratum.control, stratum.treatment
    return Spread(
        per_unit * control.units / control.records**2,
        per_unit * treatment.units / treatment.records**2,
        0.0,
        degrees,
    )


def _combined(
    spreads: Sequence[Spread], weights: Sequence[float], between: tuple[float, float, float]
) -> Spread:
    """The variance of the weighted sum; Satterthwaite's degrees of freedom over the strata."""
    parts = [w**2 * (spread.control + spread.treatment) for w, spread in zip(weights, spreads, strict=True)]
    total = math.fsum(parts)
    below = math.fsum(part**2 / spread.degrees for part, spread in zip(parts, spreads, strict=True))
    return Spread(
        math.fsum(w**2 * spread.control for w, spread in zip(weights, spreads, strict=True)) + between[0],
        math.fsum(w**2 * spread.treatment for w, spread in zip(weights, spreads, strict=True)) + between[1],
        between[2],
        total**2 / below if below > 0 else math.inf,
    )


def _between(
    strata: Sequence[tuple[int, Stratum]],
    weights: Sequence[float],
    crossings: Mapping[Crossing, CrossMoments],
) -> tuple[float, float, float]:
    """What units that are in several phases add: to Var(control), to Var(treatment) and to their
    covariance.
    """
    arms = {
        (index, arm): (weight, moments)
        for weight, (index, stratum) in zip(weights, strata, strict=True)
        for arm, moments in ((CONTROL, stratum.control), (TREATMENT, stratum.treatment))
    }
    added = {(CONTROL, CONTROL): 0.0, (TREATMENT, TREATMENT): 0.0, (CONTROL, TREATMENT): 0.0}
    for (first, first_arm, second, second_arm), sums in crossings.items():
        if (first, first_arm) not in arms or (second, second_arm) not in arms:
            continue
        weight, moments = arms[first, first_arm]
        other_weight, other_moments = arms[second, second_arm]
        covariance = weight * other_weight * sums.covariance_of_means(moments, other_moments)
        same = first_arm == second_arm
        key = (min(first_arm, second_arm), max(first_arm, second_arm))
        added[key] += 2 * covariance if same else covariance
    return added[CONTROL, CONTROL], added[TREATMENT, TREATMENT], added[CONTROL, TREATMENT]
