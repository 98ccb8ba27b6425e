"""relabel.export: the same fine-tuning file from every database."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from relabel.export.openai_chat_export import (
    ExportSummary,
    OpenAIChatExport,
    export_openai_chat,
    write_openai_chat,
)
from relabel.label import Label, Rating
from relabel.models import LabelRow
from relabel.queue.case_queue import CaseQueue
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Unavailable
from tests.openai_chat_rules import read_chat_file
from tests.relabel_cases import START, add_cases, flagged

GOOD, BAD = Label(Rating.GOOD), Label(Rating.BAD)


def _corrected(answer: str, rating: Rating = Rating.BAD) -> Label:
    return Label(rating, corrected_answer=answer)


def _label(database: Database, labels: Sequence[Label | None], **values: Any) -> None:
    """One new case per label; ``None`` skips it."""
    queue = CaseQueue(database, ManualClock(START))
    for number, label in enumerate(labels):
        add_cases(database, [flagged(number, **values)])
        case = queue.claim("ann")
        assert case is not None
        if label is None:
            queue.skip(case.id, "ann", "no")
        else:
            queue.submit(case.id, "ann", label)


def _export(database: Database, **filters: Any) -> tuple[list[dict[str, Any]], ExportSummary]:
    stream = io.BytesIO()
    summary = write_openai_chat(database, stream, **filters)
    return read_chat_file(stream.getvalue()), summary


def test_an_empty_queue_exports_nothing(database: Database) -> None:
    assert _export(database) == ([], ExportSummary(0, {}))


def test_good_answers_and_corrections_are_exported_and_the_rest_is_counted(database: Database) -> None:
    labels = [
        GOOD,
        BAD,
        _corrected("better\n\u2028 😀"),
        None,
        _corrected("best", Rating.GOOD),
        BAD,
    ]
    _label(database, labels)
    add_cases(database, [flagged(99)])  # open
    examples, summary = _export(database)
    assert examples == [
        {
            "messages": [
                {"role": "user", "content": f"question {number}"},
                {"role": "assistant", "content": answer},
            ]
        }
        for number, answer in ((0, "answer 0"), (2, "better\n\u2028 😀"), (4, "best"))
    ]
    assert summary == ExportSummary(3, {"bad_without_correction": 2})


def test_an_export_is_the_same_every_time_and_in_the_order_of_the_cases(database: Database) -> None:
    queue = CaseQueue(database, ManualClock(START))
    add_cases(database, [flagged(number, priority=number % 7) for number in range(20)])
    while (case := queue.claim("ann")) is not None:
        queue.submit(case.id, "ann", GOOD)
    export = OpenAIChatExport(database)
    first = b"".join(export)
    assert b"".join(export) == first
    assert export.summary.written == 20
    questions = [example["messages"][0]["content"] for example in read_chat_file(first)]
    assert questions == [f"question {number}" for number in range(20)]


def test_an_export_of_many_batches_is_complete(database: Database) -> None:
    add_cases(database, [flagged(number) for number in range(1100)])
    with database.session() as session:  # labels without the queue, for speed
        session.add_all(
            LabelRow(
                case_id=number + 1,
                annotator="ann",
                rating=Rating.GOOD if number % 2 else Rating.BAD,
                tags=[],
                created_at=START,
            )
            for number in range(1100)
        )
    chunks = list(OpenAIChatExport(database))
    assert len(chunks) == 3
    assert len(read_chat_file(b"".join(chunks))) == 550


def test_labels_given_during_an_export_are_left_to_the_next_one(database: Database) -> None:
    _label(database, [GOOD] * 3)
    export = OpenAIChatExport(database)
    chunks = iter(export)
    first = next(chunks)
    add_cases(database, [flagged(10)])
    queue = CaseQueue(database, ManualClock(START))
    case = queue.claim("ann")
    assert case is not None
    queue.submit(case.id, "ann", GOOD)
    assert len(read_chat_file(first + b"".join(chunks))) == 3
    assert _export(database)[1].written == 4


def test_exports_can_be_filtered(database: Database) -> None:
    _label(database, [GOOD] * 4)
    queue = CaseQueue(database, ManualClock(START))
    add_cases(database, [flagged(0)], endpoint="other")
    case = queue.claim("ann")
    assert case is not None
    queue.submit(case.id, "ann", GOOD)
    assert _export(database)[1].written == 5
    assert _export(database, endpoint="other")[1].written == 1
    assert _export(database, endpoint="unknown")[1].written == 0
    window = {"since": START + timedelta(seconds=1), "until": START + timedelta(seconds=3)}
    examples, _ = _export(database, endpoint="chat", **window)
    assert [example["messages"][0]["content"] for example in examples] == ["question 1", "question 2"]


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
    _label(database, [GOOD], messages=messages, tools=tools)
    [example], _ = _export(database)
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


def test_a_file_appears_whole_and_replaces_an_older_one(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("older")
    _label(database, [GOOD, BAD])
    assert export_openai_chat(database, path) == ExportSummary(1, {"bad_without_correction": 1})
    assert len(read_chat_file(path.read_bytes())) == 1
    assert path.stat().st_mode & 0o777 == 0o644
    assert {entry.name for entry in tmp_path.iterdir() if "partial" in entry.name} == set()


def test_a_failed_export_leaves_the_file_as_it_was(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("older")
    broken = Database(database_url.replace("servelens.db", "missing/x.db").replace("/test_", "/missing_"))
    with pytest.raises(Unavailable):
        export_openai_chat(broken, path)
    broken.dispose()
    assert path.read_text() == "older"
    assert [entry.name for entry in tmp_path.iterdir() if "partial" in entry.name] == []


def test_a_folder_that_is_not_there_is_named(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "train.jsonl"
    with pytest.raises(Unavailable) as caught:
        export_openai_chat(database, path)
    assert caught.value.field == str(path)
