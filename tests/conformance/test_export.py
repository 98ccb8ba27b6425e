"""relabel.export: the same training data from every database."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from relabel.case import CaseState, ReasonKind, Resolution
from relabel.export.export import Export, ExportSummary
from relabel.export.manifest import Manifests
from relabel.export.query import ExportQuery, Split
from relabel.export.reader import newest_decision
from relabel.export.reproduce import read_manifest, reproduce
from relabel.export.write import write_export
from relabel.forget import forget_records
from relabel.label import Label, Rating
from relabel.label_schema import default_schema
from relabel.models import CaseRow, DecisionRow, LabelRow, SchemaRow
from relabel.queue.case_queue import CaseQueue
from relabel.schema_definition import definition_of
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Invalid, Unavailable
from tests.labeled_cases import BAD, GOOD, add_labeled, add_many, corrected, decide
from tests.openai_chat_rules import read_chat_file
from tests.relabel_cases import START, add_cases, flagged


def _bytes(database: Database, **parts: Any) -> tuple[bytes, ExportSummary]:
    export = Export(database, ExportQuery(**parts))
    chunks = [example.line for chunk in export for examples in chunk.values() for example in examples]
    return b"".join(chunks), export.summary


def _questions(database: Database, **parts: Any) -> list[str]:
    """Of each example the number in its question."""
    examples = read_chat_file(_bytes(database, **parts)[0])
    return [str(example["messages"][0]["content"]).removeprefix("question ") for example in examples]


def _manifests(database: Database) -> Manifests:
    return Manifests(database, ManualClock(START).now)


def test_an_empty_queue_exports_nothing(database: Database) -> None:
    assert _bytes(database) == (b"", ExportSummary(0, {}))


def test_what_the_queue_labeled_is_exported_and_the_rest_is_counted(database: Database) -> None:
    labels = [
        GOOD,
        BAD,
        corrected("better\n\u2028 😀"),
        None,
        corrected("best", Rating.GOOD),
        BAD,
    ]
    queue = CaseQueue(database, ManualClock(START))
    for number, label in enumerate(labels):
        add_cases(database, [flagged(number)])
        case = queue.claim("ann")
        assert case is not None
        if label is None:
            queue.skip(case.id, "ann", "no")
        else:
            queue.submit(case.id, "ann", label)
    add_cases(database, [flagged(99)])  # open
    content, summary = _bytes(database)
    assert read_chat_file(content) == [
        {
            "messages": [
                {"role": "user", "content": f"question {number}"},
                {"role": "assistant", "content": answer},
            ]
        }
        for number, answer in ((0, "answer 0"), (2, "better\n\u2028 😀"), (4, "best"))
    ]
    assert summary == ExportSummary(3, {"bad_without_correction": 2}, cases=5)


def test_an_export_of_many_chunks_is_complete_and_in_the_order_of_the_cases(database: Database) -> None:
    add_many(database, 1_100)
    export = Export(database, ExportQuery())
    chunks = list(export)
    assert len(chunks) == 5
    lines = [line.line for chunk in chunks for examples in chunk.values() for line in examples]
    questions = [int(each["messages"][0]["content"].split()[1]) for each in read_chat_file(b"".join(lines))]
    assert questions == list(range(1, 1_101))
    again = [line.line for chunk in export for examples in chunk.values() for line in examples]
    assert again == lines


def test_the_newest_decision_counts_and_an_older_one_can_be_asked_for(database: Database) -> None:
    case_id = add_labeled(database, 1, GOOD)
    add_labeled(database, 2, GOOD)
    before = newest_decision(database)
    decide(database, case_id, corrected("better"), annotator="bea")
    after = newest_decision(database)
    decide(database, case_id, None)
    assert _questions(database) == ["2"]
    assert _questions(database, as_of=before) == ["1", "2"]
    assert b"better" in _bytes(database, as_of=after)[0]
    assert b"better" not in _bytes(database, as_of=before)[0]
    assert _questions(database, as_of=0) == []
    assert Export(database, ExportQuery(as_of=10**9)).as_of == newest_decision(database)


def test_labels_given_during_an_export_are_left_to_the_next_one(database: Database) -> None:
    add_many(database, 300)
    export = Export(database, ExportQuery())
    chunks = iter(export)
    first = next(chunks)
    late = add_labeled(database, 9_000, GOOD)
    decide(database, 299, None)
    rest = list(chunks)
    count = sum(len(examples) for chunk in (first, *rest) for examples in chunk.values())
    assert count == 300
    decide(database, 299, GOOD, annotator="bea")
    assert late > 300
    assert _bytes(database)[1].written == 301


def test_gold_cases_are_never_exported(database: Database) -> None:
    case_id = add_labeled(database, 1, GOOD)
    add_labeled(database, 2, GOOD)
    with database.session() as session:
        session.execute(update(CaseRow).where(CaseRow.id == case_id).values(state=CaseState.GOLD))
    assert _questions(database) == ["2"]


def _ask_for(database: Database, endpoint: str, **fields: str) -> None:
    """A label schema with these fields, by their types."""
    definition = {"fields": [{"name": name, "type": kind} for name, kind in fields.items()]}
    with database.session() as session:
        session.add(
            SchemaRow(endpoint=endpoint, version=1, definition=definition, from_file=True, created_at=START)
        )


def test_exports_can_be_filtered(database: Database) -> None:
    _ask_for(
        database,
        "chat",
        topic="choice",
        topics="multiple_choice",
        where="spans",
        quality="rating",
        marks="tags",
        best="preference",
    )
    _ask_for(database, "other", marks="choice")
    add_labeled(database, 1, Label(rating=Rating.GOOD, tags=("a", "b"), values={"topic": "billing"}))
    add_labeled(database, 2, Label(rating=Rating.GOOD, tags=("b",), values={"topics": ["x", "billing"]}))
    add_labeled(database, 3, corrected("better"), columns={"variant": "treatment", "served_entity": "new"})
    add_labeled(database, 4, GOOD, agreement=0.5, resolution=Resolution.MAJORITY)
    add_labeled(database, 5, GOOD, endpoint="other")
    spans = [{"start": 0, "end": 1, "label": "wrong", "text": "a"}]
    add_labeled(database, 6, Label(rating=Rating.GOOD, preferred="answer", values={"where": spans}))
    with database.session() as session:  # all but the fifth answered the first version
        session.execute(update(LabelRow).where(LabelRow.case_id != 5).values(schema_version=1))
    for parts, expected in (
        ({}, "1 2 3 4 5 6"),
        ({"endpoints": ("other",)}, "5"),
        ({"endpoints": ("other", "chat")}, "1 2 3 4 5 6"),
        ({"endpoints": ("unknown",)}, ""),
        ({"since": START + timedelta(seconds=2), "until": START + timedelta(seconds=4)}, "2 3"),
        ({"rating": Rating.BAD}, "3"),
        ({"tags": ("b",)}, "1 2"),
        ({"tags": ("a", "b")}, "1"),
        ({"values": (("topic", "billing"),)}, "1"),
        ({"values": (("topics", "billing"),)}, "2"),
        ({"values": (("where", "wrong"),)}, "6"),
        ({"values": (("topic", "other"),)}, ""),
        ({"values": (("quality", "bad"),)}, "3"),
        ({"values": (("rating", "bad"), ("marks", "a"))}, ""),
        (
            {"values": (("quality", "good"),)},
            "1 2 4 6",
        ),  # the fifth was rated, but nobody asked for "quality"
        ({"values": (("rating", "good"),)}, "5"),
        ({"values": (("marks", "a"),)}, "1"),
        ({"values": (("best", "answer"),)}, "6"),
        ({"preferred": "answer"}, "6"),
        ({"preferred": "alternative"}, ""),
        ({"min_agreement": 0.6}, "1 2 3 5 6"),
        ({"resolutions": (Resolution.MAJORITY,)}, "4"),
        ({"rules": ("toxicity response above",)}, "1 2 3 4 5 6"),
        ({"rules": ("another",)}, ""),
        ({"reasons": (ReasonKind.SCORE, ReasonKind.DRIFT)}, "1 2 3 4 5 6"),
        ({"reasons": (ReasonKind.RANDOM,)}, ""),
        ({"variant": "treatment"}, "3"),
        ({"served_entity": "champion"}, "1 2 4 5 6"),
    ):
        assert _questions(database, **parts) == expected.split(), parts


def test_a_field_that_nobody_was_asked_is_named(database: Database) -> None:
    _ask_for(database, "chat", topic="choice")
    _ask_for(database, "other", mood="choice")
    with pytest.raises(Invalid, match="corrected_answer, rating, tags, topic") as caught:
        _bytes(database, endpoints=("chat",), values=(("mood", "x"),))
    assert caught.value.field == "value"
    assert _bytes(database, values=(("mood", "x"),))[0] == b""


def test_a_conversation_with_tools_is_kept(database: Database) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"x": 1}'}}
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
    messages = [
        {"role": "developer", "content": "be exact"},
        {"role": "user", "content": [{"type": "text", "text": "how many?"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **call}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
        {"role": "assistant", "content": "42"},
    ]
    add_labeled(database, 1, GOOD, messages=messages, tools=tools)
    [example] = read_chat_file(_bytes(database)[0])
    assert example == {
        "messages": [
            {"role": "system", "content": "be exact"},
            messages[1],
            {"role": "assistant", "tool_calls": [call], "weight": 0},
            messages[3],
            {"role": "assistant", "content": "42"},
        ],
        "tools": tools,
    }


def test_a_file_appears_whole_with_its_manifest_and_replaces_an_older_one(
    database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("older")
    add_labeled(database, 1, GOOD)
    add_labeled(database, 2, BAD)
    made = write_export(database, ExportQuery(), path, _manifests(database), by="ann")
    assert made["counts"] == {"cases": 2, "written": 1, "left_out": {"bad_without_correction": 1}}
    assert len(read_chat_file(path.read_bytes())) == 1
    assert path.stat().st_mode & 0o777 == 0o644
    assert json.loads((tmp_path / "train.manifest.json").read_bytes()) == made
    assert _manifests(database).get(made["id"]) == made
    assert [entry.name for entry in tmp_path.iterdir() if "partial" in entry.name] == []


def test_a_folder_of_somebody_else_is_not_replaced(database: Database, tmp_path: Path) -> None:
    add_labeled(database, 1, GOOD)
    folder = tmp_path / "extension"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"manifest_version": 3, "name": "mine"}')
    query = ExportQuery(split=Split(0.5))
    with pytest.raises(Invalid, match="something else than an export"):
        write_export(database, query, folder, _manifests(database), by=None)
    assert [each.name for each in folder.iterdir()] == ["manifest.json"]
    made = write_export(database, query, tmp_path / "ours", _manifests(database), by=None)
    again = write_export(database, query, tmp_path / "ours", _manifests(database), by=None)
    assert made["files"] == again["files"]
    assert made["label_schemas"] == {"chat": {"0": definition_of(default_schema())}}


def test_a_failed_export_leaves_the_file_as_it_was(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("older")
    add_many(database, 300)
    with database.session() as session:  # a case of the second chunk that nobody can read
        session.connection().exec_driver_sql("DROP TABLE relabel_exports")
    with pytest.raises(Unavailable):
        write_export(database, ExportQuery(), path, _manifests(database), by=None)
    assert path.read_text() == "older"
    assert {entry.name for entry in tmp_path.iterdir()} <= {
        "train.jsonl",
        "servelens.db",
        "servelens.db-wal",
        "servelens.db-shm",
    }


def test_a_database_that_fails_on_the_way_is_an_error(database: Database) -> None:
    add_many(database, 300)
    chunks = iter(Export(database, ExportQuery()))
    next(chunks)
    with database.session() as session:
        session.connection().exec_driver_sql("DROP TABLE relabel_decisions")
    with pytest.raises(Unavailable):
        next(chunks)


def test_the_newest_decision_waits_for_those_that_are_being_written(
    database: Database, database_url: str
) -> None:
    add_many(database, 2)
    if database.engine.dialect.name == "sqlite":
        assert newest_decision(database) == 2
        return
    found: list[int] = []
    other = Database(database_url)
    try:
        with database.session() as session:
            session.connection().exec_driver_sql("SELECT setval('relabel_decisions_id_seq', 10)")
            row = DecisionRow(case_id=1, label_id=1, labels=1, created_at=START)
            session.add(row)
            session.flush()
            assert row.id == 11
            # Commits first, with a later id: 11 must not be missed by whoever reads 12.
            assert decide(other, 2, None) == 12
            reading = threading.Thread(target=lambda: found.append(newest_decision(other)))
            reading.start()
            reading.join(0.2)
            assert found == []
        reading.join(30)
        assert found == [12]
    finally:
        other.dispose()


def test_an_export_can_be_made_again_and_what_is_different_is_named(
    database: Database, tmp_path: Path
) -> None:
    add_many(database, 400)
    query = ExportQuery(format="trl_kto", split=Split(0.2))
    made = write_export(database, query, tmp_path / "kto", _manifests(database), by="ann")
    manifest = read_manifest(tmp_path / "kto" / "manifest.json")
    assert manifest == made
    # Labels that came later do not matter.
    add_labeled(database, 9_000, GOOD)
    decide(database, 5, corrected("another"), annotator="bea")
    (tmp_path / "again").mkdir()
    compared = reproduce(database, manifest, tmp_path / "again")
    assert compared.is_same
    assert list(compared.lines()) == []
    for file in manifest["files"]:
        assert (tmp_path / "again" / file["name"]).read_bytes() == (
            tmp_path / "kto" / file["name"]
        ).read_bytes()
    forget_records(database, "chat", ["request-000007", "request-000008"])
    with database.session() as session:
        session.execute(update(CaseRow).where(CaseRow.id == 9).values(state=CaseState.GOLD))
        session.execute(update(DecisionRow).where(DecisionRow.case_id == 10).values(label_id=None))
        row = session.get(CaseRow, 250)
        assert row is not None
        row.messages = [{"role": "user", "content": "other"}, *row.messages[1:]]
    (tmp_path / "third").mkdir()
    compared = reproduce(database, manifest, tmp_path / "third")
    assert not compared.is_same
    assert compared.gone == {
        "since they were forgotten": (7, 8),
        "since they are gold now": (9,),
        "since their labels were taken back": (10,),
    }
    assert compared.new == ()
    assert compared.changed == ((200, 299),)
    assert "2 cases are gone, since they were forgotten: 7, 8" in list(compared.lines())
