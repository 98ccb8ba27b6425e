"""Keeps calls from waiting for a served entity that does not answer at all.

Only calls that got no answer from any replica, while none of them was usable, count: a backend that answers with
errors tells clients itself, and quickly. After five in a row the breaker is open: calls are refused at once but for
one each period, and the first answer closes it.

Source: the circuit breaker of M. Nygard, Release It!, 2nd ed., ch. 5 (closed, open, half open).
"""

from __future__ import annotations

from typing import Final

_OPENS_AFTER: Final = 5


class CircuitBreaker:
    """One served entity's. Times are seconds of a monotonic clock."""

    __slots__ = ("_failures", "_lets_through_s", "is_open")

    def __init__(self) -> None:
        self.is_open = False
        self._failures = 0
        self._lets_through_s = 0.0

    def failed(self, period_s: float, now_s: float) -> None:
        """A call got no answer, and no replica is usable."""
        self._failures += 1
        if self._failures >= _OPENS_AFTER and not self.is_open:
            self.is_open = True
            self._lets_through_s = now_s + period_s

    def answered(self) -> None:
        """Somebody has answered."""
        self.is_open = False
        self._failures = 0

    def refuses(self, period_s: float, now_s: float) -> float | None:
        """How long a call should wait before it comes again; ``None`` when it may go on."""
        if not self.is_open:
            return None
        left_s = self._lets_through_s - now_s
        if left_s > 0:
            return left_s
        self._lets_through_s = now_s + period_s
        return None
