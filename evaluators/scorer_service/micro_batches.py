"""Texts of several callers, scored together.

While the model computes, whatever comes is collected for its next batch; a question that finds the model at rest is
computed at once. A batch that would be small may wait for others, but only for questions that came while the model was
busy, and no longer than ``max_wait_s`` from the arrival of its first. So an idle service adds no delay, and a busy one
works in batches.

Invariants: first come, first served; a question is answered, or refused, within the time that its caller waits; what is
queued is bounded; what nobody waits for any more is not computed.

Source: the adaptive batching of Clipper (Crankshaw et al., NSDI 2017, §4.3).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Literal

from evaluators.evaluator import Score
from evaluators.scorer_service.model_thread import ModelThread
from evaluators.scorer_service.service_metrics import ServiceMetrics
from servelens.clock import Clock
from servelens.errors import Backpressure

STUCK_S: Final = 5.0
"""A batch that takes so long is a model that hangs."""

Refusal = Literal["full", "late", "stuck"]
_WORDS: Final[dict[Refusal, str]] = {
    "full": "Too many texts wait for the scorer.",
    "late": "The scorer did not come to it in time.",
    "stuck": "The scorer's model does not answer.",
}


class _Question:
    """The texts of one caller. ``is_first``: it found the model at rest."""

    __slots__ = ("arrived_s", "future", "is_first", "texts")

    def __init__(self, texts: Sequence[str], arrived_s: float, *, is_first: bool) -> None:
        self.texts = texts
        self.arrived_s = arrived_s
        self.is_first = is_first
        self.future: asyncio.Future[list[Score]] = asyncio.get_running_loop().create_future()


class MicroBatches:
    """On one event loop; :meth:`run` must be running. ``max_batch`` and ``max_queue`` count texts."""

    def __init__(
        self,
        model: ModelThread,
        metrics: ServiceMetrics,
        clock: Clock,
        *,
        max_wait_s: float = 0.003,
        max_batch: int = 64,
        max_queue: int = 2_048,
        stuck_s: float = STUCK_S,
    ) -> None:
        self.queued = 0
        self._model = model
        self._metrics = metrics
        self._clock = clock
        self._max_wait_s = max_wait_s
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._stuck_s = stuck_s
        self._questions: OrderedDict[_Question, None] = OrderedDict()
        self._something = asyncio.Event()
        self._enough = asyncio.Event()
        self._busy_since: float | None = None

    @property
    def busy_s(self) -> float:
        """For how long the batch under way has been computing."""
        return 0.0 if self._busy_since is None else self._clock.monotonic() - self._busy_since

    @property
    def is_stuck(self) -> bool:
        return self.busy_s > self._stuck_s

    async def score(self, texts: Sequence[str], timeout_s: float) -> list[Score]:
        """One score per text. Raises Backpressure when there is no room, or no answer within ``timeout_s``."""
        if not texts:
            return []
        if self.is_stuck:
            raise self._refused("stuck")
        if self.queued and self.queued + len(texts) > self._max_queue:
            raise self._refused("full")
        is_first = self._busy_since is None and not self._questions
        question = _Question(texts, self._clock.monotonic(), is_first=is_first)
        self._questions[question] = None
        self.queued += len(texts)
        self._something.set()
        if self.queued >= self._max_batch:
            self._enough.set()
        try:
            async with asyncio.timeout(timeout_s):
                return await question.future
        except TimeoutError as error:
            raise self._refused("late") from error
        finally:
            self._remove(question)

    async def run(self) -> None:
        """Compute batches until cancelled."""
        while True:
            await self._something.wait()
            await self._wait_for_more()
            batch = self._next_batch()
            if batch:
                await self._compute(batch)

    async def _wait_for_more(self) -> None:
        first = next(iter(self._questions), None)
        if first is None or first.is_first:
            return
        left_s = first.arrived_s + self._max_wait_s - self._clock.monotonic()
        if left_s > 0 and self.queued < self._max_batch:
            self._enough.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._enough.wait()
            except TimeoutError:
                pass

    def _next_batch(self) -> list[_Question]:
        """Whole questions, at least one, as many as fit."""
        batch: list[_Question] = []
        count = 0
        for question in self._questions:
            if batch and count + len(question.texts) > self._max_batch:
                break
            batch.append(question)
            count += len(question.texts)
        for question in batch:
            self._remove(question)
        return batch

    async def _compute(self, batch: list[_Question]) -> None:
        began_s = self._busy_since = self._clock.monotonic()
        texts = [text for question in batch for text in question.texts]
        scores = await self._model.score(texts)
        ended_s = self._clock.monotonic()
        self._busy_since = None
        self._metrics.computed(scores, ended_s - began_s, [began_s - each.arrived_s for each in batch])
        start = 0
        for question in batch:
            end = start + len(question.texts)
            if not question.future.done():
                question.future.set_result(scores[start:end])
            start = end

    def _remove(self, question: _Question) -> None:
        if question in self._questions:
            del self._questions[question]
            self.queued -= len(question.texts)
            if not self._questions:
                self._something.clear()

    def _refused(self, reason: Refusal) -> Backpressure:
        self._metrics.refused(reason)
        error = Backpressure(_WORDS[reason], fix="Try again later, or give it more time.")
        error.status = 503
        return error
