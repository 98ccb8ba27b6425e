"""What a look at the tables gives: additive sums for each metric, and what was left out and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

from experiments.measurement.histogram import Histogram
from experiments.metrics import Metric
from experiments.statistics.statistic import CrossMoments, Moments

Cell = tuple[int, str]
"""A phase and the name of a variant."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric. ``cells`` are its moments over the units of a phase and variant, ``cross`` the sums over units that
    are in two phases, and ``excluded`` counts records by variant and reason.

    ``periods`` are the same moments by the UTC day of the unit's first exposure; a unit counts in one of them with all
    its records, so that they add up to ``cells``. For a quantile there are ``histograms`` of the records, in the
    value's own unit, and the moments are those of the indicator 1{value ≤ ``pilot``}: they say how the share of records
    under a point near the quantile varies between units. ``pilot`` is fixed when each variant has enough units for it
    to be near the quantile; until then it is ``None``, and there are no moments.
    """

    metric: Metric
    cells: dict[Cell, Moments]
    cross: dict[tuple[Cell, Cell], CrossMoments]
    excluded: dict[str, dict[str, int]]
    periods: dict[date, dict[Cell, Moments]] = field(default_factory=dict)
    histograms: dict[Cell, Histogram] = field(default_factory=dict)
    pilot: float | None = None


@dataclass(frozen=True, slots=True)
class Measurements:
    """All metrics of an experiment.

    ``exposures`` are units by phase and variant, each in its first phase; ``records`` counts by variant,
    ``phase_records`` by phase and variant, and ``excluded`` by reason those that belong to no variant;
    ``propensities`` are the mean logged probabilities by phase and variant.
    """

    metrics: tuple[Measured, ...]
    exposures: dict[int, dict[str, int]]
    records: dict[str, int]
    excluded: dict[str, int]
    propensities: dict[int, dict[str, float]]
    phase_records: dict[Cell, int] = field(default_factory=dict)

    @property
    def pilots(self) -> dict[str, float]:
        """The points that are fixed by now, by the name of the quantile metric: a replay is given them."""
        return {each.metric.name: each.pilot for each in self.metrics if each.pilot is not None}
