"""The intervals hold the true value about as often as they say; the true value is that of very many cases."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from relabel.agreement.cohen_kappa import cohen_kappa, contingency
from relabel.agreement.fleiss_kappa import fleiss_kappa
from relabel.agreement.krippendorff_alpha import krippendorff_alpha
from relabel.agreement.measure import Measure
from relabel.agreement.ratings import Ratings
from relabel.agreement.raw import raw_agreement
from relabel.agreement.span_agreement import Span, span_f1

Said = npt.NDArray[np.int64]
_RUNS = 200


def said(rng: np.random.Generator, cases: int, people: int, shares: list[float], knowing: float) -> Said:
    """Cases × people; each knows the truth with probability ``knowing`` and guesses otherwise."""
    truth = rng.choice(len(shares), cases, p=shares)
    guessed = rng.choice(len(shares), (cases, people), p=shares)
    return np.where(rng.random((cases, people)) < knowing, truth[:, None], guessed).astype(np.int64)


def ratings(answers: Said) -> Ratings:
    cases, people = answers.shape
    return Ratings.of_codes(np.repeat(np.arange(cases), people), answers.ravel(), range(5))


MEASURES: dict[str, Callable[[Said], Measure]] = {
    "raw": lambda answers: raw_agreement(ratings(answers)),
    "cohen": lambda answers: cohen_kappa(contingency(answers[:, 0], answers[:, 1], 5)),
    "fleiss": lambda answers: fleiss_kappa(ratings(answers)),
    "nominal": lambda answers: krippendorff_alpha(ratings(answers), resamples=200),
    "ordinal": lambda answers: krippendorff_alpha(ratings(answers), "ordinal", resamples=200),
}


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize(
    ("cases", "people", "shares", "least"),
    [
        (40, 3, [0.4, 0.3, 0.3], 0.90),
        (60, 2, [0.5, 0.5], 0.90),
        # One answer is rare: the hard case, where every interval of kappa is somewhat too narrow.
        (60, 3, [0.85, 0.15], 0.85),
    ],
)
def test_intervals_cover(name: str, cases: int, people: int, shares: list[float], least: float) -> None:
    measure = MEASURES[name]
    true = measure(said(np.random.default_rng(1), 200_000, people, shares, 0.7)).value
    assert true is not None
    covered = asked = 0
    rng = np.random.default_rng(2)
    for _ in range(_RUNS):
        found = measure(said(rng, cases, people, shares, 0.7))
        if found.interval is not None:
            asked += 1
            covered += found.interval.low <= true <= found.interval.high
    assert asked > 0.95 * _RUNS
    assert least <= covered / asked <= 0.995


def test_the_interval_of_spans_covers() -> None:
    def cases(rng: np.random.Generator, count: int) -> list[list[list[Span]]]:
        marked = rng.random((count, 2, 4)) < 0.6
        return [
            [[(place, place + 1, "x") for place in np.flatnonzero(one)] for one in case] for case in marked
        ]

    rng = np.random.default_rng(3)
    true = 0.36 / 0.6  # both mark a place with 0.36, each with 0.6
    found = [span_f1(cases(rng, 30), resamples=200) for _ in range(100)]
    covered = sum(each.interval.low <= true <= each.interval.high for each in found if each.interval)
    assert 0.89 <= covered / 100 <= 0.995


def test_the_same_labels_give_the_same_interval() -> None:
    answers = said(np.random.default_rng(4), 50, 3, [0.5, 0.5], 0.6)
    assert krippendorff_alpha(ratings(answers)) == krippendorff_alpha(ratings(answers))


def test_many_patterns_are_resampled_as_few_are() -> None:
    """Cases that are all different are drawn one by one, the others by counts; both give the same interval nearly."""
    rng = np.random.default_rng(5)
    base = rng.integers(0, 40, 400)
    answers = np.stack([base, np.clip(base + rng.integers(-8, 9, 400), 0, 40)], axis=1)
    few = Ratings.of_codes(np.repeat(np.arange(400), 2), (answers // 8).ravel(), range(6))
    many = Ratings.of_codes(np.repeat(np.arange(400), 2), answers.ravel(), range(41))
    assert len(few.units) * 2 < few.cases
    assert len(many.units) * 2 > many.cases
    widths = []
    for each in (few, many):
        found = krippendorff_alpha(each, "interval")
        assert found.interval is not None
        widths.append(found.interval.high - found.interval.low)
    assert widths[0] == pytest.approx(widths[1], rel=0.5)
