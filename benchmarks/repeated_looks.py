"""Simulated experiments that are looked at again and again, on the code that the analysis runs.

A method sees what an analysis would see at each look, and says whether it rejects. Used by ``benchmarks.peeking`` and,
with fewer runs, by the tests in ``tests/statistics``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from benchmarks.simulated_arms import Arm, Lognormal
from experiments.metrics import Metric
from experiments.statistics.anytime_quantiles import SortedValues, quantile_difference
from experiments.statistics.e_process import EventCounts, one_sided_log_e, two_arm_log_e
from experiments.statistics.effect import Effect, Stratum, effect
from experiments.statistics.one_sided import guardrail
from experiments.statistics.sequential import always_valid
from experiments.statistics.statistic import Moments
from experiments.statistics.tuning import tune

ALPHA = 0.05
_NORMAL_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Look:
    """What a method sees: the moments, the estimate if there is one, r as the analysis tunes it, and the share."""

    control: Moments
    treatment: Moments
    estimate: Effect | None
    r: float
    share: float

    @property
    def events(self) -> list[EventCounts]:
        """The events of a rate with one record per unit."""
        return [EventCounts(round(self.treatment.total), round(self.control.total), self.share)]


Method = Callable[[Look], bool]


def by_always_valid(look: Look) -> bool:
    """The two-sided always-valid p-value."""
    if look.estimate is None:
        return False
    spread = look.estimate.sequential
    found = always_valid(look.estimate.difference, spread.se, spread.degrees, look.r, ALPHA)
    return found.p_value <= ALPHA


def by_one_sided(look: Look) -> bool:
    """The one-sided normal mixture, where more is harm and none is tolerated."""
    estimate = look.estimate
    return estimate is not None and guardrail(estimate, "lower", 0.0, look.r, ALPHA).p_value <= ALPHA


def by_e_process(look: Look) -> bool:
    """The exact two-sided e-value of the counts."""
    return two_arm_log_e(look.events) >= -math.log(ALPHA)


def by_one_sided_e_process(look: Look) -> bool:
    """The exact one-sided e-value of the counts, where an event is harm."""
    return one_sided_log_e(look.events, "greater") >= -math.log(ALPHA)


def by_naive_test(look: Look) -> bool:
    """The fixed-horizon test, as if this look were the only one."""
    estimate = look.estimate
    return estimate is not None and abs(estimate.difference) > _NORMAL_95 * estimate.fixed.se


def by_boundaries(boundaries: Sequence[float], units: Sequence[int]) -> Method:
    """The critical |z| of a group-sequential design, by the treatment's units at each look."""
    critical = dict(zip(units, boundaries, strict=True))

    def method(look: Look) -> bool:
        estimate = look.estimate
        if estimate is None:
            return False
        return abs(estimate.difference) >= critical[look.treatment.units] * estimate.sequential.se

    return method


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of ``runs`` experiments, the treatment's units when each that rejected did so first."""

    runs: int
    stops: tuple[int, ...]

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(self.runs + other.runs, self.stops + other.stops)

    @property
    def rate(self) -> float:
        """Share of runs in which some look rejected."""
        return len(self.stops) / self.runs

    @property
    def standard_error(self) -> float:
        """Of the rate, if it is what was found."""
        return math.sqrt(self.rate * (1.0 - self.rate) / self.runs)

    @property
    def allowed(self) -> float:
        """α plus two standard errors of a simulated rate of α."""
        return ALPHA + 2.0 * math.sqrt(ALPHA * (1.0 - ALPHA) / self.runs)

    @property
    def median_stop(self) -> float:
        """The treatment's units at the first rejection, over all runs: infinite when most never rejected."""
        ordered = sorted(self.stops) + [math.inf] * (self.runs - len(self.stops))
        return float(ordered[(self.runs - 1) // 2])


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared, and when it is looked at: units of control and treatment at each look, always in the same
    proportion.
    """

    metric: Metric
    control: Arm
    treatment: Arm
    looks: Sequence[tuple[int, int]]
    planned_units: float


def simulate(
    plan: Plan, methods: Mapping[str, Method], rng: np.random.Generator, runs: int
) -> dict[str, Outcome]:
    """Every method on the same ``runs`` experiments; κ is frozen as the analysis freezes it."""
    stops: dict[str, list[int]] = {name: [] for name in methods}
    for _ in range(runs):
        control = plan.control.moments(rng, [n for n, _ in plan.looks])
        treatment = plan.treatment.moments(rng, [n for _, n in plan.looks])
        kappa = None
        open_methods = dict(methods)
        for arms, (n0, n1) in zip(zip(control, treatment, strict=True), plan.looks, strict=True):
            found = effect(plan.metric, [Stratum(*arms)])
            estimate, r = None, math.nan
            if isinstance(found, Effect):
                tuning = tune(found, kappa, plan.planned_units, ALPHA)
                estimate, r, kappa = found, tuning.r, tuning.kappa
            look = Look(*arms, estimate, r, n1 / (n0 + n1))
            for name in [name for name, method in open_methods.items() if method(look)]:
                stops[name].append(n1)
                del open_methods[name]
            if not open_methods:
                break
    return {name: Outcome(runs, tuple(units)) for name, units in stops.items()}


def simulate_quantile(
    control: Lognormal,
    treatment: Lognormal,
    sizes: Sequence[int],
    p: float,
    rng: np.random.Generator,
    runs: int,
) -> Outcome:
    """The two-arm quantile interval, at the same number of values in each arm: does it ever exclude no difference?"""
    stops = []
    for _ in range(runs):
        arms = [np.empty(0), np.empty(0)]
        for earlier, size in pairwise([0, *sizes]):
            for i, arm in enumerate((control, treatment)):
                new = np.sort(arm.values(rng, size - earlier))
                arms[i] = np.insert(arms[i], np.searchsorted(arms[i], new), new)
            found = quantile_difference(*map(SortedValues, arms), p, ALPHA, planned=sizes[-1] / 2)
            if not found.low <= 0.0 <= found.high:
                stops.append(size)
                break
    return Outcome(runs, tuple(stops))
