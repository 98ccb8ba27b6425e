from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evaluators.engine.batching import Batcher, length_batches
from evaluators.evaluator import MODEL_ERROR, OUT_OF_MEMORY


@given(st.lists(st.integers(1, 200), max_size=60), st.integers(1, 500), st.integers(1, 20))
def test_every_item_is_in_one_batch_and_no_batch_is_over_its_limits(
    lengths: list[int], budget: int, most: int
) -> None:
    batches = list(length_batches(lengths, budget, most))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) <= most
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget


@given(st.lists(st.integers(1, 200), max_size=60), st.integers(1, 500), st.integers(1, 20))
def test_without_padding_only_the_tokens_themselves_count(lengths: list[int], budget: int, most: int) -> None:
    batches = list(length_batches(lengths, budget, most, padded=False))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch, after in zip(batches, [*batches, None][1:], strict=True):
        used = sum(lengths[index] for index in batch)
        assert len(batch) <= most
        assert len(batch) == 1 or used <= budget
        if after is not None:
            assert len(batch) == most or used + lengths[after[0]] > budget, "it is full"


def test_like_lengths_come_together() -> None:
    assert list(length_batches([5, 90, 6, 100], 200, 10)) == [[3, 1], [2, 0]]


class Device:
    """A computation with a memory of ``room`` tokens, that fails on the items in ``broken``."""

    def __init__(self, lengths: Sequence[int], *, room: int = 10**9, broken: Sequence[int] = ()) -> None:
        self.lengths = lengths
        self.room = room
        self.broken = set(broken)
        self.calls: list[list[int]] = []

    def __call__(self, indices: list[int]) -> list[int | tuple[str, str]]:
        self.calls.append(indices)
        if len(indices) * max(self.lengths[index] for index in indices) > self.room:
            raise torch.OutOfMemoryError("no room")
        if self.broken & set(indices):
            raise IndexError("broken item")
        return [self.lengths[index] * 10 for index in indices]


def run(batcher: Batcher[int | tuple[str, str]], device: Device) -> list[int | tuple[str, str]]:
    return batcher.run(device.lengths, device, lambda _index, reason, error: (reason, error))


def test_results_come_in_the_order_of_the_items() -> None:
    device = Device([3, 50, 1, 20, 7])
    assert run(Batcher(budget=60, max_items=3), device) == [30, 500, 10, 200, 70]


def test_nothing_in_nothing_out() -> None:
    device = Device([])
    assert run(Batcher(budget=60, max_items=3), device) == []
    assert device.calls == []


def test_out_of_memory_halves_the_budget_and_goes_on() -> None:
    lengths = list(range(1, 101))
    device = Device(lengths, room=150)
    batcher: Batcher[int | tuple[str, str]] = Batcher(budget=1000, max_items=512)
    assert run(batcher, device) == [length * 10 for length in lengths]
    assert batcher.budget < 250
    again = Device(lengths, room=batcher.budget)
    run(batcher, again)
    assert len([call for call in again.calls if len(call) * lengths[call[0]] > again.room]) == 0, (
        "the lesson stays"
    )


@pytest.mark.parametrize("columns", [None, 3])
def test_results_may_stay_on_the_device(columns: int | None) -> None:
    lengths = [int(number * 7919 % 50) + 1 for number in range(300)]

    def compute(indices: list[int]) -> torch.Tensor:
        if len(indices) > 4:
            raise torch.OutOfMemoryError("no room")
        if 17 in indices:
            raise IndexError("broken item")
        own = torch.tensor(indices, dtype=torch.float64)
        return own if columns is None else own[:, None].expand(-1, columns)

    batcher: Batcher[Any] = Batcher(budget=400, max_items=300, padded=False)
    results = batcher.run(lengths, compute, lambda _index, reason, _error: reason)
    assert results[17] == MODEL_ERROR
    for index, result in enumerate(results):
        assert index == 17 or result == (float(index) if columns is None else [float(index)] * columns)


def test_an_item_that_fits_nowhere_is_given_up_alone() -> None:
    device = Device([10, 500, 20], room=100)
    assert run(Batcher(budget=2000, max_items=8), device) == [
        100,
        (OUT_OF_MEMORY, "OutOfMemoryError: no room"),
        200,
    ]


def test_memory_that_the_cpu_does_not_have_counts_as_out_of_memory() -> None:
    attempts: list[int] = []

    def compute(indices: list[int]) -> list[int | tuple[str, str]]:
        attempts.append(len(indices))
        if len(indices) > 1:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return [1]

    batcher: Batcher[int | tuple[str, str]] = Batcher(budget=100, max_items=4)
    assert batcher.run([1, 1, 1, 1], compute, lambda *_: ("given up", "")) == [1, 1, 1, 1]
    assert attempts[0] == 4
    assert batcher.budget == 2 or batcher.budget == 1


def test_an_item_that_raises_costs_only_itself() -> None:
    device = Device([1] * 40, broken=[17])
    results = run(Batcher(budget=1000, max_items=16), device)
    assert results[17] == (MODEL_ERROR, "IndexError: broken item")
    assert [result for number, result in enumerate(results) if number != 17] == [10] * 39


def test_a_broken_device_is_raised_and_not_taken_for_a_bad_text() -> None:
    def compute(indices: list[int]) -> list[int | tuple[str, str]]:
        raise torch.AcceleratorError("device-side assert triggered")

    batcher: Batcher[int | tuple[str, str]] = Batcher(budget=100, max_items=4)
    with pytest.raises(torch.AcceleratorError, match="assert"):
        batcher.run([1, 2, 3], compute, lambda *_: ("given up", ""))


@pytest.mark.parametrize(("budget", "most"), [(0, 1), (1, 0)])
def test_a_batch_holds_something(budget: int, most: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        Batcher[int](budget=budget, max_items=most)
