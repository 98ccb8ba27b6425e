"""The one thread in which the model computes, so that the event loop stays free to answer.

Invariants: one batch at a time; a batch that raises costs its own texts their score and nothing else; the thread is a
daemon, so that a model that never returns does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from queue import SimpleQueue

from evaluators.evaluator import MODEL_ERROR, Evaluator, Score, Text, unscored

logger = logging.getLogger(__name__)

_Job = tuple[list[Text], asyncio.Future[list[Score]], asyncio.AbstractEventLoop]


class ModelThread:
    """Runs ``evaluator`` until :meth:`close`."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        threading.Thread(target=self._run, name="scorer-model", daemon=True).start()

    def score(self, texts: Sequence[str]) -> asyncio.Future[list[Score]]:
        """One score per text, in their order. Never fails because of the model."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Score]] = loop.create_future()
        side = self._evaluator.target
        batch = [Text(text, None) if side == "request" else Text(None, text) for text in texts]
        self._jobs.put((batch, future, loop))
        return future

    def close(self) -> None:
        """Compute nothing more after the batch under way."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch, future, loop = job
            try:
                scores = self._evaluator.score(batch)
                if len(scores) != len(batch):
                    raise ValueError(f"it gave {len(scores)} scores for {len(batch)} texts")
            except Exception as error:  # noqa: BLE001  # a model's code may raise anything
                logger.error("the model failed on %d texts: %s: %s", len(batch), type(error).__name__, error)
                scores = [unscored(MODEL_ERROR, error=str(error) or type(error).__name__)] * len(batch)
            try:
                loop.call_soon_threadsafe(_settle, future, scores)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return


def _settle(future: asyncio.Future[list[Score]], scores: list[Score]) -> None:
    if not future.done():
        future.set_result(scores)
