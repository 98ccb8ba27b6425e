from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import krippendorff
import numpy as np
import pytest

from relabel.agreement.ratings import Ratings
from relabel.agreement.set_agreement import Distance, distances, set_alpha
from relabel.agreement.span_agreement import Span, matches, span_f1


def masi(one: frozenset[str], other: frozenset[str]) -> float:
    """MASI distance as Passonneau 2006 words it."""
    if one == other:
        return 0.0
    if not one & other:
        return 1.0
    kinship = 2 / 3 if one < other or other < one else 1 / 3
    return 1 - len(one & other) / len(one | other) * kinship


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return 1 - len(one & other) / len(one | other) if one | other else 0.0


def every_set() -> list[frozenset[str]]:
    return [frozenset(each) for size in range(4) for each in combinations("abc", size)]


def test_distances_are_as_the_papers_say() -> None:
    sets = every_set()
    for kind, expected in (("masi", masi), ("jaccard", jaccard)):
        found = distances(sets, kind)  # type: ignore[arg-type]
        assert found == pytest.approx(np.array([[expected(one, other) for other in sets] for one in sets]))


@pytest.mark.parametrize("kind", ["masi", "jaccard"])
def test_alpha_of_sets_is_that_of_another_implementation(kind: Distance) -> None:
    rng = np.random.default_rng(11)
    sets = every_set()
    truth = rng.integers(0, len(sets), 50)
    said = np.where(rng.random((3, 50)) < 0.5, truth, rng.integers(0, len(sets), (3, 50))).astype(float)
    said[rng.random((3, 50)) < 0.2] = np.nan
    table = distances(sets, kind)

    def metric(one: Any, other: Any, **_: Any) -> Any:
        return table[one.astype(int), other.astype(int)]

    theirs = krippendorff.alpha(said, level_of_measurement=metric, value_domain=range(len(sets)))
    cases = [[sets[int(value)] for value in case if not np.isnan(value)] for case in said.T]
    found = set_alpha(Ratings.of(cases, categories=sets), kind)
    assert found.value == pytest.approx(theirs)
    assert found.interval is not None
    assert found.interval.low < theirs < found.interval.high


def test_a_near_miss_counts_more_than_a_miss() -> None:
    near = [[frozenset("ab"), frozenset("a")], [frozenset("c"), frozenset("c")]] * 10
    far = [[frozenset("ab"), frozenset("d")], [frozenset("c"), frozenset("c")]] * 10
    values = [set_alpha(Ratings.of(cases)).value for cases in (near, far)]
    assert values[0] is not None
    assert values[1] is not None
    assert values[0] > values[1]


def test_spans_are_matched_exactly_or_by_overlap() -> None:
    one: list[Span] = [(0, 4, "name"), (10, 14, "place"), (20, 24, "name")]
    other: list[Span] = [(0, 4, "name"), (12, 16, "place"), (20, 24, "place")]
    assert matches(one, other, "exact") == 1
    assert matches(one, other, "overlap") == 2
    assert matches([(0, 4, "a")], [(4, 8, "a")], "overlap") == 0
    exact, overlap = (span_f1([[one, other]] * 5 + [[[], []]], kind) for kind in ("exact", "overlap"))  # type: ignore[arg-type]
    assert exact.value == pytest.approx(2 * 1 / 6)
    assert overlap.value == pytest.approx(2 * 2 / 6)
    assert exact.cases == 6


def test_pairs_of_all_people_count() -> None:
    a: list[Span] = [(0, 4, "x")]
    b: list[Span] = [(0, 4, "x"), (6, 8, "x")]
    found = span_f1([[a, b, []]] * 4)
    # a–b: one match of 3 spans; a–nobody: 1; b–nobody: 2.
    assert found.value == pytest.approx(2 * 1 / (3 + 1 + 2))


@pytest.mark.parametrize("seed", range(40))
def test_as_many_spans_are_matched_as_can_be(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def spans() -> list[Span]:
        starts = rng.integers(0, 12, rng.integers(1, 6))
        return [(int(start), int(start + rng.integers(1, 7)), "x") for start in starts]

    one, other = spans(), spans()
    small, large = sorted((one, other), key=len)
    best = max(
        sum(a[0] < b[1] and b[0] < a[1] for a, b in zip(small, chosen, strict=True))
        for chosen in permutations(large, len(small))
    )
    assert matches(one, other, "overlap") == matches(other, one, "overlap") == best
