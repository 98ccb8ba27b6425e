"""What a chart of an evaluator shows: how often a probability was right, and precision and recall by threshold.

Reliability: scores in bins of equal width, each with the share that people found positive (Murphy and Winkler 1977). Weights
are as in :mod:`evaluators.agreement.shares`. Invariant: a bin or a threshold without records is left out, never drawn as zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from evaluators.agreement.measures import Estimate, Flags, Scores, are_probabilities
from evaluators.agreement.shares import Weights, weighted_share

BINS: Final = 10
MOST_POINTS: Final = 80


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Scores from ``low`` up to ``high`` (the last bin with it): their mean, and how often people said yes."""

    low: float
    high: float
    count: int
    mean_score: float
    positive: Estimate


@dataclass(frozen=True, slots=True)
class ThresholdPoint:
    """What a threshold gives: ``flagged`` is the share of records that it flags."""

    threshold: float
    precision: float
    recall: float
    flagged: float


def reliability(
    positive: Flags, scores: Scores, weights: Weights, *, bins: int = BINS
) -> tuple[ReliabilityBin, ...]:
    """The bins that have records; none when the scores are no probabilities."""
    if not are_probabilities(scores):
        return ()
    place = np.minimum((scores * bins).astype(int), bins - 1)
    found = []
    for number in np.unique(place):
        inside = place == number
        share = weighted_share(positive[inside], weights[inside])
        if share is None:
            continue
        found.append(
            ReliabilityBin(
                low=number / bins,
                high=(number + 1) / bins,
                count=int(np.count_nonzero(inside)),
                mean_score=float(np.average(scores[inside], weights=weights[inside])),
                positive=share,
            )
        )
    return tuple(found)


def by_threshold(positive: Flags, scores: Scores, weights: Weights) -> tuple[ThresholdPoint, ...]:
    """Precision and recall at up to :data:`MOST_POINTS` thresholds from the lowest to the highest, scores over them being
    flagged; none when people said always the same.
    """
    true = float(weights[positive].sum())
    if not positive.any() or positive.all():
        return ()
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    hits = np.cumsum(np.where(positive, weights, 0.0)[order])
    said = np.cumsum(weights[order])
    # After a cut, all scores up to it are flagged; the last one flags all.
    cuts = np.flatnonzero(ordered[1:] != ordered[:-1])
    if len(cuts) > MOST_POINTS:
        cuts = cuts[np.unique(np.linspace(0, len(cuts) - 1, MOST_POINTS).round().astype(int))]
    return tuple(
        ThresholdPoint(
            threshold=float(ordered[cut + 1] + (ordered[cut] - ordered[cut + 1]) / 2),
            precision=float(hits[cut] / said[cut]),
            recall=float(hits[cut] / true),
            flagged=float(said[cut] / said[-1]),
        )
        for cut in cuts[::-1]
    )
