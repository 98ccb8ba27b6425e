"""Batches of like lengths under a token budget, and what to do when one of them fails.

Invariant of :class:`Batcher`: every item gets exactly one result, in the order given. A batch that does not
fit into memory is run again in halves, and the budget stays halved; a batch that raises is run again item
by item, so that only the item at fault is given up. The results must not depend on what an item is batched
with; it is the computation's part to see to that (packed rows, masks, or right padding under causal
attention).

A computation may leave its results on the device, as a tensor of one row an item: they are fetched a few
batches at a time, so that a GPU is not waited for after each.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, TypeVar

import torch
from torch import Tensor

from evaluators.engine.devices import is_device_failure, is_out_of_memory
from evaluators.evaluator import MODEL_ERROR, OUT_OF_MEMORY

logger = logging.getLogger(__name__)

T = TypeVar("T")

_UNFETCHED: Final = 32
"""Batches whose results may lie on the device."""


def length_batches(
    lengths: Sequence[int], budget: int, max_items: int, *, padded: bool = True
) -> Iterator[list[int]]:
    """Indices of ``lengths`` in batches, longest first: at most ``max_items`` in each, and at most ``budget``
    tokens, except that an item longer than the budget is a batch of its own. With ``padded`` a batch's tokens
    are those of its longest item times its items."""
    batch: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        added = lengths[batch[0]] if batch and padded else lengths[index]
        if batch and (len(batch) == max_items or tokens + added > budget):
            yield batch
            batch, tokens, added = [], 0, lengths[index]
        batch.append(index)
        tokens += added
    if batch:
        yield batch


class Batcher(Generic[T]):
    """Runs a computation over items in batches.

    ``budget`` is the most tokens of one batch, padding included if the computation pads (``padded``).
    ``failed(index, reason, error)`` makes the result of an item that was given up; ``reason`` is one of
    :mod:`evaluators.evaluator`'s. Not for use by several threads at once.
    """

    def __init__(self, *, budget: int, max_items: int, padded: bool = True) -> None:
        if budget < 1 or max_items < 1:
            raise ValueError("a batch holds at least one token and one item")
        self.budget = budget
        self._max_items = max_items
        self._padded = padded

    def run(
        self,
        lengths: Sequence[int],
        compute: Callable[[list[int]], Sequence[T] | Tensor],
        failed: Callable[[int, str, str], T],
    ) -> list[T]:
        """One result per item. ``compute(indices)`` gives one per index, or a tensor of one row per index whose
        ``tolist()`` holds the results; a failure of the device itself is raised."""
        results: dict[int, T] = {}
        unfetched: list[tuple[list[int], Tensor]] = []
        waiting = deque(length_batches(lengths, self.budget, self._max_items, padded=self._padded))
        while waiting:
            batch = waiting.popleft()
            outcome = self._attempt(compute, batch)
            if isinstance(outcome, Tensor):
                unfetched.append((batch, outcome))
                if len(unfetched) == _UNFETCHED:
                    results.update(_fetch(unfetched))
                    unfetched = []
            elif not isinstance(outcome, Exception):
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
        results.update(_fetch(unfetched))
        return [results[index] for index in range(len(lengths))]

    def _attempt(
        self, compute: Callable[[list[int]], Sequence[T] | Tensor], batch: list[int]
    ) -> Sequence[T] | Tensor | Exception:
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
        own = [lengths[index] for index in batch]
        used = len(own) * max(own) if self._padded else sum(own)
        self.budget = max(1, min(self.budget, used) // 2)
        logger.warning("out of memory, batches are halved: budget=%d tokens", self.budget)
        rest = [index for indices in (batch, *waiting) for index in indices]
        waiting.clear()
        for indices in length_batches(
            [lengths[index] for index in rest], self.budget, max(1, len(batch) // 2), padded=self._padded
        ):
            waiting.append([rest[position] for position in indices])


def _fetch(unfetched: list[tuple[list[int], Tensor]]) -> dict[int, T]:
    """Results by index, with one transfer from the device."""
    if not unfetched:
        return {}
    rows: list[T] = torch.cat([rows for _, rows in unfetched]).tolist()
    return dict(zip((index for batch, _ in unfetched for index in batch), rows, strict=True))


def _free_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
