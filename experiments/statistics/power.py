"""How many units an experiment needs, and what a given number of them can show.

Everything follows from one quantity: the drift, which is the mean of z when all planned units are there. The
wanted power asks for a drift; the difference and the variance per unit say how many units bring it.

* One look: z_{alpha/2} + z_power, the normal formula. Rates use the null-pooled variance for the test and the
  unpooled one for the power, as the analysis does (Fleiss, Levin & Paik 2003, "Statistical Methods for Rates and
  Proportions", §4.2).
* Any look of the always-valid normal mixture (:mod:`experiments.statistics.sequential`): the probability that
  Brownian motion with drift has crossed the curved boundary by the planned end, by recursive integration over
  looks (Jennison & Turnbull 2000, ch. 19). Fewer looks cross later, so counting a finite number of them never
  promises too much.
* A group-sequential design: the same integral over its own boundaries, which is the inflation of the fixed size.

Invariant: the sizes are those of normal theory, and never smaller than what the analysis needs to speak at all.
Units of a day are taken to be new ones: where users return, the days come out too few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri

from experiments.metrics import Metric
from experiments.statistics.effect import FEWEST_UNITS
from experiments.statistics.group_sequential import (
    Crossing,
    GroupSequentialDesign,
    crossing_probabilities,
)
from experiments.statistics.sequential import critical_value, planned_r
from experiments.statistics.statistic import Moments
from servelens.errors import Invalid

# With one look the always-valid size is a tenth larger, with a thousand a twentieth smaller.
LOOKS = 30

_TOLERANCE = 1e-6
_SMALLEST = 1e-9
_LARGEST_UNITS = 1e15
# Standard errors beyond a boundary at which crossing it is certain for any power that a float can hold.
_CERTAIN = 10.0


@dataclass(frozen=True, slots=True)
class Baseline:
    """What recent traffic says about a metric.

    ``mean`` is on the metric's scale (its logarithm for a log scale) and ``variance`` that of one unit, with what
    clustering adds: units × Var(mean). ``units_per_day`` are all units of the endpoint.

    Raises :class:`~servelens.errors.Invalid`, naming the field, where nothing can be planned with it.
    """

    metric: Metric
    mean: float
    variance: float
    units_per_day: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.units_per_day) and self.units_per_day > 0):
            raise Invalid(
                "there is no traffic to plan with", field="units_per_day", fix="Give a longer window."
            )
        if not math.isfinite(self.mean) or (self.metric.scale == "plain" and self.mean <= 0):
            raise Invalid(
                f"a relative change needs a positive average, and {self.metric.label} has {self.mean:g}",
                field="mean",
                fix="Give a window in which it is above zero.",
            )
        if not (math.isfinite(self.variance) and self.variance > 0):
            raise Invalid(
                f"all values of {self.metric.label} are the same, so there is no variance to plan with",
                field="variance",
                fix="Give a longer window.",
            )
        if self.metric.kind == "rate" and self.mean >= 1:
            raise Invalid(
                f"{self.mean:g} is no rate that could vary", field="mean", fix="Give a longer window."
            )


@dataclass(frozen=True, slots=True)
class Split:
    """The two variants' weights in percent of the experiment, and its share in percent of the endpoint's units.

    The weights add up to less than 100 where there are other treatments.
    """

    control: float
    treatment: float
    share: float = 100.0

    def __post_init__(self) -> None:
        for field, value in (("control", self.control), ("treatment", self.treatment), ("share", self.share)):
            if not 0 < value <= 100:
                raise Invalid(f"{value} is no percentage to plan with", field=field, fix="Use 1 to 100.")
        if self.control + self.treatment > 100 + _TOLERANCE:
            raise Invalid(
                f"the weights add up to {self.control + self.treatment:g}",
                field="treatment",
                fix="Let them add up to 100 at most.",
            )

    @property
    def half_harmonic(self) -> float:
        """n₀n₁/(n₀+n₁) for each unit of the experiment."""
        return self.control * self.treatment / (self.control + self.treatment) / 100.0


@dataclass(frozen=True, slots=True)
class Looks:
    """When one looks, in fractions of the planned units up to 1, and the critical z of each look."""

    fractions: tuple[float, ...]
    critical: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """``units`` are those of the whole experiment (``planned_units``), with all its treatments.

    ``expected_units`` and ``median_units`` are where it stops when the planned effect is true; NaN where less than
    half of such experiments stop early or at the end. ``difference`` is on the metric's scale.
    """

    units: int
    control_units: int
    treatment_units: int
    days: float
    expected_units: float
    median_units: float
    difference: float
    power: float


def baseline(metric: Metric, moments: Moments, days: float) -> Baseline:
    """The baseline that ``days`` of traffic gave, for all units that were measured in that time."""
    if not (math.isfinite(days) and days > 0):
        raise Invalid(f"{days} days are no window", field="days", fix="Give at least one day of traffic.")
    if moments.units < 2 or moments.records <= 0:
        raise Invalid(
            f"{metric.label} was measured for {moments.units} units, which says nothing about how they vary",
            field="units",
            fix="Give a longer window.",
        )
    return Baseline(metric, moments.mean, moments.units * moments.variance_of_mean(), moments.units / days)


def one_look(alpha: float, *, sides: Literal[1, 2] = 2) -> Looks:
    """A fixed horizon: a single look at the end."""
    return Looks((1.0,), (-float(ndtri(_level(alpha) / sides)),))


def always_valid_looks(split: Split, alpha: float, *, count: int = LOOKS) -> Looks:
    """``count`` evenly spaced looks at the normal mixture that is tuned to the planned units."""
    if count < 1:
        raise Invalid(f"{count} looks decide nothing", field="looks", fix="Look at least once.")
    fractions = np.arange(1, count + 1) / count
    r = planned_r(split.half_harmonic, 1.0, _level(alpha)) * fractions
    return Looks(tuple(fractions.tolist()), tuple(critical_value(r, alpha).tolist()))


def group_sequential_looks(design: GroupSequentialDesign, fractions: Sequence[float]) -> Looks:
    """The planned looks of a group-sequential design; the last fraction is 1."""
    if not fractions or abs(fractions[-1] - 1.0) > _TOLERANCE:
        raise Invalid("the last look is not at the end", field="information_fractions", fix="End with 1.")
    return Looks(tuple(fractions), tuple(design.boundaries(fractions)))


def plan(baseline: Baseline, split: Split, effect: float, looks: Looks, power: float = 0.8) -> Plan:
    """The units with which a true relative change ``effect`` (0.05 for 5 % more) is found with ``power``.

    Raises :class:`~servelens.errors.Invalid` for an effect that is none or that the metric cannot have, and for an
    impossible power.

    >>> from experiments.metrics import metric_for
    >>> errors = Baseline(metric_for("error_rate"), mean=0.02, variance=0.02 * 0.98, units_per_day=1000.0)
    >>> plan(errors, Split(50, 50), -0.25, one_look(0.05)).units
    21590
    """
    difference = _difference(baseline, effect, field="effect")
    at_test, at_effect = _variances(baseline, split, difference)
    widened = _widened(looks, at_test, at_effect)
    drift = _drift(widened, power, both=True)
    return _plan(baseline, split, difference, at_effect, widened, drift, both=True)


def guardrail_plan(baseline: Baseline, split: Split, margin: float, looks: Looks, power: float = 0.8) -> Plan:
    """The units with which harm of the relative size ``margin`` is ruled out with ``power`` when there is none.

    Harm is ruled out as soon as the bound at ``looks``' critical value is under the margin, which is a one-sided
    question: use ``one_look(alpha, sides=1)``, or two-sided looks to be stricter.
    """
    if baseline.metric.better is None:
        raise Invalid(
            f"{baseline.metric.label} has no direction that is harm",
            field="metric",
            fix="Take another metric.",
        )
    if not margin > 0:
        raise Invalid(f"{margin} is no margin", field="margin", fix="Use 0.05 for 5 percent, for example.")
    harm = margin if baseline.metric.better == "lower" else -margin
    difference = _difference(baseline, harm, field="margin")
    _, variance = _variances(baseline, split, 0.0)
    return _plan(baseline, split, difference, variance, looks, _drift(looks, power, both=False), both=False)


def detectable_effect(
    baseline: Baseline,
    split: Split,
    units: float,
    looks: Looks,
    power: float = 0.8,
    *,
    increase: bool = True,
) -> float:
    """The smallest relative change that ``units`` of the experiment find with ``power``; the inverse of :func:`plan`.

    Negative for a decrease. NaN: no change that the metric can have would be found.
    """
    if not 0 < units < _LARGEST_UNITS:
        raise Invalid(
            f"{units} is no number of units", field="units", fix="Give the units or days that there are."
        )
    sign = 1.0 if increase else -1.0
    if baseline.metric.kind != "rate":
        _, variance = _variances(baseline, split, 0.0)
        difference = sign * _drift(looks, power, both=True) * math.sqrt(variance / units)
        if baseline.metric.scale == "log":
            return math.expm1(difference) if difference < 700.0 else math.inf
        return difference / baseline.mean
    room = (1.0 - baseline.mean if increase else baseline.mean) * (1.0 - _TOLERANCE)

    def missing(logarithm: float) -> float:
        """The logarithm of the needed over the given units, for a difference of exp(``logarithm``)."""
        size = math.exp(logarithm)
        at_test, at_effect = _variances(baseline, split, sign * size)
        widened = _widened(looks, at_test, at_effect)
        return math.log((_drift(widened, power, both=True) / size) ** 2 * at_effect / units)

    if missing(math.log(room)) > 0:
        return math.nan
    size = math.exp(brentq(missing, math.log(room * _SMALLEST), math.log(room), xtol=1e-6))
    return sign * size / baseline.mean


def units_in(days: float, baseline: Baseline, split: Split) -> int:
    """The units that the experiment gets in ``days`` of the endpoint's traffic."""
    if not (math.isfinite(days) and days > 0):
        raise Invalid(f"{days} days bring no units", field="days", fix="Plan for at least one day.")
    return int(days * baseline.units_per_day * split.share / 100.0)


def _level(alpha: float) -> float:
    if not 0 < alpha < 0.5:
        raise Invalid(f"{alpha} is no error probability", field="alpha", fix="Use 0.05, for example.")
    return alpha


def _difference(baseline: Baseline, effect: float, *, field: str) -> float:
    """A relative change as a difference on the metric's scale."""
    if not math.isfinite(effect) or effect == 0 or effect <= -1:
        raise Invalid(
            f"{effect} is no relative change to look for", field=field, fix="Use 0.05 for 5 percent more."
        )
    if baseline.metric.scale == "log":
        return math.log1p(effect)
    if baseline.metric.kind == "rate" and baseline.mean * (1.0 + effect) >= 1:
        raise Invalid(
            f"{baseline.metric.label} is {baseline.mean:.4g} and cannot become {baseline.mean * (1 + effect):.4g}",
            field=field,
            fix="Look for a smaller change.",
        )
    return baseline.mean * effect


def _variances(baseline: Baseline, split: Split, difference: float) -> tuple[float, float]:
    """Variance of the difference for one unit of the experiment: as the test estimates it, and as it then is."""
    control, treatment = split.control / 100.0, split.treatment / 100.0
    if baseline.metric.kind != "rate":
        variance = baseline.variance * (1.0 / control + 1.0 / treatment)
        return variance, variance
    rate, other = baseline.mean, baseline.mean + difference
    pooled = (control * rate + treatment * other) / (control + treatment)
    # What clustering adds stays the same multiple of a coin's variance when the rate changes.
    clustering = baseline.variance / (rate * (1.0 - rate))
    at_test = pooled * (1.0 - pooled) * (1.0 / control + 1.0 / treatment)
    at_effect = rate * (1.0 - rate) / control + other * (1.0 - other) / treatment
    return clustering * at_test, clustering * at_effect


def _widened(looks: Looks, at_test: float, at_effect: float) -> Looks:
    """The boundaries in units of the error that there is, where the test estimates another one."""
    return Looks(looks.fractions, tuple(c * math.sqrt(at_test / at_effect) for c in looks.critical))


def _crossing(looks: Looks, drift: float, *, both: bool) -> Crossing:
    lower = None if both else [-math.inf] * len(looks.critical)
    return crossing_probabilities(looks.fractions, looks.critical, lower, drift=drift)


def _drift(looks: Looks, power: float, *, both: bool) -> float:
    """The mean of z at the planned end with which a boundary is crossed with probability ``power``."""
    enough = min(
        ((c + _CERTAIN) / math.sqrt(t) for t, c in zip(looks.fractions, looks.critical, strict=True)),
        default=math.inf,
    )
    if not math.isfinite(enough):
        raise Invalid("no look can decide", field="looks", fix="Look at the end, at least.")
    if not _crossing(looks, 0.0, both=both).total < power < 1:
        raise Invalid(f"{power} is no power to plan for", field="power", fix="Use 0.8 or 0.9.")
    return float(
        brentq(lambda drift: _crossing(looks, drift, both=both).total - power, 0.0, enough, xtol=1e-6)
    )


def _plan(
    baseline: Baseline,
    split: Split,
    difference: float,
    variance: float,
    looks: Looks,
    drift: float,
    *,
    both: bool,
) -> Plan:
    smallest = math.ceil(FEWEST_UNITS * 100.0 / min(split.control, split.treatment))
    exact = max(drift**2 * variance / difference**2, float(smallest))
    units = math.ceil(exact - _TOLERANCE)
    crossing = _crossing(looks, abs(difference) * math.sqrt(units / variance), both=both)
    ends = np.asarray(looks.fractions) * units
    chances = np.asarray(crossing.upper) + np.asarray(crossing.lower)
    reached = np.flatnonzero(np.cumsum(chances) >= 0.5)
    return Plan(
        units=units,
        control_units=math.ceil(units * split.control / 100.0),
        treatment_units=math.ceil(units * split.treatment / 100.0),
        days=units / (baseline.units_per_day * split.share / 100.0),
        expected_units=float(ends @ chances + units * (1.0 - crossing.total)),
        median_units=float(ends[reached[0]]) if reached.size else math.nan,
        difference=difference,
        power=crossing.total,
    )
