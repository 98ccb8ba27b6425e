"""What a verdict rests on and what would change it, in words that a product manager understands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from scipy.optimize import brentq

from experiments.analysis.estimate import Estimate
from experiments.experiment import Experiment
from experiments.report import GuardrailResult, MetricResult
from experiments.statistics.sequential import critical_value

# Nobody waits for more than this many times the traffic so far.
_PATIENCE = 100.0


def outlook(found: Estimate, experiment: Experiment, level: float, verdict: str) -> str:
    """How much more traffic would decide the comparison if its difference stayed as it is."""
    if verdict != "inconclusive":
        return "it stands: the error probability already counts every look, past and future"
    if experiment.committed_looks:
        if found.information_fraction >= 1.0:
            return "all planned looks have been taken, so more traffic changes nothing"
        if math.isfinite(found.information_fraction):
            left = 1.0 - found.information_fraction
            return (
                f"the next planned look decides; {left * 100:.0f} % of the planned traffic is still to come"
            )
    if not (math.isfinite(found.always.critical) and found.always.r > 0):
        return "how much more traffic decides it cannot be said yet"
    times = _times_as_much(found, level)
    if times is None:
        return "with a difference as small as today's, no reasonable amount of traffic decides it"
    if times <= 1.0:
        return "if the difference stays as it is, it is decided once nothing else stands in the way"
    return f"if the difference stays as it is, about {times:.2g} times the traffic so far decides it"


def rests_on(
    experiment: Experiment,
    noun: str,
    units: int,
    exposures: Mapping[str, int],
    started_at: datetime | None,
    until: datetime,
) -> str:
    """One sentence on the amount of evidence and the promise that it keeps."""
    arms = ", ".join(f"{count:,} with {name}" for name, count in exposures.items())
    if not experiment.assigns:
        arms = "answers of both to the same requests"
    ran = ""
    if started_at is not None:
        ran = f" in {span(until - started_at)}"
    how = (
        f"{experiment.committed_looks} planned looks (group sequential)"
        if experiment.committed_looks
        else "any number of looks (always valid)"
    )
    return f"{units:,} {noun}s{ran} ({arms}); at most {experiment.alpha * 100:g} % wrong verdicts over {how}."


def span(length: timedelta) -> str:
    """``3 days``, ``2.5 hours``, ``40 seconds``."""
    seconds = max(length.total_seconds(), 0.0)
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} seconds"


def would_change(
    metrics: Sequence[MetricResult], guardrails: Sequence[GuardrailResult], *, running: bool
) -> str:
    """One sentence for each primary comparison that is open, and for each guardrail that is."""
    if not running:
        return "Nothing: it has ended."
    parts = [
        f"{comparison.treatment} on {metric.label}: {comparison.outlook}"
        for metric in metrics
        if metric.role == "primary"
        for comparison in metric.comparisons
        if comparison.outlook
    ]
    parts += [
        f"{each.treatment} on {each.label}: {each.reason}" for each in guardrails if each.state == "open"
    ]
    return "; ".join(parts) + "." if parts else "More traffic."


def _times_as_much(found: Estimate, level: float) -> float | None:
    """The factor on the information at which the same difference reaches the boundary."""
    se = (found.always.high - found.always.low) / (2.0 * found.always.critical)
    if not (math.isfinite(se) and se > 0):
        return None
    square = (found.difference / se) ** 2

    def excess(factor: float) -> float:
        return factor * square - float(critical_value(factor * found.always.r, level)) ** 2

    if excess(1.0) >= 0:
        return 1.0
    if excess(_PATIENCE) < 0:
        return None
    return float(brentq(excess, 1.0, _PATIENCE, xtol=1e-3))
