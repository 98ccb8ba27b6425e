"""Shares of records that were drawn with known, unequal probabilities, and their intervals.

A share is estimated by weighting every record with the inverse of its probability (Hájek 1971). Interval: Clopper and Pearson
1934 at the effective number of records, share (1 − share) / variance, or, where all records came out the same, (Σw)² / Σw²
(Kish 1965): Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts
estimated from survey data". With equal weights it is Clopper's and Pearson's own, so it covers at least as often as it says,
also near 0 and 1 where resampling a few records gives no interval at all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from evaluators.agreement.measures import Estimate, Flags
from evaluators.ground_truth.quality import CONFIDENCE, Interval

Weights = npt.NDArray[np.float64]


def weighted_share(hits: Flags, weights: Weights) -> Estimate | None:
    """The share of ``hits``, each record with its weight; ``None`` for no record."""
    total = float(weights.sum())
    if not len(hits) or total <= 0:
        return None
    share = float(weights[hits].sum()) / total
    part = weights / total
    variance = float(np.sum(part**2 * (hits - share) ** 2))
    if 0 < share < 1 and variance > 0:
        effective = min(float(len(hits)), share * (1 - share) / variance)
    else:
        effective = 1 / float(np.sum(part**2))
    return Estimate(share, _exact(share * effective, effective))


def _exact(successes: float, count: float) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    failures = count - successes
    # A sum of weights may miss the end by a rounding error.
    low = float(beta.ppf(tail, successes, failures + 1)) if successes > 1e-9 else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, failures)) if failures > 1e-9 else 1.0
    return Interval(low, high)
