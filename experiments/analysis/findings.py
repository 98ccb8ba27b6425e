"""Comparisons on their way from numbers to verdicts: several questions are counted together, and what was agreed on before
the start is kept.

Invariant: how many questions are counted was fixed at the start. One that cannot be answered yet counts as well, as no
evidence: otherwise the first that can would spend the error probability of all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from experiments.analysis.committed import Committed
from experiments.analysis.estimate import Estimate
from experiments.analysis.levels import level_of
from experiments.analysis.moment import Moment
from experiments.analysis.outlook import outlook, span
from experiments.analysis.verdict import judge
from experiments.experiment import Experiment, Variant
from experiments.metrics import Metric
from experiments.report import (
    AlwaysValidResult,
    CommittedResult,
    Comparison,
    FixedResult,
    LiftResult,
    LookResult,
    RankResult,
    RatioResult,
    Role,
    Verdict,
)
from experiments.statistics.effect import Undecided
from experiments.statistics.multiplicity import benjamini_hochberg, e_benjamini_hochberg, holm

_NO_FIXED = FixedResult(None, None, None, None)
_NO_ALWAYS = AlwaysValidResult(None, None, None, None, None)
_NO_LIFT = LiftResult(None, None, None)
# An interval that excludes zero at its share of the error probability decides, also when the shares' sum is rounded.
_ROUNDING = 1e-9


@dataclass(slots=True)
class Finding:
    """One comparison on its way to a verdict."""

    metric: Metric
    treatment: Variant
    role: Role
    found: Estimate | Undecided
    committed: Committed | None = None
    adjusted_p: float = math.nan
    fixed_q: float = math.nan

    @property
    def running_p(self) -> float:
        if isinstance(self.found, Undecided):
            return math.nan
        if self.committed is not None:
            return self.committed.p_value
        return math.nan if self.found.running is None else self.found.running.p_value


def role_of(experiment: Experiment, name: str) -> Role:
    """What the metric is for."""
    if name in experiment.primary_metrics:
        return "primary"
    return "secondary" if name in experiment.secondary_metrics else "guardrail"


def adjust(findings: Sequence[Finding]) -> None:
    """Primary ones by Holm on p-values that hold at every look; the others by e-BH on this look's e-values."""
    primary = [each for each in findings if each.role == "primary"]
    for each, adjusted in zip(
        primary, holm([_or_no_evidence(one.running_p) for one in primary]), strict=True
    ):
        each.adjusted_p = adjusted
    others = [each for each in findings if each.role != "primary"]
    numbers = [None if isinstance(each.found, Undecided) else each.found for each in others]
    log_e = [0.0 if found is None or math.isnan(found.log_e) else found.log_e for found in numbers]
    fixed = [1.0 if found is None else _or_no_evidence(found.fixed.p_value) for found in numbers]
    for each, adjusted, q in zip(others, e_benjamini_hochberg(log_e), benjamini_hochberg(fixed), strict=True):
        each.adjusted_p, each.fixed_q = adjusted, q


def _or_no_evidence(p_value: float) -> float:
    return 1.0 if math.isnan(p_value) else p_value


def waiting_for(experiment: Experiment, records: Mapping[str, int], moment: Moment) -> str | None:
    """Why there is no verdict yet although there may be evidence: what was agreed on before the start. ``records`` are
    counts by variant.
    """
    if moment.started_at is not None and experiment.minimum_duration_s:
        wanted = timedelta(seconds=experiment.minimum_duration_s)
        ran = (moment.until or moment.as_of) - moment.started_at
        if ran < wanted:
            return f"it has run for {span(ran)} of at least {span(wanted)}"
    if experiment.minimum_events:
        for variant in experiment.variants:
            seen = records.get(variant.name, 0)
            if seen < experiment.minimum_events:
                return f"{variant.name} has {seen:,} of at least {experiment.minimum_events:,} records"
    return None


def comparison_of(
    experiment: Experiment, finding: Finding, *, distrust: str | None, waiting: str | None
) -> Comparison:
    """The finding with its verdict. ``distrust`` says why no verdict can be given on this data, ``waiting`` why not yet."""
    treatment, control, found = finding.treatment.name, experiment.control.name, finding.found
    if isinstance(found, Undecided):
        return Comparison(
            treatment, control, None, _NO_LIFT, _NO_FIXED, _NO_ALWAYS, "inconclusive", found.reason
        )
    decided = finding.adjusted_p <= experiment.alpha * (1.0 + _ROUNDING)
    verdict: Verdict
    if distrust is not None:
        verdict, reason = "inconclusive", distrust
    elif waiting is not None:
        verdict, reason = "inconclusive", waiting
    else:
        verdict, reason = judge(found, finding.committed, decided=decided)
    running_p = found.running.p_value if found.running else None
    return Comparison(
        treatment=treatment,
        control=control,
        difference=found.difference,
        relative_lift=LiftResult(found.lift.estimate, found.lift.low, found.lift.high),
        fixed=FixedResult(found.fixed.p_value, found.fixed.low, found.fixed.high, found.fixed.method),
        always_valid=AlwaysValidResult(
            found.always.p_value,
            found.always.low,
            found.always.high,
            running_p,
            found.always.r,
            found.method,
        ),
        verdict=verdict,
        reason=reason,
        adjusted_p=finding.adjusted_p,
        fixed_q=finding.fixed_q,
        outlook=outlook(found, experiment, level_of(experiment, found.metric.name), verdict),
        failure_ratio=_ratio_result(found),
        ranks=None
        if found.ranks is None
        else RankResult(found.ranks.probability, found.ranks.low, found.ranks.high, found.ranks.p_value),
        committed=_committed_result(finding.committed),
        variance_removed=found.variance_removed,
    )


def _ratio_result(found: Estimate) -> RatioResult | None:
    if found.ratio is None:
        return None
    ratio, fixed = found.ratio, found.fixed_ratio
    if fixed is None:
        return RatioResult(ratio.estimate, ratio.low, ratio.high)
    return RatioResult(
        ratio.estimate, ratio.low, ratio.high, fixed.p_value, fixed.ratio.low, fixed.ratio.high
    )


def _committed_result(found: Committed | None) -> CommittedResult | None:
    if found is None:
        return None
    return CommittedResult(
        planned_looks=found.planned_looks,
        fraction=found.fraction,
        looks=tuple(LookResult(one.look, one.fraction, one.z, one.boundary) for one in found.looks),
        crossed=found.crossed is not None,
        p_value=found.p_value,
    )
