from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from evaluators.engine.tokenizing import ahead, own_marks, token_numbers
from tests.unit.evaluators import tiny_models


def test_marks_are_what_the_tokenizer_puts_around_a_text() -> None:
    plain, leading = own_marks(tiny_models.tokenizer()), own_marks(tiny_models.tokenizer(leading=True))
    assert (plain.before, plain.after, len(plain)) == ([], [], 0)
    assert (leading.before, leading.after, len(leading)) == ([1], [], 1)


def test_a_control_token_is_text_unless_it_is_asked_for() -> None:
    tokenizer = tiny_models.tokenizer()
    assert token_numbers(tokenizer, ["<s> cat"], control=True) == [
        [1, tokenizer.convert_tokens_to_ids("cat")]
    ]
    assert 1 in token_numbers(tokenizer, ["<s>cat"], control=True)[0]
    assert 1 not in token_numbers(tokenizer, ["<s>cat"])[0]
    assert token_numbers(tokenizer, []) == []


@pytest.mark.parametrize("depth", [0, 1, 3, 50])
def test_results_come_in_order_and_no_further_ahead_than_asked(depth: int) -> None:
    begun: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            begun.append(number)
            yield number

    taken = 0
    for result in ahead(lambda number: number * 10, items(), depth=depth):
        assert result == taken * 10
        taken += 1
        assert len(begun) <= taken + depth
    assert taken == 20


def test_work_is_done_while_the_result_before_is_used() -> None:
    second = threading.Event()

    def work(number: int) -> int:
        if number == 1:
            second.set()
        return number

    results = ahead(work, range(3), depth=1)
    assert next(results) == 0
    assert second.wait(10)
    assert list(results) == [1, 2]


@pytest.mark.parametrize("depth", [0, 2])
def test_what_work_raises_is_raised_in_its_place(depth: int) -> None:
    def work(number: int) -> float:
        return 1 / (2 - number)

    results = ahead(work, range(5), depth=depth)
    assert [next(results), next(results)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_the_thread_ends_when_nobody_wants_more() -> None:
    results = ahead(str, range(100), depth=2)
    next(results)
    assert any(thread.name.startswith("tokenizing") for thread in threading.enumerate())
    results.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith("tokenizing") for thread in threading.enumerate())
