"""The one shape of an experiment's result, for the command line, the API and the dashboard.

Invariant: :meth:`Report.to_dict` is plain JSON; what cannot be said is null, never NaN, infinity or a
default number.

Per variant, ``estimate`` and ``se`` are in the metric's unit (the geometric mean on the log scale).
``difference`` and the intervals of ``fixed`` and ``always_valid`` are on the metric's scale (``scale``:
``log`` means differences of natural logarithms); ``relative_lift`` is treatment over control minus one on
either scale, with its always-valid interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any, Literal

Verdict = Literal["better", "worse", "different", "inconclusive"]
Role = Literal["primary", "secondary", "guardrail"]


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """Units that the variants should have and have; ``ok`` false: no result can be trusted."""

    p_value: float
    ok: bool
    expected: dict[str, float]
    observed: dict[str, int]
    decided_by: str
    chi_squared_p_value: float
    sequential_p_value: float


@dataclass(frozen=True, slots=True)
class VariantResult:
    """What was measured of one variant; ``excluded`` counts its records without a value."""

    n_units: int
    n_records: int
    excluded: int
    excluded_reasons: dict[str, int]
    estimate: float | None
    se: float | None


@dataclass(frozen=True, slots=True)
class LiftResult:
    """Treatment over control minus one, with its always-valid interval."""

    estimate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class FixedResult:
    """Valid for one look at a time that was set before."""

    p_value: float | None
    low: float | None
    high: float | None
    method: str | None


@dataclass(frozen=True, slots=True)
class AlwaysValidResult:
    """Valid at every look. ``running_p`` is the smallest p-value so far; ``r`` the boundary's tuning at
    this look; ``method`` what the p-value comes from.
    """

    p_value: float | None
    low: float | None
    high: float | None
    running_p: float | None
    r: float | None
    method: str | None = None


@dataclass(frozen=True, slots=True)
class RatioResult:
    """The treatment's rate of failures over the control's, with its exact always-valid interval; and for one look at a time
    that was set before, the exact conditional test of two Poisson rates with its interval.
    """

    estimate: float | None
    low: float | None
    high: float | None
    fixed_p_value: float | None = None
    fixed_low: float | None = None
    fixed_high: float | None = None


@dataclass(frozen=True, slots=True)
class RankResult:
    """Mann and Whitney's test for one look: the probability that an answer of the treatment has a higher value than one of the
    control (ties count half), with Brunner and Munzel's interval.
    """

    probability: float | None
    low: float | None
    high: float | None
    p_value: float | None


@dataclass(frozen=True, slots=True)
class LookResult:
    """One look of a committed horizon: it decides when ``z`` is at or past ``boundary`` (null: it cannot)."""

    look: int
    fraction: float
    z: float
    boundary: float | None


@dataclass(frozen=True, slots=True)
class CommittedResult:
    """A group-sequential design: its looks so far, and how much of the planned information is there."""

    planned_looks: int
    fraction: float | None
    looks: tuple[LookResult, ...]
    crossed: bool
    p_value: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One treatment against the control. ``different``: decided, but the metric has no good direction.

    ``adjusted_p`` is what the verdict is taken by, at the experiment's alpha: Holm's over the primary metrics and
    treatments, e-BH's over the secondary ones. ``fixed_q`` is Benjamini and Hochberg's for the fixed-horizon results
    of the secondary ones. ``outlook`` says what would change the verdict.
    """

    treatment: str
    control: str
    difference: float | None
    relative_lift: LiftResult
    fixed: FixedResult
    always_valid: AlwaysValidResult
    verdict: Verdict
    reason: str
    adjusted_p: float | None = None
    fixed_q: float | None = None
    outlook: str = ""
    failure_ratio: RatioResult | None = None
    ranks: RankResult | None = None
    committed: CommittedResult | None = None
    variance_removed: float | None = None


@dataclass(frozen=True, slots=True)
class MetricResult:
    """One metric over all variants; ``better`` is the good direction."""

    name: str
    label: str
    role: Role
    unit: str
    scale: str
    better: str | None
    variants: dict[str, VariantResult]
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True)
class GuardrailResult:
    """What a guardrail says of one treatment at this look.

    ``harm``, its time-uniform one-sided upper bound ``upper``, ``margin`` and ``tolerance`` are on the metric's
    scale, positive for worse. ``log_e`` is the natural logarithm of the e-value for a harm over ``tolerance``
    now, ``running_log_e`` its largest so far; ``breached`` once that has reached ``threshold``, ln(m/α) for m
    guardrails, and ``cleared`` while ``upper`` is under ``margin``. ``unknown`` says why in ``reason``.
    """

    metric: str
    label: str
    treatment: str
    scale: str
    unit: str
    margin: float
    tolerance: float
    harm: float | None
    upper: float | None
    log_e: float | None
    running_log_e: float | None
    threshold: float
    state: Literal["breached", "cleared", "open", "unknown"]
    method: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Basis:
    """Everything that the report follows from, so that it can be computed again: the definition, the tables at their
    versions (in the report itself), the times between which records count, and the memory of earlier looks
    (:mod:`experiments.analysis.memory`). ``pilots`` are where quantiles are held, ``history`` the versions at which the units'
    earlier records were read.
    """

    code_version: str
    definition: dict[str, Any]
    since: str | None
    until: str | None
    memory: dict[str, Any]
    pilots: dict[str, float]
    history: dict[str, int | None] | None


@dataclass(frozen=True, slots=True)
class ShadowResult:
    """A shadow's answers to the control's requests: how many there are, and how alike.

    ``unpaired`` are requests without a whole answer of the shadow, by reason; ``identical`` is the share of equal answers,
    ``word_overlap`` the mean Jaccard index of their words.
    """

    treatment: str
    pairs: int
    unpaired: int
    unpaired_reasons: dict[str, int]
    identical: float | None
    word_overlap: float | None


@dataclass(frozen=True, slots=True)
class AllocationResult:
    """A bandit's variant: its probability to be the best on the primary metric (null: not known yet), and its weight
    in percent, now and next.
    """

    variant: str
    probability_best: float | None
    weight: float
    next_weight: float


@dataclass(frozen=True, slots=True)
class Report:
    """An experiment's result at one look. ``alpha`` is each primary comparison's share of the experiment's.

    By variant: ``exposures`` are units, ``records`` those of all phases, and ``phase_records`` those of the present
    one.

    ``verdict`` is a sentence; ``rests_on`` and ``would_change`` say what it rests on and what would change it.
    """

    experiment: str
    endpoint: str
    kind: str
    state: str
    as_of: str
    started_at: str | None
    payload_version: int | None
    scores_version: int | None
    feedback_version: int | None
    unit: str
    phase: int
    alpha: float
    units: int
    exposures: dict[str, int]
    records: dict[str, int]
    phase_records: dict[str, int]
    excluded: dict[str, int]
    sample_ratio: SampleRatio
    metrics: tuple[MetricResult, ...]
    guardrails: tuple[GuardrailResult, ...]
    shadows: tuple[ShadowResult, ...]
    allocation: tuple[AllocationResult, ...]
    verdict: str
    rests_on: str
    would_change: str
    basis: Basis

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values only."""
        values: dict[str, Any] = plain(self)
        return values


def plain(value: Any) -> Any:
    """``value`` as JSON-able values: dataclasses as objects, and null for what is no finite number."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
