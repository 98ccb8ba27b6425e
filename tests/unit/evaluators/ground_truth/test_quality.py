from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn import metrics
from statsmodels.stats.proportion import proportion_confint

from evaluators.ground_truth.quality import PerClass, classification, regression, wilson


def drawn(seed: int, classes: list[str], count: int = 300) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    expected = rng.choice(classes, count).tolist()
    wrong = rng.random(count) < 0.3
    predicted = [
        str(rng.choice([*classes, "never true"])) if w else e for w, e in zip(wrong, expected, strict=True)
    ]
    return predicted, expected


def check(measure: PerClass, sklearn_measure: Any, predicted: list[str], expected: list[str]) -> None:
    labels = sorted({*predicted, *expected})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        each, macro, weighted = (
            sklearn_measure(expected, predicted, labels=labels, average=average, zero_division=np.nan)
            for average in (None, "macro", "weighted")
        )
    assert [math.nan if v is None else v for v in measure.one_vs_all.values()] == pytest.approx(
        each.tolist(), nan_ok=True
    )
    assert list(measure.one_vs_all) == labels
    assert measure.macro == pytest.approx(macro)
    assert measure.weighted == pytest.approx(weighted)


@pytest.mark.parametrize("classes", [["no", "yes"], ["a", "b", "c", "d"], ["only"]])
@pytest.mark.parametrize("seed", [0, 1])
def test_classes_are_measured_as_scikit_learn_does(seed: int, classes: list[str]) -> None:
    predicted, expected = drawn(seed, classes)
    quality = classification(predicted, expected)
    assert quality is not None
    assert quality.accuracy == pytest.approx(metrics.accuracy_score(expected, predicted))
    check(quality.precision, metrics.precision_score, predicted, expected)
    check(quality.recall, metrics.recall_score, predicted, expected)
    check(quality.f1, metrics.f1_score, predicted, expected)
    labels = sorted({*predicted, *expected})
    matrix = metrics.confusion_matrix(expected, predicted, labels=labels)
    cells = {(cell.label, cell.prediction): cell.count for cell in quality.confusion}
    assert cells == {
        (label, said): matrix[row, column]
        for row, label in enumerate(labels)
        for column, said in enumerate(labels)
        if matrix[row, column]
    }
    for index, label in enumerate(labels):
        false_positives = matrix[:, index].sum() - matrix[index, index]
        negatives = matrix.sum() - matrix[index].sum()
        expected_rate = false_positives / negatives if negatives else None
        assert quality.false_positive_rate.one_vs_all[label] == pytest.approx(expected_rate)


def test_one_class_only_and_nothing_right() -> None:
    quality = classification(["a", "a", "a"], ["a", "a", "a"])
    assert quality is not None
    assert (quality.accuracy, quality.precision.macro, quality.false_positive_rate.macro) == (1.0, 1.0, None)
    quality = classification(["b", "b"], ["a", "a"])
    assert quality is not None
    assert (quality.accuracy, quality.recall.one_vs_all, quality.precision.one_vs_all) == (
        0.0,
        {"a": 0.0, "b": None},
        {"a": None, "b": 0.0},
    )
    assert (classification([], []), regression([], [])) == (None, None)


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (10, 10), (3, 10), (700, 1000)])
def test_the_interval_is_wilsons(successes: int, count: int) -> None:
    low, high = proportion_confint(successes, count, method="wilson")
    interval = wilson(successes, count)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))


def test_numbers_are_measured_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(3)
    expected = rng.normal(50, 10, 200)
    predicted = expected + rng.normal(1, 3, 200)
    quality = regression(predicted.tolist(), expected.tolist())
    assert quality is not None
    assert quality.mse == pytest.approx(metrics.mean_squared_error(expected, predicted))
    assert quality.rmse == pytest.approx(metrics.root_mean_squared_error(expected, predicted))
    assert quality.mae == pytest.approx(metrics.mean_absolute_error(expected, predicted))
    assert quality.mape == pytest.approx(metrics.mean_absolute_percentage_error(expected, predicted))
    assert quality.r2 == pytest.approx(metrics.r2_score(expected, predicted))
    assert quality.mae_interval is not None
    assert quality.mae is not None
    assert quality.mae_interval.low < quality.mae < quality.mae_interval.high


def test_what_numbers_do_not_determine_is_none() -> None:
    constant = regression([1.0, 2.0, 3.0], [0.1, 0.1, 0.1])
    assert constant is not None
    assert (constant.r2, constant.mape is None) == (None, False)
    one = regression([1.0], [0.0])
    assert one is not None
    assert (one.mae, one.mae_interval, one.mape, one.r2) == (1.0, None, None, None)
    zeros = regression([1.0, 3.0], [0.0, 2.0])
    assert zeros is not None
    assert zeros.mape == 0.5  # over the truth that is not zero
    huge = regression([1e308, -1e308], [-1e308, 1e308])
    assert huge is not None
    assert (huge.mse, huge.r2) == (None, None)


def test_a_thousand_classes_are_no_million_cells() -> None:
    names = [f"class {index}" for index in range(3_000)]
    quality = classification(names, names)
    assert quality is not None
    assert (len(quality.confusion), quality.accuracy) == (3_000, 1.0)
