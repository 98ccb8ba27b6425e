"""The measures against the examples in the papers that define them, and against other implementations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import krippendorff
import numpy as np
import pytest
from statsmodels.stats import inter_rater

from relabel.agreement.cohen_kappa import cohen_kappa, contingency
from relabel.agreement.fleiss_kappa import fleiss_kappa
from relabel.agreement.krippendorff_alpha import Level, krippendorff_alpha
from relabel.agreement.ratings import Ratings
from relabel.agreement.raw import raw_agreement

# Fleiss 1971, table 1: how many of six psychiatrists gave each of 30 patients which of five diagnoses.
DIAGNOSES = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""
# The ten subjects and fourteen raters of the article "Fleiss' kappa" of Wikipedia.
FOURTEEN = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]
# Krippendorff 2011, "Computing Krippendorff's alpha-reliability": one string an observer, "." where there is no value.
BINARY = ["0100000010", "1110010000"]
TWO_OBSERVERS = ["aabbdcccedda", "babbbccceddd"]
FOUR_OBSERVERS = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
# The three coders of the article "Krippendorff's alpha" of Wikipedia.
THREE_CODERS = [".....34121133.3", "1.213343.......", "..21344.21133.4"]


def counted(table: Sequence[Sequence[int]]) -> Ratings:
    return Ratings.of(
        [[place for place, count in enumerate(row) for _ in range(count)] for row in table],
        categories=range(len(table[0])),
    )


def observed(observers: Sequence[str]) -> Ratings:
    units = zip(*observers, strict=True)
    return Ratings.of([[value for value in unit if value != "."] for unit in units])


def test_cohen_1960() -> None:
    found = cohen_kappa([[88, 10, 2], [14, 40, 6], [18, 10, 12]])
    assert found.value == pytest.approx(0.492, abs=5e-4)
    assert found.cases == 200


def test_fleiss_1971() -> None:
    ratings = counted([[int(count) for count in row] for row in DIAGNOSES.split()])
    found = fleiss_kappa(ratings)
    assert found.value == pytest.approx(0.430, abs=5e-4)
    raw = raw_agreement(ratings)
    assert raw.value == pytest.approx(0.555, abs=1e-3)  # P̄ in the paper
    assert found.interval is not None
    assert found.interval.low < 0.430 < found.interval.high


def test_fourteen_raters() -> None:
    found = fleiss_kappa(counted(FOURTEEN))
    assert found.value == pytest.approx(0.210, abs=5e-4)
    assert found.value == pytest.approx(inter_rater.fleiss_kappa(np.array(FOURTEEN)))


@pytest.mark.parametrize(
    ("observers", "level", "published"),
    [
        (BINARY, "nominal", 0.095),
        (TWO_OBSERVERS, "nominal", 0.692),
        (FOUR_OBSERVERS, "nominal", 0.743),
        (FOUR_OBSERVERS, "ordinal", 0.815),
        (FOUR_OBSERVERS, "interval", 0.849),
        (THREE_CODERS, "nominal", 0.691),
        (THREE_CODERS, "interval", 0.811),
    ],
)
def test_krippendorff(observers: Sequence[str], level: Level, published: float) -> None:
    found = krippendorff_alpha(observed(observers), level)
    assert found.value == pytest.approx(published, abs=6e-4)
    assert found.interval is not None
    assert found.interval.low < published < found.interval.high


def drawn(seed: int, *, cases: int = 60, people: int = 4, kinds: int = 5) -> np.ndarray[Any, Any]:
    """People × cases of places on a scale, with about a third missing as NaN."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, kinds, cases)
    said = np.where(rng.random((people, cases)) < 0.6, truth, rng.integers(0, kinds, (people, cases)))
    return np.where(rng.random((people, cases)) < 0.33, np.nan, said)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_is_that_of_another_implementation(seed: int, level: Level) -> None:
    said = drawn(seed)
    ratings = Ratings.of([[int(value) for value in case if not np.isnan(value)] for case in said.T])
    theirs = krippendorff.alpha(said, level_of_measurement=level, value_domain=range(5))
    assert krippendorff_alpha(ratings, level, resamples=0).value == pytest.approx(theirs)
    assert ratings.dropped == int(np.sum(np.sum(~np.isnan(said), axis=0) < 2))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("ours", "theirs"), [(None, None), ("linear", "linear"), ("quadratic", "fc")])
def test_kappas_are_those_of_statsmodels(seed: int, ours: Any, theirs: str | None) -> None:
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 4, 150)
    second = np.where(rng.random(150) < 0.5, first, rng.integers(0, 4, 150))
    table = contingency(first, second, 4)
    expected = inter_rater.cohens_kappa(table, wt=theirs)
    found = cohen_kappa(table, weights=ours)
    assert found.interval is not None
    assert (found.value, found.interval.low, found.interval.high) == pytest.approx(
        (expected.kappa, expected.kappa_low, expected.kappa_upp)
    )
    counts, _ = inter_rater.aggregate_raters(np.stack([first, second], axis=1))
    assert fleiss_kappa(counted(counts.tolist())).value == pytest.approx(inter_rater.fleiss_kappa(counts))


def test_the_raw_agreement_is_the_share_of_agreeing_pairs() -> None:
    cases = ["aab", "ab", "bbbb", "c"]
    pairs = [
        np.mean([one == other for one, other in combinations(case, 2)]) for case in cases if len(case) > 1
    ]
    found = raw_agreement(Ratings.of(cases))
    assert found.value == pytest.approx(np.mean(pairs))
    assert found.cases == 3


def test_fleiss_with_other_numbers_of_labels_a_case() -> None:
    """Gwet 2014: every case counts the same; by hand for two cases, of two and of three labels."""
    found = fleiss_kappa(Ratings.of(["aa", "abb", "a"]))
    shares = (np.array([1, 0]) + np.array([1 / 3, 2 / 3])) / 2
    by_chance = float(shares @ shares)
    assert found.value == pytest.approx(((1 + 1 / 3) / 2 - by_chance) / (1 - by_chance))
    assert found.cases == 2


def test_weights_are_for_order_only() -> None:
    near = [[10, 5, 0], [5, 10, 5], [0, 5, 10]]
    far = [[10, 0, 5], [0, 20, 0], [5, 0, 10]]
    plain, linear, quadratic = (
        cohen_kappa(near, weights=kind).value for kind in (None, "linear", "quadratic")
    )
    assert plain is not None
    assert linear is not None
    assert quadratic is not None
    assert plain < linear < quadratic
    apart = cohen_kappa(far, weights="quadratic").value
    plain_apart = cohen_kappa(far).value
    assert apart is not None
    assert plain_apart is not None
    assert apart < plain_apart
