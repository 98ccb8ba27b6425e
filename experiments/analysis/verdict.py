"""What the numbers mean, in words that a product manager understands.

Invariant: a verdict is only given on evidence that holds however often one looks, and never on data whose
split is off. What stands in its way is always said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from experiments.analysis.committed import Committed
from experiments.analysis.estimate import Estimate
from experiments.metrics import Metric
from experiments.report import Comparison, GuardrailResult, MetricResult, Verdict
from experiments.statistics.lift import Lift
from experiments.statistics.ratio_check import RatioCheck

_MANY_TIMES = 1.0
_TOO_MANY_TIMES = 1e6


def judge(found: Estimate, committed: Committed | None, *, decided: bool) -> tuple[Verdict, str]:
    """The verdict of one comparison and its reason; ``decided`` after all comparisons are counted."""
    if not decided:
        return "inconclusive", _undecided(found, committed)
    metric, difference = found.metric, found.difference
    earlier = _evidence(found, committed)
    if earlier is not None and math.copysign(1.0, earlier[0]) != math.copysign(1.0, difference):
        return (
            "inconclusive",
            f"the evidence of {earlier[1]} pointed the other way than today's, so something has changed",
        )
    size = f"{_estimates(found)}, {lift_words(found.lift)}"
    if metric.better is None:
        return "different", size
    return ("better" if (difference > 0) == (metric.better == "higher") else "worse"), size


def _evidence(found: Estimate, committed: Committed | None) -> tuple[float, str] | None:
    """The difference (or a number of its sign) and the day of the evidence that the verdict rests on."""
    if committed is not None:
        look = committed.crossed
        return None if look is None else (look.z, look.seen_at.date().isoformat())
    running = found.running
    return None if running is None else (running.difference, running.reached_at.date().isoformat())


def _undecided(found: Estimate, committed: Committed | None) -> str:
    open_range = _open_range(found)
    if committed is None:
        return f"not enough evidence, {open_range}"
    taken = len(committed.looks)
    return f"not enough evidence at {taken} of {committed.planned_looks} planned looks, {open_range}"


def sentence(
    ratio: RatioCheck,
    metrics: Sequence[MetricResult],
    units: int,
    unit: str,
    *,
    running: bool,
    guardrails: Sequence[GuardrailResult] = (),
) -> str:
    """One sentence for the whole experiment."""
    if not units:
        return "There is nothing to judge yet: no traffic of this experiment has been recorded."
    if not ratio.ok:
        words = _split_words(ratio, unit)
        return f"The data cannot be trusted: {words}; find out why before reading any result."
    primaries = [metric for metric in metrics if metric.role == "primary"]
    others = [metric for metric in metrics if metric.role != "primary"]
    parts = [
        f"{each.treatment} breaks the guardrail on {each.label}: {each.reason}"
        for each in guardrails
        if each.state == "breached"
    ]
    for index, comparison in enumerate(primaries[0].comparisons):
        parts += [_primary_words(metric, metric.comparisons[index], running=running) for metric in primaries]
        for metric in others:
            parts += [
                _secondary_words(metric, other)
                for other in metric.comparisons
                if other.treatment == comparison.treatment and other.verdict != "inconclusive"
            ]
    return "; ".join(parts) + "."


def split_reason(ratio: RatioCheck, unit: str) -> str:
    """Why nothing can be concluded from a split that is off."""
    return f"the data cannot be trusted: {_split_words(ratio, unit)}"


def _split_words(ratio: RatioCheck, unit: str) -> str:
    worst = max(ratio.observed, key=lambda name: abs(ratio.observed[name] - ratio.expected[name]))
    return (
        f"{worst} got {ratio.observed[worst]:,} of {sum(ratio.observed.values()):,} {unit}s "
        f"where about {ratio.expected[worst]:,.0f} were expected"
    )


def _primary_words(metric: MetricResult, comparison: Comparison, *, running: bool) -> str:
    if comparison.verdict == "inconclusive":
        still = "No verdict yet" if running else "No verdict"
        against = f"{comparison.treatment} against {comparison.control}"
        return f"{still} on {metric.label} of {against}: {comparison.reason}"
    return (
        f"{comparison.treatment} is {comparison.verdict} {_than(comparison)} {comparison.control} "
        f"on {metric.label}: {comparison.reason}"
    )


def _secondary_words(metric: MetricResult, comparison: Comparison) -> str:
    return f"{comparison.treatment} is {comparison.verdict} on {metric.label}: {comparison.reason}"


def _than(comparison: Comparison) -> str:
    return "from" if comparison.verdict == "different" else "than"


def _open_range(found: Estimate) -> str:
    low, high, lift = found.always.low, found.always.high, found.lift
    if not (math.isfinite(low) and math.isfinite(high)):
        return "there is too little traffic to bound the difference"
    if found.metric.kind == "rate":
        return f"the difference may still be anywhere between {low * 100:+.3g} and {high * 100:+.3g} percentage points"
    if math.isfinite(lift.low) and math.isfinite(lift.high):
        return f"it may still be anywhere between {_change(lift.low)} and {_change(lift.high)}"
    return f"the difference may still be anywhere between {low:+.3g} and {high:+.3g}"


def _estimates(found: Estimate) -> str:
    metric = found.metric
    return f"{value_words(metric, found.treatment)} against {value_words(metric, found.control)}"


def value_words(metric: Metric, estimate: float) -> str:
    """An estimate on the metric's scale in its unit: ``98.1 %``, ``812 ms``, ``0.031``."""
    if metric.scale == "log":
        estimate = math.exp(estimate) if estimate < 700.0 else math.inf
    if metric.unit == "rate":
        return f"{estimate * 100:.4g} %"
    if metric.unit == "ms":
        return f"{_number(estimate)} ms"
    return _number(estimate)


def lift_words(lift: Lift) -> str:
    """``12 % lower (8 % to 16 %)``; without the bracket when nothing bounds it."""
    if not math.isfinite(lift.estimate):
        return "a change that cannot be put in percent"
    if not (math.isfinite(lift.low) and math.isfinite(lift.high)):
        return _change(lift.estimate)
    near, far = sorted((lift.low, lift.high), key=abs)
    if near * far > 0 and max(near, far) < _MANY_TIMES:
        return f"{_change(lift.estimate)} ({_percent(near)} to {_percent(far)})"
    if near >= _MANY_TIMES:
        return f"{_change(lift.estimate)} ({_times(near)} to {_times(far)} times)"
    return f"{_change(lift.estimate)} (between {_change(near)} and {_change(far)})"


def _percent(relative: float) -> str:
    return f"{abs(relative) * 100:.3g} %"


def _change(relative: float) -> str:
    if relative >= _MANY_TIMES:
        return f"{_times(relative)} times as high"
    return f"{_percent(relative)} {'higher' if relative >= 0 else 'lower'}"


def _times(relative: float) -> str:
    # A bound that bounds nothing may have twenty digits, and the last of them hang on the order of an addition.
    return _number(1 + relative) if relative < _TOO_MANY_TIMES else "over a million"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
