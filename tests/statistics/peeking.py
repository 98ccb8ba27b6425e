"""Experiments that are looked at again and again, on the code that the analysis runs, from moments to p-value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.metrics import Metric
from experiments.statistics.effect import Effect, Stratum, effect
from experiments.statistics.sequential import always_valid
from experiments.statistics.statistic import Moments
from experiments.statistics.tuning import tune

Floats = NDArray[np.float64]
# Units in, their numbers of records and sums of values out.
Draw = Callable[[int], tuple[Floats, Floats]]

ALPHA = 0.05
_NORMAL_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Outcome:
    """Shares of runs in which some look rejected: with the always-valid p-value, and naively at 1.96."""

    always_valid: float
    naive: float
    median_stop: float
    runs: int

    @property
    def allowed(self) -> float:
        """α plus two standard errors of a simulated rate of α."""
        return ALPHA + 2 * (ALPHA * (1 - ALPHA) / self.runs) ** 0.5


def peek(
    metric: Metric,
    control: Draw,
    treatment: Draw,
    looks: Sequence[tuple[int, int]],
    *,
    planned_units: int,
    runs: int,
) -> Outcome:
    """``looks`` are the units of control and treatment at each look; κ is frozen as the analysis freezes it."""
    rejected = naive = 0
    stops = []
    for _ in range(runs):
        arms = (
            _moments(*control(looks[-1][0]), [n for n, _ in looks]),
            _moments(*treatment(looks[-1][1]), [n for _, n in looks]),
        )
        always, ever = _one_run(metric, list(zip(*arms, strict=True)), planned_units)
        rejected += always is not None
        naive += ever
        if always is not None:
            stops.append(looks[always][1])
    return Outcome(rejected / runs, naive / runs, float(np.median(stops)) if stops else float("nan"), runs)


def _one_run(
    metric: Metric, arms: Sequence[tuple[Moments, Moments]], planned_units: int
) -> tuple[int | None, bool]:
    kappa = None
    first, naive = None, False
    for index, (control, treatment) in enumerate(arms):
        found = effect(metric, [Stratum(control, treatment)])
        if not isinstance(found, Effect):
            continue
        tuning = tune(found, kappa, planned_units, ALPHA)
        kappa = tuning.kappa
        naive |= abs(found.difference) > _NORMAL_95 * found.fixed.se
        spread = found.sequential
        if first is None:
            result = always_valid(found.difference, spread.se, spread.degrees, tuning.r, ALPHA)
            first = index if result.p_value <= ALPHA else None
        if first is not None and naive:
            break
    return first, naive


def _moments(n: Floats, s: Floats, sizes: Sequence[int]) -> list[Moments]:
    sums = np.cumsum(np.stack([n, s, n * n, n * s, s * s]), axis=1)
    return [Moments(size, *(float(value) for value in sums[:, size - 1])) for size in sizes]
