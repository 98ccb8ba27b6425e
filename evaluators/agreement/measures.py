"""Measures of agreement between a score and a yes or no of people, as plain functions of arrays.

Sources: kappa, Cohen 1960, with the large-sample variance of Fleiss, Cohen and Everitt 1969; area under the ROC curve as the
Mann-Whitney statistic with the variance of DeLong et al. 1988 in the form of Sun and Xu 2014; Brier 1950; expected calibration
error, Naeini et al. 2015; bootstrap by percentiles, Efron 1979. Invariant: what the data do not determine is ``None``.

Arrays are of one length; ``positive`` says what people found, and higher scores mean more of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from evaluators.ground_truth.quality import CONFIDENCE, Interval

Scores = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_BINS: Final = 10
_RESAMPLES: Final = 500
_NO_ERROR: Final = 1e-9
_Z: Final = float(norm.ppf((1 + CONFIDENCE) / 2))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its interval; without one where the data are too one-sided for it."""

    value: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Decision:
    """How decisions at one threshold compare; ``precision`` is ``None`` when nothing is flagged."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A threshold and what it gives on the data it was found on; ``interval`` is where resampled data put it.

    What is expected ``elsewhere`` are means over records that were left out when it was found, so they are not too good to be
    true.
    """

    threshold: float
    interval: Interval | None
    decision: Decision
    f1_elsewhere: float | None
    precision_elsewhere: float | None = None
    recall_elsewhere: float | None = None


def kappa(positive: Flags, flagged: Flags) -> Estimate | None:
    """Cohen's kappa; ``None`` when chance alone would agree always. Without an interval where the variance comes out as
    zero, as where both always agreed: that is not certainty."""
    count = len(positive)
    if count == 0:
        return None
    table = np.zeros((2, 2))
    np.add.at(table, (positive.astype(int), flagged.astype(int)), 1)
    table /= count
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    observed, by_chance = float(np.trace(table)), float(rows @ columns)
    if by_chance >= 1:
        return None
    value = (observed - by_chance) / (1 - by_chance)
    share = np.add.outer(columns, rows)  # of cell (i, j): column i's and row j's
    on_diagonal = sum(table[i, i] * (1 - (rows[i] + columns[i]) * (1 - value)) ** 2 for i in range(2))
    off_diagonal = sum(table[i, j] * share[i, j] ** 2 for i, j in ((0, 1), (1, 0)))
    variance = on_diagonal + (1 - value) ** 2 * off_diagonal - (value - by_chance * (1 - value)) ** 2
    error = math.sqrt(max(0.0, variance)) / ((1 - by_chance) * math.sqrt(count))
    if error < _NO_ERROR:
        return Estimate(value, None)
    return Estimate(value, Interval(max(-1.0, value - _Z * error), min(1.0, value + _Z * error)))


def decision(positive: Flags, flagged: Flags, weights: Scores | None = None) -> Decision:
    """Precision, recall and F1 of ``flagged``; each record counts once, or by its weight."""
    each = np.ones(len(positive)) if weights is None else weights
    hits, said, true = (float(each[chosen].sum()) for chosen in (positive & flagged, flagged, positive))
    return Decision(
        precision=hits / said if said else None,
        recall=hits / true if true else None,
        f1=2 * hits / (said + true) if said + true else None,
    )


def roc_auc(positive: Flags, scores: Scores) -> Estimate | None:
    """The chance that a positive has a higher score than a negative, ties half; ``None`` with one class only."""
    yes, no = scores[positive], scores[~positive]
    if not len(yes) or not len(no):
        return None
    together = rankdata(np.concatenate([yes, no]))
    over_no = (together[: len(yes)] - rankdata(yes)) / len(no)
    over_yes = 1 - (together[len(yes) :] - rankdata(no)) / len(yes)
    value = float(over_no.mean())
    if min(len(yes), len(no)) < 2:
        return Estimate(value, None)
    variance = float(over_no.var(ddof=1) / len(yes) + over_yes.var(ddof=1) / len(no))
    if variance == 0:
        return Estimate(value, None)
    margin = _Z * math.sqrt(variance)
    return Estimate(value, Interval(max(0.0, value - margin), min(1.0, value + margin)))


def brier(positive: Flags, scores: Scores) -> float | None:
    """Mean squared distance of a probability from the truth; ``None`` when the scores are no probabilities."""
    if not are_probabilities(scores):
        return None
    return float(np.mean((scores - positive) ** 2))


def calibration_error(positive: Flags, scores: Scores, *, bins: int = _BINS) -> float | None:
    """Mean distance of a probability from the share that was positive, over bins of equal width weighted by their records."""
    if not are_probabilities(scores):
        return None
    place = np.minimum((scores * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    gap = np.bincount(place, scores, minlength=bins) - np.bincount(place, positive, minlength=bins)
    return float(np.abs(gap[count > 0]).sum() / len(scores))


def best_threshold(
    positive: Flags,
    scores: Scores,
    *,
    weights: Scores | None = None,
    wanted_precision: float | None = None,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Suggestion | None:
    """The threshold (scores above it are flagged) with the highest F1, or with the highest recall at a precision of at least
    ``wanted_precision``; records count by their ``weights`` where there are any. ``None`` with one class only, or where no
    threshold has that precision.
    """
    each = np.ones(len(positive)) if weights is None else weights
    threshold = _best(positive, scores, each, wanted_precision)
    if threshold is None:
        return None
    rng = np.random.default_rng(seed)
    found: list[float] = []
    elsewhere: list[Decision] = []
    for _ in range(resamples):
        taken = rng.integers(0, len(scores), len(scores))
        again = _best(positive[taken], scores[taken], each[taken], wanted_precision)
        if again is None:
            continue
        found.append(again)
        out = np.ones(len(scores), dtype=bool)
        out[taken] = False
        if positive[out].any():
            elsewhere.append(decision(positive[out], scores[out] > again, each[out]))
    tail = (1 - CONFIDENCE) / 2
    # Where most resamples had no such threshold, those that did say little.
    settled = len(found) > resamples / 2
    bounds = [float(bound) for bound in np.quantile(found, [tail, 1 - tail])] if settled else None
    return Suggestion(
        threshold=threshold,
        interval=None if bounds is None else Interval(*bounds),
        decision=decision(positive, scores > threshold, weights),
        f1_elsewhere=_mean([one.f1 or 0.0 for one in elsewhere]) if settled else None,
        precision_elsewhere=_mean([one.precision for one in elsewhere]) if settled else None,
        recall_elsewhere=_mean([one.recall for one in elsewhere]) if settled else None,
    )


def _mean(values: list[float] | list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _best(positive: Flags, scores: Scores, weights: Scores, wanted_precision: float | None) -> float | None:
    if not positive.any() or positive.all():
        return None
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    hits = np.cumsum(np.where(positive, weights, 0.0)[order])
    said = np.cumsum(weights[order])
    # A cut is between two different scores; after the last one all are flagged.
    cuts = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    if wanted_precision is None:
        best = cuts[int(np.argmax(2 * hits[cuts] / (said[cuts] + hits[-1])))]
    else:
        enough = cuts[hits[cuts] / said[cuts] >= wanted_precision]
        if not len(enough):
            return None
        best = enough[-1]
    if best + 1 == len(ordered):
        return float(np.nextafter(ordered[-1], -np.inf))
    return float(ordered[best + 1] + (ordered[best] - ordered[best + 1]) / 2)


def are_probabilities(scores: Scores) -> bool:
    """Whether there are scores and all of them are from 0 to 1."""
    return bool(len(scores)) and bool(np.all((scores >= 0) & (scores <= 1)))
