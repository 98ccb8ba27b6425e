"""relabel.export.split: nothing of the test set is in the training set, and neither filters nor formats move a case."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel.export.prompt_text import prompt_key
from relabel.export.query import Split, SplitBy
from relabel.export.reader import Asked
from relabel.export.split import SplitOfCases
from servelens.errors import Invalid


def asked(case_id: int, question: str, unit: str | None = None, session: str | None = None) -> Asked:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "answer"}]
    return Asked(case_id, unit, session, messages, True)


_names = st.none() | st.sampled_from(["ann", "bob", "eve", "dan", ""])
_questions = st.sampled_from(["Hello", "hello!", "Order 17?", "order  17", "order 23", "Why", "Who"])
_cases = st.lists(st.tuples(_questions, _names, _names), max_size=20).map(
    lambda rows: [asked(number, *row) for number, row in enumerate(rows, start=1)]
)


@given(
    cases=_cases,
    test=st.floats(0.05, 0.95),
    seed=st.integers(0, 5),
    by=st.sampled_from(["unit", "session", "case"]),
    order=st.randoms(use_true_random=False),
)
def test_what_belongs_together_is_in_one_set(
    cases: list[Asked], test: float, seed: int, by: SplitBy, order: random.Random
) -> None:
    split = SplitOfCases(Split(test, seed, by), cases)
    of = {case.case_id: split.of(case.case_id) for case in cases}
    for one in cases:
        for other in cases:
            same_prompt = prompt_key(one.messages[:-1]) == prompt_key(other.messages[:-1])
            same_unit = by == "unit" and one.unit and one.unit == other.unit
            same_session = by == "session" and one.session and one.session == other.session
            if same_prompt or same_unit or same_session:
                assert of[one.case_id] == of[other.case_id]
    shuffled = list(cases)
    order.shuffle(shuffled)
    again = SplitOfCases(Split(test, seed, by), shuffled)
    assert {case.case_id: again.of(case.case_id) for case in cases} == of


@pytest.mark.parametrize("by", ["unit", "session"])
def test_the_other_owner_stands_in_for_one_that_is_missing(by: SplitBy) -> None:
    both: list[Asked] = []
    for number in range(200):
        name = f"x{number}"
        owner: dict[str, Any] = {"session": name} if by == "unit" else {"unit": name}
        both += [asked(2 * number + side, f"question {name} {'ab'[side]}", **owner) for side in range(2)]
    split = SplitOfCases(Split(0.5, by=by), both)
    assert all(split.of(2 * number) == split.of(2 * number + 1) for number in range(200))
    assert split.report()["cases_without_owner"] == 0


def test_the_share_is_met_and_a_seed_gives_another_split() -> None:
    words = [f"{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)}" for n in range(4_000)]
    cases = [asked(number, word, unit=word) for number, word in enumerate(words)]
    split, other = (SplitOfCases(Split(0.2, seed), cases) for seed in (0, 1))
    tests = {case.case_id for case in cases if split.of(case.case_id) == "test"}
    others = {case.case_id for case in cases if other.of(case.case_id) == "test"}
    assert abs(len(tests) / 4_000 - 0.2) < 0.03  # four standard deviations
    assert len(tests & others) < 0.5 * len(tests)
    assert split.report() == {
        "groups": 4_000,
        "largest_group": 1,
        "cases": 4_000,
        "cases_without_owner": 0,
    }


def test_a_new_question_does_not_move_what_a_unit_asked_before() -> None:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    cases = [asked(number, letter, unit=letter) for number, letter in enumerate(alphabet)]
    before = SplitOfCases(Split(0.5), cases)
    more = [asked(100 + number, f"more of {letter}", unit=letter) for number, letter in enumerate(alphabet)]
    after = SplitOfCases(Split(0.5), [*cases, *more])
    assert [before.of(number) for number in range(26)] == [after.of(number) for number in range(26)]


def test_a_conversation_that_goes_on_is_with_its_beginning() -> None:
    def turns(*texts: str) -> list[dict[str, Any]]:
        return [
            {"role": "user" if n % 2 == 0 else "assistant", "content": each} for n, each in enumerate(texts)
        ]

    cases = []
    for number in range(100):
        word = f"{chr(97 + number % 26)}{chr(97 + number // 26)}"
        first = turns(f"ask {word}", f"say {word}")
        later = [*first, *turns(f"and {word}", f"also {word}")]
        other = [*turns(f"ask {word}", "something else"), *turns(f"why {word}", "so")]
        cases += [
            Asked(3 * number + place, None, None, messages, True)
            for place, messages in enumerate((later, first, other))  # in any order
        ]
    split = SplitOfCases(Split(0.5), cases)
    assert split.report()["groups"] == 200
    assert all(split.of(3 * number) == split.of(3 * number + 1) for number in range(100))
    assert any(split.of(3 * number) != split.of(3 * number + 2) for number in range(100))


def test_a_chain_is_one_group_and_cases_without_an_owner_are_counted() -> None:
    cases = [
        asked(1, "a", "ann"),
        asked(2, "b", "ann"),
        asked(3, "b", "bob"),
        asked(4, "c", "bob"),
        asked(5, "d"),
    ]
    report = SplitOfCases(Split(0.5), cases).report()
    assert report == {"groups": 2, "largest_group": 4, "cases": 5, "cases_without_owner": 1}


@pytest.mark.parametrize(
    ("test", "by", "field"), [(0, "unit", "split.test"), (1, "unit", "split.test"), (0.5, "moon", "split.by")]
)
def test_a_wrong_split_is_named(test: float, by: Any, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        Split(test, 0, by)
    assert caught.value.field == field
