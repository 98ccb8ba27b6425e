"""Agreement on sets: several choices at once, and tags.

Krippendorff's alpha with a distance of sets in place of δ². Jaccard: 1 − |A ∩ B| / |A ∪ B|. MASI (Passonneau 2006, "Measuring
agreement on set-valued items"): 1 − J · M with J = |A ∩ B| / |A ∪ B| and M = 1 for equal sets, 2/3 where one holds the other,
1/3 where they overlap otherwise, 0 where they do not. Two empty sets are equal. Interval: cases are resampled.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Literal, TypeAlias

import numpy as np

from relabel.agreement.bootstrap import RESAMPLES, resampled_interval
from relabel.agreement.krippendorff_alpha import alpha_of
from relabel.agreement.measure import Measure, undetermined
from relabel.agreement.ratings import Floats, Ratings

Distance: TypeAlias = Literal["jaccard", "masi"]

MOST_SETS: Final = 1_500
"""Different sets that are compared with each other; their distances take the square of it in memory."""


def set_alpha(ratings: Ratings, distance: Distance = "masi", *, resamples: int = RESAMPLES) -> Measure:
    """Alpha of ``ratings`` whose categories are frozen sets.

    Without a value when no case has two answers, when all answers are the same, or when there are more than
    :data:`MOST_SETS` different ones.
    """
    cases = ratings.cases
    if cases == 0:
        return undetermined(0, "no case has two labels")
    used = np.flatnonzero(ratings.totals)
    if len(used) < 2:
        return undetermined(cases, "everybody gave one and the same answer to all cases")
    if len(used) > MOST_SETS:
        return undetermined(
            cases, f"there are {len(used):,} different answers, more than the {MOST_SETS:,} that are compared"
        )
    counts = ratings.counts[:, used]
    between = distances([_as_set(ratings.categories[place]) for place in used], distance)
    within = np.asarray(counts.multiply(counts @ between).sum(axis=1)) / (ratings.sizes - 1)

    def statistic(weights: Floats) -> Floats:
        totals = np.asarray(weights @ counts)
        return alpha_of(weights @ within, np.sum((totals @ between) * totals, axis=1), totals.sum(axis=1))

    value = float(statistic(ratings.units[None, :].astype(np.float64))[0])
    if ratings.without_disagreement:
        return Measure(value, None, cases, "nobody disagreed, which does not say how sure this is")
    interval = resampled_interval(value, ratings.units, statistic, width=len(used), resamples=resamples)
    return Measure(
        value, interval, cases, None if interval else "the labels vary too little to say how sure this is"
    )


def distances(sets: list[frozenset[str]], kind: Distance) -> Floats:
    """The distance of every set from every other (sets × sets)."""
    words = {word: place for place, word in enumerate(sorted({word for each in sets for word in each}))}
    holds = np.zeros((len(sets), max(1, len(words))))
    for row, each in enumerate(sets):
        holds[row, [words[word] for word in each]] = 1
    size = holds.sum(axis=1)
    common = holds @ holds.T
    union = size[:, None] + size[None, :] - common
    jaccard = np.divide(common, union, out=np.ones_like(common), where=union > 0)
    if kind == "jaccard":
        return np.asarray(1 - jaccard)
    smaller, larger = np.minimum.outer(size, size), np.maximum.outer(size, size)
    kinship = np.select([common == larger, common == 0, common == smaller], [1.0, 0.0, 2 / 3], default=1 / 3)
    return np.asarray(1 - jaccard * kinship)


def _as_set(category: Hashable) -> frozenset[str]:
    assert isinstance(category, frozenset), "the categories of sets are frozen sets"
    return category
