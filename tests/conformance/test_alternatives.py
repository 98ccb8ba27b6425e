"""Other answers to a case's question: where they come from, how long they can be added, how they are shown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from relabel.alternatives import (
    EVENT,
    MAX_ALTERNATIVES,
    Alternatives,
    preferred,
    presented,
    shadow_answers,
    stored,
    uploaded,
)
from relabel.case import Alternative, Case, CaseState
from relabel.label import ANSWER, TIE
from relabel.models import CaseRow, ClaimRow, ClaimState
from relabel.queue.case_queue import CaseQueue
from relabel.selection.manual import ManualSelection
from relabel.selection.rule import Rule
from relabel.selection.selector import Selector
from relabel.selection.suppression import OFF
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Conflict, Invalid, Missing, Unavailable
from tests.relabel_cases import (
    START,
    add_cases,
    append_rows,
    endpoint_tables,
    flagged,
    payload_row,
    score_row,
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START + timedelta(hours=1))


@pytest.fixture
def alternatives(database: Database, clock: ManualClock) -> Alternatives:
    add_cases(database, [flagged(1)])
    return Alternatives(database, clock)


def with_answers(database: Database, clock: ManualClock, case_id: int = 1) -> Case:
    """The case as it is handed out."""
    case = CaseQueue(database, clock).get(case_id)
    with database.session(read_only=True) as session:
        row = session.get(CaseRow, case_id)
        assert row is not None
        return replace(case, alternatives=tuple(Alternative(**each) for each in row.alternatives or ()))


def hold(database: Database, annotator: str, until: datetime) -> None:
    with database.session() as session:
        session.add(
            ClaimRow(
                case_id=1,
                annotator=annotator,
                state=ClaimState.HELD,
                version=2,
                schema_version=0,
                is_adjudication=False,
                claimed_at=START,
                lease_expires_at=until,
            )
        )


def change(database: Database, **columns: Any) -> None:
    with database.session() as session:
        row = session.get(CaseRow, 1)
        assert row is not None
        for name, value in columns.items():
            setattr(row, name, value)


def shadow_row(number: int, answer: str | None, **values: Any) -> dict[str, Any]:
    """What a shadow answered to record ``number``, two seconds later."""
    moment = START + timedelta(seconds=number + 2)
    message = {"role": "assistant", "content": answer}
    row = payload_row(
        number,
        databricks_request_id=f"shadow-{number:06d}",
        request_time=moment,
        request_date=moment.date(),
        response=None if answer is None else f'{{"choices": [{{"message": {json.dumps(message)}}}]}}',
        response_text=answer,
        served_entity="next",
        model="smollm3",
        is_shadow=True,
        shadow_of=f"request-{number:06d}",
    )
    return {**row, **values}


def found(tables: Any, ids: Sequence[str], until_s: float = 100) -> dict[str, list[str]]:
    answers = shadow_answers(tables, ids, START, START + timedelta(seconds=until_s))
    return {request_id: [each.text for each in each_answers] for request_id, each_answers in answers.items()}


def test_what_shadows_answered_is_found_by_the_record(tmp_path: Path) -> None:
    tables = endpoint_tables(str(tmp_path))
    ids = [f"request-{number:06d}" for number in range(1, 6)]
    assert shadow_answers(tables, ids, START, START + timedelta(days=1)) == {}
    rows = [
        *(payload_row(number) for number in range(1, 6)),
        shadow_row(1, "later", databricks_request_id="s-b", request_time=START + timedelta(seconds=9)),
        shadow_row(1, "sooner", databricks_request_id="s-a"),
        shadow_row(2, "failed", status_code=502),
        shadow_row(3, None),
        shadow_row(4, "with a NUL \x00"),
        shadow_row(5, "no shadow", is_shadow=False),
        shadow_row(6, "of another"),
    ]
    append_rows(tables, rows, [])
    assert found(tables, ids) == {ids[0]: ["sooner", "later"], ids[3]: ["with a NUL \ufffd"]}
    # A shadow answers after the answer that it mirrors, so the time is that of the original.
    assert found(tables, ids, until_s=1.5)[ids[0]] == ["sooner", "later"]
    [first, _] = shadow_answers(tables, ids[:1], START, START + timedelta(seconds=100))[ids[0]]
    assert first == Alternative(
        id=first.id,
        source="shadow",
        message={"role": "assistant", "content": "sooner"},
        text="sooner",
        served_entity="next",
        model="smollm3",
        databricks_request_id="s-a",
    )


def test_a_shadow_that_calls_a_tool_says_the_call(tmp_path: Path) -> None:
    tables = endpoint_tables(str(tmp_path))
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    response = f'{{"choices": [{{"message": {json.dumps(message)}}}]}}'
    append_rows(tables, [shadow_row(1, None, response=response)], [])
    [answer] = shadow_answers(tables, ["request-000001"], START, START + timedelta(minutes=1))[
        "request-000001"
    ]
    assert answer.message["tool_calls"] == [call]
    assert '"name":"look"' in answer.text


def test_a_table_that_cannot_be_read_is_unavailable(tmp_path: Path) -> None:
    tables = endpoint_tables(str(tmp_path))
    append_rows(tables, [shadow_row(1, "answer")], [])
    for file in tmp_path.rglob("*.parquet"):
        file.unlink()
    with pytest.raises(Unavailable):
        shadow_answers(tables, ["request-000001"], START, START + timedelta(minutes=1))


def test_a_shadow_that_answers_late_is_added_on_demand(
    alternatives: Alternatives, database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    tables = endpoint_tables(str(tmp_path / "tables"))
    assert alternatives.add_shadow_answers(1, tables, actor="ann").added == 0
    append_rows(tables, [payload_row(1), shadow_row(1, "better")], [])
    added = alternatives.add_shadow_answers(1, tables, actor="ann")
    assert (added.added, [each.text for each in added.alternatives]) == (1, ["better"])
    assert alternatives.add_shadow_answers(1, tables, actor="ann").added == 0
    assert with_answers(database, clock).alternatives == added.alternatives
    last = CaseQueue(database, clock).history(1)[-1]
    assert (last.event, last.actor, last.detail) == (EVENT, "ann", f"shadow {added.alternatives[0].id}")
    assert (last.from_state, last.to_state, last.at) == (CaseState.OPEN, CaseState.OPEN, clock.now())


def test_an_answer_is_there_once(alternatives: Alternatives) -> None:
    first = alternatives.add(1, [uploaded("better"), uploaded("better")], actor="ann")
    assert first.added == 1
    again = alternatives.add(1, [uploaded("better", model="another"), uploaded("best")], actor="ann")
    assert (again.added, [each.text for each in again.alternatives]) == (1, ["better", "best"])
    recorded = alternatives.add(1, [uploaded("answer 1")], actor="ann")
    assert (recorded.added, len(recorded.alternatives)) == (0, 2)


def test_markup_is_text(alternatives: Alternatives) -> None:
    script = '<script>alert("x")</script>'
    [added] = alternatives.add(1, [uploaded(script)], actor="ann").alternatives
    assert (added.text, added.message) == (script, {"role": "assistant", "content": script})


def test_there_are_at_most_so_many(
    alternatives: Alternatives, database: Database, clock: ManualClock
) -> None:
    many = [uploaded(f"answer number {number}") for number in range(MAX_ALTERNATIVES + 1)]
    with pytest.raises(Invalid, match="Compare at most 8"):
        alternatives.add(1, many, actor="ann")
    assert with_answers(database, clock).alternatives == ()
    alternatives.add(1, many[:-1], actor="ann")
    with pytest.raises(Invalid, match="case 1 has 8 other answers"):
        alternatives.add(1, many[-1:], actor="ann")


@pytest.mark.parametrize(
    ("text", "more", "field"),
    [
        (" \n", {}, "text"),
        ("\x00", {}, "text"),
        ("x" * 1_000_001, {}, "text"),
        ("fine", {"model": "x" * 256}, "model"),
        ("fine", {"served_entity": "\ud800"}, "served_entity"),
    ],
)
def test_what_is_no_answer_is_refused(text: str, more: dict[str, str], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        uploaded(text, **more)
    assert caught.value.field == field


def test_answers_stand_while_somebody_else_compares_them(
    alternatives: Alternatives, database: Database, clock: ManualClock
) -> None:
    hold(database, "ann", clock.now() + timedelta(minutes=5))
    change(database, state=CaseState.CLAIMED)
    for other in (None, "bob"):
        with pytest.raises(Conflict, match="others have it"):
            alternatives.add(1, [uploaded("better")], actor="bob", annotator=other)
        with pytest.raises(Conflict, match="others have it"):
            alternatives.question(1, other)
    assert alternatives.add(1, [uploaded("better")], actor="ann", annotator=" ann ").added == 1
    clock.advance(301)  # her lease is over
    assert alternatives.add(1, [uploaded("best")], actor="bob").added == 1


def test_answers_stand_from_the_first_label_on(alternatives: Alternatives, database: Database) -> None:
    known = alternatives.add(1, [uploaded("better")], actor="ann")
    told = set()
    for state, labeled in (
        (CaseState.LABELED, 1),
        (CaseState.OPEN, 1),  # and two more are wanted
        (CaseState.SKIPPED, 0),
        (CaseState.DISPUTED, 2),
        (CaseState.ADJUDICATING, 2),
        (CaseState.GOLD, 0),
    ):
        change(database, state=state, labeled=labeled)
        with pytest.raises(Conflict) as caught:
            alternatives.add(1, [uploaded("best")], actor="ann")
        told.add(str(caught.value))
        again = alternatives.add(1, [uploaded("better")], actor="ann")
        assert (again.added, again.alternatives) == (0, known.alternatives)
    # The same words for all of them: nobody can tell a gold case by it.
    assert told == {
        "case_id: the answers of case 1 stand, for others have it or have finished it. "
        "Add answers before a case is labeled."
    }


def test_the_question_is_what_came_before_the_answer(alternatives: Alternatives, database: Database) -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    unanswered = [{"role": "user", "content": "still?"}]
    add_cases(database, [flagged(2, messages=unanswered, answered=False, tools=tools)])
    first, second = alternatives.question(1), alternatives.question(2)
    assert first.messages == ({"role": "user", "content": "question 1"},)
    assert (first.endpoint, first.databricks_request_id, first.tools) == ("chat", "request-000001", None)
    assert (second.messages, second.tools) == (tuple(unanswered), tuple(tools))
    answer_only = [{"role": "assistant", "content": "all that was kept"}]
    add_cases(database, [flagged(3, messages=answer_only)])
    with pytest.raises(Invalid, match="not what was asked"):
        alternatives.question(3)


def test_an_unknown_case_is_missing(alternatives: Alternatives, tmp_path: Path) -> None:
    tables = endpoint_tables(str(tmp_path / "tables"))
    for act in (
        lambda: alternatives.question(9),
        lambda: alternatives.add(9, [uploaded("better")], actor="ann"),
        lambda: alternatives.add_shadow_answers(9, tables, actor="ann"),
    ):
        with pytest.raises(Missing, match="there is no case 9"):
            act()


def test_the_order_is_by_lot_and_tells_nothing(
    alternatives: Alternatives, database: Database, clock: ManualClock
) -> None:
    alternatives.add(1, [uploaded("better"), uploaded("worse")], actor="ann")
    case = with_answers(database, clock)
    shown = presented(case, "ann")
    assert [each.key for each in shown] == ["A", "B", "C"]
    assert {each.id for each in shown} == {ANSWER, *(each.id for each in case.alternatives)}
    assert {each.message["content"] for each in shown} == {"answer 1", "better", "worse"}
    assert presented(case, "ann") == shown
    places = Counter(
        next(each.key for each in presented(case, f"annotator {number}") if each.id == ANSWER)
        for number in range(600)
    )
    assert all(150 < times < 250 for times in places.values()), places  # 200 each, ± 4 standard deviations
    for each in shown:
        assert preferred(case, "ann", each.key) == each.id
    assert preferred(case, "ann", TIE) == TIE
    for key in ("D", "", ANSWER, case.alternatives[0].id):
        with pytest.raises(Invalid, match="Use one of: A, B, C, tie"):
            preferred(case, "ann", key)


def test_a_case_without_an_answer_shows_only_the_others(
    alternatives: Alternatives, database: Database, clock: ManualClock
) -> None:
    add_cases(database, [flagged(2, messages=[{"role": "user", "content": "still?"}], answered=False)])
    alternatives.add(2, [uploaded("yes")], actor="ann")
    case = with_answers(database, clock, 2)
    assert [each.message["content"] for each in presented(case, "ann")] == ["yes"]


def test_selection_stores_them_with_the_case(database: Database, clock: ManualClock) -> None:
    add_cases(database, [flagged(1)])
    answer = uploaded("better", served_entity="next")
    change(database, alternatives=stored([answer]))
    assert with_answers(database, clock).alternatives == (answer,)


def test_a_selected_case_has_what_its_shadow_answered_and_its_session(
    database: Database, tmp_path: Path
) -> None:
    tables = endpoint_tables(str(tmp_path))
    clock = ManualClock(START)
    selector = Selector(
        tables,
        "chat",
        [Rule("toxicity", above=0.5)],
        database,
        clock,
        suppression=OFF,
    )
    append_rows(
        tables,
        [
            payload_row(1, unit="ann", session_id="s-1"),
            payload_row(2),
            payload_row(3),
            shadow_row(1, "mine"),
            shadow_row(1, "mine", databricks_request_id="shadow-again"),
            shadow_row(1, "answer 1", databricks_request_id="shadow-same"),
            shadow_row(3, "asked for by hand"),
        ],
        [score_row(1, 0.9), score_row(2, 0.9)],
    )
    assert selector.run() == 2
    queue = CaseQueue(database, clock)
    by_record = {each.databricks_request_id: queue.get(each.id) for each in queue.list().cases}
    [answer] = by_record["request-000001"].alternatives  # once, and not what the recorded one says
    assert (answer.text, answer.source, answer.databricks_request_id) == ("mine", "shadow", "shadow-000001")
    assert by_record["request-000002"].alternatives == ()
    with database.session(read_only=True) as session:
        owners = session.execute(select(CaseRow.unit, CaseRow.session).order_by(CaseRow.unit.is_(None))).all()
    assert [tuple(each) for each in owners] == [("ann", "s-1"), (None, None)]
    manual = ManualSelection(lambda endpoint: tables, database, clock)
    queued = manual.add("chat", "request-000003", reason="see")
    assert [each.text for each in queue.get(queued.case_id).alternatives] == ["asked for by hand"]
