"""Batches of like lengths under a token budget, and what to do when one of them fails.

Invariant of :class:`Batcher`: every item gets exactly one result, in the order given. A batch that does not
fit into memory is run again in halves, and the budget stays halved; a batch that raises is run again item
by item, so that only the item at fault is given up. The results must not depend on what an item is batched
with; it is the computation's part to see to that (masks, or right padding under causal attention).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import torch

from evaluators.engine.devices import is_device_failure, is_out_of_memory
from evaluators.evaluator import MODEL_ERROR, OUT_OF_MEMORY

logger = logging.getLogger(__name__)

T = TypeVar("T")


def length_batches(lengths: Sequence[int], budget: int, max_items: int) -> Iterator[list[int]]:
    """Indices of ``lengths`` in batches, longest first: at most ``max_items`` in each, and padded to their
    longest at most ``budget`` tokens, except that an item longer than the budget is a batch of its own."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and (len(batch) == max_items or (len(batch) + 1) * lengths[batch[0]] > budget):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


class Batcher(Generic[T]):
    """Runs a computation over items in batches.

    ``budget`` is the most tokens, padding included, of one batch. ``failed(index, reason, error)`` makes
    the result of an item that was given up; ``reason`` is one of :mod:`evaluators.evaluator`'s. Not for use
    by several threads at once.
    """

    def __init__(self, *, budget: int, max_items: int) -> None:
        if budget < 1 or max_items < 1:
            raise ValueError("a batch holds at least one token and one item")
        self.budget = budget
        self._max_items = max_items

    def run(
        self,
        lengths: Sequence[int],
        compute: Callable[[list[int]], Sequence[T]],
        failed: Callable[[int, str, str], T],
    ) -> list[T]:
        """One result per item. ``compute(indices)`` gives one per index; a failure of the device itself is
        raised."""
        results: dict[int, T] = {}
        waiting = deque(length_batches(lengths, self.budget, self._max_items))
        while waiting:
            batch = waiting.popleft()
            outcome = self._attempt(compute, batch)
            if not isinstance(outcome, Exception):
                results.update(zip(batch, outcome, strict=True))
            elif is_out_of_memory(outcome):
                _free_memory()
                if len(batch) == 1:
                    results[batch[0]] = failed(batch[0], OUT_OF_MEMORY, _describe(outcome))
                else:
                    self._halve_budget(lengths, batch, waiting)
            elif len(batch) == 1:
                results[batch[0]] = failed(batch[0], MODEL_ERROR, _describe(outcome))
            else:
                waiting.extendleft([index] for index in reversed(batch))
        return [results[index] for index in range(len(lengths))]

    def _attempt(
        self, compute: Callable[[list[int]], Sequence[T]], batch: list[int]
    ) -> Sequence[T] | Exception:
        try:
            return compute(batch)
        except Exception as error:
            # Any exception: a model is foreign code, and what it raises for one text must not cost the
            # others theirs.
            if is_device_failure(error):
                raise
            level = logging.WARNING if len(batch) > 1 else logging.DEBUG
            logger.log(
                level, "scoring failed: items=%d error=%s", len(batch), _describe(error), exc_info=True
            )
            return error

    def _halve_budget(self, lengths: Sequence[int], batch: list[int], waiting: deque[list[int]]) -> None:
        used = len(batch) * max(lengths[index] for index in batch)
        self.budget = max(1, min(self.budget, used) // 2)
        logger.warning("out of memory, batches are halved: budget=%d tokens", self.budget)
        rest = [index for indices in (batch, *waiting) for index in indices]
        waiting.clear()
        for indices in length_batches(
            [lengths[index] for index in rest], self.budget, max(1, len(batch) // 2)
        ):
            waiting.append([rest[position] for position in indices])


def _free_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
