from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from evaluators.drift.sketches.vectors import Vectors, VectorSketch, unit_vectors
from evaluators.drift.vector_distances import (
    LEAST_P,
    auc_interval,
    centroid_distance,
    maximum_mean_discrepancy,
    separability,
    vector_drift,
)

ALPHA = 0.05


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1, "blas"):
        yield


def cloud(generator: np.random.Generator, rows: int, dimensions: int = 24, shift: float = 0.0) -> Vectors:
    """Unit vectors whose first directions have most of the variance; ``shift``: along one of the others."""
    points = generator.normal(size=(rows, dimensions))
    points[:, : dimensions // 8] *= 3
    points[:, dimensions // 8] += shift
    return unit_vectors(points)[0]


def plain_mmd(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Gretton et al. (2012), equation 3, term by term."""
    both = np.concatenate([x, y]).astype(np.float64)
    width = np.median(cdist(both, both, "sqeuclidean")[np.triu_indices(len(both), 1)])

    def kernel(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = np.exp(-cdist(a, b, "sqeuclidean") / (2 * width))
        return values

    xx, yy, n, m = kernel(x, x), kernel(y, y), len(x), len(y)
    return float(
        (xx.sum() - np.trace(xx)) / (n * (n - 1))
        + (yy.sum() - np.trace(yy)) / (m * (m - 1))
        - 2 * kernel(x, y).mean()
    )


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_mmd_is_the_published_sum(shift: float) -> None:
    generator = np.random.default_rng(3)
    x, y = cloud(generator, 40), cloud(generator, 55, shift=shift)
    assert maximum_mean_discrepancy(x, y).statistic == pytest.approx(plain_mmd(x, y), abs=1e-6)


def test_equal_distributions_are_called_different_no_more_often_than_alpha_says() -> None:
    generator = np.random.default_rng(11)
    pairs, rows = 500, (30, 40)
    p_values = np.array(
        [
            maximum_mean_discrepancy(*(cloud(generator, n, 8) for n in rows), permutations=199).pvalue
            for _ in range(pairs)
        ]
    )
    for level in (0.01, ALPHA, 0.2):
        spread = math.sqrt(level * (1 - level) / pairs)
        assert np.mean(p_values <= level) <= level + 3 * spread
    assert np.mean(p_values <= 0.5) > 0.4  # and they are no smaller than they should be


def test_the_area_of_equal_distributions_is_one_half_within_its_interval() -> None:
    generator = np.random.default_rng(12)
    found = [separability(cloud(generator, 100, 16), cloud(generator, 80, 16)) for _ in range(80)]
    inside = [one is not None and one.interval.low <= 0.5 <= one.interval.high for one in found]
    assert np.mean(inside) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / len(found))
    areas = [one.auc for one in found if one is not None]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.02)
    # What the module says of the spread: about √2 times that of independent rows.
    widths = [one.interval.high - one.interval.low for one in found if one is not None]
    assert np.std(areas) == pytest.approx(float(np.mean(widths)) / 3.92, rel=0.2)


def test_a_shift_of_a_direction_is_found_and_grows_with_the_shift() -> None:
    generator = np.random.default_rng(13)
    reference = cloud(generator, 300)
    areas = []
    for shift in (1.0, 2.0, 4.0):
        current = cloud(generator, 300, shift=shift)
        found = separability(current, reference)
        assert found is not None
        assert found.interval.low > 0.5
        areas.append(found.auc)
        assert maximum_mean_discrepancy(current, reference).pvalue < 0.001
    assert areas == sorted(areas)


def test_a_new_topic_that_leaves_the_centroid_is_found_all_the_same() -> None:
    """Two opposite clusters instead of one in the middle: the means agree."""
    generator = np.random.default_rng(14)
    reference = cloud(generator, 200)
    current = cloud(generator, 200)
    current[:, 2] += np.where(np.arange(200) % 2, 1.5, -1.5)
    current, _ = unit_vectors(current)
    assert maximum_mean_discrepancy(current, reference).pvalue < 0.001


def test_the_tail_goes_on_where_permutations_end() -> None:
    generator = np.random.default_rng(15)
    reference, current = cloud(generator, 200), cloud(generator, 200, shift=1.2)
    test = maximum_mean_discrepancy(current, reference)
    assert LEAST_P <= test.pvalue < 1 / 500
    more = maximum_mean_discrepancy(current, reference, permutations=4999)
    assert more.pvalue < 1 / 1000


@pytest.mark.parametrize("rows", [2, 3, 25])
def test_vectors_that_are_all_equal_differ_in_nothing(rows: int) -> None:
    same = np.tile(unit_vectors(np.arange(1.0, 9.0)[None])[0], (rows, 1))
    test = maximum_mean_discrepancy(same, same)
    assert (test.statistic, test.pvalue) == (0.0, 1.0)
    found = separability(same, same)
    assert found is None if rows < 10 else (found is not None and found.auc == 0.5)


def test_two_constant_windows_that_differ_are_told_apart() -> None:
    basis = np.eye(8, dtype=np.float32)
    x, y = np.tile(basis[0], (40, 1)), np.tile(basis[1], (40, 1))
    assert maximum_mean_discrepancy(x, y).pvalue < 0.01
    found = separability(x, y)
    assert found is not None
    assert found.auc == 1.0
    assert 0.8 < found.interval.low < found.interval.high == 1.0


def test_the_centroid_distance_is_that_of_the_directions() -> None:
    x, y = np.array([1.0, 0.0]), np.array([1.0, 1.0])
    assert centroid_distance(x, 40 * x) == pytest.approx(0.0, abs=1e-12)
    assert centroid_distance(x, y) == pytest.approx(1 - math.sqrt(0.5))
    assert centroid_distance(x, -x) == pytest.approx(2.0)
    assert centroid_distance(x, np.zeros(2)) is None


def test_the_interval_holds_what_hanley_and_mcneil_allow() -> None:
    """Newcombe's (2006) ends: where the distance is 1.96 standard errors at that end."""
    interval = auc_interval(0.8, 60, 90)
    for end in (interval.low, interval.high):
        pairs = (60 + 90) / 2 - 1
        variance = end * (1 - end) * (1 + pairs * ((1 - end) / (2 - end) + end / (1 + end))) / (60 * 90)
        assert abs(0.8 - end) / math.sqrt(variance) == pytest.approx(1.96, abs=1e-3)
    assert interval.low < 0.8 < interval.high
    assert auc_interval(0.0, 20, 20).low == 0.0
    assert auc_interval(0.0, 20, 20).high > 0.0


def sketch(vectors: Vectors) -> VectorSketch:
    return VectorSketch.of(pl.Series(vectors.tolist(), dtype=pl.List(pl.Float32)))


def test_sketches_give_the_columns_of_the_drift_table_and_too_few_rows_give_none() -> None:
    generator = np.random.default_rng(16)
    current, reference = sketch(cloud(generator, 60, shift=4.0)), sketch(cloud(generator, 50))
    drift = vector_drift(current, reference, 20)
    assert set(drift) == {
        "embedding_distance",
        "embedding_test",
        "domain_classifier_auc",
        "domain_classifier_auc_interval",
    }
    assert drift["embedding_test"]["pvalue"] < 0.001
    assert drift["domain_classifier_auc_interval"]["low"] > 0.5
    assert 0 < drift["embedding_distance"] < 2
    assert vector_drift(current, reference, 20) == drift  # seeded
    assert vector_drift(current, reference, 51) == {}
    assert vector_drift(current, VectorSketch.of_nulls(100), 20) == {}
    few = vector_drift(sketch(cloud(generator, 3)), reference, 2)
    assert few["domain_classifier_auc"] is None
    assert few["embedding_test"]["pvalue"] > 0
    assert vector_drift(sketch(cloud(generator, 1)), reference, 1) == {}


def test_other_models_and_lengths_are_not_compared() -> None:
    generator = np.random.default_rng(17)
    assert vector_drift(sketch(cloud(generator, 50, 8)), sketch(cloud(generator, 50, 16)), 20) == {}
