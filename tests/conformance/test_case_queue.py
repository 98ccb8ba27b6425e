"""relabel.queue: who holds which case, the same on every database."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from relabel.case import Case, CaseState
from relabel.label import Label, Rating
from relabel.queue.case_queue import CaseQueue
from relabel.selection.case_writer import Flagged
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Conflict, Invalid, Missing
from tests.relabel_cases import START, add_cases, flagged

GOOD = Label(Rating.GOOD)
LEASE_S = 600.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def queue(database: Database, clock: ManualClock) -> CaseQueue:
    return CaseQueue(database, clock, lease_s=LEASE_S)


def _claimed(queue: CaseQueue, annotator: str, endpoint: str | None = None) -> Case:
    case = queue.claim(annotator, endpoint)
    assert case is not None
    return case


def test_an_empty_queue_has_nothing_to_claim(queue: CaseQueue) -> None:
    assert queue.claim("ann") is None
    assert queue.list().cases == ()
    assert queue.counts() == {}


def test_claims_go_by_priority_and_then_by_age(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1), flagged(2, priority=5), flagged(3, priority=5), flagged(4, priority=-1)])
    order = [_claimed(queue, f"annotator {number}").databricks_request_id for number in range(4)]
    assert order == ["request-000002", "request-000003", "request-000001", "request-000004"]


def test_a_claimed_case_has_all_that_an_annotator_needs(database: Database, queue: CaseQueue) -> None:
    messages = [
        {"role": "user", "content": "<script>alert(1)</script> 😀"},
        {"role": "assistant", "content": "no"},
    ]
    add_cases(database, [flagged(1, messages=messages, tools=[{"type": "function"}])])
    case = _claimed(queue, " ann ")
    assert (case.state, case.annotator, case.version) == (CaseState.CLAIMED, "ann", 2)
    assert case.lease_expires_at == START + timedelta(seconds=LEASE_S)
    assert case.messages == tuple(messages)
    assert case.answered
    assert case.tools == ({"type": "function"},)
    assert (case.served_entity, case.variant, case.model) == ("champion", "control", "smollm2")
    assert case.request_time == START + timedelta(seconds=1)
    assert [(reason.evaluator, reason.score, reason.threshold) for reason in case.reasons] == [
        ("toxicity", 0.9, 0.5)
    ]
    assert queue.get(case.id) == case


def test_claims_can_be_for_one_endpoint(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1, priority=9)], endpoint="other")
    add_cases(database, [flagged(1)], endpoint="chat")
    assert _claimed(queue, "ann", "chat").endpoint == "chat"
    assert queue.claim("bob", "chat") is None
    assert _claimed(queue, "bob").endpoint == "other"


def test_an_annotator_gets_the_own_case_again_with_a_new_lease(
    database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    add_cases(database, [flagged(1), flagged(2)])
    first = _claimed(queue, "ann")
    add_cases(database, [flagged(3, priority=99)])
    clock.advance(LEASE_S - 1)
    again = _claimed(queue, "ann")
    assert again.id == first.id
    assert again.lease_expires_at == clock.now() + timedelta(seconds=LEASE_S)
    assert again.version == first.version


def test_a_lease_that_ran_out_frees_the_case(
    database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    add_cases(database, [flagged(1)])
    case = _claimed(queue, "ann")
    clock.advance(LEASE_S - 0.001)
    assert queue.claim("bob") is None
    clock.advance(0.001)
    assert _claimed(queue, "bob").id == case.id
    with pytest.raises(Conflict, match="claimed by bob"):
        queue.submit(case.id, "ann", GOOD)
    with pytest.raises(Conflict, match="claimed by bob"):
        queue.renew(case.id, "ann")
    assert [(entry.from_state, entry.to_state, entry.actor) for entry in queue.history(case.id)] == [
        (None, "open", "selection"),
        ("open", "claimed", "ann"),
        ("claimed", "open", "lease"),
        ("open", "claimed", "bob"),
    ]


@pytest.mark.parametrize("freed", [False, True])
def test_a_label_after_the_lease_is_taken_while_nobody_else_claimed(
    database: Database, queue: CaseQueue, clock: ManualClock, freed: bool
) -> None:
    add_cases(database, [flagged(1, priority=1)])
    case = _claimed(queue, "ann")
    clock.advance(LEASE_S * 2)
    if freed:  # somebody else's claim sees that the lease ran out, but gets a case of a higher priority
        add_cases(database, [flagged(2, priority=2)])
        assert _claimed(queue, "bob").id != case.id
        assert queue.get(case.id).state is CaseState.OPEN
    assert queue.submit(case.id, "ann", GOOD, version=case.version).state is CaseState.LABELED


def test_renewing_keeps_a_case(database: Database, queue: CaseQueue, clock: ManualClock) -> None:
    add_cases(database, [flagged(1)])
    case = _claimed(queue, "ann")
    for _ in range(3):
        clock.advance(LEASE_S * 0.9)
        renewed = queue.renew(case.id, "ann")
        assert renewed.lease_expires_at == clock.now() + timedelta(seconds=LEASE_S)
        assert queue.claim("bob") is None


def test_renewing_a_freed_case_claims_it_again(
    database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    add_cases(database, [flagged(1)])
    case = _claimed(queue, "ann")
    clock.advance(LEASE_S)
    add_cases(database, [flagged(2, priority=1)])
    _claimed(queue, "bob")
    assert queue.renew(case.id, "ann").state is CaseState.CLAIMED
    assert queue.claim("carl") is None


def test_a_label_is_kept_as_given(database: Database, queue: CaseQueue, clock: ManualClock) -> None:
    add_cases(database, [flagged(1)])
    label = Label(Rating.BAD, "  Better:\n\tlike this. 😀 ", ("rude", "wrong", "rude "), "why")
    case = _claimed(queue, "ann")
    clock.advance(5)
    labeled = queue.submit(case.id, "ann", label)
    assert labeled.state is CaseState.LABELED
    assert labeled.annotator == "ann"
    assert labeled.lease_expires_at is None
    [given] = labeled.labels
    assert given.annotator == "ann"
    assert given.created_at == clock.now()
    assert given.label == Label(Rating.BAD, "  Better:\n\tlike this. 😀 ", ("rude", "wrong"), "why")
    assert queue.claim("ann") is None


def test_the_same_label_twice_is_one_label(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1)])
    case = _claimed(queue, "ann")
    label = Label(Rating.BAD, "better", ("a",), "b")
    once = queue.submit(case.id, "ann", label, version=case.version)
    assert queue.submit(case.id, "ann", label, version=case.version) == once
    assert len(queue.history(case.id)) == 3


def test_a_second_other_label_is_a_conflict(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1)])
    case = _claimed(queue, "ann")
    queue.submit(case.id, "ann", GOOD)
    for annotator, label in (("ann", Label(Rating.BAD)), ("bob", GOOD)):
        with pytest.raises(Conflict, match="labeled by ann already"):
            queue.submit(case.id, annotator, label)
    assert [given.label for given in queue.get(case.id).labels] == [GOOD]


def test_only_the_holder_may_act(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1)])
    actions: list[Callable[[int], object]] = [
        lambda case_id: queue.submit(case_id, "bob", GOOD),
        lambda case_id: queue.skip(case_id, "bob", "no"),
        lambda case_id: queue.renew(case_id, "bob"),
    ]
    for action in actions:
        with pytest.raises(Conflict, match="not claimed"):
            action(1)
    _claimed(queue, "ann")
    for action in [*actions, lambda case_id: queue.release(case_id, "bob")]:
        with pytest.raises(Conflict, match="claimed by ann"):
            action(1)


def test_a_version_that_was_overtaken_is_a_conflict(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1)])
    old = _claimed(queue, "ann")
    queue.release(old.id, "ann")
    new = _claimed(queue, "ann")
    assert new.version > old.version
    with pytest.raises(Conflict, match="changed since") as caught:
        queue.submit(old.id, "ann", GOOD, version=old.version)
    assert caught.value.field == "version"
    with pytest.raises(Conflict, match="changed since"):
        queue.skip(old.id, "ann", "no", version=old.version)
    queue.submit(new.id, "ann", GOOD, version=new.version)


def test_a_skip_finishes_a_case_and_can_be_repeated(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1)])
    case = _claimed(queue, "ann")
    skipped = queue.skip(case.id, "ann", " not my language ")
    assert (skipped.state, skipped.skip_reason) == (CaseState.SKIPPED, "not my language")
    assert queue.skip(case.id, "ann", "not my language") == skipped
    with pytest.raises(Conflict, match="skipped by ann"):
        queue.submit(case.id, "ann", GOOD)
    assert queue.history(case.id)[-1].detail == "not my language"
    assert queue.claim("bob") is None


def test_a_released_case_is_for_everybody(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1)])
    case = _claimed(queue, "ann")
    released = queue.release(case.id, "ann")
    assert (released.state, released.annotator, released.lease_expires_at) == (CaseState.OPEN, None, None)
    assert queue.release(case.id, "ann") == released
    with pytest.raises(Conflict, match="not claimed"):
        queue.submit(case.id, "ann", GOOD)
    assert _claimed(queue, "bob").id == case.id
    queue.submit(case.id, "bob", GOOD)
    with pytest.raises(Conflict, match="labeled by bob"):
        queue.release(case.id, "bob")


def test_unknown_cases_are_missing(queue: CaseQueue) -> None:
    for action in (
        lambda: queue.get(7),
        lambda: queue.history(7),
        lambda: queue.submit(7, "ann", GOOD),
        lambda: queue.skip(7, "ann", "no"),
        lambda: queue.release(7, "ann"),
        lambda: queue.renew(7, "ann"),
    ):
        with pytest.raises(Missing, match="no case 7"):
            action()


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 201, "\ud800", "nul\x00"])
def test_an_annotator_needs_a_name(queue: CaseQueue, name: str) -> None:
    with pytest.raises(Invalid) as caught:
        queue.claim(name)
    assert caught.value.field == "annotator"


def test_a_skip_needs_a_reason(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1)])
    _claimed(queue, "ann")
    with pytest.raises(Invalid) as caught:
        queue.skip(1, "ann", " \n")
    assert caught.value.field == "reason"


def test_a_lease_needs_a_length(database: Database, clock: ManualClock) -> None:
    with pytest.raises(Invalid, match="lease_s"):
        CaseQueue(database, clock, lease_s=0)


def test_pages_hold_every_case_once_in_the_order_of_claims(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(number, priority=number % 3) for number in range(25)])
    seen, cursor, pages = [], None, 0
    while True:
        page = queue.list(limit=10, cursor=cursor)
        seen += page.cases
        pages += 1
        cursor = page.next_cursor
        if cursor is None:
            break
    assert pages == 3
    assert [case.databricks_request_id for case in seen] == [
        f"request-{number:06d}" for rest in (2, 1, 0) for number in range(25) if number % 3 == rest
    ]
    assert all(case.reasons for case in seen)


def test_lists_can_be_filtered(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1), flagged(2, evaluator="perplexity"), flagged(3)])
    add_cases(database, [flagged(4)], endpoint="other")
    _claimed(queue, "ann", "chat")

    def ids(**filters: object) -> list[int]:
        return [case.id for case in queue.list(**filters).cases]

    assert ids() == [1, 2, 3, 4]
    assert ids(state=CaseState.OPEN) == [2, 3, 4]
    assert ids(state=CaseState.CLAIMED, annotator="ann") == [1]
    assert ids(endpoint="other") == [4]
    assert ids(evaluator="perplexity") == [2]
    assert ids(since=START + timedelta(seconds=2), until=START + timedelta(seconds=4)) == [2, 3]
    assert ids(annotator="nobody") == []


def test_lists_show_the_beginning_of_long_texts(database: Database, queue: CaseQueue) -> None:
    record = flagged(1)
    long = Flagged(**{**_fields(record), "prompt_text": "word " * 1000, "response_text": None})
    add_cases(database, [long])
    [case] = queue.list().cases
    assert case.prompt_preview == ("word " * 40).rstrip() + "…"
    assert case.response_preview is None
    assert queue.get(1).prompt_text == "word " * 1000


def _fields(record: Flagged) -> dict[str, object]:
    return {name: getattr(record, name) for name in Flagged.__dataclass_fields__}


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 501}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "1"}, "cursor"),
    ],
)
def test_a_bad_page_is_invalid(queue: CaseQueue, arguments: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        queue.list(**arguments)
    assert caught.value.field == field


def test_counts_tell_every_state_of_every_endpoint(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1), flagged(2), flagged(3), flagged(4)])
    add_cases(database, [flagged(1)], endpoint="other")
    queue.submit(_claimed(queue, "ann", "chat").id, "ann", GOOD)
    queue.skip(_claimed(queue, "ann", "chat").id, "ann", "no")
    _claimed(queue, "ann", "chat")
    none = dict.fromkeys(CaseState, 0)
    assert queue.counts() == {
        "chat": none | {"open": 1, "claimed": 1, "labeled": 1, "skipped": 1},
        "other": none | {"open": 1},
    }
    assert queue.counts("other") == {"other": none | {"open": 1}}
    assert queue.counts("unknown") == {"unknown": dict.fromkeys(CaseState, 0)}


def test_a_score_without_end_is_kept(database: Database, queue: CaseQueue) -> None:
    record = flagged(1)
    reason = record.reasons[0]
    endless = replace(reason, score=math.inf)
    add_cases(database, [Flagged(**{**_fields(record), "reasons": (endless,)})])
    assert queue.get(1).reasons[0].score == math.inf


def test_twenty_annotators_at_once_label_every_case_once(database: Database, queue: CaseQueue) -> None:
    number_of_cases = 200
    add_cases(database, [flagged(number, priority=number % 4) for number in range(number_of_cases)])
    labeled: list[tuple[int, str]] = []
    errors: list[BaseException] = []

    def work(annotator: str) -> None:
        try:
            while (case := queue.claim(annotator)) is not None:
                queue.submit(case.id, annotator, Label(Rating.GOOD, comment=annotator), version=case.version)
                labeled.append((case.id, annotator))
        except BaseException as error:  # noqa: BLE001 - a thread's error must reach the assertion below
            errors.append(error)

    annotators = [f"annotator {number}" for number in range(20)]
    threads = [threading.Thread(target=work, args=(annotator,)) for annotator in annotators]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Counter(case_id for case_id, _ in labeled) == Counter(range(1, number_of_cases + 1))
    for case_id, annotator in labeled[::20]:
        assert [given.annotator for given in queue.get(case_id).labels] == [annotator]
    assert queue.counts()["chat"][CaseState.LABELED] == number_of_cases


def test_of_twenty_who_claim_the_last_case_one_gets_it(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1)])
    start, claims = threading.Barrier(20), []

    def claim(annotator: str) -> None:
        start.wait(20)
        claims.append(queue.claim(annotator))

    threads = [threading.Thread(target=claim, args=(f"annotator {number}",)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claims) == 20
    assert sum(case is not None for case in claims) == 1
