"""How long records waited for their scores: the largest and the 99th percentile of any number of them, in bounded memory.

A histogram whose buckets are 2 % wide (as in DDSketch, Masson, Rim and Lee, PVLDB 12(12), 2019), so the percentile is
within 2 % of the exact one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

_STEP: Final = math.log(1.02)
_LEAST_S: Final = 1e-3


class Lag:
    """Collects lags in seconds; what is below a millisecond, or negative by the clocks of two machines, counts as one."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.max_s: float | None = None

    def add(self, lags_s: Iterable[float]) -> None:
        """Some more."""
        for lag in lags_s:
            self._buckets[round(math.log(max(lag, _LEAST_S)) / _STEP)] += 1
            self.max_s = lag if self.max_s is None else max(lag, self.max_s)

    def quantile(self, share: float) -> float | None:
        """The lag that ``share`` of the records did not exceed; ``None`` without records."""
        wanted, seen = share * self._buckets.total(), 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return math.exp(bucket * _STEP)
        return None
