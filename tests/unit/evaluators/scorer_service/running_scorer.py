"""A real scorer service on the test's own event loop, with a rule in the place of a model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from evaluators.evaluator import MODEL_ERROR, Score, Target, Text, target_text, unscored
from evaluators.scorer_service.server import ServiceConfig, bind, run_service
from servelens.clock import SystemClock

PATIENCE_S = 10.0


class RuleEvaluator:
    """A text with ``hate`` scores 0.9, any other 0.1; one without a letter of the alphabet, or with ``broken``, has no score.
    While ``gate`` is clear the model hangs. ``asked`` counts batches begun; ``seen`` has all texts, ``batches`` their numbers.
    """

    name = "rule"
    model = "rule"
    device = "cpu"

    def __init__(self, target: Target = "response", version: str = "1") -> None:
        self.target: Target = target
        self.version = version
        self.gate = threading.Event()
        self.gate.set()
        self.asked = 0
        self.seen: list[str] = []
        self.batches: list[int] = []

    def score(self, batch: Sequence[Text]) -> list[Score]:
        self.asked += 1
        self.gate.wait(PATIENCE_S)
        texts = [target_text(text, self.target) or "" for text in batch]
        self.seen += texts
        self.batches.append(len(batch))
        if any("explode" in text for text in texts):
            raise RuntimeError("the model exploded")
        return [self._score(text) for text in texts]

    def _score(self, text: str) -> Score:
        if "broken" in text:
            return unscored(MODEL_ERROR, error="broken")
        if not any(letter.isascii() and letter.isalpha() for letter in text):
            return unscored("unknown_words")
        value = 0.9 if "hate" in text.lower() else 0.1
        return Score(value, label="toxic" if value >= 0.5 else "ok")


@asynccontextmanager
async def running_scorer(evaluator: RuleEvaluator, *, port: int = 0, **config: Any) -> AsyncIterator[str]:
    """The address of a service that answers. What its warm-up scored is forgotten."""
    listener = bind("127.0.0.1", port)
    stop = asyncio.Event()
    service = asyncio.create_task(
        run_service(evaluator, ServiceConfig(**config), listener, SystemClock(), stop=stop)
    )
    host, taken = listener.getsockname()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection(host, taken)
                except OSError:
                    assert not service.done()
                    await asyncio.sleep(0.005)
                else:
                    writer.close()
                    break
        evaluator.asked = 0
        evaluator.seen.clear()
        evaluator.batches.clear()
        yield f"http://{host}:{taken}"
    finally:
        evaluator.gate.set()
        stop.set()
        await asyncio.wait_for(service, PATIENCE_S)
        listener.close()
