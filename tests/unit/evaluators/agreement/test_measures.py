from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics
from statsmodels.stats.inter_rater import cohens_kappa

from evaluators.agreement.measures import (
    Flags,
    Scores,
    best_threshold,
    brier,
    calibration_error,
    decision,
    kappa,
    roc_auc,
)


def drawn(seed: int, count: int = 400, *, ties: bool = False) -> tuple[Flags, Scores]:
    rng = np.random.default_rng(seed)
    positive = rng.random(count) < 0.3
    scores = np.clip(rng.normal(0.35 + 0.3 * positive, 0.15), 0, 1)
    return positive, np.round(scores, 1) if ties else scores


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ties", [False, True])
def test_they_are_those_of_scikit_learn_and_statsmodels(seed: int, ties: bool) -> None:
    positive, scores = drawn(seed, ties=ties)
    flagged = scores > 0.5
    found = kappa(positive, flagged)
    assert found is not None
    assert found.interval is not None
    assert found.value == pytest.approx(metrics.cohen_kappa_score(positive, flagged))
    theirs = cohens_kappa(metrics.confusion_matrix(positive, flagged))
    assert (found.interval.low, found.interval.high) == pytest.approx((theirs.kappa_low, theirs.kappa_upp))
    decided = decision(positive, flagged)
    assert decided.precision == pytest.approx(metrics.precision_score(positive, flagged))
    assert decided.recall == pytest.approx(metrics.recall_score(positive, flagged))
    assert decided.f1 == pytest.approx(metrics.f1_score(positive, flagged))
    area = roc_auc(positive, scores)
    assert area is not None
    assert area.value == pytest.approx(metrics.roc_auc_score(positive, scores))
    assert brier(positive, scores) == pytest.approx(metrics.brier_score_loss(positive, scores))


def test_the_interval_of_the_area_covers_as_often_as_it_says() -> None:
    # The true area of two normal distributions two standard deviations apart.
    true_area = 0.9213503964748574
    covered = 0
    for seed in range(300):
        positive, scores = drawn(seed, 200)
        rng = np.random.default_rng(seed + 10_000)
        scores = rng.normal(2.0 * positive, 1.0)
        area = roc_auc(positive, scores)
        assert area is not None
        assert area.interval is not None
        covered += area.interval.low <= true_area <= area.interval.high
    assert 0.90 <= covered / 300 <= 0.99


def test_calibration() -> None:
    scores = np.array([0.05, 0.05, 0.95, 0.95, 1.0])
    positive = np.array([False, False, True, True, False])
    # Two in the first bin say 0.05 where 0 is true; three in the last say 0.967 where 2 of 3 are.
    assert calibration_error(positive, scores) == pytest.approx((2 * 0.05 + 2.9 - 2) / 5)
    assert calibration_error(positive, scores * 3) is None
    assert brier(positive, scores * 3) is None


def test_the_best_threshold_is_the_best_of_all() -> None:
    positive, scores = drawn(5, 120, ties=True)
    suggestion = best_threshold(positive, scores, resamples=100)
    assert suggestion is not None
    every = [metrics.f1_score(positive, scores > cut) for cut in np.linspace(-0.05, 1.05, 23)]
    assert suggestion.decision.f1 == pytest.approx(max(every))
    assert suggestion.interval is not None
    assert suggestion.interval.low <= suggestion.threshold <= suggestion.interval.high
    assert suggestion.f1_elsewhere is not None
    assert 0.3 < suggestion.f1_elsewhere <= suggestion.decision.f1 + 0.02
    assert suggestion == best_threshold(positive, scores, resamples=100)


def test_a_wanted_precision_is_kept_with_the_most_recall() -> None:
    positive, scores = drawn(6)
    suggestion = best_threshold(positive, scores, wanted_precision=0.9, resamples=50)
    assert suggestion is not None
    assert suggestion.decision.precision is not None
    assert suggestion.decision.precision >= 0.9
    for cut in np.unique(scores):
        decided = decision(positive, scores > cut)
        if decided.precision is not None and decided.precision >= 0.9:
            assert decided.recall is not None
            assert suggestion.decision.recall is not None
            assert decided.recall <= suggestion.decision.recall
    assert best_threshold(positive, 1 - scores, wanted_precision=0.99, resamples=10) is None


def test_one_class_only_and_constants_are_none() -> None:
    yes, scores = np.ones(30, dtype=bool), np.linspace(0, 1, 30)
    assert kappa(yes, yes) is None
    assert roc_auc(yes, scores) is None
    assert best_threshold(yes, scores) is None
    assert best_threshold(~yes, scores) is None
    assert decision(~yes, ~yes).f1 is None
    half = np.arange(30) % 2 == 0
    area = roc_auc(half, np.full(30, 0.5))
    assert area is not None
    assert (area.value, area.interval) == (0.5, None)
    flat = best_threshold(half, np.full(30, 0.5), resamples=20)
    assert flat is not None
    assert flat.decision.recall == 1.0
    one = roc_auc(np.arange(30) == 3, scores)
    assert one is not None
    assert one.interval is None
    for flagged, value in ((half, 1.0), (np.ones(30, dtype=bool), 0.0)):
        estimate = kappa(half, flagged)
        assert estimate is not None
        assert (estimate.value, estimate.interval) == (pytest.approx(value), None)
