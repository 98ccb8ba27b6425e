"""Takes logged decisions again: from what the log says that they were taken on, and from the report that this came from.

Invariant: as :mod:`experiments.replay`, it writes nothing, and what cannot be taken again is said to be so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from experiments.bandit_controller import REWEIGHT
from experiments.decision_log import Logged
from experiments.ramp import Ramp, Step, Webhook
from experiments.replay import Difference, compare
from experiments.report import GuardrailResult
from experiments.rollout.controller import ACTOR
from experiments.rollout.decision import Decision, Evidence, Progress, decide
from experiments.rollout.evidence import DECIDED_ON

# What a decision became when something stood in its way; the one that was wanted is kept beside it.
_STOOD_IN_THE_WAY: Final = ("webhook", "conflict", "failed")


@dataclass(frozen=True, slots=True)
class DecisionReplay:
    """``agrees``: taken again it is the same, and its numbers are those of its report where that is still kept
    (``with_report``). ``person``: it was somebody's word, of which there is nothing to take again.
    """

    decision: str
    decided_at: datetime
    outcome: Literal["agrees", "differs", "person", "gone"]
    with_report: bool
    differences: tuple[Difference, ...] = ()
    reason: str | None = None


def replay_decision(logged: Logged, reports: Sequence[Mapping[str, Any]]) -> DecisionReplay:
    """Take ``logged`` again; ``reports`` are those that are kept of its experiment."""
    report = next((each for each in reports if each["as_of"] == logged.evidence.get("as_of")), None)
    if logged.decision == REWEIGHT:
        found = _again_from_report("allocation", logged, report)
    elif logged.by != ACTOR:
        return DecisionReplay(logged.decision, logged.decided_at, "person", False)
    elif DECIDED_ON not in logged.evidence:
        reason = "it was taken by an older servelens, which did not keep what it was taken on"
        return DecisionReplay(logged.decision, logged.decided_at, "gone", False, reason=reason)
    else:
        found = [*_again(logged), *_again_from_report("guardrails", logged, report)]
    if logged.decision == REWEIGHT and report is None:
        reason = "the report that it follows from is not kept any more"
        return DecisionReplay(logged.decision, logged.decided_at, "gone", False, reason=reason)
    return DecisionReplay(
        logged.decision,
        logged.decided_at,
        "differs" if found else "agrees",
        report is not None,
        tuple(found),
    )


def _again(logged: Logged) -> list[Difference]:
    evidence = logged.evidence
    taken: Decision = decide(*_input(evidence))
    stood = evidence.get("cause") in _STOOD_IN_THE_WAY
    was = evidence.get("wanted", logged.decision) if stood else logged.decision
    wanted = {"decision": was, "to_step": None if stood else evidence.get("to_step")}
    again = {"decision": taken.kind, "to_step": None if stood else taken.to_step}
    return list(compare("", wanted, again))


def _input(evidence: Mapping[str, Any]) -> tuple[Ramp, Progress, Evidence, datetime]:
    on = evidence[DECIDED_ON]
    ramp = Ramp(
        tuple(Step(**step) for step in on["ramp"]["steps"]),
        on["ramp"]["deadline_s"],
        on["ramp"]["dry_run"],
        tuple(Webhook(**webhook) for webhook in on["ramp"]["webhooks"]),
    )
    progress = on["progress"]
    return (
        ramp,
        Progress(
            progress["step"], _moment(progress["step_started_at"]), progress["paused_by"], progress["weight"]
        ),
        Evidence(
            on["control"],
            on["treatment"],
            tuple(GuardrailResult(**each) for each in evidence["guardrails"]),
            evidence["step_events"],
            on["sample_ratio_ok"],
            on["sample_ratio_reason"],
            _moment(on["as_of"]),
            frozenset(on["falling"]),
        ),
        datetime.fromisoformat(on["now"]),
    )


def _again_from_report(name: str, logged: Logged, report: Mapping[str, Any] | None) -> list[Difference]:
    if report is None:
        return []
    return list(compare(name, logged.evidence[name], report[name]))


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
