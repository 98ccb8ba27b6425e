"""How many records are scored and committed at a time.

A batch is a commit: large ones are cheap, but a slow model's answers would be seen late, and what is killed in the middle is
scored again. So a batch is sized to take about :data:`BATCH_S` seconds by what the last one took.
"""

from __future__ import annotations

from typing import Final

BATCH_S: Final = 10.0
_FIRST: Final = 256
_LEAST: Final = 16
_GROWTH: Final = 4


class BatchSize:
    """``rows`` of the next batch, ``most`` at the most.

    >>> size = BatchSize(2_000)
    >>> size.learn(256, 64.0)
    >>> size.rows
    40
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.rows = min(_FIRST, most)

    def learn(self, rows: int, seconds: float) -> None:
        """A batch of ``rows`` took ``seconds``."""
        if rows == 0:
            return
        grown = _GROWTH * self.rows
        fitting = grown if seconds <= 0 else int(min(grown, rows * BATCH_S / seconds))
        self.rows = min(self._most, max(_LEAST, fitting))
