"""What a measure of agreement comes out as: a number with its interval, or why there is none.

Invariant: what the labels do not determine is ``None`` with a reason, never a number.

Interval of a share: Wilson's score interval (Wilson 1927; Brown, Cai, DasGupta 2001). Interval of a coefficient: Fisher's z,
that is ``tanh(atanh(value) ± margin / (1 − value²))``, which never leaves the coefficient's range and is wider on the side where
there is more room; for the few dozen cases that people label it covers more often than ``value ± margin``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Final

CONFIDENCE: Final = 0.95
Z: Final = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True, slots=True)
class Interval:
    """Both bounds at :data:`CONFIDENCE`."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Measure:
    """``value`` over ``cases`` cases. ``reason`` says why there is no value, or, where there is one, no interval."""

    value: float | None
    interval: Interval | None
    cases: int
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def undetermined(cases: int, reason: str) -> Measure:
    """No value, because of ``reason``."""
    return Measure(None, None, cases, reason)


def wilson(share: float, count: float) -> Interval:
    """The interval of ``share``, between 0 and 1, of ``count`` > 0 independent trials."""
    centre = share + Z * Z / (2 * count)
    spread = Z * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    scale = 1 + Z * Z / count
    return Interval(max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))


def transformed(value: float, margin: float, *, low: float = -1.0) -> Interval | None:
    """The interval of a coefficient between ``low`` and 1 whose own scale would give ``value ± margin``; ``None`` where the
    margin is no number, or the value is at an end, where the margin says nothing.
    """
    half = (1 - low) / 2
    place, spread = (value - low) / half - 1, margin / half
    if not math.isfinite(spread) or spread <= 0 or not -1 < place < 1:
        return None
    centre, reach = math.atanh(place), spread / (1 - place * place)
    return Interval(
        low + half * (math.tanh(centre - reach) + 1), low + half * (math.tanh(centre + reach) + 1)
    )
