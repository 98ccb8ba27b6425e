"""Decisions are a pure function: the cases that a person would ask about, and properties over arbitrary input."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.ramp import LONGEST_S, Ramp, Step
from experiments.report import GuardrailResult
from experiments.rollout.decision import Cause, Decision, Evidence, Kind, Progress, decide
from tests.unit.experiments.records import START
from tests.unit.experiments.rollout.canary import RAMP, guardrail, latency, minutes


def evidence(events: int = 1_000, *results: GuardrailResult, **changes: Any) -> Evidence:
    given: dict[str, Any] = {
        "control": "v7",
        "treatment": "v8",
        "guardrails": results or (guardrail(), latency()),
        "step_events": events,
        "sample_ratio_ok": True,
        "as_of": START + minutes(10),
    }
    return Evidence(**{**given, **changes})


def decided(
    step: int = 0, after: float = 10, seen: Evidence | None = None, ramp: Ramp = RAMP, **progress: Any
) -> Decision:
    seen = seen or evidence()
    now = START + minutes(after)
    if seen.as_of == START + minutes(10):
        seen = replace(seen, as_of=now)
    return decide(ramp, Progress(step, START, **progress), seen, now)


def test_a_step_that_is_complete_goes_to_the_next_weight() -> None:
    decision = decided()
    assert (decision.kind, decision.cause, decision.to_step, decision.weight) == (
        "advance",
        "complete",
        1,
        25,
    )
    assert decision.reason == (
        "step 1 of 3 (5 %) is complete with 1,000 records of v8 and no evidence of harm: v8 goes from 5 % to 25 %"
    )


def test_before_its_time_is_over_a_step_says_what_is_missing() -> None:
    assert decided(after=4, seen=evidence(60)) == Decision(
        "hold", 0, "time", "step 1 of 3 (5 %) needs 6 minutes and 40 records of v8 more"
    )
    assert decided(after=4).reason == "step 1 of 3 (5 %) needs 6 minutes more"


def test_too_few_records_neither_advance_nor_fail() -> None:
    decision = decided(after=60 * 24 * 30, seen=evidence(99))
    assert (decision.kind, decision.cause) == ("insufficient_data", "events")
    assert decision.reason == (
        "step 1 of 3 (5 %) has 99 of the 100 records of v8 that it needs, and began at 2026-03-01 00:00 UTC"
    )


def test_no_traffic_waits_for_ever_and_says_since_when() -> None:
    decision = decided(after=60 * 24 * 365, seen=evidence(0, guardrail("unknown")))
    assert (decision.kind, decision.cause) == ("insufficient_data", "no_traffic")
    assert (
        decision.reason == "v8 has had no traffic in step 1 of 3 (5 %), which began at 2026-03-01 00:00 UTC"
    )


def test_a_guardrail_that_nobody_can_judge_is_named_and_never_passed() -> None:
    decision = decided(seen=evidence(1_000, guardrail(), latency("unknown")))
    assert (decision.kind, decision.cause) == ("insufficient_data", "guardrail_unknown")
    assert decision.reason == "typical latency cannot be judged: v8 has no measured records yet"
    for bound in (None, math.nan):
        assert decided(seen=evidence(1_000, guardrail("open", upper=bound))).cause == "guardrail_unknown"
        assert decided(2, seen=evidence(1_000, guardrail(upper=bound))).cause == "guardrail_unknown"


def test_without_guardrails_nothing_is_promoted_or_advanced() -> None:
    for step in range(3):
        none = replace(evidence(), guardrails=())
        assert decided(step, seen=none).kind == "insufficient_data"


def test_harm_is_rolled_back_and_put_in_words() -> None:
    decision = decided(after=1, seen=evidence(50, latency(), guardrail("breached")))
    assert (decision.kind, decision.cause, decision.weight) == ("roll_back", "breach", 0)
    assert (
        decision.reason
        == "error rate of v8 is 1.9 points higher than of v7; evidence 1 : 412 against no harm"
    )


@pytest.mark.parametrize(
    ("result", "falling", "words"),
    [
        (latency("breached"), (), "typical latency of v8 is 30 % higher than of v7; evidence 1 : 412 against no harm"),
        (
            latency("breached", harm=-math.log(0.7)),
            ("latency_ms",),
            "typical latency of v8 is 30 % lower than of v7; evidence 1 : 412 against no harm",
        ),
        (latency("breached", harm=math.log(20)), (), "typical latency of v8 is 20 times higher than of v7"),
        (
            guardrail("breached", metric="success_rate", label="success rate", tolerance=0.005),
            ("success_rate",),
            "success rate of v8 is 1.9 points lower than of v7; evidence 1 : 412 against a harm of at most 0.5 points",
        ),
        (
            guardrail("breached", harm=-0.01),
            (),
            "error rate of v8 was worse at an earlier look, and is 1 point lower than of v7 now; evidence 1 : 412",
        ),
        (guardrail("breached", harm=None), (), "error rate of v8 was worse than of v7 at an earlier look; evidence 1 : 412"),
        (guardrail("breached", running_log_e=2_000.0), (), "evidence 1 : 10^869 against no harm"),
        (guardrail("breached", running_log_e=math.inf), (), "evidence beyond any number against no harm"),
        (
            guardrail("breached", metric="output_tokens", label="tokens per answer", unit="tokens", harm=1234.5),
            (),
            "tokens per answer of v8 is 1,234 tokens higher than of v7",
        ),
    ],
)  # fmt: skip
def test_words_for_harm(result: GuardrailResult, falling: tuple[str, ...], words: str) -> None:
    assert words in decided(seen=evidence(9, result, falling=frozenset(falling))).reason


def test_the_strongest_evidence_is_named_first() -> None:
    weak = latency("breached", running_log_e=5.0)
    reason = decided(seen=evidence(9, weak, guardrail("breached"))).reason
    assert reason.index("error rate") < reason.index("typical latency")


def test_what_the_numbers_say_rolls_back_even_if_the_state_does_not() -> None:
    assert decided(seen=evidence(9, guardrail("open", running_log_e=math.log(40)))).kind == "roll_back"
    assert decided(seen=evidence(9, guardrail("open", running_log_e=math.log(39.9)))).kind != "roll_back"
    assert decided(seen=evidence(9, guardrail("unknown", running_log_e=9.0))).kind == "roll_back"


def test_paused_holds_everything_but_a_roll_back() -> None:
    assert decided(paused_by="alice") == Decision("hold", 0, "paused", "paused by alice")
    assert decided(2, paused_by="alice", after=10_000).cause == "paused"
    assert decided(paused_by="alice", seen=evidence(9, guardrail("breached"))).kind == "roll_back"


def test_a_split_that_is_off_holds_with_its_reason() -> None:
    off = evidence(
        sample_ratio_ok=False, sample_ratio_reason="v8 got 90 of 1,000 users where about 50 were expected"
    )
    for step in (0, 2):
        decision = decided(step, seen=off)
        assert (decision.kind, decision.cause) == ("hold", "sample_ratio")
        assert decision.reason.startswith("the data cannot be trusted: v8 got 90 of 1,000 users")


def test_the_last_step_promotes_only_when_every_bound_is_within_its_margin() -> None:
    decision = decided(2)
    assert (decision.kind, decision.weight) == ("promote", 100)
    assert decision.reason == (
        "error rate of v8 is at most 0.6 points higher than of v7, within the margin of 1 point; "
        "typical latency of v8 is at most 5 % higher than of v7, within the margin of 10 %"
    )
    decision = decided(2, seen=evidence(1_000, guardrail("open"), latency()))
    assert (decision.kind, decision.cause) == ("hold", "guardrail_open")
    assert (
        decision.reason
        == "error rate of v8 may still be 2 points higher than of v7, and the margin is 1 point"
    )
    unbounded = decided(2, seen=evidence(1_000, guardrail("open", upper=math.inf)))
    assert unbounded.reason == "nothing bounds error rate of v8 yet, and the margin is 1 point"
    # A state that its own numbers contradict is not believed.
    assert decided(2, seen=evidence(1_000, guardrail("cleared", upper=0.0101))).kind == "hold"


def test_after_the_deadline_an_open_guardrail_ends_it_without_a_verdict() -> None:
    still_open = evidence(1_000, guardrail("open"))
    assert decided(2, after=24 * 60 - 1, seen=still_open).kind == "hold"
    decision = decided(2, after=24 * 60, seen=still_open)
    assert (decision.kind, decision.cause, decision.weight) == ("inconclusive", "deadline", 0)
    assert decision.reason.startswith(
        "not decided within 1 day of the last step: error rate of v8 may still be"
    )
    assert decided(2, after=24 * 60).kind == "promote"  # late, but decided
    assert decided(2, after=24 * 60, seen=evidence(0)).kind == "inconclusive"
    # Steps before the last one have no deadline.
    assert decided(1, after=24 * 60 * 365, seen=evidence(1)).kind == "insufficient_data"


def test_clocks_that_disagree_hold() -> None:
    assert decided(after=-1).cause == "clock"
    ahead = decide(RAMP, Progress(0, START), evidence(as_of=START + minutes(30)), START + minutes(20))
    assert (ahead.kind, ahead.cause) == ("hold", "clock")
    assert "a clock went back" in ahead.reason
    naive = decide(RAMP, Progress(0, START.replace(tzinfo=None)), evidence(), START + minutes(20))
    assert naive.cause == "clock"


def test_an_analysis_from_before_the_step_says_nothing_about_its_traffic() -> None:
    for as_of in (START - minutes(1), None):
        decision = decided(seen=evidence(as_of=as_of))
        assert (decision.kind, decision.cause) == ("insufficient_data", "no_analysis")
    stale_harm = evidence(1_000, guardrail("breached"), as_of=START - minutes(1))
    assert decided(seen=stale_harm).kind == "roll_back"


def test_a_step_begins_where_the_weight_is_another_one() -> None:
    decision = decided(weight=50.0)
    assert (decision.kind, decision.cause, decision.to_step, decision.weight) == ("advance", "begins", 0, 5)
    assert decided(weight=5.0000000001).to_step == 1
    assert decide(RAMP, Progress(1, None), evidence(), START + minutes(10)).to_step == 1


@pytest.mark.parametrize("step", [-1, 3, 10**9])
def test_a_step_that_the_ramp_does_not_have_holds(step: int) -> None:
    assert decided(step).cause == "no_step"


# Arbitrary input --------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["", "v8", "v\0\ud800%s"])
NUMBERS = st.none() | st.floats() | st.floats(-0.1, 0.1)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))])
TIMES = st.datetimes(timezones=st.none() | ZONES) | st.datetimes(
    START.replace(tzinfo=None), (START + timedelta(days=9)).replace(tzinfo=None), timezones=st.just(UTC)
)
RESULTS = st.builds(
    GuardrailResult,
    metric=st.sampled_from(["error_rate", "latency_ms", "no such metric"]),
    label=st.just("it"),
    treatment=st.just("v8"),
    scale=st.sampled_from(["plain", "log"]),
    unit=st.sampled_from(["rate", "ms", "tokens", "score", "?"]),
    margin=st.floats() | st.just(0.01),
    tolerance=st.floats(),
    harm=NUMBERS,
    upper=NUMBERS,
    log_e=NUMBERS,
    running_log_e=NUMBERS,
    threshold=st.floats() | st.just(3.0),
    state=st.sampled_from(["breached", "cleared", "open", "unknown"]),
    method=st.none(),
    reason=WORDS,
)
SOUND = st.sampled_from([guardrail(), latency(), guardrail("open"), latency("open"), guardrail("unknown")])
EVIDENCE = st.builds(
    Evidence,
    control=WORDS,
    treatment=WORDS,
    guardrails=st.lists(RESULTS, max_size=3).map(tuple) | st.lists(SOUND, max_size=3).map(tuple),
    step_events=st.integers(-5, 10_000) | st.integers(),
    sample_ratio_ok=st.booleans(),
    sample_ratio_reason=WORDS,
    as_of=st.none() | TIMES,
    falling=st.frozensets(st.sampled_from(["error_rate", "latency_ms"])),
)
PROGRESS = st.builds(
    Progress,
    step=st.integers(0, 2) | st.integers(),
    step_started_at=st.none() | TIMES,
    paused_by=st.none() | WORDS,
    weight=st.none() | st.floats() | st.sampled_from([5.0, 25.0, 50.0]),
)
ORDERLY = st.builds(
    Evidence,
    control=st.just("v7"),
    treatment=st.just("v8"),
    guardrails=st.lists(SOUND, max_size=3).map(tuple),
    step_events=st.integers(0, 1_000),
    sample_ratio_ok=st.sampled_from([True, True, True, False]),
)
RAMPS = st.builds(
    lambda weights, duration, events, deadline: Ramp(
        tuple(Step(weight, duration, events) for weight in sorted(weights)), deadline
    ),
    st.sets(st.integers(1, 99), min_size=1, max_size=5),
    st.sampled_from([0.0, 600.0, LONGEST_S]),
    st.integers(1, 1_000),
    st.sampled_from([1.0, 86_400.0, LONGEST_S]),
)


@settings(deadline=None)
@given(RAMPS, PROGRESS, EVIDENCE, TIMES)
def test_there_is_a_decision_for_every_input(
    ramp: Ramp, progress: Progress, seen: Evidence, now: datetime
) -> None:
    decision = decide(ramp, progress, seen, now)
    assert decision.kind in get_args(Kind)
    assert decision.kind != "abort"
    assert decision.cause in get_args(Cause)
    assert decision.reason
    if decision.kind == "promote":
        assert progress.step == len(ramp.steps) - 1
        assert seen.guardrails
        assert all(
            r.state == "cleared" and r.upper is not None and r.upper < r.margin for r in seen.guardrails
        )
    if decision.kind in ("advance", "promote"):
        assert seen.sample_ratio_ok
        assert progress.paused_by is None
        if decision.cause != "begins":
            assert seen.step_events >= ramp.steps[progress.step].events
    if decision.kind == "advance":
        assert decision.to_step in (progress.step, progress.step + 1)
        assert decision.to_step is not None
        assert decision.weight == ramp.steps[decision.to_step].weight
    if any(result.state == "breached" for result in seen.guardrails):
        assert decision.kind == "roll_back"
    if decision.kind == "roll_back":
        assert seen.guardrails


@settings(deadline=None)
@given(RAMPS, st.integers(0, 4), ORDERLY, st.floats(0, 3e5), st.floats(0, 3e5), st.integers(0, 1_000))
def test_more_time_and_more_records_never_take_anything_back(
    ramp: Ramp, step: int, seen: Evidence, after_s: float, more_s: float, more: int
) -> None:
    """What is allowed once stays allowed, as long as the guardrails say the same."""
    progress = Progress(step, START)
    now = START + timedelta(seconds=after_s)
    later = now + timedelta(seconds=more_s)
    first = decide(ramp, progress, replace(seen, as_of=now), now)
    second = decide(ramp, progress, replace(seen, as_of=later, step_events=seen.step_events + more), later)
    order = ("insufficient_data", "hold", "advance", "promote")
    if first.kind in ("advance", "promote"):
        assert second.kind == first.kind
    elif first.kind == "inconclusive":
        assert second.kind in ("inconclusive", "promote")
    elif more_s == 0 and second.kind != "inconclusive":
        assert order.index(second.kind) >= order.index(first.kind)


@settings(deadline=None)
@given(RAMPS, PROGRESS, EVIDENCE, TIMES)
def test_harm_on_one_guardrail_rolls_back_whatever_else_is_true(
    ramp: Ramp, progress: Progress, seen: Evidence, now: datetime
) -> None:
    harmed = replace(seen, guardrails=(*seen.guardrails, guardrail("breached")))
    assert decide(ramp, progress, harmed, now).kind == "roll_back"
