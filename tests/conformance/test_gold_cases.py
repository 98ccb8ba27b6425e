"""relabel.queue: cases with a known answer, which measure annotators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from relabel.case import Case, CaseState, Resolution
from relabel.label import Label, Rating
from relabel.models import CaseRow, ClaimRow, DecisionRow, LabelRow
from relabel.queue.case_queue import CaseQueue
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Conflict, Invalid
from tests.label_schemas import Versions
from tests.relabel_cases import START, add_cases, flagged

GOOD = Label(Rating.GOOD)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


def _with_gold(
    database: Database, clock: ManualClock, *, cases: int = 12, gold: int = 2, annotators: int = 1
) -> CaseQueue:
    """A queue whose last cases are gold."""
    schemas = Versions(annotators=annotators, gold_every=3)
    queue = CaseQueue(database, clock, schemas=schemas)
    add_cases(database, [flagged(number) for number in range(cases)])
    for case_id in range(cases + 1 - gold, cases + 1):
        made = queue.set_gold(case_id, {"rating": "bad", "tags": ["rude"]}, actor="lead")
        assert made.state is CaseState.GOLD
    return queue


def _claimed(queue: CaseQueue, annotator: str) -> Case:
    case = queue.claim(annotator)
    assert case is not None
    return case


@pytest.mark.parametrize("annotators", [1, 3])
def test_one_comes_after_so_many_labels_and_never_twice(
    database: Database, clock: ManualClock, annotators: int
) -> None:
    queue = _with_gold(database, clock, annotators=annotators)
    given = []
    while (case := queue.claim("ann")) is not None:
        given.append(case.id)
        queue.submit(case.id, "ann", GOOD, version=case.version)
    assert given == [1, 2, 3, 11, 4, 5, 6, 12, 7, 8, 9, 10]
    assert queue.counts()["chat"][CaseState.GOLD] == 2
    with database.session(read_only=True) as session:
        labels = session.scalars(select(LabelRow.case_id).where(LabelRow.annotator == "ann")).all()
        decided = session.scalars(select(DecisionRow.case_id)).all()
        gold = session.scalars(select(CaseRow).where(CaseRow.state == CaseState.GOLD)).all()
    assert sorted(labels) == list(range(1, 13))
    assert set(decided) == (set(range(1, 11)) if annotators == 1 else set())
    assert [(row.taken, row.labeled, row.gold) for row in gold] == [
        (0, 0, {"rating": "bad", "tags": ["rude"]})
    ] * 2
    assert [entry.event for entry in queue.history(11)][1:] == ["gold", "claimed", "labeled"]


def _shown(case: Case) -> Mapping[str, Any]:
    """A case without what is different for every two cases."""
    own = ("id", "databricks_request_id", "request_time", "messages", "prompt_text", "response_text")
    previews = ("prompt_preview", "response_preview")
    return {name: value for name, value in asdict(case).items() if name not in (*own, *previews)}


@pytest.mark.parametrize("annotators", [1, 3])
def test_annotators_cannot_tell_it_from_another(
    database: Database, clock: ManualClock, annotators: int
) -> None:
    queue = _with_gold(database, clock, cases=30, annotators=annotators)
    for name in ("bob", "carl", "dave"):  # they have had gold cases, which must not show
        for _ in range(5):
            queue.submit(_claimed(queue, name).id, name, GOOD)
    assert _shown(queue.get(30, "eve")) == _shown(queue.get(28, "eve")), "one that she has not had"
    shown = []
    for _ in range(4):
        clock.advance(1)
        claimed = _claimed(queue, "ann")
        done = queue.submit(claimed.id, "ann", GOOD, version=claimed.version)
        assert queue.get(claimed.id, "ann") == done
        shown.append((claimed, done))
    assert [queue.get(claimed.id).state is CaseState.GOLD for claimed, _ in shown] == [False] * 3 + [True]
    (normal, normal_done), (gold, gold_done) = shown[2:]
    second = timedelta(seconds=1)
    for case, other in ((gold, normal), (gold_done, normal_done)):
        expected = _shown(other) | {"updated_at": other.updated_at + second}
        if other.lease_expires_at is not None:
            expected["lease_expires_at"] = other.lease_expires_at + second
        if other.labels:
            expected["labels"] = [asdict(other.labels[0]) | {"created_at": other.updated_at + second}]
        assert _shown(case) | {"labels": list(_shown(case)["labels"])} == expected | {
            "labels": list(expected["labels"])
        }


def test_nor_by_what_becomes_of_it_in_their_hands(database: Database, clock: ManualClock) -> None:
    queue = _with_gold(database, clock, cases=30)
    for _ in range(3):
        queue.submit(_claimed(queue, "ann").id, "ann", GOOD)
    gold = _claimed(queue, "ann").id
    assert queue.get(gold).state is CaseState.GOLD
    queue.claim("bob")

    def seen(case_id: int, name: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []

        def look() -> None:
            case = queue.get(case_id, name)
            holder = case.annotator and case.annotator == name
            found.append(
                (case.state, case.version, holder, case.labeled, case.resolution, case.lease_expires_at)
            )

        look()
        for act in (
            lambda: queue.submit(case_id, name, GOOD),
            lambda: queue.withdraw(case_id, name),
            lambda: queue.skip(case_id, name, "no"),
            lambda: queue.withdraw(case_id, name),
        ):
            act()
            look()
        queue.submit(case_id, name, GOOD, version=found[-1][1])
        queue.withdraw(case_id, name)
        look()
        return found

    assert seen(gold, "ann") == seen(4, "bob")
    clock.advance(1_000)
    assert queue.claim("carl") is not None, "frees what ran out"
    queue.release(4, "carl")
    late = [
        queue.get(gold, "ann"),
        queue.renew(gold, "ann"),
        queue.release(gold, "ann"),
        queue.get(gold, "ann"),
    ]
    assert [(case.state, case.annotator) for case in late] == [
        (CaseState.OPEN, "ann"),
        (CaseState.CLAIMED, "ann"),
        (CaseState.OPEN, None),
        (CaseState.OPEN, None),
    ]
    assert [case.version - late[0].version for case in late] == [0, 1, 2, 2]


def test_a_gold_case_that_was_given_back_or_skipped_does_not_come_again(
    database: Database, clock: ManualClock
) -> None:
    queue = _with_gold(database, clock, gold=1)
    for name, leave in (
        ("ann", lambda: queue.release(12, "ann")),
        ("bob", lambda: queue.skip(12, "bob", "no")),
        ("carl", lambda: clock.advance(10_000)),
    ):
        for _ in range(3):
            queue.submit(_claimed(queue, name).id, name, GOOD)
        assert _claimed(queue, name).id == 12
        leave()
        if name != "carl":
            assert _claimed(queue, name).id != 12
            queue.release(_claimed(queue, name).id, name)
    with pytest.raises(Conflict, match="not claimed"):
        queue.submit(12, "ann", GOOD)
    assert queue.get(12).state is CaseState.GOLD
    assert queue.submit(12, "carl", GOOD).state is CaseState.LABELED, "late, as with any other case"


def test_a_labeled_case_becomes_gold_and_an_open_one_again(database: Database, clock: ManualClock) -> None:
    queue = CaseQueue(database, clock)
    add_cases(database, [flagged(1), flagged(2)])
    case = _claimed(queue, "ann")
    with pytest.raises(Conflict, match="being worked on"):
        queue.set_gold(case.id, {"rating": "good"}, actor="lead")
    with pytest.raises(Invalid) as caught:
        queue.set_gold(2, {"rating": "fine"}, actor="lead")
    assert caught.value.field == "values.rating"
    with pytest.raises(Conflict, match="no gold case"):
        queue.set_gold(2, None, actor="lead")
    queue.submit(case.id, "ann", GOOD)
    gold = queue.set_gold(case.id, {"rating": "good"}, actor="lead")
    assert (gold.state, gold.resolution) == (CaseState.GOLD, None)
    queue.set_gold(case.id, {"rating": "bad"}, actor="lead")
    assert queue.history(case.id)[-1].detail == '{"rating": "bad"}'
    assert queue.history(case.id, "ann")[-1].detail is None
    opened = queue.set_gold(case.id, None, actor="lead")
    assert (opened.state, opened.labels) == (CaseState.OPEN, ())
    assert [(entry.from_state, entry.to_state, entry.event) for entry in queue.history(case.id)][3:] == [
        ("labeled", "gold", "gold"),
        ("gold", "gold", "gold"),
        ("gold", "open", "gold"),
    ]
    with database.session(read_only=True) as session:
        decisions = session.scalars(select(DecisionRow).order_by(DecisionRow.id)).all()
        assert [decision.resolution for decision in decisions] == [Resolution.SINGLE, None]
        assert session.scalars(select(ClaimRow)).all() == []
    assert _claimed(queue, "ann").id == case.id
