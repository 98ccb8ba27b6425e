"""How columns of numbers and of categories are profiled and compared, from their sketches.

Numbers get the Kolmogorov–Smirnov test, Wasserstein distance, PSI and Jensen–Shannon distance; categories get the
chi-squared test, total variation, L-infinity, PSI and Jensen–Shannon. A null is a category of its own (no
``error_type`` is the usual one), but no number. The formulas are in :mod:`evaluators.drift.distances`.

Invariant: with fewer than ``min_rows`` values on either side a statistic is absent, never zero. What a sketch left
out does not look like a difference: categories are compared one by one only where both sketches must have counted
them, which is decided by the sum of both windows, and the others together.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from evaluators.drift.distances import categorical_distances, numeric_distances
from evaluators.drift.sketches.categorical import CategoricalSketch
from evaluators.drift.sketches.numeric import NumericSketch
from evaluators.drift.sketches.sketch import SketchKind, SketchKinds
from evaluators.drift.sketches.vectors import VectorSketch
from evaluators.drift.sources import Kind
from evaluators.drift.vector_distances import vector_drift

QUANTILES: Final = 101
_FREQUENT_ITEMS: Final = 100
_SURELY_KEPT: Final = (
    8  # so many times what may have been left out in a window; then it was counted in nearly all parts
)
_OTHERS: Final = ("others",)  # no text, so no category is called that


def numeric_profile(sketch: NumericSketch) -> dict[str, Any]:
    """Counts, moments, extremes, and the percentiles 0, 1, …, 100, interpolated linearly."""
    count = sketch.rows - sketch.nulls
    profile: dict[str, Any] = {
        "distinct_count": sketch.distinct,
        "num_zeros": sketch.zeros,
        "num_nan": sketch.not_finite,
        "percent_zeros": percent(sketch.zeros, count),
        "percent_nan": percent(sketch.not_finite, count),
    }
    moments = sketch.moments
    if moments.count == 0:
        return profile
    quantiles = sketch.sample.quantiles(np.linspace(0, 1, QUANTILES))
    quantiles[0], quantiles[-1] = moments.minimum, moments.maximum
    return profile | {
        "avg": moments.mean,
        "min": moments.minimum,
        "max": moments.maximum,
        "stddev": moments.stddev,
        "median": float(quantiles[QUANTILES // 2]),
        "quantiles": quantiles.tolist(),
    }


def numeric_drift(current: NumericSketch, reference: NumericSketch, min_rows: int) -> dict[str, Any]:
    """Distances between the finite values of both."""
    if min(current.sample.size, reference.sample.size) < max(min_rows, 1):
        return {}
    distances = numeric_distances(current.sample, reference.sample)
    return {
        "ks_test": asdict(distances.ks_test),
        "wasserstein_distance": distances.wasserstein,
        "js_distance": distances.js,
        "population_stability_index": distances.psi,
    }


def categorical_profile(sketch: CategoricalSketch) -> dict[str, Any]:
    """The most frequent items, how many there are, and the lengths of texts in characters."""
    frequent = [
        {"item": item, "count": count} for item, count in list(sketch.counts.items())[:_FREQUENT_ITEMS]
    ]
    profile: dict[str, Any] = {"distinct_count": sketch.distinct, "frequent_items": frequent}
    if sketch.lengths is not None:
        profile |= {
            "min_length": float(sketch.lengths.shortest),
            "max_length": float(sketch.lengths.longest),
            "avg_length": sketch.lengths.total / sketch.count,
        }
    return profile


def categorical_drift(
    current: CategoricalSketch, reference: CategoricalSketch, min_rows: int
) -> dict[str, Any]:
    """Distances between the tallies of both, nulls included."""
    if min(current.rows, reference.rows) < max(min_rows, 1) or current.count + reference.count == 0:
        return {}
    names = _compared(current, reference)
    if not names and current.error + reference.error and current.nulls + reference.nulls == 0:
        return {}  # all are rare: one heap against another says nothing
    distances = categorical_distances(_tally(current, names), _tally(reference, names))
    test = distances.chi_squared_test
    return {
        "chi_squared_test": None if test is None else asdict(test),
        "tv_distance": distances.tv,
        "l_infinity_distance": distances.l_infinity,
        "js_distance": distances.js,
        "population_stability_index": distances.psi,
    }


def percent(part: int, whole: int) -> float | None:
    """``part`` of ``whole`` in percent; ``None`` of nothing."""
    return 100 * part / whole if whole else None


STANDARD_KINDS: Final[SketchKinds] = {
    Kind.NUMERIC: SketchKind(NumericSketch, numeric_profile, numeric_drift),
    Kind.CATEGORICAL: SketchKind(CategoricalSketch, categorical_profile, categorical_drift),
    Kind.VECTOR: SketchKind(VectorSketch, lambda sketch: {}, vector_drift),
}


def _compared(current: CategoricalSketch, reference: CategoricalSketch) -> list[str]:
    """The categories that are compared one by one, by name."""
    names = sorted({*current.counts, *reference.counts})
    both = current.rows + reference.rows
    return [
        name
        for name in names
        if all(
            (current.counts.get(name, 0) + reference.counts.get(name, 0)) * side.rows
            >= _SURELY_KEPT * side.error * both
            for side in (current, reference)
        )
    ]


def _tally(sketch: CategoricalSketch, names: list[str]) -> dict[Hashable, int]:
    counts: dict[Hashable, int] = {name: sketch.counts[name] for name in names if name in sketch.counts}
    others = sketch.count - sum(counts.values())
    named: dict[Hashable, int] = {None: sketch.nulls, _OTHERS: others}
    return counts | {name: count for name, count in named.items() if count}
