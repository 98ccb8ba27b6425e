"""Where a rule's slice stands, and what a new finding makes of it: ok → pending → firing → ok, and no data.

A pure function, so that every path can be tested without a database or a clock. Invariants:

* an alert fires once its condition was met at every look for ``hold``, and ends once it was not met at every look for
  ``resolve_after``;
* without data nothing becomes ok and nothing that fires ends, unless the rule says so (``no_data``);
* time that nobody looked at proves nothing: after a gap longer than :func:`longest_gap` both waits begin anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from evaluators.alerts.findings import Finding
from evaluators.alerts.rule import AlertRule

Status = Literal["ok", "pending", "firing", "no_data"]
Event = Literal["fire", "resolve"]

_SHORTEST_GAP: Final = timedelta(minutes=5)
_LOOKS_MISSED: Final = 3


@dataclass(frozen=True, slots=True)
class State:
    """Where a slice stands. ``data_at`` is when there was data last."""

    status: Status
    since: datetime
    evaluated_at: datetime
    breached_since: datetime | None = None
    clear_since: datetime | None = None
    data_at: datetime | None = None


def longest_gap(rule: AlertRule) -> timedelta:
    """Time between two looks in which a condition counts as unbroken."""
    return max(_LOOKS_MISSED * timedelta(seconds=rule.every_s), _SHORTEST_GAP)


def advance(
    state: State | None, finding: Finding, rule: AlertRule, now: datetime
) -> tuple[State, Event | None]:
    """The state after a look at ``now``, and what happened. ``state`` is ``None`` for a slice that is new."""
    state = state or State("ok", now, now)
    if now - state.evaluated_at > longest_gap(rule):
        state = replace(state, breached_since=None, clear_since=None)
    state = replace(
        state,
        evaluated_at=now,
        data_at=now if finding.kind in ("breached", "clear") else state.data_at,
    )
    match _signal(finding, rule):
        case "breached":
            return _breached(state, rule, now)
        case "clear":
            return _clear(state, rule, now)
        case "unknown":
            if state.status == "firing":
                return replace(state, clear_since=None), None
            return _now(replace(state, breached_since=None), "no_data", now), None


def _signal(finding: Finding, rule: AlertRule) -> Literal["breached", "clear", "unknown"]:
    if finding.kind in ("breached", "clear"):
        return "breached" if finding.kind == "breached" else "clear"
    if rule.no_data == "ok":
        return "clear"
    # Few values are a quiet hour; only no value at all is what 'alert' is for.
    return "breached" if rule.no_data == "alert" and finding.kind == "no_data" else "unknown"


def _breached(state: State, rule: AlertRule, now: datetime) -> tuple[State, Event | None]:
    state = replace(state, breached_since=state.breached_since or now, clear_since=None)
    assert state.breached_since is not None, "set in the line before"
    if state.status == "firing":
        return state, None
    if now - state.breached_since >= rule.hold:
        return _now(state, "firing", now), "fire"
    return _now(state, "pending", now), None


def _clear(state: State, rule: AlertRule, now: datetime) -> tuple[State, Event | None]:
    state = replace(state, breached_since=None, clear_since=state.clear_since or now)
    assert state.clear_since is not None, "set in the line before"
    if state.status != "firing":
        return _now(state, "ok", now), None
    if now - state.clear_since >= rule.resolve_after:
        return _now(state, "ok", now), "resolve"
    return state, None


def _now(state: State, status: Status, now: datetime) -> State:
    return state if state.status == status else replace(state, status=status, since=now)
