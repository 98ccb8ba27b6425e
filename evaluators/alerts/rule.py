"""What an alert rule is: what is measured, over which window, and when that is worth somebody's attention.

Invariant: a rule that can be built can be evaluated. What does not go together (a drift statistic against the same hour
of past weeks, for example) is refused here with the name of the key, so that settings and API have the same rules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from evaluators.drift.windows import Granularity
from servelens.errors import Invalid

Severity = Literal["critical", "error", "warning", "info"]
NoData = Literal["keep", "ok", "alert"]
Direction = Literal["up", "down", "both"]
AggregateKind = Literal[
    "mean", "median", "p95", "p99", "share_above", "share_below", "share_label", "unscored_share"
]
TrafficMetric = Literal[
    "requests",
    "error_rate",
    "latency_mean",
    "latency_median",
    "latency_p95",
    "latency_p99",
    "time_to_first_token_median",
    "time_to_first_token_p95",
    "input_tokens",
    "output_tokens",
    "tokens",
]
DriftStatistic = Literal[
    "drifted_columns",
    "effect",
    "js_distance",
    "psi",
    "tv_distance",
    "l_infinity_distance",
    "wasserstein_distance",
    "embedding_distance",
    "domain_classifier_auc",
]

WHOLE: Final = ""
"""The slice of a rule that looks at all of the traffic together."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What is made of the values of a window. ``limit`` belongs to ``share_above`` and ``share_below``, ``label`` to
    ``share_label``, and to no other.
    """

    kind: AggregateKind = "mean"
    limit: float | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if (self.limit is not None) != (self.kind in ("share_above", "share_below")):
            raise Invalid(
                f"'{self.kind}' {'takes none' if self.limit is not None else 'needs one'}",
                field="limit",
                fix="Give it with aggregate: share_above or share_below, and only there.",
            )
        if self.limit is not None and not math.isfinite(self.limit):
            raise Invalid(f"{self.limit} is no limit", field="limit", fix="Give a number.")
        if (self.label is not None) != (self.kind == "share_label"):
            raise Invalid(
                f"'{self.kind}' {'takes none' if self.label is not None else 'needs one'}",
                field="label",
                fix="Give it with aggregate: share_label, and only there.",
            )

    def words(self, of: str) -> str:
        """``share of toxicity above 0.5``."""
        if self.kind in ("share_above", "share_below"):
            return f"share of {of} {self.kind.removeprefix('share_')} {self.limit:g}"
        if self.kind == "share_label":
            return f"share of {of} '{self.label}'"
        if self.kind == "unscored_share":
            return f"share without a score of {of}"
        return f"{self.kind} {of}"


@dataclass(frozen=True, slots=True)
class ScoreMeasure:
    """Scores of ``evaluator`` on ``target``, of the requests of the window."""

    evaluator: str
    target: Literal["request", "response"] = "response"
    aggregate: Aggregate = Aggregate()

    def words(self) -> str:
        return self.aggregate.words(
            f"{self.evaluator}{' of the request' if self.target == 'request' else ''}"
        )


@dataclass(frozen=True, slots=True)
class TrafficMeasure:
    """A number of the inference table; times in milliseconds, requests and tokens as totals of the window."""

    metric: TrafficMetric

    def words(self) -> str:
        return self.metric.replace("_", " ")


@dataclass(frozen=True, slots=True)
class DriftMeasure:
    """A statistic of the newest rows of the drift table. ``column`` ``None`` is any column: the largest value of them."""

    statistic: DriftStatistic = "drifted_columns"
    column: str | None = None
    granularity: str = "1 hour"
    drift_type: Literal["CONSECUTIVE", "BASELINE"] = "CONSECUTIVE"
    alpha: float = 0.05

    def __post_init__(self) -> None:
        Granularity.parse(self.granularity)
        if not 0 < self.alpha < 1:
            raise Invalid(f"{self.alpha} is not between 0 and 1", field="drift.alpha", fix="Use 0.05.")

    def words(self) -> str:
        if self.statistic == "drifted_columns":
            which = "columns" if self.column is None else f"column {self.column}"
            return f"drifted {which} ({self.granularity})"
        return f"{self.statistic.replace('_', ' ')} of {self.column or 'any column'} ({self.granularity})"


@dataclass(frozen=True, slots=True)
class FeedbackMeasure:
    """Feedback called ``name`` that arrived in the window."""

    name: str
    aggregate: Aggregate = Aggregate()

    def __post_init__(self) -> None:
        if self.aggregate.kind == "unscored_share":
            raise Invalid("feedback has no scores", field="aggregate", fix="Use mean or share_below.")

    def words(self) -> str:
        return self.aggregate.words(f"feedback {self.name}")


@dataclass(frozen=True, slots=True)
class LagMeasure:
    """Seconds that the oldest record newer than the newest scored one has waited for ``evaluator``."""

    evaluator: str
    target: Literal["request", "response"] = "response"

    def words(self) -> str:
        return f"seconds that {self.evaluator} lags behind"


Measure = ScoreMeasure | TrafficMeasure | DriftMeasure | FeedbackMeasure | LagMeasure


@dataclass(frozen=True, slots=True)
class Threshold:
    """The value is over ``above``, or under ``below``: one of the two."""

    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        if (self.above is None) == (self.below is None):
            raise Invalid("a threshold has one side", field="above", fix="Give either 'above' or 'below'.")
        if not math.isfinite(self.limit):
            raise Invalid(f"{self.limit} is no threshold", field="above", fix="Give a number.")

    @property
    def limit(self) -> float:
        limit = self.below if self.above is None else self.above
        assert limit is not None, "checked when it was made"
        return limit


@dataclass(frozen=True, slots=True)
class Change:
    """The value differs from a reference window by more than a margin, beyond what chance explains at ``alpha``.

    The margin is ``relative`` (0.2 for 20 % of the reference) or ``absolute`` (in the measure's unit). The reference is
    the window before, the ``windows`` before together, or everything between ``baseline_start`` and ``baseline_end``.
    """

    against: Literal["previous", "trailing", "baseline"] = "previous"
    relative: float | None = None
    absolute: float | None = None
    direction: Direction = "up"
    windows: int = 4
    baseline_start: datetime | None = None
    baseline_end: datetime | None = None
    alpha: float = 0.001

    def __post_init__(self) -> None:
        if (self.relative is None) == (self.absolute is None):
            raise Invalid(
                "a change has one margin", field="change.relative", fix="Give 'relative' or 'absolute'."
            )
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise Invalid(
                f"{self.margin} is no margin",
                field="change.relative" if self.absolute is None else "change.absolute",
                fix="Use 0.2 for 20 %, for example; 'direction' says which way.",
            )
        if not 0 < self.alpha < 0.5:
            raise Invalid(f"{self.alpha} is not between 0 and 0.5", field="change.alpha", fix="Use 0.001.")
        if not 1 <= self.windows <= 100:
            raise Invalid(f"{self.windows} windows", field="change.windows", fix="Use 1 to 100.")
        given = (self.baseline_start is not None, self.baseline_end is not None)
        if given != ((True, True) if self.against == "baseline" else (False, False)):
            raise Invalid(
                "a baseline has a start and an end",
                field="change.baseline_start",
                fix="Give both with against: baseline, and neither otherwise.",
            )
        if self.baseline_start and self.baseline_end and self.baseline_start >= self.baseline_end:
            raise Invalid("it is not after the start", field="change.baseline_end", fix="Swap them.")

    @property
    def margin(self) -> float:
        margin = self.absolute if self.relative is None else self.relative
        assert margin is not None, "checked when it was made"
        return margin


@dataclass(frozen=True, slots=True)
class Anomaly:
    """The value is ``threshold`` robust standard deviations away from the same time of the last ``weeks`` weeks.

    ``neighbours`` windows on either side of that time count as well. ``min_change`` is the least relative difference
    from their median that is worth an alert.
    """

    direction: Direction = "both"
    threshold: float = 5.0
    weeks: int = 6
    min_weeks: int = 3
    neighbours: int = 1
    min_change: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= 100:
            raise Invalid(f"{self.threshold} is out of range", field="anomaly.threshold", fix="Use 5.")
        if not 2 <= self.min_weeks <= self.weeks <= 52:
            raise Invalid(
                f"{self.min_weeks} of {self.weeks} weeks",
                field="anomaly.min_weeks",
                fix="Use 2 to 52 weeks, and no more 'min_weeks' than 'weeks'.",
            )
        if not 0 <= self.neighbours <= 3:
            raise Invalid(f"{self.neighbours} neighbours", field="anomaly.neighbours", fix="Use 0 to 3.")
        if not (math.isfinite(self.min_change) and self.min_change >= 0):
            raise Invalid(f"{self.min_change} is no change", field="anomaly.min_change", fix="Use 0.1.")


Condition = Threshold | Change | Anomaly


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One rule.

    ``window`` is the time that the value is of; for drift, how old the end of the newest drift window may be. ``delay``
    is the time that records need to reach their table: the window ends so long ago. ``hold`` is how long the condition
    must be met before the alert fires, ``resolve_after`` how long it must not be met before it ends. ``sliced`` looks at
    each variant by itself (without an experiment: at each served entity), ``variant`` at one of them.
    """

    name: str
    endpoint: str
    measure: Measure
    condition: Condition
    window: timedelta
    delay: timedelta = timedelta(seconds=15)
    hold: timedelta = timedelta(0)
    resolve_after: timedelta = timedelta(0)
    min_samples: int = 1
    severity: Severity = "warning"
    no_data: NoData = "keep"
    channels: tuple[str, ...] = ()
    every_s: float = 60.0
    sliced: bool = False
    variant: str | None = None
    remind_every: timedelta | None = None
    description: str = ""

    def __post_init__(self) -> None:
        if self.window <= timedelta(0):
            raise Invalid("a window has a length", field="window", fix="Use 10m, for example.")
        if self.sliced and self.variant is not None:
            raise Invalid(
                "'slice' looks at each of them already", field="variant", fix="Give one of the two."
            )
        if isinstance(self.measure, DriftMeasure | LagMeasure) and not isinstance(self.condition, Threshold):
            raise Invalid(
                "drift and lag are compared with a number only",
                field="change" if isinstance(self.condition, Change) else "anomaly",
                fix="Use 'above'.",
            )
        if isinstance(self.condition, Change | Anomaly) and self.min_samples < 2:
            raise Invalid("one value has no variance", field="min_samples", fix="Use 30, or at least 2.")
        if isinstance(self.condition, Anomaly) and self.window > timedelta(days=1):
            raise Invalid("is longer than a day", field="window", fix="Use 1h with 'anomaly'.")
