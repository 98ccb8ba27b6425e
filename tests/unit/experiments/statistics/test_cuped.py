"""Against the analysis of covariance in statsmodels, the same regression on linearised units, and coverage by simulation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import norm

from experiments.metrics import metric_for
from experiments.statistics.cuped import (
    UNITS_FOR_A_COEFFICIENT,
    Adjusted,
    CovariateMoments,
    CovariateStratum,
    adjusted,
    coefficients,
)
from experiments.statistics.effect import Effect, effect
from experiments.statistics.statistic import CrossMoments, Moments
from tests.unit.experiments.statistics.test_statistic import moments


@dataclass(frozen=True)
class Units:
    """One variant's units: records, sums, and the history, NaN for units that have none."""

    n: np.ndarray
    s: np.ndarray
    x: np.ndarray

    @property
    def has(self) -> np.ndarray:
        return ~np.isnan(self.x)

    @property
    def sums(self) -> CovariateMoments:
        n, s, x = self.n[self.has], self.s[self.has], self.x[self.has]
        return CovariateMoments(
            moments(n, s), moments(self.n[~self.has], self.s[~self.has]), x.sum(), x @ x, n @ x, s @ x
        )

    @property
    def linearised(self) -> np.ndarray:
        return (self.s - self.s.sum() / self.n.sum() * self.n) / self.n.mean()


def _units(
    rng: np.random.Generator, size: int, *, effect: float = 0.0, new: float = 0.0, clustered: bool = True
) -> Units:
    """A unit's level is in its history and in its records; heavy users have higher values, and more so when treated."""
    trait = rng.normal(size=size)
    n = 1.0 + rng.poisson(np.exp(0.5 + 0.4 * trait + 0.3 * effect)) if clustered else np.ones(size)
    s = n * (2.0 + effect + trait) + np.sqrt(n) * rng.normal(size=size)
    x = 10.0 + 3.0 * trait + rng.normal(size=size)
    # Units without a history have lower levels, as newcomers do.
    absent = rng.random(size) < new * np.where(trait < 0, 1.5, 0.5)
    return Units(n, s, np.where(absent, np.nan, x))


def _ols(cells: list[Units], response: np.ndarray) -> np.ndarray:
    """Dummies of the cells, then having a history and the history, with the mean of the known ones where there is none."""
    dummies = np.concatenate([np.full(len(cell.n), index) for index, cell in enumerate(cells)])
    x = np.concatenate([cell.x for cell in cells])
    columns = [*(np.equal(dummies, index).astype(float) for index in range(len(cells)))]
    if np.isnan(x).any():
        columns.append((~np.isnan(x)).astype(float))
    columns.append(np.where(np.isnan(x), np.nanmean(x), x))
    return np.asarray(sm.OLS(response, np.column_stack(columns)).fit().params)


@pytest.mark.parametrize("new", [0.0, 0.3])
def test_one_record_per_unit_is_the_analysis_of_covariance_of_statsmodels(new: float) -> None:
    rng = np.random.default_rng(1)
    control, treatment = (
        _units(rng, 90, new=new, clustered=False),
        _units(rng, 140, effect=0.3, new=new, clustered=False),
    )
    params = _ols([control, treatment], np.concatenate([control.s, treatment.s]))
    found = adjusted([CovariateStratum(control.sums, treatment.sums)])
    assert found.difference == pytest.approx(params[1] - params[0], rel=1e-9)
    assert found.coefficients.theta == pytest.approx(params[-1], rel=1e-9)
    if new:
        # The mean stands in for x there, so the indicator's coefficient is that at the centre.
        assert found.coefficients.history == pytest.approx(params[2], rel=1e-9)


def test_variances_of_the_arms_are_those_of_the_residuals() -> None:
    """OLS has one residual variance over both arms; the sums of squares are the same."""
    rng = np.random.default_rng(2)
    control, treatment = _units(rng, 90, clustered=False), _units(rng, 140, clustered=False)
    design = np.column_stack(
        [np.repeat([1.0, 0.0], [90, 140]), np.repeat([0.0, 1.0], [90, 140]), [*control.x, *treatment.x]]
    )
    fit = sm.OLS(np.concatenate([control.s, treatment.s]), design).fit()
    found = adjusted([CovariateStratum(control.sums, treatment.sums)])
    squares = found.control_variance * 90 * 89 + found.treatment_variance * 140 * 139
    assert squares == pytest.approx(float(fit.ssr), rel=1e-9)


def test_one_coefficient_for_all_variants_and_phases_on_linearised_units() -> None:
    rng = np.random.default_rng(3)
    cells = [_units(rng, size, new=0.2) for size in (150, 80, 60, 200, 90)]
    params = _ols(cells, np.concatenate([cell.linearised for cell in cells]))
    found = coefficients(cell.sums for cell in cells)
    assert found.theta == pytest.approx(params[-1], rel=1e-9)
    assert found.history == pytest.approx(params[-2], rel=1e-9)


def test_the_variance_of_a_ratio_is_that_of_its_adjusted_influence() -> None:
    rng = np.random.default_rng(4)
    control, treatment = _units(rng, 3000, new=0.2), _units(rng, 3000, effect=0.3, new=0.2)
    found = adjusted([CovariateStratum(control.sums, treatment.sums)])
    by = found.coefficients
    for cell, variance in ((control, found.control_variance), (treatment, found.treatment_variance)):
        covariate = np.where(cell.has, by.theta * (cell.x - by.centre), 0.0) + by.history * cell.has
        influence = cell.linearised - (covariate - covariate.mean())
        assert variance == pytest.approx(float(influence.var(ddof=1)) / 3000, rel=0.01)


def test_the_adjusted_interval_of_clustered_records_keeps_its_level_and_is_narrower() -> None:
    """The treatment changes how many records a unit has, and a quarter of the units is new."""
    rng = np.random.default_rng(5)
    large = [_units(rng, 400_000, effect=value, new=0.25) for value in (0.0, 0.3)]
    true = large[1].s.sum() / large[1].n.sum() - large[0].s.sum() / large[0].n.sum()
    runs, hits = 500, 0
    differences, removed = [], []
    for _ in range(runs):
        found = adjusted(
            [CovariateStratum(_units(rng, 150, new=0.25).sums, _units(rng, 250, effect=0.3, new=0.25).sums)]
        )
        half = float(norm.isf(0.025)) * math.sqrt(found.control_variance + found.treatment_variance)
        hits += abs(found.difference - true) <= half
        differences.append(found.difference)
        removed.append(found.removed)
    assert abs(hits / runs - 0.95) < 4 * math.sqrt(0.05 * 0.95 / runs)
    assert abs(np.mean(differences) - true) < 4 * np.std(differences) / math.sqrt(runs) + 0.004
    assert np.mean(removed) > 0.4


def test_effect_takes_the_adjusted_strata() -> None:
    rng = np.random.default_rng(6)
    strata = [CovariateStratum(_units(rng, size).sums, _units(rng, size).sums) for size in (200, 300)]
    found = adjusted(strata)
    estimate = effect(metric_for("score:helpfulness"), found.strata)
    assert isinstance(estimate, Effect)
    assert estimate.difference == pytest.approx(found.difference, rel=0.2)
    raw = effect(
        metric_for("score:helpfulness"), adjusted(strata, replace(found.coefficients, theta=math.nan)).strata
    )
    assert isinstance(raw, Effect)
    assert estimate.fixed.se < 0.8 * raw.fixed.se


def test_the_level_stays_where_it_was() -> None:
    rng = np.random.default_rng(7)
    control, treatment = _units(rng, 500, new=0.2), _units(rng, 500, new=0.2)
    (stratum,) = adjusted([CovariateStratum(control.sums, treatment.sums)]).strata
    before = (control.s.sum() / control.n.sum() + treatment.s.sum() / treatment.n.sum()) / 2
    assert (stratum.control.mean + stratum.treatment.mean) / 2 == pytest.approx(before, rel=1e-3)


def test_shifts_applied_to_units_give_the_adjusted_sums_and_what_phases_share() -> None:
    """Units that are in both phases: their covariance, by the shifts, is that of the adjusted influences."""
    rng = np.random.default_rng(8)
    size = 400
    trait, absent = rng.normal(size=size), rng.random(size) < 0.2
    x = np.where(absent, np.nan, 10 + trait + rng.normal(size=size))

    def phase() -> Units:
        n = 1.0 + rng.poisson(2, size)
        return Units(n, n * (2 + trait) + np.sqrt(n) * rng.normal(size=size), x)

    phases = [phase(), phase()]
    found = adjusted([CovariateStratum(units.sums, _units(rng, 300, new=0.2).sums) for units in phases])
    sums = [
        units.s - np.where(units.has, shift.known + shift.slope * np.nan_to_num(x), shift.new)
        for units, (shift, _) in zip(phases, found.shifts, strict=True)
    ]
    again = [moments(units.n, s) for units, s in zip(phases, sums, strict=True)]
    for one, stratum in zip(again, found.strata, strict=True):
        assert one.total == pytest.approx(stratum.control.total)
        assert one.records_total == pytest.approx(stratum.control.records_total)
        assert one.total_squared == pytest.approx(stratum.control.total_squared)
    n, m = (units.n for units in phases)
    s, t = sums
    by_shifts = CrossMoments(n @ m, n @ t, s @ m, s @ t).covariance_of_means(*again)
    residuals = [s - one.mean * units.n for s, one, units in zip(sums, again, phases, strict=True)]
    assert by_shifts == pytest.approx(float(residuals[0] @ residuals[1]) / (n.sum() * m.sum()))
    u, v = (units.s for units in phases)
    raw = CrossMoments(n @ m, n @ v, u @ m, u @ v).covariance_of_means(
        *(units.sums.outcome for units in phases)
    )
    assert by_shifts < 0.8 * raw


def test_moments_of_disjoint_units_add_up() -> None:
    whole = _units(np.random.default_rng(9), 80, new=0.3)
    parts = [Units(whole.n[cut], whole.s[cut], whole.x[cut]).sums for cut in (slice(0, 33), slice(33, 80))]
    added = parts[0] + parts[1]
    for name in ("covariate", "covariate_squared", "records_covariate", "total_covariate"):
        assert getattr(added, name) == pytest.approx(getattr(whole.sums, name))
    assert added.outcome.total == pytest.approx(whole.s.sum())
    assert added.known.units == whole.has.sum()


def _is_unadjusted(found: Adjusted, control: Units, treatment: Units) -> bool:
    (stratum,) = found.strata
    return (
        math.isnan(found.coefficients.theta)
        and math.isnan(found.removed)
        and stratum.control == control.sums.outcome
        and stratum.treatment == treatment.sums.outcome
        and found.control_variance == control.sums.outcome.variance_of_mean()
    )


@pytest.mark.parametrize("history", [math.nan, 5.0, 0.1])
def test_without_a_history_that_varies_nothing_is_adjusted(history: float) -> None:
    rng = np.random.default_rng(10)
    control, treatment = (replace(_units(rng, 60), x=np.full(60, history)) for _ in range(2))
    assert _is_unadjusted(adjusted([CovariateStratum(control.sums, treatment.sums)]), control, treatment)


def test_few_units_with_a_history_adjust_nothing() -> None:
    rng = np.random.default_rng(11)
    few = UNITS_FOR_A_COEFFICIENT // 2
    control, treatment = _units(rng, few), _units(rng, few)
    assert _is_unadjusted(adjusted([CovariateStratum(control.sums, treatment.sums)]), control, treatment)


def test_having_a_history_is_a_covariate_even_when_all_histories_are_alike() -> None:
    rng = np.random.default_rng(12)
    control, treatment = (_units(rng, 500, new=0.4) for _ in range(2))
    control, treatment = (
        replace(units, x=np.where(units.has, 7.0, np.nan)) for units in (control, treatment)
    )
    found = adjusted([CovariateStratum(control.sums, treatment.sums)])
    assert found.coefficients.theta == 0.0
    assert found.coefficients.history > 0
    assert found.removed > 0


def test_an_empty_variant_or_none_at_all_is_no_crash() -> None:
    units = _units(np.random.default_rng(13), 100).sums
    found = adjusted([CovariateStratum(units, CovariateMoments())])
    assert math.isnan(found.difference)
    assert math.isnan(adjusted([]).difference)
    assert math.isnan(adjusted([CovariateStratum(CovariateMoments(), CovariateMoments())]).difference)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e200])
def test_values_beyond_floats_adjust_nothing(value: float) -> None:
    rng = np.random.default_rng(14)
    control, treatment = _units(rng, 100), _units(rng, 100)
    broken = replace(control.sums, covariate=value, covariate_squared=math.inf)
    found = adjusted([CovariateStratum(broken, treatment.sums)])
    assert math.isnan(found.coefficients.theta)
    assert found.strata[0].control == control.sums.outcome
    sums = replace(control.sums, known=Moments(100, 100, value, 100, value, math.inf))
    assert math.isnan(adjusted([CovariateStratum(sums, treatment.sums)]).difference)
