"""Against statsmodels' cluster-robust covariance, an independent implementation of the same sandwich."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm

from experiments.metrics import metric_for
from experiments.statistics.effect import CONTROL, TREATMENT, Effect, Stratum, effect
from experiments.statistics.statistic import CrossMoments, Moments

LOG = metric_for("latency_ms")


def moments(n: np.ndarray, s: np.ndarray) -> Moments:
    """Moments of units with ``n`` records and sums ``s``; units without records are left out."""
    n, s = n[n > 0].astype(float), s[n > 0]
    return Moments(len(n), n.sum(), s.sum(), (n * n).sum(), (n * s).sum(), (s * s).sum())


def test_one_record_each_gives_the_ordinary_variance_of_a_mean() -> None:
    values = np.random.default_rng(1).lognormal(size=57)
    found = moments(np.ones(57), values)
    assert found.mean == pytest.approx(values.mean())
    assert found.variance_of_mean() == pytest.approx(values.var(ddof=1) / 57)


def test_clustered_variance_is_that_of_statsmodels_cluster_robust_ols() -> None:
    rng = np.random.default_rng(2)
    sizes = rng.integers(1, 9, size=80)
    users = np.repeat(np.arange(80), sizes)
    values = rng.normal(size=80)[users] + rng.normal(size=len(users))
    sums = np.bincount(users, weights=values)
    fit = sm.OLS(values, np.ones(len(values))).fit(
        cov_type="cluster", cov_kwds={"groups": users, "use_correction": False}
    )
    found = moments(sizes, sums)
    assert found.mean == pytest.approx(float(fit.params[0]))
    # statsmodels without correction lacks the factor N/(N-1) over the clusters.
    assert found.variance_of_mean() == pytest.approx(float(fit.bse[0]) ** 2 * 80 / 79)


def test_moments_of_disjoint_units_add_up() -> None:
    rng = np.random.default_rng(3)
    n, s = rng.integers(1, 5, size=40), rng.normal(size=40)
    whole, parts = moments(n, s), moments(n[:13], s[:13]) + moments(n[13:], s[13:])
    assert parts.units == whole.units
    assert parts.variance_of_mean() == pytest.approx(whole.variance_of_mean())


def test_equal_values_have_exactly_no_variance() -> None:
    assert moments(np.array([3, 1, 2]), np.array([3, 1, 2]) * 0.1).variance_of_mean() == 0.0


def test_one_unit_has_no_variance_estimate() -> None:
    assert math.isnan(moments(np.array([3]), np.array([1.0])).variance_of_mean())


def test_units_that_return_in_a_later_phase_are_not_counted_as_new_draws() -> None:
    """Covariance between phases, against statsmodels' cluster-robust OLS on the four cells.

    Weights changed from 80:20 to 50:50, so some users return in the same variant and some in the other.
    """
    rng = np.random.default_rng(4)
    users = 600
    trait, point = rng.normal(size=users), rng.random(users)
    rows: list[tuple[int, int, int, float]] = []
    for phase, bound in ((0, 0.8), (1, 0.5)):
        for user in range(users):
            if rng.random() < 0.7:
                arm = int(point[user] >= bound)
                for _ in range(rng.integers(1, 4)):
                    rows.append((user, phase, arm, trait[user] + 0.3 * arm + rng.normal()))
    data = np.array(rows)
    user, phase, arm, value = (
        data[:, 0].astype(int),
        data[:, 1].astype(int),
        data[:, 2].astype(int),
        data[:, 3],
    )
    cell = 2 * phase + arm
    fit = sm.OLS(value, np.eye(4)[cell]).fit(
        cov_type="cluster", cov_kwds={"groups": user, "use_correction": False}
    )
    n = np.zeros((users, 4))
    s = np.zeros((users, 4))
    np.add.at(n, (user, cell), 1.0)
    np.add.at(s, (user, cell), value)
    cells = [moments(n[:, index], s[:, index]) for index in range(4)]
    crossings = {
        (0, first, 1, second): CrossMoments(
            float(n[:, first] @ n[:, 2 + second]),
            float(n[:, first] @ s[:, 2 + second]),
            float(s[:, first] @ n[:, 2 + second]),
            float(s[:, first] @ s[:, 2 + second]),
        )
        for first in (CONTROL, TREATMENT)
        for second in (CONTROL, TREATMENT)
    }
    covariance = np.asarray(fit.cov_params())
    for (_, first, _, second), sums in crossings.items():
        assert sums.covariance_of_means(cells[first], cells[2 + second]) == pytest.approx(
            covariance[first, 2 + second], rel=1e-9, abs=1e-15
        )
    strata = [Stratum(cells[0], cells[1]), Stratum(cells[2], cells[3])]
    found = effect(LOG, strata, crossings)
    assert isinstance(found, Effect)
    variances = [cells[2 * p].variance_of_mean() + cells[2 * p + 1].variance_of_mean() for p in (0, 1)]
    w = np.array([1 / variances[0], 1 / variances[1]])
    w /= w.sum()
    contrast = np.array([-w[0], w[0], -w[1], w[1]])
    assert found.difference == pytest.approx(float(contrast @ np.asarray(fit.params)))
    assert found.fixed.se**2 == pytest.approx(float(contrast @ covariance @ contrast), rel=0.01)
    independent = math.sqrt(w[0] ** 2 * variances[0] + w[1] ** 2 * variances[1])
    assert abs(found.fixed.se / independent - 1) > 0.02, "the covariance must matter in this test"
