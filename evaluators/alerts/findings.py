"""Whether a rule's condition is met by a measured value: thresholds, changes beyond chance, and unusual hours.

Methods.

*Change.* With the value c, the reference r and a margin, the alert asks whether the contrast c - k·r lies beyond the
margin with confidence 1 - alpha (k = 1 ± relative margin, or 1 with an absolute one). For means that is Welch's t
(Welch 1947, Biometrika 34). For shares, counts, totals and quantiles the limits of the contrast come from the limits of
the two values by MOVER (Zou & Donner 2008, Statist. Med. 27; for shares with Wilson's limits that is Newcombe's method
10, Statist. Med. 17, 1998). So a change of the margin itself is not flagged more often than alpha per look.

*Anomaly.* Robust z against the same time of past weeks: (c - median) / scale, where scale² is (1.4826 MAD)² (the normal
consistent MAD, Hampel 1974, JASA 69) plus the squared standard error of c itself, so that neither a small sample nor a
history without any spread makes an alarm.

Invariant: too few values or weeks are *insufficient*, never clear.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from scipy import stats

from evaluators.alerts.rule import AlertRule, Anomaly, Change, Threshold
from evaluators.alerts.samples import Count, Mean, Sample, Total, plain

Kind = Literal["breached", "clear", "no_data", "insufficient"]

_MAD_TO_SD: Final = 1.4826
_SE_ALPHA: Final = 0.05


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look at one slice found. ``reason`` is one sentence for a person; ``evidence`` is JSON-able."""

    kind: Kind
    reason: str
    value: float | None = None
    reference: float | None = None
    samples: int | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


def nothing(reason: str) -> Finding:
    """There is nothing to look at."""
    return Finding("no_data", reason)


def past_threshold(rule: AlertRule, condition: Threshold, sample: Sample) -> Finding:
    """Compare with a number."""
    if (few := _too_few(rule, sample)) is not None:
        return few
    value, limit = sample.value, condition.limit
    breached = value > limit if condition.above is not None else value < limit
    side = "above" if condition.above is not None else "below"
    words = f"{rule.measure.words()} is {_shown(value)}, {'' if breached else 'not '}{side} {limit:g}"
    return Finding(
        "breached" if breached else "clear",
        f"{words} ({sample.n:,} values)" if sample.n > 1 else words,
        value,
        limit,
        sample.n,
        plain({"condition": side, "limit": limit}),
    )


def changed(rule: AlertRule, condition: Change, sample: Sample, reference: Sample) -> Finding:
    """Compare with a reference window of the same kind; totals must be scaled to the same length before."""
    for each, which in ((sample, ""), (reference, " in the reference")):
        if (few := _too_few(rule, each, which)) is not None:
            return few
    wanted = ("up", "down") if condition.direction == "both" else (condition.direction,)
    alpha = condition.alpha / len(wanted)
    found: dict[str, bool] = {}
    bounds: dict[str, float] = {}
    for way in wanted:
        bounds[way] = _bound(condition, sample, reference, way, alpha)
        beyond = bounds[way] > _flat(condition) if way == "up" else bounds[way] < -_flat(condition)
        found[way] = beyond
    breached = any(found.values())
    margin = (
        f"{condition.relative:.3g} times the reference"
        if condition.relative is not None
        else f"{condition.absolute:g}"
    )
    what = f"{rule.measure.words()} went from {_shown(reference.value)} to {_shown(sample.value)}"
    end = "beyond" if breached else "which chance explains, or which is within"
    return Finding(
        "breached" if breached else "clear",
        f"{what}, {end} a margin of {margin} ({sample.n:,} against {reference.n:,} values, {condition.against})",
        sample.value,
        reference.value,
        sample.n,
        plain(
            {
                "condition": "change",
                "against": condition.against,
                "reference_samples": reference.n,
                "relative": condition.relative,
                "absolute": condition.absolute,
                "alpha": condition.alpha,
                **{f"bound_{way}": bound for way, bound in bounds.items()},
            }
        ),
    )


def unusual(rule: AlertRule, condition: Anomaly, sample: Sample, weeks: Sequence[Sequence[float]]) -> Finding:
    """Compare with past weeks: for each of them the values at this time and beside it, those with enough samples."""
    if (few := _too_few(rule, sample)) is not None:
        return few
    known = [values for values in weeks if values]
    if len(known) < condition.min_weeks:
        return Finding(
            "insufficient",
            f"insufficient data: {len(known)} past weeks have this time of the week, and {condition.min_weeks} are needed",
            sample.value,
            samples=sample.n,
        )
    past = np.array([value for values in known for value in values], dtype=np.float64)
    median = float(np.median(past))
    mad = float(np.median(np.abs(past - median)))
    lower, upper = sample.limits(_SE_ALPHA)
    error = (upper - lower) / (2 * float(stats.norm.isf(_SE_ALPHA)))
    scale = math.hypot(_MAD_TO_SD * mad, error)
    distance = sample.value - median
    z = distance / scale if scale > 0 else math.copysign(math.inf, distance) if distance else 0.0
    way = z if condition.direction == "up" else -z if condition.direction == "down" else abs(z)
    breached = way > condition.threshold and abs(distance) >= condition.min_change * abs(median)
    usual = f"usual for this time of the week ({_shown(median)} in {len(known)} weeks)"
    return Finding(
        "breached" if breached else "clear",
        f"{rule.measure.words()} is {_shown(sample.value)}, {z:+.1f} robust standard deviations from what is {usual}",
        sample.value,
        median,
        sample.n,
        plain({"condition": "anomaly", "z": z, "mad": mad, "weeks": len(known), "values": len(past)}),
    )


def _too_few(rule: AlertRule, sample: Sample, where: str = "") -> Finding | None:
    if sample.n >= rule.min_samples:
        return None
    if isinstance(sample, Count | Total) and not where:
        return None  # few events are the value itself: traffic that stops must not hide behind them
    reason = f"insufficient data: {sample.n} values{where}, and {rule.min_samples} are needed"
    return Finding("insufficient", reason, None, samples=sample.n)


def _flat(condition: Change) -> float:
    return condition.absolute or 0.0


def _bound(condition: Change, sample: Sample, reference: Sample, way: str, alpha: float) -> float:
    """The confidence limit of c - k·r on the side of no change."""
    up = way == "up"
    sign = math.copysign(1.0, reference.value) if reference.value else 0.0
    factor = 1.0 + (condition.relative or 0.0) * sign * (1.0 if up else -1.0)
    contrast = sample.value - factor * reference.value
    if isinstance(sample, Mean) and isinstance(reference, Mean):
        half = _welch_half(sample, reference, factor, alpha)
    else:
        half = _mover_half(sample, reference, factor, alpha, up)
    return contrast - half if up else contrast + half


def _welch_half(sample: Mean, reference: Mean, factor: float, alpha: float) -> float:
    ours, theirs = sample.variance / sample.n, factor**2 * reference.variance / reference.n
    if ours + theirs == 0.0:
        return 0.0
    freedom = (ours + theirs) ** 2 / (ours**2 / (sample.n - 1) + theirs**2 / (reference.n - 1))
    return float(stats.t.isf(alpha, freedom)) * math.sqrt(ours + theirs)


def _mover_half(sample: Sample, reference: Sample, factor: float, alpha: float, up: bool) -> float:
    lower, upper = sample.limits(alpha)
    lower_reference, upper_reference = reference.limits(alpha)
    # A negative factor (a margin of more than 100 % down) turns the reference's limits around.
    far = upper_reference if up == (factor >= 0) else lower_reference
    ours = sample.value - lower if up else upper - sample.value
    theirs = factor * (far - reference.value) if factor else 0.0
    return math.hypot(ours, theirs)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
