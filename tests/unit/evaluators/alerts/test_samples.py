"""evaluators.alerts.samples: limits against other implementations and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from evaluators.alerts.samples import Count, Mean, Quantile, Share, Total, plain


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 40), (40, 40), (500, 10_000)])
def test_shares_have_wilsons_limits(hits: int, n: int) -> None:
    lower, upper = proportion_confint(hits, n, alpha=0.1, method="wilson")
    assert Share(hits, n).limits(0.05) == pytest.approx((lower, upper), abs=1e-12)


def test_means_have_students_limits() -> None:
    values = np.random.default_rng(1).exponential(size=25)
    mean = Mean(25, float(values.mean()), float(values.var(ddof=1)))
    expected = stats.t.interval(0.9, 24, loc=values.mean(), scale=stats.sem(values))
    assert mean.limits(0.05) == pytest.approx(expected)
    assert Mean(1, 3.0, 0.0).limits(0.05) == (-np.inf, np.inf)


@pytest.mark.parametrize("n", [0, 4, 300])
def test_counts_have_exact_limits(n: int) -> None:
    lower, upper = Count(n).limits(0.025)
    assert upper == pytest.approx(stats.chi2.ppf(0.975, 2 * n + 2) / 2)
    assert lower == pytest.approx(stats.chi2.ppf(0.025, 2 * n) / 2 if n else 0.0)
    scaled = Count(n).scaled(0.25)
    assert (scaled.value, scaled.limits(0.025)) == (n / 4, pytest.approx((lower / 4, upper / 4)))


def test_totals_vary_by_their_squares() -> None:
    rng = np.random.default_rng(2)
    totals = [rng.exponential(100.0, rng.poisson(50)) for _ in range(600)]
    samples = [Total(each.size, float(each.sum()), float((each**2).sum())) for each in totals]
    missed = sum(sample.limits(0.05)[0] > 5_000 for sample in samples)
    assert missed <= 600 * 0.05 + 3 * np.sqrt(600 * 0.05 * 0.95)
    assert np.std([sample.value for sample in samples]) == pytest.approx(np.sqrt(50 * 2 * 100**2), rel=0.1)


@pytest.mark.parametrize("q", [0.5, 0.95])
def test_quantiles_lie_within_their_limits(q: float) -> None:
    rng = np.random.default_rng(3)
    truth = stats.lognorm.ppf(q, 1.0)
    limits = [Quantile(q, np.sort(rng.lognormal(size=200))).limits(0.05) for _ in range(400)]
    bound = 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert np.mean([lower > truth for lower, _ in limits]) <= bound
    assert np.mean([upper < truth for _, upper in limits]) <= bound
    # And they are not idle: a few in a hundred are outside.
    assert np.mean([lower > truth or upper < truth for lower, upper in limits]) > 0.02


def test_few_values_do_not_limit_a_far_quantile() -> None:
    assert Quantile(0.95, np.arange(5.0)).limits(0.05)[1] == np.inf


def test_what_is_not_finite_is_null() -> None:
    found = plain({"a": np.inf, "b": 0.123456789, "c": "x", "d": float("nan")})
    assert found == {"a": None, "b": 0.123457, "c": "x", "d": None}
