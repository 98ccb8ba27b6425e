"""How good a model was on records whose truth is known: the measures of classification and of regression.

They are scikit-learn's (https://scikit-learn.org/stable/modules/model_evaluation.html) with ``zero_division=nan``: a class
that was never predicted has no precision, and is left out of the averages. Invariant: what the data do not determine is
``None``, never zero. Intervals: Wilson's for the accuracy (Wilson 1927; Brown, Cai, DasGupta 2001), normal for the mean of
absolute errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

Array = npt.NDArray[np.float64]

CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """Both bounds at :data:`CONFIDENCE`."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PerClass:
    """A measure of each class against all others, their mean, and their mean by the number of true cases."""

    one_vs_all: Mapping[str, float | None]
    macro: float | None
    weighted: float | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often ``label`` was true and ``prediction`` was said."""

    prediction: str
    label: str
    count: int


@dataclass(frozen=True, slots=True)
class Classification:
    """Quality of ``count`` predicted classes; the confusion matrix has its cells that are not zero, the largest first."""

    count: int
    accuracy: float
    accuracy_interval: Interval
    confusion: tuple[Confusion, ...]
    precision: PerClass
    recall: PerClass
    f1: PerClass
    false_positive_rate: PerClass


@dataclass(frozen=True, slots=True)
class Regression:
    """Quality of ``count`` predicted numbers, in their unit.

    ``r2`` needs two different truths. ``mape`` is a fraction, over the truths that are not zero.
    """

    count: int
    mse: float | None
    rmse: float | None
    mae: float | None
    mae_interval: Interval | None
    mape: float | None
    r2: float | None


def wilson(successes: float, count: float, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a share; ``count`` is positive."""
    z = float(norm.ppf((1 + confidence) / 2))
    share = successes / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return Interval(max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))


def classification(predicted: Sequence[str], expected: Sequence[str]) -> Classification | None:
    """Quality of as many predictions as truths; ``None`` for none at all."""
    count = len(expected)
    if count == 0:
        return None
    classes = sorted({*predicted, *expected})
    place = {name: index for index, name in enumerate(classes)}
    said, true = (
        np.fromiter((place[name] for name in names), np.int64, count) for names in (predicted, expected)
    )
    # Only the cells that are there: a thousand classes have a million.
    cells, counts = np.unique(true * len(classes) + said, return_counts=True)
    right = cells // len(classes) == cells % len(classes)
    hits = np.zeros(len(classes))
    hits[cells[right] % len(classes)] = counts[right]
    predictions, truths = (
        np.bincount(side, minlength=len(classes)).astype(np.float64) for side in (said, true)
    )
    correct = float(hits.sum())
    largest = np.argsort(-counts, kind="stable")
    return Classification(
        count=count,
        accuracy=correct / count,
        accuracy_interval=wilson(correct, count),
        confusion=tuple(
            Confusion(
                classes[cells[index] % len(classes)],
                classes[cells[index] // len(classes)],
                int(counts[index]),
            )
            for index in largest
        ),
        precision=_per_class(classes, hits, predictions, truths),
        recall=_per_class(classes, hits, truths, truths),
        f1=_per_class(classes, 2 * hits, predictions + truths, truths),
        false_positive_rate=_per_class(classes, predictions - hits, count - truths, truths),
    )


def regression(predicted: Sequence[float], expected: Sequence[float]) -> Regression | None:
    """Quality of as many finite predictions as finite truths; ``None`` for none at all."""
    count = len(expected)
    if count == 0:
        return None
    said, true = (np.asarray(values, dtype=np.float64) for values in (predicted, expected))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        errors = said - true
        squares = float(np.mean(errors**2))
        sizes = np.abs(errors)
        not_zero = true != 0
        spread = float(np.sum((true - true.mean()) ** 2))
        constant = bool(np.all(true == true[0]))
        mean = float(sizes.mean())
        margin = (
            float(norm.ppf((1 + CONFIDENCE) / 2) * sizes.std(ddof=1) / math.sqrt(count))
            if count > 1
            else math.nan
        )
        mape = float(np.mean(sizes[not_zero] / np.abs(true[not_zero]))) if not_zero.any() else math.nan
        r2 = math.nan if constant or spread == 0 else 1 - float(np.sum(errors**2)) / spread
    return Regression(
        count=count,
        mse=_finite(squares),
        rmse=_finite(math.sqrt(squares)),
        mae=_finite(mean),
        mae_interval=Interval(max(0.0, mean - margin), mean + margin)
        if math.isfinite(margin + mean)
        else None,
        mape=_finite(mape),
        r2=_finite(r2),
    )


def _per_class(classes: Sequence[str], part: Array, whole: Array, weights: Array) -> PerClass:
    defined = whole > 0
    values = np.divide(part, whole, out=np.full(len(classes), np.nan), where=defined)
    total = float(weights[defined].sum())
    return PerClass(
        one_vs_all={name: _finite(float(value)) for name, value in zip(classes, values, strict=True)},
        macro=float(values[defined].mean()) if defined.any() else None,
        weighted=float((values[defined] * weights[defined]).sum() / total) if total else None,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
