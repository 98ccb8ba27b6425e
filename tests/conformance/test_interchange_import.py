"""relabel.interchange.importer: what becomes of annotations, the same on every database."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from relabel.case import CaseState, Resolution
from relabel.forget import forget_records
from relabel.interchange.importer import Outcome
from relabel.interchange.json_array import read_objects
from relabel.label import Label, Rating
from relabel.label_schema import Adjudicate, default_schema
from relabel.models import CaseRow, DecisionRow, HistoryRow, ImportRow, LabelRow
from relabel.queue.case_queue import CaseQueue
from servelens.clock import ManualClock
from servelens.database import Database
from tests.interchange_cases import EVERYTHING, SHADOW, add_rich_cases
from tests.interchange_imports import Imports, outcomes, rated, task
from tests.relabel_cases import START, add_cases, flagged

RECORDED = Path(__file__).parents[1] / "unit" / "relabel" / "recorded"
LEASE_S = 600.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START + timedelta(hours=1))


@pytest.fixture
def imports(database: Database, clock: ManualClock) -> Imports:
    add_cases(database, [flagged(number) for number in range(1, 5)])
    return Imports(database, clock)


def test_an_annotation_becomes_the_label_of_its_case(imports: Imports, clock: ManualClock) -> None:
    report = imports.run(task(1, rated(11, "bad")))
    assert outcomes(report) == {"taken": 1}
    assert not report.problems
    row = imports.case(1)
    assert (row.state, row.resolution, row.labeled, row.taken) == (
        CaseState.LABELED,
        Resolution.SINGLE,
        1,
        1,
    )
    with imports.database.session(read_only=True) as session:
        label = session.scalars(select(LabelRow)).one()
        decision = session.scalars(select(DecisionRow)).one()
        history = session.scalars(select(HistoryRow).where(HistoryRow.event == "imported")).one()
    assert (label.annotator, label.rating, label.source) == ("ann@example.com", Rating.BAD, "label_studio")
    assert (label.duration_s, label.created_at) == (4.5, clock.now())
    assert (decision.label_id, decision.labels, decision.agreement) == (label.id, 1, 1.0)
    assert (history.from_state, history.to_state) == (CaseState.CLAIMED, CaseState.LABELED)
    assert (history.actor, history.detail) == ("ann@example.com", "labeled in label_studio")
    case = CaseQueue(imports.database, clock).get(1)
    assert [given.source for given in case.labels] == ["label_studio"]


def test_the_same_again_changes_nothing(imports: Imports) -> None:
    elements = [task(1, rated(11)), task(2, rated(12, "bad"))]
    imports.run(*elements)
    before = [imports.count(row) for row in (LabelRow, DecisionRow, HistoryRow, ImportRow)]
    version = imports.case(1).version
    report = imports.run(*elements)
    assert outcomes(report) == {"unchanged": 2}
    assert [imports.count(row) for row in (LabelRow, DecisionRow, HistoryRow, ImportRow)] == before
    assert imports.case(1).version == version


def test_an_annotation_that_has_changed_is_reported_and_left(imports: Imports) -> None:
    imports.run(*(task(number, rated(10 + number, "bad")) for number in (1, 2, 3)))
    report = imports.run(
        task(1, rated(11, "good")),
        task(2, rated(12, "bad", "bob@example.com")),
        task(3, rated(13, "bad", was_cancelled=True)),
    )
    assert outcomes(report) == {"changed": 3}
    assert all("Reopen the case" in problem.message for problem in report.problems)
    assert [imports.labels(number) for number in (1, 2, 3)] == [[("ann@example.com", Rating.BAD)]] * 3


def test_a_case_is_found_by_its_record_alone(imports: Imports) -> None:
    report = imports.run(
        task(1, rated(11), case_id=None),
        task(2, rated(12), case_id=None, endpoint=None),
        task(3, rated(13), case_id=999),
    )
    assert outcomes(report) == {"taken": 3}
    assert [imports.case(number).state for number in (1, 2, 3)] == [CaseState.LABELED] * 3


def test_what_names_no_case_of_ours_is_reported(imports: Imports) -> None:
    wrong: list[dict[str, Any]] = [
        {"databricks_request_id": "request-of-another-installation"},
        {"case_id": 2},
        {"case_id": 2**80, "databricks_request_id": None},
        {"case_id": None, "databricks_request_id": None},
        {"endpoint": "other"},
    ]
    report = imports.run(*(task(1, rated(11), **changed) for changed in wrong))
    assert outcomes(report) == {"unknown_case": len(wrong)}
    assert outcomes(imports.run(task(1, rated(11)), endpoint="other")) == {"unknown_case": 1}
    assert imports.count(LabelRow) == 0


def test_an_unstorable_name_is_refused(imports: Imports) -> None:
    elements = read_objects(
        [json.dumps([task(1, rated(11), case_id=None, databricks_request_id="\ud800")]).encode()]
    )
    assert outcomes(imports.run(*elements)) == {"refused": 1}


def test_what_happened_here_meanwhile_is_reported(imports: Imports, clock: ManualClock) -> None:
    queue = CaseQueue(imports.database, clock, lease_s=LEASE_S)
    ann, bob = "ann@example.com", "bob@example.com"
    for annotator, finish in ((ann, "label"), (bob, "label"), (bob, "hold")):
        case = queue.claim(annotator)
        assert case is not None
        if finish == "label":
            queue.submit(case.id, annotator, Label(Rating.GOOD))
    assert queue.claim(ann) is not None
    report = imports.run(*(task(number, rated(10 + number, "bad")) for number in (1, 2, 3, 4)))
    assert [(each.case_id, str(each.outcome)) for each in report.problems] == [
        (1, "already_labeled"),
        (2, "finished"),
        (3, "no_place"),
    ]
    # Their own claim ends with the label that they gave elsewhere.
    assert (outcomes(report)["taken"], imports.case(4).state) == (1, CaseState.LABELED)
    clock.advance(LEASE_S + 1)
    again = imports.run(task(3, rated(13, "bad")))
    assert (outcomes(again), imports.labels(3)) == ({"taken": 1}, [(ann, Rating.BAD)])


def test_a_forgotten_case_is_unknown_and_its_import_forgotten(imports: Imports) -> None:
    imports.run(task(1, rated(11)))
    forget_records(imports.database, "chat", ["request-000001"])
    assert imports.count(ImportRow) == 0
    assert outcomes(imports.run(task(1, rated(11)))) == {"unknown_case": 1}


_THREE: list[tuple[str, Adjudicate, CaseState, Resolution | None, float | None]] = [
    ("good bad", "disagreement", CaseState.OPEN, None, None),
    ("good good good", "disagreement", CaseState.LABELED, Resolution.UNANIMOUS, 1.0),
    ("good bad good", "disagreement", CaseState.DISPUTED, None, None),
    ("bad good good", "no_majority", CaseState.LABELED, Resolution.MAJORITY, 2 / 3),
    ("bad good good", "never", CaseState.LABELED, Resolution.MAJORITY, 2 / 3),
    ("bad good good bad", "disagreement", CaseState.DISPUTED, None, None),
]


def test_a_case_that_wants_three_labels_takes_three(database: Database, clock: ManualClock) -> None:
    add_cases(database, [flagged(number) for number in range(1, len(_THREE) + 1)])
    for number, (ratings, adjudicate, state, resolution, agreement) in enumerate(_THREE, start=1):
        schema = replace(default_schema(), annotators=3, adjudicate=adjudicate)
        imports = Imports(database, clock, schema)
        people = [rated(index, each, f"p{index}@example.com") for index, each in enumerate(ratings.split())]
        report = imports.run(task(number, *people))
        row = imports.case(number)
        assert (row.state, row.resolution, row.wanted) == (state, resolution, 3), ratings
        assert row.taken == row.labeled == report.outcomes[Outcome.TAKEN] == min(len(people), 3)
        assert report.outcomes.get(Outcome.FINISHED, 0) == len(people) - row.labeled
        with database.session(read_only=True) as session:
            found = session.scalars(select(DecisionRow).where(DecisionRow.case_id == number)).all()
            chosen = [session.get_one(LabelRow, each.label_id).rating for each in found]
        assert [each.agreement for each in found] == ([] if agreement is None else [pytest.approx(agreement)])
        assert chosen == ([] if agreement is None else [Rating.GOOD])


def test_a_gold_case_takes_one_label_of_everybody_and_stays(imports: Imports) -> None:
    with imports.database.session() as session:
        session.get_one(CaseRow, 1).state = CaseState.GOLD
    people = [rated(10 + number, "bad", f"p{number}@example.com") for number in range(3)]
    report = imports.run(task(1, *people, {**people[0], "id": 20}))
    assert outcomes(report) == {"taken": 3, "already_labeled": 1}
    row = imports.case(1)
    assert (row.state, row.taken, row.labeled, row.resolution) == (CaseState.GOLD, 0, 0, None)
    assert imports.count(DecisionRow) == 0


def test_what_label_studio_exported_becomes_labels_once(database: Database, clock: ManualClock) -> None:
    add_rich_cases(database)
    imports = Imports(database, clock, EVERYTHING)
    for name, expected in (("json", {"taken": 2, "skipped": 1}), ("json_min", {"unchanged": 2})):
        data = (RECORDED / f"label_studio_1.23.2_{name}.json").read_bytes()
        assert outcomes(imports.run(*read_objects([data]), annotators={"1": "ann"})) == expected
    with database.session(read_only=True) as session:
        first, second = session.scalars(select(LabelRow).order_by(LabelRow.case_id)).all()
    assert (first.annotator, first.preferred, first.tags) == ("ann", SHADOW, ["one", "two"])
    assert first.values is not None
    assert first.values["asked"] == [{"start": 13, "end": 18, "label": "pii", "text": "a@b.c"}]
    assert second.corrected_answer == "from the page 😀"
