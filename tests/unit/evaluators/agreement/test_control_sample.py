"""Precision and recall of all traffic from a sample of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from scipy.stats import binomtest

from evaluators.agreement.control_sample import sample_agreement
from evaluators.agreement.curves import MOST_POINTS, by_threshold, reliability
from evaluators.agreement.measures import best_threshold, decision
from evaluators.agreement.report import Agreement, agreement
from evaluators.agreement.shares import weighted_share
from servelens.errors import Invalid

Floats = npt.NDArray[np.float64]


def traffic(seed: int, count: int) -> tuple[npt.NDArray[np.bool_], Floats]:
    """What people would find, and the scores: one in five is positive, and scores tell them apart but not well."""
    rng = np.random.default_rng(seed)
    positive = rng.random(count) < 0.2
    return positive, np.clip(rng.normal(0.35 + 0.3 * positive, 0.15), 0, 1)


def frames(
    positive: npt.NDArray[np.bool_], scores: Floats, share: Floats, labeled: npt.NDArray[np.bool_]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    ids = [f"r{number}" for number in range(len(positive))]
    sample = pl.DataFrame(
        {
            "databricks_request_id": ids,
            "share": share,
            "positive": [bool(yes) if known else None for yes, known in zip(positive, labeled, strict=True)],
        },
        schema_overrides={"positive": pl.Boolean},
    )
    return sample, pl.DataFrame({"databricks_request_id": ids, "score": scores})


@pytest.mark.parametrize(("hits", "count"), [(0, 12), (7, 12), (12, 12), (1, 40)])
def test_with_equal_weights_it_is_the_exact_interval(hits: int, count: int) -> None:
    found = weighted_share(np.arange(count) < hits, np.full(count, 20.0))
    exact = binomtest(hits, count).proportion_ci(method="exact")
    assert found is not None
    assert found.interval is not None
    assert found.value == pytest.approx(hits / count)
    assert (found.interval.low, found.interval.high) == pytest.approx((exact.low, exact.high))


def test_weights_undo_how_records_were_drawn() -> None:
    # Half of the traffic was drawn with 1 in 10 and is bad in half of the cases, the other with 1 in 2 and never.
    hits = np.array([True] * 50 + [False] * 50 + [False] * 500)
    found = weighted_share(hits, np.array([10.0] * 100 + [2.0] * 500))
    assert found is not None
    assert found.interval is not None
    assert found.value == pytest.approx(0.25)
    assert found.interval.low < 0.25 < found.interval.high
    assert weighted_share(np.zeros(0, dtype=bool), np.zeros(0)) is None


def test_the_interval_of_a_weighted_share_covers() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        many = rng.random(1500) < 0.5
        drawn = rng.random(1500) < np.where(many, 0.05, 0.02)
        hits = rng.random(1500) < np.where(many, 0.95, 0.85)
        found = weighted_share(hits[drawn], 1 / np.where(many, 0.05, 0.02)[drawn])
        assert found is not None
        assert found.interval is not None
        covered += found.interval.low <= 0.9 <= found.interval.high
    assert covered / 300 >= 0.93


def test_recall_from_flagged_cases_would_be_one_and_from_the_sample_it_is_right() -> None:
    """The sample's estimates are unbiased although flagged records are labeled first, and fractions change."""
    positive, scores = traffic(1, 200_000)
    flagged = scores > 0.5
    true_recall = (flagged & positive).sum() / positive.sum()
    true_precision = (flagged & positive).sum() / flagged.sum()
    rng = np.random.default_rng(2)
    recalls, precisions, covered = [], [], 0
    for _ in range(60):
        share = np.where(np.arange(len(scores)) % 2 == 0, 0.002, 0.006)
        drawn = rng.random(len(scores)) < share
        labeled = rng.random(len(scores)) < np.where(flagged, 1.0, 0.4)
        sample, known = frames(positive[drawn], scores[drawn], share[drawn], labeled[drawn])
        found, _ = sample_agreement(sample, known, 1.0, 0.5)
        assert found.recall is not None
        assert found.recall.interval is not None
        assert found.precision is not None
        assert found.weighted
        assert found.waiting == int((drawn & ~labeled).sum())
        recalls.append(found.recall.value)
        precisions.append(found.precision.value)
        covered += found.recall.interval.low <= true_recall <= found.recall.interval.high
    assert np.mean(recalls) == pytest.approx(true_recall, abs=0.02)
    assert np.mean(precisions) == pytest.approx(true_precision, abs=0.02)
    assert covered >= 54
    chosen = positive[flagged]
    assert (
        decision(chosen, np.ones(len(chosen), dtype=bool)).recall == 1
    )  # what the chosen cases alone would say


def test_a_side_that_nobody_labeled_tells_no_recall() -> None:
    positive, scores = traffic(3, 200)
    sample, known = frames(positive, scores, np.full(200, 0.1), scores > 0.5)
    found, _ = sample_agreement(sample, known, 1.0, 0.5)
    assert found.recall is None
    assert found.prevalence is None
    assert found.precision is not None
    assert found.flag_rate is not None
    assert found.flag_rate.value == pytest.approx((scores > 0.5).mean())
    assert found.insufficient == ("unflagged sampled records have no label yet",)


def test_what_is_missing_is_counted() -> None:
    sample, known = frames(
        np.array([True, False]), np.array([0.9, 0.1]), np.full(2, 0.5), np.array([True, False])
    )
    found, _ = sample_agreement(sample, known.head(1), 1.0, 0.5)
    assert (found.drawn, found.unscored, found.waiting, found.compared) == (2, 1, 0, 1)
    nothing, _ = sample_agreement(sample.clear(), known, 1.0, 0.5)
    assert nothing.insufficient == ("no sampled record has a label and a score",)
    with pytest.raises(Invalid, match="share"):
        sample_agreement(sample.with_columns(share=pl.lit(0.0)), known, 1.0, 0.5)


def compared(seed: int, *, drawn: int = 0, unfair: str | None = None, direction: Any = "above") -> Agreement:
    positive, scores = traffic(seed, 400)
    chosen = scores > 0.5
    ids = [f"c{number}" for number in range(400)]
    sign = 1 if direction == "above" else -1
    labels = pl.DataFrame({"databricks_request_id": ids, "positive": positive, "chosen": chosen}).filter(
        chosen
    )
    all_scores = pl.DataFrame({"databricks_request_id": ids, "score": sign * scores})
    sample = None
    if drawn:
        sampled, more = traffic(seed + 1, drawn)
        sample, known = frames(sampled, sign * more, np.full(drawn, 0.05), np.ones(drawn, dtype=bool))
        all_scores = pl.concat([all_scores, known])
    return agreement(
        labels,
        all_scores,
        direction=direction,
        threshold=sign * 0.5,
        sample=sample,
        unfair=unfair,
    )


def test_the_best_known_is_told_with_its_source() -> None:
    found = compared(5, drawn=300)
    assert found.combined is not None
    assert found.sample is not None
    assert found.flagged_cases is not None
    assert (found.combined.precision_from, found.combined.recall_from) == ("flagged_cases", "control_sample")
    assert found.combined.precision == found.flagged_cases.precision
    assert found.combined.recall == found.sample.recall
    assert found.decision is not None
    assert found.decision.recall == 1  # of the chosen cases, which is no recall
    assert found.sample.recall is not None
    assert found.sample.recall.value < 0.95
    biased = compared(5, drawn=300, unfair="over the daily budget").combined
    assert biased is not None
    assert biased.precision_from == "control_sample"
    alone = compared(5).combined
    assert alone is not None
    assert (alone.recall, alone.recall_from, alone.f1) == (None, None, None)


def test_a_threshold_is_proposed_on_the_sample_if_it_has_enough() -> None:
    found = compared(6, drawn=300)
    assert found.basis == "control_sample"
    assert found.suggestion is not None
    assert found.suggestion.recall_elsewhere is not None
    assert found.suggestion.precision_elsewhere is not None
    assert {point.recall < 1 for point in found.curve} == {True, False}
    few = compared(6, drawn=15)
    assert few.basis == "all_cases"
    assert few.suggestion is not None
    turned = compared(6, drawn=300, direction="below")
    assert turned.suggestion is not None
    assert turned.suggestion.threshold == pytest.approx(-found.suggestion.threshold)
    assert [point.threshold for point in turned.curve] == pytest.approx(
        [-point.threshold for point in found.curve[::-1]]
    )
    assert [point.recall for point in turned.curve] == [point.recall for point in found.curve[::-1]]


def test_too_few_of_a_kind_propose_nothing() -> None:
    labels = pl.DataFrame(
        {"databricks_request_id": [f"r{n}" for n in range(40)], "positive": [n < 5 for n in range(40)]}
    )
    scores = labels.select("databricks_request_id", score=pl.Series(np.linspace(0, 1, 40)))
    found = agreement(labels, scores, threshold=0.5)
    assert found.suggestion is None
    assert found.insufficient == ("threshold: people said yes to 5 and no to 35; 10 of each are needed",)


def test_curves() -> None:
    positive = np.array([False, False, True, False, True, True])
    scores = np.array([0.05, 0.15, 0.15, 0.95, 0.95, 1.0])
    bins = reliability(positive, scores, np.ones(6))
    assert [(each.low, each.count, each.positive.value) for each in bins] == [
        (0.0, 1, 0.0),
        (0.1, 2, 0.5),
        (0.9, 3, pytest.approx(2 / 3)),
    ]
    assert reliability(positive, scores * 5, np.ones(6)) == ()
    points = by_threshold(positive, scores, np.array([1, 1, 1, 1, 2, 1.0]))
    assert [(point.threshold, point.recall) for point in points] == [
        (pytest.approx(0.1), 1.0),
        (pytest.approx(0.55), 3 / 4),
        (pytest.approx(0.975), 1 / 4),
    ]
    assert points[1].precision == pytest.approx(3 / 4)
    many = by_threshold(*traffic(7, 5000), np.ones(5000))
    assert len(many) <= MOST_POINTS
    assert many[0].recall >= many[-1].recall
    assert by_threshold(np.ones(6, dtype=bool), scores, np.ones(6)) == ()


def test_a_weight_is_as_good_as_repeating_a_record() -> None:
    positive, scores = traffic(8, 80)
    weights = np.random.default_rng(9).integers(1, 4, 80)
    once = best_threshold(positive, scores, weights=weights.astype(float), resamples=20)
    repeated = best_threshold(np.repeat(positive, weights), np.repeat(scores, weights), resamples=20)
    assert once is not None
    assert repeated is not None
    assert (once.threshold, once.decision) == (repeated.threshold, repeated.decision)
