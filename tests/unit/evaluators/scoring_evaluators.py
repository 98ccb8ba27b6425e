"""Small evaluators for the tests of runs: real code, no model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from evaluators.evaluator import Score, Target, Text


class LengthEvaluator:
    """Scores a text by its number of characters, ``pause_s`` seconds each; ``before`` sees every batch
    first."""

    def __init__(
        self,
        *,
        target: Target = "response",
        pause_s: float = 0.0,
        before: Callable[[Sequence[Text]], object] = lambda batch: None,
    ) -> None:
        self.name = "length"
        self.version = "1"
        self.model = "characters"
        self.target: Target = target
        self.device = "cpu"
        self._pause_s = pause_s
        self._before = before

    def score(self, batch: Sequence[Text]) -> list[Score]:
        self._before(batch)
        scores = []
        for text in batch:
            time.sleep(self._pause_s)
            scored = text.prompt if self.target == "request" else text.response
            assert scored is not None
            scores.append(Score(value=float(len(scored)), label="long" if len(scored) > 20 else "short"))
        return scores
