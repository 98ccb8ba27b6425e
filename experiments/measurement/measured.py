"""What a look at the tables gives: additive sums for each metric, and what was left out and why."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from datetime import date

from experiments.measurement.histogram import Histogram
from experiments.metrics import Metric
from experiments.statistics.cuped import CovariateMoments
from experiments.statistics.statistic import CrossMoments, Moments

Cell = tuple[int, str]
"""A phase and the name of a variant."""


@dataclass(frozen=True, slots=True)
class Versions:
    """Which versions of an endpoint's tables are read; ``None`` where there is no table yet."""

    payload: int | None
    scores: int | None
    feedback: int | None

    def reaches(self, other: Versions) -> bool:
        """Whether no table is at an older version than in ``other``."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return all(
            (-1 if mine is None else mine) >= (-1 if theirs is None else theirs) for mine, theirs in pairs
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric. ``cells`` are its moments over the units of a phase and variant, ``cross`` the sums over units that
    are in two phases, and ``excluded`` counts records by variant and reason.

    ``periods`` are the same moments by the UTC day of the unit's first exposure; a unit counts in one of them with all
    its records, so that they add up to ``cells``. For a quantile there are ``histograms`` of the records, in the
    value's own unit, and the moments are those of the indicator 1{value ≤ ``pilot``}: they say how the share of records
    under a point near the quantile varies between units. ``pilot`` is fixed when each variant has enough units for it
    to be near the quantile; until then it is ``None``, and there are no moments. ``covariates`` are the moments together
    with what the units did before the experiment, where that was asked for.
    """

    metric: Metric
    cells: dict[Cell, Moments]
    cross: dict[tuple[Cell, Cell], CrossMoments]
    excluded: dict[str, dict[str, int]]
    periods: dict[date, dict[Cell, Moments]] = field(default_factory=dict)
    histograms: dict[Cell, Histogram] = field(default_factory=dict)
    pilot: float | None = None
    covariates: dict[Cell, CovariateMoments] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Pairs by where a rate's value is 1."""

    both: int
    only_control: int
    only_treatment: int
    neither: int


@dataclass(frozen=True, slots=True)
class PairedMetric:
    """The differences, treatment minus control, on the metric's scale: sums over units, with the number of its pairs as a
    unit's records; and the same sums of either side's values. ``counts`` are for rates. ``excluded`` are pairs by side and
    reason.
    """

    metric: Metric
    differences: Moments
    control: Moments
    treatment: Moments
    counts: PairCounts | None
    excluded: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Pairs:
    """What one treatment answered in the control's place.

    ``originals`` are the control's records, ``mirrored`` those with a mirror. ``answers_identical`` (1 where the texts are
    the same but for white space) and ``word_overlap`` (the share of words that both answers have among those that either
    has) are sums over units, of pairs with two whole answers. ``without_answer`` counts originals by reason: ``failed``
    (there is a mirror, and no whole answer), and without a mirror ``dropped``, or ``not_mirrored`` where only a share is
    mirrored, so that nobody can say of one whether it was meant to be.
    """

    treatment: str
    originals: int
    mirrored: int
    metrics: tuple[PairedMetric, ...]
    answers_identical: Moments
    word_overlap: Moments
    without_answer: dict[str, int]


@dataclass(frozen=True, slots=True)
class Measurements:
    """All metrics of an experiment.

    ``exposures`` are units by phase and variant, each in its first phase; ``records`` counts by variant,
    ``phase_records`` by phase and variant, and ``excluded`` by reason those that belong to no variant;
    ``propensities`` are the mean logged probabilities by phase and variant. ``pairs`` are a shadow experiment's, which
    exposes nobody. ``history`` says at which versions the units' earlier records were read: once, so a look that is
    repeated is given them.
    """

    metrics: tuple[Measured, ...]
    exposures: dict[int, dict[str, int]]
    records: dict[str, int]
    excluded: dict[str, int]
    propensities: dict[int, dict[str, float]]
    phase_records: dict[Cell, int] = field(default_factory=dict)
    pairs: tuple[Pairs, ...] = ()
    history: Versions | None = None

    @property
    def pilots(self) -> dict[str, float]:
        """The points that are fixed by now, by the name of the quantile metric: a replay is given them."""
        return {each.metric.name: each.pilot for each in self.metrics if each.pilot is not None}
