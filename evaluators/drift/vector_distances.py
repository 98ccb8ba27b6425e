"""How far two samples of vectors are apart: a distance, a test, and how well a classifier tells them from each other.

- Centroid distance: 1 − cosine of the two mean vectors, over all rows. 0: the same mean direction. It has no test, and
  what does not move the mean does not move it.
- Maximum mean discrepancy with a Gaussian kernel, unbiased MMD², whose width is the median distance between vectors of
  the two samples together; Gretton et al. (2012), JMLR 13, lemma 6 and section 8. The p-value is by permutation: exact, for
  samples of independent rows, whatever their distribution; (b + 1)/(B + 1) as in Phipson and Smyth (2010), Stat. Appl.
  Genet. Mol. Biol. 9. With :data:`PERMUTATIONS` = B it cannot be under 1/(B + 1), too much to survive a correction for many
  columns and windows. Where fewer than ten permutations reach the statistic, the tail is therefore that of the Pearson type
  III distribution with the permutations' mean, variance and skewness (Mielke and Berry 2007, Permutation Methods, 2.3), never
  below :data:`LEAST_P`: an approximation.
- Domain classifier: logistic regression on principal components of both samples, which tells current from reference;
  area under its ROC curve on rows that it has not seen (five folds); Lopez-Paz and Oquab (2017), ICLR. 0.5: no better
  than chance; 1: apart. Its interval is that of Newcombe (2006), Stat. Med. 25, method 5: the values θ with
  |AUC − θ| ≤ z·SE(θ) and Hanley and McNeil's (1982) SE, so it is never of length zero. It takes the rows for half as many
  as they are: folds learn from each other's rows, and where there is nothing to learn, what a fold takes for a direction
  by chance is right in the other by the same chance, so that the area varies twice as much as over independent rows
  (:file:`tests/unit/evaluators/drift/test_vector_distances.py` measures it). Where much differs that is too careful.

Equal vectors on both sides determine all of them: distance 0, p = 1, and an area of 0.5. Everything random is seeded, so
the same samples give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from threadpoolctl import threadpool_limits

from evaluators.drift.distances import Significance
from evaluators.drift.sketches.vectors import Vectors, VectorSketch

PERMUTATIONS: Final = 499
LEAST_P: Final = 1e-9
CONFIDENCE: Final = 0.95

_SEED: Final = 20
_FEW: Final = 10  # permutations beyond the statistic, under which their share is a poor estimate
_FOLDS: Final = 5
_MOST_COMPONENTS: Final = 48
_ROWS_PER_COMPONENT: Final = 10
_NEARLY: Final = 1e-9
_SAME: Final = 1e-6  # squared distance of unit vectors that half precision cannot tell apart

Matrix: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Interval:
    """From ``low`` to ``high``, of level :data:`CONFIDENCE`."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Separability:
    """The area under the curve of a classifier that tells two samples apart."""

    auc: float
    interval: Interval


def vector_drift(current: VectorSketch, reference: VectorSketch, min_rows: int) -> Mapping[str, Any]:
    """``embedding_distance``, ``embedding_test`` (of MMD²), ``domain_classifier_auc`` and
    ``domain_classifier_auc_interval``, by the model that both sides have vectors of; of several, that with most on the
    side that has fewer. Nothing where one side has fewer than ``min_rows`` of it.
    """
    common = current.parts.keys() & reference.parts.keys()
    least = {name: min(current.parts[name].count, reference.parts[name].count) for name in common}
    if not least:
        return {}
    model = max(sorted(least), key=lambda name: least[name])
    if least[model] < max(min_rows, 2):
        return {}
    now, then = current.parts[model], reference.parts[model]
    x, y = (part.sample.astype(np.float32) for part in (now, then))
    # Matrices of this size gain little by a second thread, and on a busy machine threads that wait for each other
    # take a hundred times as long.
    with threadpool_limits(1, "blas"):
        test, found = maximum_mean_discrepancy(x, y), separability(x, y)
    return {
        "embedding_distance": centroid_distance(now.total, then.total),
        "embedding_test": asdict(test),
        "domain_classifier_auc": None if found is None else found.auc,
        "domain_classifier_auc_interval": None if found is None else asdict(found.interval),
    }


def centroid_distance(current: NDArray[np.float64], reference: NDArray[np.float64]) -> float | None:
    """1 − cosine of two sums of vectors, 0 to 2; ``None`` where one of them has no direction."""
    lengths = float(np.linalg.norm(current)), float(np.linalg.norm(reference))
    if min(lengths) == 0.0:
        return None
    cosine = float(current @ reference) / (lengths[0] * lengths[1])
    return 1.0 - min(1.0, max(-1.0, cosine))


def maximum_mean_discrepancy(
    current: Vectors, reference: Vectors, *, permutations: int = PERMUTATIONS
) -> Significance:
    """Unbiased MMD² (about 0 where nothing differs, so below it half of the time) and its p-value; at least two rows on
    each side."""
    both = np.concatenate([current, reference])
    squared = _squared_distances(both)
    width = float(np.median(squared[np.triu_indices(len(both), 1)]))
    if width <= _SAME:
        # More than half of the pairs are equal: the width of those that are not.
        apart = squared[squared > _SAME]
        if apart.size == 0:
            return Significance(0.0, 1.0)
        width = float(np.median(apart))
    kernel = np.exp(squared / np.float32(-2 * width))
    np.fill_diagonal(kernel, 0.0)
    n, m = len(current), len(reference)
    generator = np.random.default_rng(_SEED)
    members = np.zeros((len(both), permutations + 1), dtype=np.float32)
    members[:n, 0] = 1.0
    for column in range(1, permutations + 1):
        members[generator.permutation(n + m)[:n], column] = 1.0
    within = np.einsum("ij,ij->j", members, kernel @ members, dtype=np.float64)
    reach = kernel.sum(axis=1, dtype=np.float64) @ members
    between = reach - within
    outside = float(kernel.sum(dtype=np.float64)) - 2 * reach + within
    values = within / (n * (n - 1)) + outside / (m * (m - 1)) - 2 * between / (n * m)
    return Significance(float(values[0]), _p_value(float(values[0]), values[1:]))


def separability(current: Vectors, reference: Vectors) -> Separability | None:
    """How well a linear classifier tells rows of the one from the other; ``None`` with fewer than ten rows on a
    side."""
    if min(len(current), len(reference)) < 2 * _FOLDS:
        return None
    # Slow to import, and most columns of most windows are no vectors.
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    is_current = np.concatenate([np.ones(len(current)), np.zeros(len(reference))])
    components = _components(np.concatenate([current, reference]).astype(np.float64))
    if components is None:
        return _separability(0.5, len(current), len(reference))
    areas, weights = [], []
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=_SEED)
    for train, held_out in folds.split(components, is_current):
        model = LogisticRegression(C=0.1, max_iter=500, class_weight="balanced")
        score = model.fit(components[train], is_current[train]).decision_function(components[held_out])
        inside = is_current[held_out] == 1
        areas.append(_area(score[inside], score[~inside]))
        weights.append(held_out.size)
    return _separability(float(np.average(areas, weights=weights)), len(current), len(reference))


def auc_interval(auc: float, current: float, reference: float) -> Interval:
    """The interval of an area under the curve over so many independent rows on each side."""
    z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))
    pairs = (current + reference) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + pairs * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (auc - theta) ** 2 - z * z * theta * (1 - theta) * spread / (current * reference)

    # At 0 and 1 the standard error is zero, which is no end of the interval of an area of 0 or 1.
    inside = min(max(auc, _NEARLY), 1 - _NEARLY)
    low = 0.0 if auc <= 0.0 else float(optimize.brentq(excess, 0.0, inside))
    high = 1.0 if auc >= 1.0 else float(optimize.brentq(excess, inside, 1.0))
    return Interval(low, high)


def _separability(auc: float, current: int, reference: int) -> Separability:
    return Separability(auc, auc_interval(auc, current / 2, reference / 2))


def _squared_distances(rows: Matrix) -> Matrix:
    lengths = np.einsum("ij,ij->i", rows, rows)
    squared: Matrix = lengths[:, None] + lengths[None, :] - 2 * (rows @ rows.T)
    np.maximum(squared, 0.0, out=squared)
    return squared


def _p_value(value: float, permuted: NDArray[np.float64]) -> float:
    beyond = int(np.count_nonzero(permuted >= value))
    share = (beyond + 1) / (permuted.size + 1)
    spread = float(permuted.std())
    if beyond >= _FEW or spread == 0.0:
        return share
    skewness = float(stats.skew(permuted))
    tail = float(stats.pearson3.sf((value - permuted.mean()) / spread, skewness))
    return min(share, max(tail, LEAST_P)) if math.isfinite(tail) else share


def _components(rows: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The principal components of ``rows``, each of variance 1; ``None`` where all rows are equal."""
    centred = rows - rows.mean(axis=0)
    values, directions = np.linalg.eigh(centred.T @ centred / len(rows))
    most = max(1, min(_MOST_COMPONENTS, len(rows) // _ROWS_PER_COMPONENT, values.size))
    chosen = np.argsort(values)[::-1][:most]
    chosen = chosen[values[chosen] > max(_SAME, 1e-6 * float(values[-1]))]
    if chosen.size == 0:
        return None
    components: NDArray[np.float64] = centred @ (directions[:, chosen] / np.sqrt(values[chosen]))
    return components


def _area(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    ranks = stats.rankdata(np.concatenate([positive, negative]))
    above = ranks[: positive.size].sum() - positive.size * (positive.size + 1) / 2
    return float(above / (positive.size * negative.size))
