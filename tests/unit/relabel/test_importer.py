"""relabel.interchange.importer: dry runs, bad input, names and versions. What the database decides is in conformance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from relabel.case import CaseState
from relabel.interchange.importer import MAX_PROBLEMS, Importer, Outcome
from relabel.interchange.json_array import read_objects
from relabel.interchange.tools import TOOLS, ToolName
from relabel.label_schema import Field, FieldType, LabelSchema, default_schema
from relabel.models import ImportRow, LabelRow
from servelens.clock import ManualClock
from servelens.errors import Invalid
from tests.interchange_cases import FixedSchemas, origin
from tests.interchange_imports import Imports, outcomes, rated, task
from tests.new_database import new_database
from tests.relabel_cases import START, add_cases, flagged


@pytest.fixture
def imports(tmp_path: Path) -> Iterator[Imports]:
    database = new_database(tmp_path / "servelens.db")
    add_cases(database, [flagged(number) for number in range(1, 5)])
    yield Imports(database, ManualClock(START + timedelta(hours=1)))
    database.dispose()


def test_a_dry_run_says_the_same_and_changes_nothing(imports: Imports) -> None:
    elements = [task(1, rated(11), rated(12, "bad", "bob@example.com")), task(9, rated(13))]
    dry = imports.run(*elements, dry_run=True)
    assert imports.count(LabelRow) == imports.count(ImportRow) == 0
    assert imports.case(1).state is CaseState.OPEN
    real = imports.run(*elements)
    assert (dry.dry_run, real.dry_run) == (True, False)
    assert dry == replace(real, dry_run=True)
    assert outcomes(real) == {"taken": 1, "finished": 1, "unknown_case": 1}


def test_one_bad_annotation_stops_no_other(imports: Imports) -> None:
    report = imports.run(
        task(1, rated(11, "superb")),
        task(2, {"id": 12}, rated(13)),
        {"rating": "good"},
        task(3, rated(14, user="x" * 300)),
        task(4, rated(15)),
    )
    assert outcomes(report) == {"taken": 2, "refused": 2, "unreadable": 2}
    first = report.problems[0]
    assert (first.element, first.outcome, first.external_id) == (0, Outcome.REFUSED, "1:11")
    assert first.message.startswith("values.rating: 'superb' is none of the options")
    assert [imports.case(number).state for number in (1, 2, 3, 4)] == [
        CaseState.OPEN,
        CaseState.LABELED,
        CaseState.OPEN,
        CaseState.LABELED,
    ]


def test_skipped_and_unfinished_annotations_give_no_label(imports: Imports) -> None:
    response = {"user_id": "u", "status": "draft", "values": {"rating": {"value": "good"}}}
    record = {"metadata": origin(2, schema_version=0), "responses": [response]}
    assert outcomes(imports.run(task(1, rated(11, was_cancelled=True)))) == {"skipped": 1}
    assert outcomes(imports.run(record, tool=ToolName.ARGILLA)) == {"draft": 1}
    assert imports.count(LabelRow) == 0


def test_annotators_are_called_what_the_import_says(imports: Imports) -> None:
    full = rated(12)
    full["completed_by"] = 7
    imports.run(task(1, rated(11)), task(2, full), task(3, rated(13, user="bob")), annotators={"7": "cleo"})
    assert [imports.labels(number)[0][0] for number in (1, 2, 3)] == [
        "ann@example.com",
        "cleo",
        "label_studio:bob",
    ]


def test_an_answer_is_read_by_the_schema_that_the_task_was_made_with(imports: Imports) -> None:
    tone = Field(name="tone", type=FieldType.CHOICE, options=("warm", "cold"))
    newer = LabelSchema(version=4, fields=(tone,))
    imports.schemas = FixedSchemas(newer, (replace(newer, version=2, fields=default_schema().fields),))
    report = imports.run(
        task(1, rated(11), schema_version=2),
        task(2, rated(12), schema_version=4),
        task(3, rated(13), schema_version=5),
    )
    assert outcomes(report) == {"taken": 1, "refused": 2}
    assert "values.rating: the schema has no such field" in report.problems[0].message
    assert "version 5 of the label schema" in report.problems[1].message
    with imports.database.session(read_only=True) as session:
        assert session.scalars(select(LabelRow.schema_version)).all() == [2]


def test_an_array_that_breaks_off_is_taken_up_to_there(imports: Imports) -> None:
    data = json.dumps([task(1, rated(11)), task(2, rated(12))]).encode()[:-20]
    importer = Importer(imports.database, imports.clock, imports.schemas, TOOLS[ToolName.LABEL_STUDIO])
    report = importer.run(read_objects([data]))
    assert outcomes(report) == {"taken": 1, "unreadable": 1}
    with pytest.raises(Invalid, match="it is no JSON array"):
        importer.run(read_objects([b"{}"]))


def test_problems_are_listed_up_to_a_number(imports: Imports) -> None:
    report = imports.run(*(task(9, rated(number)) for number in range(MAX_PROBLEMS + 5)))
    assert (len(report.problems), report.more_problems) == (MAX_PROBLEMS, 5)
    assert outcomes(report) == {"unknown_case": MAX_PROBLEMS + 5}
