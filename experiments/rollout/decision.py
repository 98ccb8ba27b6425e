"""What a canary does next: a pure function of its ramp, where it stands, and what was seen of it.

Invariants, each with a property test:

* evidence of harm on any guardrail rolls back, whatever else is true, and nothing but a guardrail does;
* traffic rises one step at a time, and never on fewer records than the step asks for, on a guardrail that
  nobody can judge, or on a split that is off;
* a treatment is promoted only when every guardrail's upper bound is under its margin;
* there is a decision for every input: what makes no sense (a clock that went back, a step that the ramp does
  not have) holds, and says so.

What the guardrails say holds at every look (:class:`~experiments.report.GuardrailResult`), so it does no harm
to decide every minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from experiments.ramp import Ramp, Step
from experiments.report import GuardrailResult
from experiments.rollout import wording

Kind = Literal["advance", "hold", "roll_back", "promote", "inconclusive", "insufficient_data", "abort"]
"""``abort`` is a person's word; :func:`decide` never says it."""

Cause = Literal[
    "breach",
    "no_step",
    "paused",
    "clock",
    "sample_ratio",
    "begins",
    "time",
    "no_analysis",
    "no_traffic",
    "events",
    "guardrail_unknown",
    "complete",
    "cleared",
    "guardrail_open",
    "deadline",
    "person",
    "webhook",
    "conflict",
    "failed",
    "ended",
]

# A weight that went through JSON and a sum of percentages is still the same weight.
_SAME_WEIGHT = 1e-6


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a canary stands. ``weight`` is the treatment's now, in percent (``None``: whatever the step says);
    ``paused_by`` who paused it, ``None`` while it is not paused.
    """

    step: int
    step_started_at: datetime | None
    paused_by: str | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the newest analysis says.

    ``step_events`` counts the treatment's records in the current phase, ``as_of`` is the time of the analysis
    (``None`` before the first one of this phase). ``control`` and ``treatment`` are the names for the reasons,
    ``falling`` the metrics that harm makes fall.
    """

    control: str
    treatment: str
    guardrails: tuple[GuardrailResult, ...]
    step_events: int
    sample_ratio_ok: bool
    sample_ratio_reason: str = ""
    as_of: datetime | None = None
    falling: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why in words for a person.

    ``step`` is the one it was taken at, counted from 0. An ``advance`` goes ``to_step``, which may be the same
    one (it begins). ``weight`` is the treatment's from then on, in percent; ``None``: as it is. ``cause`` is the
    reason for programs: two decisions with the same kind, step and cause say the same thing with other numbers.
    """

    kind: Kind
    step: int
    cause: Cause
    reason: str
    to_step: int | None = None
    weight: float | None = None

    @property
    def changes(self) -> bool:
        """Whether it changes anything when it is carried out."""
        return self.kind not in ("hold", "insufficient_data")


def decide(ramp: Ramp, progress: Progress, evidence: Evidence, now: datetime) -> Decision:
    """The next decision on a canary that has not ended; never raises.

    >>> from datetime import UTC, timedelta
    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> seen = Evidence("v7", "v8", (), 40, sample_ratio_ok=True, as_of=noon)
    >>> decide(Ramp(), Progress(0, noon - timedelta(minutes=5)), seen, noon).reason
    'step 1 of 4 (1 %) needs 5 minutes and 60 records of v8 more'
    """
    at = progress.step
    breached = [each for each in evidence.guardrails if is_breached(each)]
    if breached:
        return Decision("roll_back", at, "breach", wording.breach(breached, evidence), weight=0.0)
    if not 0 <= at < len(ramp.steps):
        return Decision(
            "hold", at, "no_step", f"it stands at step {at + 1}, and the rollout has {len(ramp.steps)}"
        )
    if progress.paused_by is not None:
        return Decision("hold", at, "paused", f"paused by {progress.paused_by}")
    disorder = _disorder(progress, evidence, now)
    if disorder is not None:
        return Decision("hold", at, "clock", disorder)
    if not evidence.sample_ratio_ok:
        why = evidence.sample_ratio_reason or "the variants did not get the units that they should have got"
        return Decision("hold", at, "sample_ratio", f"the data cannot be trusted: {why}")
    step = ramp.steps[at]
    if progress.step_started_at is None or not _has_weight(progress, step):
        reason = (
            f"{wording.step(ramp, at)} begins: {evidence.treatment} gets {step.weight:g} % of the traffic"
        )
        return Decision("advance", at, "begins", reason, to_step=at, weight=step.weight)
    return _within_step(ramp, at, progress.step_started_at, evidence, now)


def is_breached(result: GuardrailResult) -> bool:
    """Whether there is, or at some look was, enough evidence of harm."""
    running = result.running_log_e
    return result.state == "breached" or (running is not None and running >= result.threshold)


def is_cleared(result: GuardrailResult) -> bool:
    """Whether the harm's upper bound is known and under the margin."""
    return result.state == "cleared" and result.upper is not None and result.upper < result.margin


def is_unknown(result: GuardrailResult) -> bool:
    """Whether nobody can judge it: no bound, or one that is no number."""
    return result.state == "unknown" or result.upper is None or result.upper != result.upper  # NaN


def _has_weight(progress: Progress, step: Step) -> bool:
    return progress.weight is None or abs(progress.weight - step.weight) <= _SAME_WEIGHT


def _disorder(progress: Progress, evidence: Evidence, now: datetime) -> str | None:
    since, as_of = progress.step_started_at, evidence.as_of
    for moment, what in ((since, "the step began"), (as_of, "the analysis was made")):
        if moment is None:
            continue
        passed = _seconds(moment, now)
        if passed is None:
            return f"nobody can say how long ago {what}: a time has no zone"
        if passed < 0:
            return (
                f"{what} at {wording.moment(moment)}, and it is only {wording.moment(now)}: a clock went back"
            )
    return None


def _seconds(start: datetime, end: datetime) -> float | None:
    """From ``start`` to ``end``; ``None`` when one has a zone and the other has none."""
    if (start.tzinfo is None) != (end.tzinfo is None):
        return None
    return (end - start).total_seconds()


def _within_step(ramp: Ramp, at: int, since: datetime, evidence: Evidence, now: datetime) -> Decision:
    step, last = ramp.steps[at], at == len(ramp.steps) - 1
    elapsed = _seconds(since, now) or 0.0
    analysed = evidence.as_of is not None and (_seconds(since, evidence.as_of) or 0.0) >= 0
    events = evidence.step_events if analysed else 0
    name = wording.step(ramp, at)
    if elapsed < step.duration_s:
        needs = wording.duration(step.duration_s - elapsed)
        if events < step.events:
            needs += f" and {wording.records(step.events - events, evidence.treatment)}"
        return Decision("hold", at, "time", f"{name} needs {needs} more")
    if not analysed:
        return Decision(
            "insufficient_data", at, "no_analysis", f"{name} has not been analysed since it began"
        )
    late = last and elapsed >= ramp.deadline_s
    shortage = _shortage(name, step, since, evidence)
    if shortage is not None:
        cause, reason = shortage
        if late:
            return _out_of_time(ramp, at, reason)
        return Decision("insufficient_data", at, cause, reason)
    if not last:
        after = ramp.steps[at + 1]
        reason = (
            f"{name} is complete with {wording.records(events, evidence.treatment)} and no evidence of harm: "
            f"{evidence.treatment} goes from {step.weight:g} % to {after.weight:g} %"
        )
        return Decision("advance", at, "complete", reason, to_step=at + 1, weight=after.weight)
    still_open = [each for each in evidence.guardrails if not is_cleared(each)]
    if not still_open:
        return Decision(
            "promote", at, "cleared", wording.cleared(evidence.guardrails, evidence), weight=100.0
        )
    reason = wording.still_open(still_open, evidence)
    return _out_of_time(ramp, at, reason) if late else Decision("hold", at, "guardrail_open", reason)


def _shortage(
    name: str, step: Step, since: datetime, evidence: Evidence
) -> tuple[Literal["no_traffic", "events", "guardrail_unknown"], str] | None:
    if evidence.step_events <= 0:
        return "no_traffic", (
            f"{evidence.treatment} has had no traffic in {name}, which began at {wording.moment(since)}"
        )
    if evidence.step_events < step.events:
        return "events", (
            f"{name} has {evidence.step_events:,} of the {wording.records(step.events, evidence.treatment)} that it "
            f"needs, and began at {wording.moment(since)}"
        )
    unknown = [each for each in evidence.guardrails if is_unknown(each)]
    if unknown:
        return "guardrail_unknown", wording.unknown(unknown)
    if not evidence.guardrails:
        return "guardrail_unknown", "there is no guardrail to judge it by"
    return None


def _out_of_time(ramp: Ramp, at: int, reason: str) -> Decision:
    limit = wording.duration(ramp.deadline_s)
    return Decision(
        "inconclusive", at, "deadline", f"not decided within {limit} of the last step: {reason}", weight=0.0
    )
