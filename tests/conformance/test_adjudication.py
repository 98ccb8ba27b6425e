"""relabel.queue: labels that disagree, and who decides."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from relabel.case import Case, CaseState, Resolution
from relabel.label import Label, Rating
from relabel.models import DecisionRow, LabelRow
from relabel.queue.case_queue import CaseQueue
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Conflict, Invalid
from tests.label_schemas import Versions
from tests.relabel_cases import START, add_cases, flagged

GOOD, BAD = Label(Rating.GOOD), Label(Rating.BAD)
LEASE_S = 600.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


def _disputed(database: Database, clock: ManualClock, cases: int = 1, **changes: Any) -> CaseQueue:
    """A queue with cases that ann found good and bob bad."""
    queue = CaseQueue(database, clock, lease_s=LEASE_S, schemas=Versions(annotators=2, **changes))
    add_cases(database, [flagged(number, priority=number) for number in range(cases)])
    for _ in range(cases):
        for name, label in (("ann", GOOD), ("bob", BAD)):
            case = queue.claim(name)
            assert case is not None
            last = queue.submit(case.id, name, label, version=case.version)
        assert last.state is CaseState.DISPUTED
    return queue


def _dispute(queue: CaseQueue, annotator: str) -> Case:
    case = queue.claim_dispute(annotator)
    assert case is not None
    return case


def test_who_has_not_labeled_a_disputed_case_decides_it(database: Database, clock: ManualClock) -> None:
    queue = _disputed(database, clock)
    assert queue.get(1).labels == queue.get(1, "carl").labels == ()
    assert [given.annotator for given in queue.get(1, "bob").labels] == ["bob"]
    assert queue.claim("carl") is queue.claim_dispute("ann") is queue.claim_dispute("bob") is None
    case = _dispute(queue, "carl")
    assert (case.state, case.annotator) == (CaseState.ADJUDICATING, "carl")
    assert [(given.annotator, given.label) for given in case.labels] == [("ann", GOOD), ("bob", BAD)]
    assert queue.claim_dispute("dave") is None
    assert _dispute(queue, "carl").version == case.version
    with pytest.raises(Conflict, match="disagree"):
        queue.submit(1, "dave", GOOD)
    with pytest.raises(Conflict, match="decided, or is about to be"):
        queue.withdraw(1, "ann")
    done = queue.answer(1, "carl", {"rating": "bad", "corrected_answer": "better"}, version=case.version)
    assert (done.state, done.resolution, done.labeled) == (CaseState.LABELED, Resolution.ADJUDICATED, 2)
    assert [given.is_adjudication for given in done.labels] == [False, False, True]
    assert queue.answer(1, "carl", {"rating": "bad", "corrected_answer": "better"}) == done
    with database.session(read_only=True) as session:
        [decision] = session.scalars(select(DecisionRow))
        label = session.get(LabelRow, decision.label_id)
        assert label is not None
        assert (label.annotator, decision.labels, decision.agreement) == ("carl", 2, 0.5)
    for name in ("ann", "carl"):
        with pytest.raises(Conflict, match="has been decided"):
            queue.withdraw(1, name)
    events = [(entry.from_state, entry.to_state, entry.event) for entry in queue.history(1)]
    assert events[-3:] == [
        ("claimed", "disputed", "labeled"),
        ("disputed", "adjudicating", "claimed"),
        ("adjudicating", "labeled", "adjudicated"),
    ]


def test_a_schema_may_name_who_decides(database: Database, clock: ManualClock) -> None:
    queue = _disputed(database, clock, adjudicators=("lead", "ann"))
    assert queue.claim_dispute("carl") is None
    assert queue.claim_dispute("ann") is None, "she has labeled it"
    with pytest.raises(Invalid, match="does not decide") as caught:
        queue.claim_dispute("carl", "chat")
    assert caught.value.field == "annotator"
    assert _dispute(queue, "lead").id == 1
    with pytest.raises(Conflict) as conflict:
        queue.reassign(1, "lead", "carl", actor="lead")
    assert conflict.value.field == "to_annotator"


def test_an_adjudicator_may_give_it_back_or_be_slow(database: Database, clock: ManualClock) -> None:
    queue = _disputed(database, clock)
    _dispute(queue, "carl")
    assert queue.release(1, "carl").state is CaseState.DISPUTED
    slow = _dispute(queue, "dave")
    clock.advance(LEASE_S)
    assert _dispute(queue, "carl").id == 1
    with pytest.raises(Conflict):
        queue.submit(1, "dave", GOOD, version=slow.version)
    queue.release(1, "carl")
    assert queue.submit(1, "dave", GOOD, version=slow.version).resolution is Resolution.ADJUDICATED
    assert [entry.event for entry in queue.history(1)][-8:] == [
        "claimed",
        "released",
        "claimed",
        "expired",
        "claimed",
        "released",
        "renewed",
        "adjudicated",
    ]


def test_an_adjudicator_s_skip_ends_the_case(database: Database, clock: ManualClock) -> None:
    queue = _disputed(database, clock)
    _dispute(queue, "carl")
    ended = queue.skip(1, "carl", "both are right")
    assert (ended.state, ended.skip_reason, ended.labeled) == (CaseState.SKIPPED, "both are right", 2)
    with database.session(read_only=True) as session:
        [decision] = session.scalars(select(DecisionRow))
        assert (decision.label_id, decision.resolution, decision.labels) == (None, None, 2)
    with pytest.raises(Conflict):
        queue.withdraw(1, "ann")
    assert queue.reopen(1, "lead", "try again").state is CaseState.OPEN
    assert queue.claim("ann") is not None


def test_disputes_go_by_priority(database: Database, clock: ManualClock) -> None:
    queue = _disputed(database, clock, cases=3)
    assert [_dispute(queue, name).priority for name in ("carl", "dave", "eve")] == [2, 1, 0]
    assert queue.counts()["chat"][CaseState.ADJUDICATING] == 3
    assert queue.claim_dispute("fay") is None


def test_an_annotator_may_change_their_mind_while_nobody_decides(
    database: Database, clock: ManualClock
) -> None:
    queue = _disputed(database, clock)
    assert queue.withdraw(1, "ann").state is CaseState.CLAIMED
    done = queue.submit(1, "ann", BAD)
    assert (done.state, done.resolution) == (CaseState.LABELED, Resolution.UNANIMOUS)


def test_a_disputed_case_can_be_opened_again(database: Database, clock: ManualClock) -> None:
    queue = _disputed(database, clock)
    _dispute(queue, "carl")
    assert queue.reopen(1, "lead", "unclear").state is CaseState.OPEN
    with pytest.raises(Conflict):
        queue.submit(1, "carl", GOOD)
    assert queue.claim("carl") is not None
