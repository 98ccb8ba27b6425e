"""relabel.forget: what leaves the queue with a record, and what stays because it is another record's as well."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import func, select

from collector.forgotten import ForgottenRecords
from relabel.alternatives import answered
from relabel.forget import forget_records
from relabel.label import Label, Rating
from relabel.models import CaseRow, CommentRow, HistoryRow, LabelRow, OccurrenceRow, ReasonRow
from relabel.queue.case_queue import CaseQueue
from relabel.selection.case_writer import Placement, store
from servelens.clock import ManualClock
from servelens.database import Database
from tests.relabel_cases import START, add_cases, flagged

GOOD = Label(Rating.GOOD)
SAME = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def rows(database: Database) -> dict[str, int]:
    with database.session(read_only=True) as session:
        return {
            row.__tablename__: session.scalar(select(func.count()).select_from(row)) or 0
            for row in (CaseRow, OccurrenceRow, ReasonRow, LabelRow, HistoryRow, CommentRow)
        }


def test_a_case_leaves_with_its_labels_and_its_history(database: Database) -> None:
    queue = CaseQueue(database, ManualClock(START))
    add_cases(database, [flagged(1)])
    other = rows(database)
    add_cases(database, [flagged(2, priority=1)])
    queue.claim("ann")
    queue.submit(2, "ann", GOOD)
    assert forget_records(database, "chat", ["request-000002", "unknown"]) == {"cases": 1, "labels": 1}
    assert rows(database) == other
    assert queue.get(1).databricks_request_id == "request-000001"
    assert forget_records(database, "chat", ["request-000002"]) == {"cases": 0, "labels": 0}


def test_a_case_of_two_records_stays_the_other_ones(database: Database) -> None:
    queue = CaseQueue(database, ManualClock(START))
    add_cases(database, [flagged(number, messages=SAME) for number in (1, 2, 3)])
    assert queue.get(1).occurrences == 3
    queue.claim("ann")
    queue.submit(1, "ann", GOOD)
    assert forget_records(database, "chat", ["request-000001"]) == {"cases": 0, "labels": 0}
    case = queue.get(1)
    assert (case.databricks_request_id, case.occurrences) == ("request-000002", 2)
    assert case.request_time == flagged(2).request_time
    assert forget_records(database, "chat", ["request-000003"]) == {"cases": 0, "labels": 0}
    assert (queue.get(1).databricks_request_id, queue.get(1).occurrences) == ("request-000002", 1)
    assert forget_records(database, "chat", ["request-000002"]) == {"cases": 1, "labels": 1}
    assert set(rows(database).values()) == {0}


def test_a_record_that_says_nearly_the_same_keeps_no_case(database: Database) -> None:
    near = {f"request-{number:06d}": Placement(near=1, similarity=0.99) for number in (2, 3)}
    with database.session() as session:
        store(session, "chat", [flagged(1)], {}, START)
    with database.session() as session:
        store(session, "chat", [flagged(2), flagged(3)], near, START)
    queue = CaseQueue(database, ManualClock(START))
    queue.claim("ann")
    queue.submit(1, "ann", GOOD)
    queue.comment(1, "ann", "hm")
    assert forget_records(database, "chat", ["request-000002"]) == {"cases": 0, "labels": 0}
    assert queue.get(1).occurrences == 2
    assert forget_records(database, "chat", ["request-000001"]) == {"cases": 1, "labels": 1}
    assert set(rows(database).values()) == {0}


def test_a_case_that_stays_does_not_say_whose_it_was(database: Database) -> None:
    theirs = replace(
        flagged(1, messages=SAME),
        unit="user-7",
        alternatives=[
            answered("shadow", {"role": "assistant", "content": "Hey"}, databricks_request_id="shadow-1"),
            answered("shadow", {"role": "assistant", "content": "Ho"}, databricks_request_id="shadow-2"),
        ],
    )
    add_cases(database, [theirs, flagged(2, messages=SAME)])
    forget_records(database, "chat", ["request-000001", "shadow-1"])
    with database.session(read_only=True) as session:
        row = session.scalars(select(CaseRow)).one()
    assert (row.databricks_request_id, row.unit, row.session) == ("request-000002", None, None)
    assert [each["databricks_request_id"] for each in row.alternatives or ()] == [None, "shadow-2"]


def test_all_records_of_a_case_at_once(database: Database) -> None:
    add_cases(database, [flagged(number, messages=SAME) for number in (1, 2)])
    assert forget_records(database, "chat", ["request-000001", "request-000002"])["cases"] == 1
    assert set(rows(database).values()) == {0}


def test_another_endpoints_case_stays(database: Database) -> None:
    add_cases(database, [flagged(1)])
    add_cases(database, [flagged(1)], endpoint="code")
    assert forget_records(database, "code", ["request-000001"])["cases"] == 1
    assert CaseQueue(database, ManualClock(START)).get(1).endpoint == "chat"


def test_many_records(database: Database) -> None:
    add_cases(database, [flagged(number) for number in range(601)])
    ids = [f"request-{number:06d}" for number in range(600)]
    assert forget_records(database, "chat", ids)["cases"] == 600
    assert rows(database)["relabel_cases"] == 1


def test_ids_are_remembered_for_a_time_that_begins_anew(database: Database) -> None:
    clock = ManualClock(START)
    forgotten = ForgottenRecords(database, clock)
    many = [f"request-{number:06d}" for number in range(1_100)]
    forgotten.add("chat", many)
    forgotten.add("code", ["request-000001"])
    clock.advance(60)
    forgotten.add("chat", ["request-000001", "request-000001"])
    assert {name: len(ids) for name, ids in forgotten.by_endpoint().items()} == {"chat": 1_100, "code": 1}
    assert forgotten.drop(START + timedelta(seconds=1)) == 1_100
    assert forgotten.by_endpoint() == {"chat": ["request-000001"]}
