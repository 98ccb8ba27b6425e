"""Histograms as one worker fills them and all workers add them up.

The bounds are those that OpenTelemetry's semantic conventions for generative AI recommend
(https://github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-metrics.md). They are part of
what is published: workers can only be added when they agree.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

Bounds = tuple[float, ...]

DURATION_S: Final[Bounds] = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
    *(1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
FIRST_TOKEN_S: Final[Bounds] = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
PER_TOKEN_S: Final[Bounds] = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS: Final[Bounds] = tuple(float(4**power) for power in range(14))


class Distribution:
    """How many values fell into each bucket (at or below its bound; the last one is beyond all), and their
    sum.
    """

    __slots__ = ("counts", "total")

    def __init__(self, bounds: Bounds) -> None:
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0


class Histogram:
    """A family of distributions by the values of ``labels``, which must be few."""

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...], bounds: Bounds) -> None:
        self.name = name
        self.help = help_text
        self.labels = labels
        self.bounds = bounds
        self.values: dict[tuple[str, ...], Distribution] = {}

    def observe(self, value: float, *labels: str) -> None:
        """Count one value."""
        distribution = self.values.get(labels)
        if distribution is None:
            distribution = self.values[labels] = Distribution(self.bounds)
        distribution.counts[bisect_left(self.bounds, value)] += 1
        distribution.total += value


def cumulative(bounds: Bounds, counts: Iterable[int]) -> list[tuple[str, float]]:
    """The buckets as Prometheus has them: the label ``le`` and how many values are at or below it."""
    below = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*bounds, None), counts, strict=True):
        below += count
        buckets.append(("+Inf" if bound is None else repr(bound), below))
    return buckets
