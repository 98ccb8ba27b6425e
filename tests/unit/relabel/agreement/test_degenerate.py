"""What the labels do not determine has no number, and says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from relabel.agreement.cohen_kappa import cohen_kappa
from relabel.agreement.fleiss_kappa import fleiss_kappa
from relabel.agreement.krippendorff_alpha import krippendorff_alpha
from relabel.agreement.measure import Measure
from relabel.agreement.ratings import Ratings
from relabel.agreement.raw import raw_agreement
from relabel.agreement.set_agreement import MOST_SETS, set_alpha
from relabel.agreement.span_agreement import span_f1
from servelens.errors import Invalid

MANY: list[Callable[[Ratings], Measure]] = [
    fleiss_kappa,
    krippendorff_alpha,
    lambda ratings: krippendorff_alpha(ratings, "ordinal"),
    lambda ratings: krippendorff_alpha(ratings, "interval"),
]


@pytest.mark.parametrize("cases", [[], ["1"], ["1", "2", "1"], [[], []]])
@pytest.mark.parametrize("measure", [*MANY, raw_agreement, set_alpha])
def test_nobody_labeled_what_another_did(
    measure: Callable[[Ratings], Measure], cases: Sequence[Sequence[str]]
) -> None:
    found = measure(Ratings.of(cases))
    assert (found.value, found.interval, found.reason) == (None, None, "no case has two labels")


@pytest.mark.parametrize("measure", MANY)
def test_one_answer_only(measure: Callable[[Ratings], Measure]) -> None:
    found = measure(Ratings.of(["11", "111"]))
    assert found.value is None
    assert found.reason == "everybody gave one and the same answer to all cases"


@pytest.mark.parametrize("measure", MANY)
def test_never_a_disagreement_is_no_certainty(measure: Callable[[Ratings], Measure]) -> None:
    found = measure(Ratings.of(["11", "22", "111"]))
    assert found.value == pytest.approx(1)
    assert found.interval is None
    assert found.reason is not None
    assert "nobody disagreed" in found.reason


def test_the_raw_agreement_stays_honest_at_its_ends() -> None:
    always = raw_agreement(Ratings.of(["11"] * 20))
    assert always.value == 1
    assert always.interval is not None
    assert always.interval.low == pytest.approx(0.8389, abs=1e-4)  # Wilson, 20 of 20
    never = raw_agreement(Ratings.of(["12"] * 20))
    assert never.value == 0
    assert never.interval is not None
    assert never.interval.high == pytest.approx(0.1611, abs=1e-4)
    alike = raw_agreement(Ratings.of(["112"] * 20))
    assert alike.interval is not None
    assert alike.interval.low < 1 / 3 < alike.interval.high


def test_two_people() -> None:
    assert cohen_kappa(np.zeros((2, 2))).reason == "no case has labels of both"
    assert cohen_kappa([[12, 0], [0, 0]]).value is None
    perfect = cohen_kappa([[5, 0], [0, 7]])
    assert (perfect.value, perfect.interval) == (pytest.approx(1), None)
    assert perfect.reason is not None
    for wrong in ([[1, 2]], [1, 2], [[1, -1], [0, 1]]):
        with pytest.raises(Invalid, match="table"):
            cohen_kappa(wrong)


def test_an_unknown_category_is_an_error() -> None:
    with pytest.raises(KeyError):
        Ratings.of(["ab", "ac"], categories="ab")


def test_too_many_different_sets_are_not_compared() -> None:
    sets = [[frozenset({str(number)}), frozenset({"x"})] for number in range(MOST_SETS)]
    found = set_alpha(Ratings.of(sets))
    assert found.value is None
    assert found.reason is not None
    assert "more than the 1,500" in found.reason


def test_spans_that_nobody_marked() -> None:
    assert span_f1([]).reason == "no case has two labels"
    assert span_f1([[[(0, 1, "a")]]]).reason == "no case has two labels"
    assert span_f1([[[], []]] * 30).reason == "nobody marked anything"
    same = span_f1([[[(0, 4, "name")], [(0, 4, "name")]]] * 30)
    assert (same.value, same.interval) == (1.0, None)
