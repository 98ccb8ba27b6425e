"""relabel.selection: scores in real Delta tables become cases in either database, each record once."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import pytest
from sqlalchemy import select, text

from collector.catalog import EndpointTables
from collector.maintenance_compaction import Compactor
from collector.maintenance_history import purge
from relabel.case import CaseState, RecordedScore
from relabel.label import Label, Rating
from relabel.models import CursorRow, OccurrenceRow
from relabel.queue.case_queue import CaseQueue
from relabel.selection.rule import Rule
from relabel.selection.selector import Selector
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Conflict, Invalid, ServelensError, Unavailable
from tests.relabel_cases import START, append_rows, endpoint_tables, payload_row, score_row

TOXIC = Rule("toxicity", above=0.5)


@pytest.fixture
def tables(tmp_path: Path) -> EndpointTables:
    return endpoint_tables(str(tmp_path / "tables"))


@pytest.fixture
def queue(database: Database) -> CaseQueue:
    return CaseQueue(database, ManualClock(START))


def _selector(tables: EndpointTables, database: Database, *rules: Rule) -> Selector:
    return Selector(tables, "chat", rules or (TOXIC,), database, ManualClock(START))


def _request_ids(queue: CaseQueue) -> list[str]:
    return [case.databricks_request_id for case in queue.list(limit=500).cases]


def _numbers(queue: CaseQueue) -> list[int]:
    return sorted(int(request_id.removeprefix("request-")) for request_id in _request_ids(queue))


def test_without_tables_there_is_nothing_to_select(tables: EndpointTables, database: Database) -> None:
    assert _selector(tables, database).run() == 0


def test_only_scores_past_the_threshold_become_cases(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    scores = [0.1, 0.5, 0.500001, 0.9, None, math.nan, math.inf]
    append_rows(
        tables,
        [payload_row(number) for number in range(len(scores))],
        [score_row(number, score) for number, score in enumerate(scores)],
    )
    assert _selector(tables, database).run() == 3
    assert _numbers(queue) == [2, 3, 6]


def test_a_rule_is_of_one_evaluator_target_and_side(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    append_rows(
        tables,
        [payload_row(number) for number in range(4)],
        [
            score_row(0, 0.9),
            score_row(1, 0.9, target="request"),
            score_row(2, 0.9, evaluator="rudeness"),
            score_row(3, 0.1),
        ],
    )
    rules = [Rule("toxicity", target="request", above=0.5), Rule("toxicity", below=0.2)]
    assert _selector(tables, database, *rules).run() == 2
    assert _numbers(queue) == [1, 3]
    assert [case.reasons[0].direction for case in queue.list().cases] == ["above", "below"]


def test_a_case_holds_a_snapshot_of_its_record(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "why?"},
    ]
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]
    row = payload_row(
        1,
        request=json.dumps({"messages": messages, "tools": tools, "temperature": 1.6}),
        response=json.dumps({"choices": [{"message": {"role": "assistant", "content": "because"}}]}),
        prompt_text="be brief\nwhy?",
        response_text="because",
    )
    append_rows(tables, [row], [score_row(1, 0.9), score_row(1, 42.0, evaluator="perplexity")])
    _selector(tables, database).run()
    case = queue.get(1)
    assert case.messages == (*messages, {"role": "assistant", "content": "because"})
    assert case.answered
    assert case.tools == tuple(tools)
    assert (case.prompt_text, case.response_text) == ("be brief\nwhy?", "because")
    assert (case.endpoint, case.served_entity, case.variant, case.model) == (
        "chat",
        "champion",
        "control",
        "smollm2",
    )
    assert case.request_time == row["request_time"]
    assert case.scores == (
        RecordedScore("perplexity", "response", 42.0),
        RecordedScore("toxicity", "response", 0.9),
    )
    assert case.state is CaseState.OPEN
    assert case.occurrences == 1


def test_text_that_a_database_cannot_hold_is_replaced(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    request = '{"messages": [{"role": "user", "content": "nul \\u0000 and half \\ud83d a pair"}]}'
    append_rows(
        tables,
        [payload_row(1, request=request, prompt_text="nul \x00", model="m\x00", response_text="x\x00")],
        [score_row(1, 0.9, label="l\x00")],
    )
    assert _selector(tables, database).run() == 1
    case = queue.get(1)
    assert case.messages[0]["content"] == "nul \ufffd and half \ufffd a pair"
    assert (case.prompt_text, case.model, case.response_text) == ("nul \ufffd", "m\ufffd", "x\ufffd")


def test_each_score_is_looked_at_once(tables: EndpointTables, database: Database, queue: CaseQueue) -> None:
    append_rows(tables, [payload_row(1), payload_row(2)], [score_row(1, 0.9)])
    selector = _selector(tables, database)
    assert selector.run() == 1
    assert selector.run() == 0
    append_rows(tables, [], [score_row(2, 0.9)])
    assert _selector(tables, database).run() == 1
    assert _numbers(queue) == [1, 2]
    with database.session() as session:
        assert session.get_one(CursorRow, ("chat", "scores")).version == tables.scores.version()


def test_several_reasons_make_one_case_of_the_highest_priority(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    append_rows(tables, [payload_row(1)], [score_row(1, 0.9), score_row(1, 500.0, evaluator="perplexity")])
    rules = [
        Rule("toxicity", above=0.5, priority=1),
        Rule("perplexity", above=100, priority=7),
        Rule("toxicity", above=0.8, priority=3),
    ]
    assert _selector(tables, database, *rules).run() == 1
    case = queue.get(1)
    assert case.priority == 7
    assert [(reason.evaluator, reason.threshold, reason.priority) for reason in case.reasons] == [
        ("perplexity", 100, 7),
        ("toxicity", 0.8, 3),
    ]


@pytest.mark.parametrize("claimed", [False, True])
def test_a_later_reason_is_added_to_the_case(
    tables: EndpointTables, database: Database, queue: CaseQueue, claimed: bool
) -> None:
    rules = [Rule("toxicity", above=0.5, priority=1), Rule("perplexity", above=100, priority=7)]
    append_rows(tables, [payload_row(1)], [score_row(1, 0.9)])
    _selector(tables, database, *rules).run()
    claim = queue.claim("ann") if claimed else None
    append_rows(tables, [], [score_row(1, 500.0, evaluator="perplexity")])
    assert _selector(tables, database, *rules).run() == 0
    case = queue.get(1)
    assert case.priority == 7
    assert [reason.evaluator for reason in case.reasons] == ["perplexity", "toxicity"]
    assert [score.evaluator for score in case.scores] == ["perplexity", "toxicity"]
    assert case.occurrences == 1
    if claim is not None:
        # The annotator's work is not disturbed.
        queue.submit(1, "ann", Label(Rating.GOOD), version=claim.version)


def test_the_same_content_again_is_another_occurrence(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    def same(number: int) -> dict[str, object]:
        first = payload_row(1)
        kept = {name: first[name] for name in ("request", "response", "prompt_text", "response_text")}
        return payload_row(number, **kept)

    append_rows(
        tables, [same(1), same(2), same(3), payload_row(4)], [score_row(n, 0.9) for n in (3, 2, 1, 4)]
    )
    assert _selector(tables, database).run() == 2
    assert _numbers(queue) == [1, 4]  # the first of the three, whatever the order of the scores
    assert queue.get(1).occurrences == 3
    append_rows(tables, [same(5)], [score_row(5, 0.8), score_row(1, 1.0)])
    assert _selector(tables, database).run() == 0
    assert queue.get(1).occurrences == 4
    assert len(queue.get(1).reasons) == 1
    with database.session() as session:
        joined = session.scalars(
            select(OccurrenceRow.databricks_request_id)
            .where(OccurrenceRow.case_id == 1)
            .order_by(OccurrenceRow.databricks_request_id)
        )
        assert joined.all() == [f"request-{number:06d}" for number in (1, 2, 3, 5)]


def test_the_same_content_on_another_endpoint_is_another_case(
    tmp_path: Path, tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    other = endpoint_tables(str(tmp_path / "other"), "other")
    for of_endpoint in (tables, other):
        append_rows(of_endpoint, [payload_row(1)], [score_row(1, 0.9)])
    assert _selector(tables, database).run() == 1
    assert Selector(other, "other", [TOXIC], database, ManualClock(START)).run() == 1
    assert len(_request_ids(queue)) == 2


def test_a_record_without_text_is_no_case_and_does_not_stop_the_others(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    empty = payload_row(2, request=None, response=None, prompt_text=None, response_text=None)
    append_rows(tables, [payload_row(1), empty], [score_row(number, 0.9) for number in (1, 2, 3)])
    assert _selector(tables, database).run() == 1
    assert _numbers(queue) == [1]


def test_where_the_history_of_the_scores_has_ended_they_are_all_read_and_no_case_doubles(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    append_rows(tables, [payload_row(1)], [score_row(1, 0.9)])
    assert _selector(tables, database).run() == 1
    append_rows(tables, [payload_row(2)], [score_row(2, 0.9)])
    Compactor(min_files=2, target_bytes=128 << 20).run(tables.scores, now=START)
    purge(tables.scores)
    assert _selector(tables, database).run() == 1
    assert _numbers(queue) == [1, 2]
    assert {case.occurrences for case in queue.list().cases} == {1}
    append_rows(tables, [payload_row(3)], [score_row(3, 0.9)])
    assert _selector(tables, database).run() == 1


def test_a_crash_between_two_transactions_neither_loses_nor_doubles(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    number_of_records = 1200  # ten transactions
    append_rows(
        tables,
        [payload_row(number) for number in range(number_of_records)],
        [score_row(number, 0.9) for number in range(number_of_records)],
    )
    # The database itself refuses one record of the ninth transaction, as a full disk would.
    _refuse_case(database, "request-001100")
    with pytest.raises(ServelensError):
        _selector(tables, database).run()
    assert queue.counts()["chat"][CaseState.OPEN] == 1000
    _accept_cases(database)
    assert _selector(tables, database).run() == 200
    assert queue.counts()["chat"][CaseState.OPEN] == number_of_records
    with database.session() as session:
        assert len(session.scalars(select(OccurrenceRow.case_id).distinct()).all()) == number_of_records


def _refuse_case(database: Database, request_id: str) -> None:
    if database.engine.dialect.name == "sqlite":
        statements = [
            "CREATE TRIGGER refuse BEFORE INSERT ON relabel_cases "
            f"WHEN new.databricks_request_id = '{request_id}' BEGIN SELECT RAISE(ABORT, 'full'); END"
        ]
    else:
        statements = [
            "CREATE FUNCTION refuse() RETURNS trigger AS "
            "$$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = 'disk_full'; END $$ LANGUAGE plpgsql",
            "CREATE TRIGGER refuse BEFORE INSERT ON relabel_cases FOR EACH ROW "
            f"WHEN (new.databricks_request_id = '{request_id}') EXECUTE FUNCTION refuse()",
        ]
    with database.session() as session:
        for statement in statements:
            session.execute(text(statement))


def _accept_cases(database: Database) -> None:
    on_table = "" if database.engine.dialect.name == "sqlite" else " ON relabel_cases"
    with database.session() as session:
        session.execute(text(f"DROP TRIGGER refuse{on_table}"))


def test_selectors_at_the_same_time_select_each_record_once(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    append_rows(
        tables,
        [payload_row(number) for number in range(100)],
        [score_row(number, 0.9) for number in range(100)],
    )
    start, new, errors = threading.Barrier(4), [], []

    def select_cases() -> None:
        start.wait(20)
        try:
            new.append(_selector(tables, database).run())
        except Conflict:
            pass
        except Exception as error:  # noqa: BLE001 - a thread's error must reach the assertion below
            errors.append(error)

    threads = [threading.Thread(target=select_cases) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sum(new) == 100
    assert queue.counts()["chat"][CaseState.OPEN] == 100


def test_a_scores_table_that_was_made_anew_is_read_from_its_start(
    tmp_path: Path, tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    append_rows(tables, [payload_row(1), payload_row(2)], [score_row(1, 0.9)])
    append_rows(tables, [], [score_row(2, 0.1)])
    append_rows(tables, [], [score_row(2, 0.2)])
    _selector(tables, database).run()
    anew = endpoint_tables(str(tmp_path / "anew"))
    append_rows(anew, [payload_row(1), payload_row(2)], [score_row(1, 0.9), score_row(2, 0.9)])
    assert _selector(anew, database).run() == 1
    assert _numbers(queue) == [1, 2]
    assert _selector(anew, database).run() == 0


def test_a_table_that_cannot_be_read_is_unavailable_and_nothing_is_lost(
    tmp_path: Path, tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    append_rows(tables, [payload_row(1)], [score_row(1, 0.9)])
    files = list(Path(tables.payload.uri).rglob("*.parquet"))
    kept = [(file, file.read_bytes()) for file in files]
    for file in files:
        file.unlink()
    with pytest.raises(Unavailable):
        _selector(tables, database).run()
    for file, content in kept:
        file.write_bytes(content)
    assert _selector(tables, database).run() == 1
    assert _numbers(queue) == [1]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "above"),
        ({"above": 1.0, "below": 0.0}, "above"),
        ({"above": math.nan}, "above"),
        ({"below": math.nan}, "below"),
        ({"above": 1.0, "target": "both"}, "target"),
    ],
)
def test_a_rule_that_means_nothing_is_invalid(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        Rule("toxicity", **arguments)
    assert caught.value.field == field
