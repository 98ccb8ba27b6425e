"""relabel.queue with several labels a case: places, blindness, versions, and how cases pass from hand to hand."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import select

from relabel.case import Case, CaseState, Resolution
from relabel.label import Label, Rating
from relabel.label_schema import Field, FieldType
from relabel.models import CaseRow, ClaimRow, DecisionRow, LabelRow
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


@pytest.fixture
def schemas() -> Versions:
    return Versions(annotators=3)


@pytest.fixture
def queue(database: Database, clock: ManualClock, schemas: Versions) -> CaseQueue:
    return CaseQueue(database, clock, lease_s=LEASE_S, schemas=schemas)


def _claimed(queue: CaseQueue, annotator: str) -> Case:
    case = queue.claim(annotator)
    assert case is not None
    return case


def _decisions(
    database: Database, case_id: int = 1
) -> list[tuple[int | None, Resolution | None, int, float | None]]:
    with database.session(read_only=True) as session:
        rows = session.scalars(
            select(DecisionRow).where(DecisionRow.case_id == case_id).order_by(DecisionRow.id)
        )
        return [(row.label_id, row.resolution, row.labels, row.agreement) for row in rows]


def test_a_case_goes_to_three_people_who_do_not_see_each_other(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1), flagged(2)])
    claims = [_claimed(queue, name) for name in ("ann", "bob", "carl")]
    assert [case.id for case in claims] == [1, 1, 1]
    assert [case.state for case in claims] == [CaseState.CLAIMED] * 3
    assert _claimed(queue, "dave").id == 2
    assert queue.get(1).state is CaseState.CLAIMED
    first = queue.submit(1, "ann", GOOD, version=claims[0].version)
    assert (first.state, first.labeled, first.wanted) == (CaseState.CLAIMED, 1, 3)
    assert [given.annotator for given in first.labels] == ["ann"]
    assert queue.get(1, "bob").labels == queue.get(1).labels == queue.get(1, "eve").labels == ()
    assert _claimed(queue, "ann").id == 2
    second = queue.submit(1, "bob", Label(Rating.GOOD, "better"), version=claims[1].version)
    assert [given.annotator for given in second.labels] == ["bob"]
    last = queue.submit(1, "carl", GOOD, version=claims[2].version)
    assert (last.state, last.resolution, last.labeled) == (CaseState.LABELED, Resolution.UNANIMOUS, 3)
    assert [given.annotator for given in queue.get(1, "ann").labels] == ["ann", "bob", "carl"]
    assert _decisions(database) == [(_label_id(database, "bob"), Resolution.UNANIMOUS, 3, 1.0)]
    events = [(entry.from_state, entry.to_state, entry.event) for entry in queue.history(1)][1:]
    assert events == [
        ("open", "open", "claimed"),
        ("open", "open", "claimed"),
        ("open", "claimed", "claimed"),
        ("claimed", "claimed", "labeled"),
        ("claimed", "claimed", "labeled"),
        ("claimed", "labeled", "labeled"),
    ]


def _label_id(database: Database, annotator: str, case_id: int = 1) -> int:
    with database.session(read_only=True) as session:
        return session.scalars(
            select(LabelRow.id).where(LabelRow.case_id == case_id, LabelRow.annotator == annotator)
        ).one()


def test_the_better_of_a_started_and_a_fresh_case_is_next(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1, priority=1)])
    _claimed(queue, "ann")
    add_cases(database, [flagged(2, priority=1), flagged(3, priority=2)])
    assert [_claimed(queue, name).id for name in ("bob", "carl", "dave", "eve", "fay")] == [3, 3, 3, 1, 1]
    assert _claimed(queue, "gil").id == 2


def test_skips_use_places_up(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1), flagged(2)])
    for name in ("ann", "bob", "carl"):
        _claimed(queue, name)
    skipped = queue.skip(1, "ann", "no idea")
    assert (skipped.state, skipped.skip_reason) == (CaseState.CLAIMED, None)
    queue.submit(1, "bob", BAD)
    done = queue.submit(1, "carl", BAD)
    assert (done.state, done.resolution, done.labeled) == (CaseState.LABELED, Resolution.UNANIMOUS, 2)
    for name in ("ann", "bob", "carl"):
        assert _claimed(queue, name).id == 2
        last = queue.skip(2, name, f"{name} has no idea")
    assert (last.state, last.skip_reason) == (CaseState.SKIPPED, "carl has no idea")
    assert _decisions(database, 2) == [(None, None, 0, None)]
    with pytest.raises(Conflict, match="skipped by ann already"):
        queue.submit(2, "ann", GOOD)


def test_a_lease_frees_its_own_place_only(database: Database, queue: CaseQueue, clock: ManualClock) -> None:
    add_cases(database, [flagged(1)])
    slow = _claimed(queue, "ann")
    clock.advance(LEASE_S / 2)
    held = _claimed(queue, "bob")
    _claimed(queue, "carl")
    assert queue.get(1).lease_expires_at == START + timedelta(seconds=LEASE_S)
    assert queue.claim("dave") is None
    clock.advance(LEASE_S / 2)
    assert _claimed(queue, "dave").id == 1
    assert queue.get(1).lease_expires_at == held.lease_expires_at
    with pytest.raises(Conflict, match="claimed by others"):
        queue.submit(1, "ann", GOOD, version=slow.version)
    queue.release(1, "dave")
    # A place is free again, and nothing that somebody has written is thrown away.
    assert queue.submit(1, "ann", GOOD, version=slow.version).labeled == 1
    assert queue.claim("dave") is None
    assert [entry.event for entry in queue.history(1)][4:] == [
        "expired",
        "claimed",
        "released",
        "renewed",
        "labeled",
    ]


def test_a_version_is_that_of_the_claim(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1)])
    ann, bob = _claimed(queue, "ann"), _claimed(queue, "bob")
    assert queue.get(1, "ann").version == ann.version < bob.version
    with pytest.raises(Conflict, match="changed since"):
        queue.submit(1, "ann", GOOD, version=bob.version)
    queue.submit(1, "bob", GOOD, version=bob.version)
    queue.submit(1, "ann", GOOD, version=ann.version)


def test_a_schema_that_changes_meanwhile_is_answered_as_it_was_shown(
    database: Database, queue: CaseQueue, schemas: Versions
) -> None:
    add_cases(database, [flagged(1), flagged(2)])
    assert _claimed(queue, "ann").schema_version == 1
    topic = Field(name="topic", type=FieldType.CHOICE, options=("food",), required=True, decides=True)
    new = schemas.change(fields=(*schemas.current("chat").fields, topic), annotators=2)
    assert queue.get(1, "ann").schema_version == 1
    assert queue.get(1, "eve").schema_version == queue.get(1).schema_version == new.version
    with pytest.raises(Invalid, match="no such field") as caught:
        queue.answer(1, "ann", {"rating": "good", "topic": "food"})
    assert caught.value.field == "values.topic"
    queue.answer(1, "ann", {"rating": "good"})
    assert _claimed(queue, "bob").schema_version == new.version
    with pytest.raises(Invalid) as caught:
        queue.answer(1, "bob", {"rating": "good"})
    assert caught.value.field == "values.topic"
    queue.answer(1, "bob", {"rating": "good", "topic": "food"}, "a remark")
    assert _claimed(queue, "carl").wanted == 3, "as it was when the case was first claimed"
    done = queue.answer(1, "carl", {"topic": "food"}, short={"rating": "good"})
    assert done.resolution is Resolution.UNANIMOUS
    assert [given.schema_version for given in done.labels] == [1, 2, 2]
    assert done.labels[1].label == Label(Rating.GOOD, comment="a remark", values={"topic": "food"})
    assert queue.answer(1, "carl", {"topic": "food", "rating": "good"}) == done
    assert _claimed(queue, "ann").wanted == 2


def test_who_gives_a_place_back_leaves_the_others_theirs(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1)])
    for name in ("ann", "bob", "carl"):
        _claimed(queue, name)
    assert queue.release(1, "carl").state is CaseState.OPEN
    assert queue.get(1).annotator == "bob"
    assert queue.release(1, "carl").annotator == "bob"
    assert queue.release(1, "bob").annotator == "ann"
    queue.submit(1, "ann", GOOD)
    assert _claimed(queue, "bob").id == 1


def test_a_place_is_given_to_somebody_else(database: Database, queue: CaseQueue, clock: ManualClock) -> None:
    add_cases(database, [flagged(1)])
    old = _claimed(queue, "ann")
    _claimed(queue, "bob")
    clock.advance(LEASE_S - 1)
    queue.reassign(1, "ann", "dave", actor="lead")
    mine = _claimed(queue, "dave")
    assert (mine.id, mine.state) == (1, CaseState.CLAIMED)
    assert mine.lease_expires_at == clock.now() + timedelta(seconds=LEASE_S)
    with pytest.raises(Conflict, match="not claimed by ann"):
        queue.submit(1, "ann", GOOD, version=old.version)
    for giver, taker, field in (
        ("ann", "eve", "case_id"),
        ("bob", "dave", "to_annotator"),
        ("bob", "bob", "to_annotator"),
    ):
        with pytest.raises(Conflict) as caught:
            queue.reassign(1, giver, taker, actor="lead")
        assert caught.value.field == field
    queue.submit(1, "dave", GOOD, version=mine.version)
    with pytest.raises(Conflict, match="has or has had"):
        queue.reassign(1, "bob", "dave", actor="lead")
    [entry] = [entry for entry in queue.history(1) if entry.event == "reassigned"]
    assert (entry.actor, entry.detail) == ("lead", "from ann to dave")


def test_a_label_can_be_taken_back(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1)])
    for name in ("ann", "bob", "carl"):
        _claimed(queue, name)
        queue.submit(1, name, Label(Rating.GOOD, comment=name))
    assert _decisions(database) == [(_label_id(database, "ann"), Resolution.UNANIMOUS, 3, 1.0)]
    back = queue.withdraw(1, "ann")
    assert (back.state, back.labels, back.annotator, back.resolution) == (CaseState.CLAIMED, (), "ann", None)
    assert (queue.get(1).state, queue.get(1).labeled) == (CaseState.CLAIMED, 2)
    assert _decisions(database) == [(None, Resolution.UNANIMOUS, 3, 1.0), (None, None, 2, None)]
    entry = queue.history(1)[-1]
    assert (entry.event, entry.from_state, entry.to_state) == ("withdrawn", "labeled", "claimed")
    assert json.loads(entry.detail or "")["comment"] == "ann"
    assert queue.history(1, "ann")[-1] == entry
    assert [queue.history(1, name)[-1].detail for name in ("bob", "dave")] == [None, None], (
        "bob may take his back"
    )
    assert _claimed(queue, "ann").version == back.version
    queue.submit(1, "ann", Label(Rating.GOOD, "better"), version=back.version)
    assert _decisions(database)[-1] == (_label_id(database, "ann"), Resolution.UNANIMOUS, 3, 1.0)
    with pytest.raises(Conflict, match="no answer"):
        queue.withdraw(1, "dave")


def test_a_skip_can_be_taken_back(database: Database, clock: ManualClock) -> None:
    queue = CaseQueue(database, clock)
    add_cases(database, [flagged(1)])
    _claimed(queue, "ann")
    queue.skip(1, "ann", "no")
    back = queue.withdraw(1, "ann")
    assert (back.state, back.skip_reason) == (CaseState.CLAIMED, None)
    assert queue.submit(1, "ann", GOOD, version=back.version).state is CaseState.LABELED
    assert [decision[1:3] for decision in _decisions(database)] == [
        (None, 0),
        (None, 0),
        (Resolution.SINGLE, 1),
    ]


def test_a_finished_case_can_be_opened_again(database: Database, queue: CaseQueue) -> None:
    add_cases(database, [flagged(1)])
    with pytest.raises(Conflict, match="is open"):
        queue.reopen(1, "lead", "why not")
    for name in ("ann", "bob", "carl"):
        _claimed(queue, name)
        queue.submit(1, name, Label(Rating.GOOD, comment=f"by {name}"))
    opened = queue.reopen(1, "lead", "the guidelines were wrong")
    assert (opened.state, opened.labels, opened.labeled, opened.annotator) == (CaseState.OPEN, (), 0, None)
    assert [decision[1] for decision in _decisions(database)] == [Resolution.UNANIMOUS, None]
    entry = queue.history(1)[-1]
    assert (entry.event, entry.actor) == ("reopened", "lead")
    reason, _, labels = (entry.detail or "").partition("\nlabels: ")
    assert reason == "the guidelines were wrong"
    assert [label["comment"] for label in json.loads(labels)] == ["by ann", "by bob", "by carl"]
    assert queue.history(1, "ann")[-1].detail == "the guidelines were wrong"
    assert _claimed(queue, "ann").id == 1


def test_comments_are_for_everybody(database: Database, queue: CaseQueue, clock: ManualClock) -> None:
    add_cases(database, [flagged(1)])
    queue.comment(1, "ann", " <b>odd</b> ")
    clock.advance(1)
    case = queue.comment(1, "bob", "indeed")
    assert [(said.author, said.text) for said in case.comments] == [("ann", "<b>odd</b>"), ("bob", "indeed")]
    assert case.comments[1].created_at == clock.now()
    assert _claimed(queue, "carl").comments == case.comments
    with pytest.raises(Invalid, match="text"):
        queue.comment(1, "ann", "  ")


def test_one_person_at_many_desks_gives_a_case_one_label(database: Database, queue: CaseQueue) -> None:
    """Twelve threads under three names claim, release, skip and label at once."""
    cases = 20
    add_cases(database, [flagged(number, priority=number % 3) for number in range(cases)])
    errors: list[BaseException] = []

    def work(number: int) -> None:
        draw = random.Random(number)
        name = f"annotator {number % 3}"
        try:
            while (case := queue.claim(name)) is not None:
                try:
                    if draw.random() < 0.1:
                        queue.release(case.id, name)
                    elif draw.random() < 0.1:
                        queue.skip(case.id, name, "no")
                    else:
                        queue.submit(case.id, name, GOOD, version=case.version)
                except Conflict:
                    pass  # the same person was quicker at another desk
        except BaseException as error:  # noqa: BLE001 - a thread's error must reach the assertion below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with database.session(read_only=True) as session:
        rows = session.scalars(select(CaseRow)).all()
        given = Counter(session.scalars(select(LabelRow.case_id)))
        answered = Counter(session.scalars(select(ClaimRow.case_id)))
        decided = Counter(session.scalars(select(DecisionRow.case_id)))
    assert {row.state for row in rows} <= {CaseState.LABELED, CaseState.SKIPPED}
    assert all(row.taken == 3 and row.labeled == given[row.id] for row in rows)
    assert answered == Counter({row.id: 3 for row in rows})
    assert decided == Counter({row.id: 1 for row in rows})
