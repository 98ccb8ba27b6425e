"""CUPED: a metric adjusted by what its units did before the experiment, from additive sums.

A unit's history x (its mean of the same metric before its first exposure) is the same under any variant, so subtracting
θ·(x - mean of x) leaves every difference what it is and removes the variance that x explains (Deng, Xu, Kohavi & Walker 2013,
"Improving the sensitivity of online controlled experiments by utilizing pre-experiment data", WSDM). A ratio metric R = Σs/Σn
is first linearised by the delta method, z = (s - R·n)/n̄ per unit (their appendix B), and z is regressed on x with the
covariances within variants and phases added up: one θ for all of them, as in the analysis of covariance.

Units without a history: whether there is one is as old as x itself, so it is a second covariate h (0 or 1), and x enters as
h·x. That is the same as giving them the mean of x with an indicator, and stays unbiased. Treating them as a stratum of their
own does not for a ratio: its weight would be its share of records, which the treatment may change.

Invariant: the adjustment of a unit depends on its history, its variant's mean number of records and constants of its phase
only. What cannot be estimated (few units with a history, or all with the same one) is NaN and nothing is adjusted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from experiments.statistics.effect import Stratum
from experiments.statistics.statistic import Moments

# A coefficient from fewer units with a history would add more noise than it removes.
UNITS_FOR_A_COEFFICIENT = 30
_NO_UNITS = Moments()
# Below this share of the covariate's own size a spread is rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class CovariateMoments:
    """Sums over the units of one variant in one phase. Addition is over disjoint sets of units.

    ``known`` has the outcome's sums (of 1, n, s, n², n·s, s²) over the units with a history and ``new`` over the others; the
    rest are sums over units with a history of x, x², n·x and s·x.
    """

    known: Moments = _NO_UNITS
    new: Moments = _NO_UNITS
    covariate: float = 0.0
    covariate_squared: float = 0.0
    records_covariate: float = 0.0
    total_covariate: float = 0.0

    def __add__(self, other: CovariateMoments) -> CovariateMoments:
        return CovariateMoments(
            self.known + other.known,
            self.new + other.new,
            self.covariate + other.covariate,
            self.covariate_squared + other.covariate_squared,
            self.records_covariate + other.records_covariate,
            self.total_covariate + other.total_covariate,
        )

    @property
    def outcome(self) -> Moments:
        """Of all units, unadjusted."""
        return self.known + self.new


@dataclass(frozen=True, slots=True)
class CovariateStratum:
    """Control and treatment in one phase."""

    control: CovariateMoments
    treatment: CovariateMoments


@dataclass(frozen=True, slots=True)
class Coefficients:
    """``theta`` belongs to x and ``history`` to having one; 0 where it explains nothing, NaN where it is not known.

    ``centre`` is the mean of x over units with a history, from which x is counted.
    """

    theta: float
    history: float
    centre: float


@dataclass(frozen=True, slots=True)
class Shift:
    """What is taken off a unit's sum s: ``known`` + ``slope``·x with a history, ``new`` without one.

    Applied to the unit's own sums it also adjusts what is not made of a single variant's and phase's sums, as
    :class:`~experiments.statistics.statistic.CrossMoments`.
    """

    known: float
    slope: float
    new: float


@dataclass(frozen=True, slots=True)
class Adjusted:
    """``strata`` hold the adjusted sums, in the shape of :func:`experiments.statistics.effect.effect`.

    They are sums of real numbers: hand them over with a metric of kind ``mean``, even when the metric is a rate. ``shifts``
    are those of control and treatment by stratum. ``difference`` and the variances of its arms combine the phases by
    precision, as :func:`effect` does, but without what returning units add. ``removed`` is the share of the unadjusted
    difference's variance that is gone; negative when the adjustment does harm.
    """

    strata: tuple[Stratum, ...]
    shifts: tuple[tuple[Shift, Shift], ...]
    coefficients: Coefficients
    difference: float
    control_variance: float
    treatment_variance: float
    removed: float


def coefficients(cells: Iterable[CovariateMoments]) -> Coefficients:
    """One regression for all ``cells``, each variant and phase with its own mean."""
    usable = [cell for cell in cells if _usable(cell)]
    units = sum(cell.known.units for cell in usable)
    if units - len(usable) < UNITS_FOR_A_COEFFICIENT or not all(_finite(cell) for cell in usable):
        return Coefficients(math.nan, math.nan, math.nan)
    centre = math.fsum(cell.covariate for cell in usable) / units
    hh, hx, xx, zh, zx = (
        math.fsum(column) for column in zip(*(_products(cell, centre) for cell in usable), strict=True)
    )
    size = math.fsum(cell.covariate_squared for cell in usable)
    by_history = zh / hh if hh > 0 else 0.0
    # What of x is left when having a history is known.
    left = xx - hx * hx / hh if hh > 0 else xx
    if not left > _ROUNDING * size:
        # Without x there may still be a difference between units with a history and new ones.
        return Coefficients(math.nan if hh <= 0 else 0.0, by_history if hh > 0 else math.nan, centre)
    theta = (zx - by_history * hx) / left
    return Coefficients(theta, by_history - theta * hx / hh if hh > 0 else 0.0, centre)


def adjusted(strata: Sequence[CovariateStratum], by: Coefficients | None = None) -> Adjusted:
    """Adjust each phase by ``by``, which is to come from all variants of the experiment; ``None`` takes these two.

    Where the coefficients are not known, the sums are as they were and ``removed`` is NaN.
    """
    if by is None:
        by = coefficients(cell for stratum in strata for cell in (stratum.control, stratum.treatment))
    raw = tuple(Stratum(stratum.control.outcome, stratum.treatment.outcome) for stratum in strata)
    if math.isnan(by.theta):
        nothing = Shift(0.0, 0.0, 0.0)
        difference, control, treatment = _combined(raw)
        return Adjusted(raw, ((nothing, nothing),) * len(raw), by, difference, control, treatment, math.nan)
    shifts = tuple(_shifts(stratum, by) for stratum in strata)
    found = tuple(
        Stratum(_shifted(stratum.control, control), _shifted(stratum.treatment, treatment))
        for stratum, (control, treatment) in zip(strata, shifts, strict=True)
    )
    difference, control_variance, treatment_variance = _combined(found)
    _, *before = _combined(raw)
    variance = math.fsum(before)
    removed = 1.0 - (control_variance + treatment_variance) / variance if variance > 0 else math.nan
    return Adjusted(found, shifts, by, difference, control_variance, treatment_variance, removed)


def _usable(cell: CovariateMoments) -> bool:
    outcome = cell.outcome
    return outcome.units >= 2 and outcome.records > 0 and cell.known.units > 0


def _finite(cell: CovariateMoments) -> bool:
    """Squares included, so that no product of the sums can leave the range of floats."""
    outcome = cell.outcome
    sums = (
        outcome.total,
        outcome.total_squared,
        cell.covariate,
        cell.covariate_squared,
        cell.total_covariate,
    )
    return all(math.isfinite(value) for value in (*sums, outcome.records_total, cell.records_covariate))


def _products(cell: CovariateMoments, centre: float) -> tuple[float, float, float, float, float]:
    """Within the cell, of h, x (counted from the centre, 0 without a history) and z: hh, hx, xx, zh, zx."""
    outcome, known = cell.outcome, cell.known
    units, mean = outcome.units, outcome.mean
    per_unit = outcome.records / units
    x = cell.covariate - centre * known.units
    xx = cell.covariate_squared - 2.0 * centre * cell.covariate + centre * centre * known.units
    zh = (known.total - mean * known.records) / per_unit
    zx = (cell.total_covariate - mean * cell.records_covariate) / per_unit - centre * zh
    new = (units - known.units) / units
    return known.units * new, x * new, xx - x * x / units, zh, zx


def _shifts(stratum: CovariateStratum, by: Coefficients) -> tuple[Shift, Shift]:
    """Constants of the phase: the means of h and x over both variants, so that the level stays where it was."""
    both = stratum.control + stratum.treatment
    units = both.outcome.units
    if not units:
        return Shift(0.0, 0.0, 0.0), Shift(0.0, 0.0, 0.0)
    share = both.known.units / units
    mean = (both.covariate - by.centre * both.known.units) / units
    known = by.history * (1.0 - share) - by.theta * (by.centre + mean)
    new = -by.history * share - by.theta * mean
    control, treatment = (
        Shift(known * each, by.theta * each, new * each)
        for each in (_records_per_unit(stratum.control.outcome), _records_per_unit(stratum.treatment.outcome))
    )
    return control, treatment


def _records_per_unit(outcome: Moments) -> float:
    return outcome.records / outcome.units if outcome.units else 0.0


def _shifted(cell: CovariateMoments, by: Shift) -> Moments:
    known, new = cell.known, cell.new
    return Moments(
        known.units,
        known.records,
        known.total - by.known * known.units - by.slope * cell.covariate,
        known.records_squared,
        known.records_total - by.known * known.records - by.slope * cell.records_covariate,
        known.total_squared
        - 2.0 * (by.known * known.total + by.slope * cell.total_covariate)
        + by.known * by.known * known.units
        + 2.0 * by.known * by.slope * cell.covariate
        + by.slope * by.slope * cell.covariate_squared,
    ) + Moments(
        new.units,
        new.records,
        new.total - by.new * new.units,
        new.records_squared,
        new.records_total - by.new * new.records,
        new.total_squared - 2.0 * by.new * new.total + by.new * by.new * new.units,
    )


def _combined(strata: Sequence[Stratum]) -> tuple[float, float, float]:
    """Difference, control's and treatment's part of its variance; NaN when no phase has both variants."""
    phases = [
        (
            stratum.treatment.mean - stratum.control.mean,
            stratum.control.variance_of_mean(),
            stratum.treatment.variance_of_mean(),
        )
        for stratum in strata
        if all(
            arm.records > 0 and math.isfinite(arm.total_squared)
            for arm in (stratum.control, stratum.treatment)
        )
    ]
    phases = [phase for phase in phases if 0.0 < phase[1] + phase[2] < math.inf]
    if not phases:
        return math.nan, math.nan, math.nan
    precision = [1.0 / (control + treatment) for _, control, treatment in phases]
    weights = [value / math.fsum(precision) for value in precision]
    return (
        math.fsum(w * phase[0] for w, phase in zip(weights, phases, strict=True)),
        math.fsum(w**2 * phase[1] for w, phase in zip(weights, phases, strict=True)),
        math.fsum(w**2 * phase[2] for w, phase in zip(weights, phases, strict=True)),
    )
