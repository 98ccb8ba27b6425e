"""evaluators.alerts.state: every way from one state to another."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from evaluators.alerts.findings import Finding
from evaluators.alerts.rule import AlertRule
from evaluators.alerts.state import State, advance, longest_gap
from tests.unit.evaluators.alerts.rules import START, breached, clear, insufficient, no_data, rule

MINUTE = timedelta(minutes=1)


def walk(one: AlertRule, findings: list[Finding], every: timedelta = MINUTE) -> list[tuple[str, str | None]]:
    """The states after each finding, and what happened."""
    state: State | None = None
    seen: list[tuple[str, str | None]] = []
    for number, finding in enumerate(findings):
        state, event = advance(state, finding, one, START + number * every)
        seen.append((state.status, event))
    return seen


def test_without_a_wait_it_fires_and_ends_at_once() -> None:
    assert walk(rule(), [clear(), breached(), breached(), clear(), breached()]) == [
        ("ok", None),
        ("firing", "fire"),
        ("firing", None),
        ("ok", "resolve"),
        ("firing", "fire"),
    ]


def test_it_must_hold_for_its_time() -> None:
    one = rule(hold=2 * MINUTE)
    assert [status for status, _ in walk(one, [breached(), breached(), breached()])] == [
        "pending",
        "pending",
        "firing",
    ]
    broken = walk(one, [breached(), breached(), clear(), breached(), breached(), breached()])
    assert broken[2:] == [("ok", None), ("pending", None), ("pending", None), ("firing", "fire")]


def test_it_must_be_over_for_its_time() -> None:
    one = rule(resolve_after=2 * MINUTE)
    seen = walk(one, [breached(), clear(), breached(), clear(), clear(), clear()])
    assert [event for _, event in seen] == ["fire", None, None, None, None, "resolve"]
    assert seen[-2] == ("firing", None)


def test_the_state_says_since_when() -> None:
    one = rule(hold=2 * MINUTE)
    state, _ = advance(None, breached(), one, START)
    state, _ = advance(state, breached(), one, START + MINUTE)
    assert (state.status, state.since, state.breached_since) == ("pending", START, START)
    state, event = advance(state, breached(), one, START + 2 * MINUTE)
    assert (event, state.since, state.breached_since) == ("fire", START + 2 * MINUTE, START)


@pytest.mark.parametrize("finding", [no_data(), insufficient()])
def test_without_data_nothing_is_ok_and_nothing_ends(finding: Finding) -> None:
    one = rule(resolve_after=MINUTE)
    assert walk(one, [finding, clear(), finding]) == [("no_data", None), ("ok", None), ("no_data", None)]
    fired = walk(one, [breached(), finding, finding, clear(), finding, clear(), clear()])
    # What was clear before the data ended does not count towards the end.
    assert fired == [("firing", "fire"), *[("firing", None)] * 5, ("ok", "resolve")]


def test_without_data_the_wait_begins_anew() -> None:
    one = rule(hold=2 * MINUTE)
    seen = walk(one, [breached(), breached(), no_data(), breached(), breached()])
    assert [status for status, _ in seen] == ["pending", "pending", "no_data", "pending", "pending"]


def test_no_data_can_be_worth_an_alert_but_a_quiet_hour_is_not() -> None:
    one = rule(no_data="alert", hold=MINUTE)
    assert walk(one, [no_data(), no_data(), clear()]) == [
        ("pending", None),
        ("firing", "fire"),
        ("ok", "resolve"),
    ]
    assert {status for status, _ in walk(one, [insufficient()] * 5)} == {"no_data"}


def test_no_data_can_count_as_ok_when_the_rule_says_so() -> None:
    assert walk(rule(no_data="ok"), [breached(), no_data(), insufficient()]) == [
        ("firing", "fire"),
        ("ok", "resolve"),
        ("ok", None),
    ]


@pytest.mark.parametrize(("wait", "findings"), [("hold", "breached"), ("resolve_after", "clear")])
def test_time_that_nobody_looked_at_proves_nothing(wait: str, findings: str) -> None:
    changes: dict[str, Any] = {wait: timedelta(minutes=30), "every_s": 60.0}
    one = rule(**changes)
    finding = {"breached": breached(), "clear": clear()}[findings]
    state: State | None = None
    if wait == "resolve_after":
        state, _ = advance(None, breached(), one, START)
    state, _ = advance(state, finding, one, START + MINUTE)
    late = START + MINUTE + longest_gap(one)
    within, _ = advance(state, finding, one, late)
    beyond, event = advance(state, finding, one, late + timedelta(hours=1))
    kept = "breached_since" if wait == "hold" else "clear_since"
    assert getattr(within, kept) == START + MINUTE
    assert getattr(beyond, kept) == late + timedelta(hours=1)
    assert event is None


def test_it_keeps_when_there_was_data() -> None:
    state, _ = advance(None, no_data(), rule(), START)
    assert state.data_at is None
    state, _ = advance(state, clear(), rule(), START + MINUTE)
    state, _ = advance(state, no_data(), rule(), START + 2 * MINUTE)
    assert state.data_at == START + MINUTE
