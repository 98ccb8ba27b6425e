"""relabel.selection: budgets, near duplicates, clusters, records that come late or not at all, and what is counted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from collector.catalog import EndpointTables
from collector.maintenance_compaction import Compactor
from collector.maintenance_history import purge
from relabel.case import CaseState
from relabel.forget import forget_records
from relabel.models import OccurrenceRow, PendingRow, VectorRow
from relabel.queue.case_queue import CaseQueue
from relabel.selection.draws import CONTROL, is_drawn
from relabel.selection.manual import ManualSelection
from relabel.selection.rule import CaseRule, FeedbackRule, RandomRule, Rule
from relabel.selection.rule_days import Counts, RuleDays
from relabel.selection.selector import Selector
from relabel.selection.suppression import OFF, Suppression
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Invalid, Missing, ServelensError, Unavailable
from tests.relabel_cases import START, append_rows, endpoint_tables, payload_row, score_row
from tests.selection_rows import append_to, embedding_row, feedback_row, said

TOXIC = "toxicity response above"
DOWN = FeedbackRule("thumbs", labels=("down",), name="down")
ANSWER = "You can return every item within thirty days, and we pay for the shipping label."


@pytest.fixture
def tables(tmp_path: Path) -> EndpointTables:
    return endpoint_tables(str(tmp_path / "tables"))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def queue(database: Database, clock: ManualClock) -> CaseQueue:
    return CaseQueue(database, clock)


def _selector(
    tables: EndpointTables,
    database: Database,
    clock: ManualClock,
    *rules: CaseRule,
    suppression: Suppression = OFF,
) -> Selector:
    return Selector(tables, "chat", rules, database, clock, suppression=suppression)


def _counts(database: Database, clock: ManualClock, rule: str = TOXIC) -> Counts:
    found = {each.rule: each.today for each in RuleDays(database, clock, {}).read("chat")}
    return found.get(rule, Counts())


def _numbers(queue: CaseQueue) -> list[int]:
    names = [case.databricks_request_id for case in queue.list(limit=500).cases]
    return sorted(int(name.removeprefix("request-")) for name in names)


def _flag(tables: EndpointTables, numbers: Sequence[int], score: float = 0.9) -> None:
    append_rows(tables, [payload_row(n) for n in numbers], [score_row(n, score) for n in numbers])


def test_a_budget_takes_the_most_extreme_of_a_day_and_begins_anew_at_midnight(
    tables: EndpointTables, database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    selector = _selector(tables, database, clock, Rule("toxicity", above=0.5, daily_budget=3))
    append_rows(
        tables,
        [payload_row(number) for number in range(8)],
        [score_row(number, 0.6 + number / 100) for number in range(8)],
    )
    assert selector.run() == 3
    assert _numbers(queue) == [5, 6, 7]
    assert _counts(database, clock) == Counts(cases=3, over_budget=5)
    clock.advance(11 * 3600)  # 23:00
    _flag(tables, [10, 11])
    assert selector.run() == 0
    assert _counts(database, clock) == Counts(cases=3, over_budget=7)
    clock.advance(2 * 3600)  # 01:00
    _flag(tables, [20, 21])
    assert selector.run() == 2
    assert _numbers(queue) == [5, 6, 7, 20, 21]
    [rule] = RuleDays(database, clock, {"chat": [Rule("toxicity", above=0.5, daily_budget=3)]}).read()
    assert (rule.rule, rule.kind, rule.daily_budget) == (TOXIC, "score", 3)
    assert rule.today == Counts(cases=2)
    assert rule.last_7_days == Counts(cases=5, over_budget=7)
    clock.advance(7 * 86_400)
    assert RuleDays(database, clock, {}).read() == []


def test_a_record_is_taken_while_one_of_its_rules_has_budget_and_urgent_ones_come_first(
    tables: EndpointTables, database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    rules = [
        Rule("toxicity", above=0.5, daily_budget=1, priority=1),
        Rule("perplexity", above=100, daily_budget=1, priority=9, name="confused"),
    ]
    append_rows(
        tables,
        [payload_row(number) for number in range(3)],
        [
            score_row(0, 0.99),
            score_row(1, 0.6),
            score_row(1, 500.0, evaluator="perplexity"),
            score_row(2, 0.7),
        ],
    )
    assert _selector(tables, database, clock, *rules).run() == 1
    assert _numbers(queue) == [1]  # it used up both
    assert len(queue.get(1).reasons) == 2
    assert _counts(database, clock) == Counts(cases=1, over_budget=2)
    assert _counts(database, clock, "confused") == Counts(cases=1)


def test_what_says_nearly_the_same_joins_the_case_there_is(
    tables: EndpointTables, database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    rules = [Rule("toxicity", above=0.5), Rule("judge", below=3, priority=4)]
    selector = _selector(tables, database, clock, *rules, suppression=Suppression())
    question = "how do I return an item that I bought last week?"
    texts = [
        (question, ANSWER),
        (question, ANSWER.replace("every item", "every  ITEM")),  # in the same transaction
        (question, "No."),  # another answer
        ("which colours are there?", ANSWER),  # another question
    ]
    append_rows(
        tables,
        [said(number, *pair) for number, pair in enumerate(texts)],
        [score_row(number, 0.9) for number in range(len(texts))],
    )
    assert selector.run() == 3
    append_rows(
        tables,
        [said(10, question.upper(), ANSWER), said(11, "something else", "entirely")],
        [score_row(10, 1.0, evaluator="judge"), score_row(11, 0.9)],
    )
    assert selector.run() == 1
    assert _counts(database, clock) == Counts(cases=4, repeated=1)
    assert _counts(database, clock, "judge response below") == Counts(repeated=1)
    case = queue.get(1)
    assert (case.occurrences, case.priority) == (3, 4)
    assert {reason.rule: reason.detail for reason in case.reasons} == {
        TOXIC: None,
        "judge response below": "of a record that says nearly the same",
    }
    assert [score.evaluator for score in case.scores] == ["toxicity"]
    with database.session(read_only=True) as session:
        joined = session.scalars(select(OccurrenceRow).where(OccurrenceRow.similarity.is_not(None)))
        assert {row.databricks_request_id: row.case_id for row in joined} == {
            "request-000001": 1,
            "request-000010": 1,
        }
    clock.advance(8 * 86_400)  # no case of a week ago is compared with
    append_rows(tables, [said(20, question.upper() + "!", ANSWER)], [score_row(20, 0.9)])
    assert selector.run() == 1
    with database.session(read_only=True) as session:
        assert session.scalar(select(func.count()).select_from(VectorRow)) == 1


def test_a_cluster_gets_so_many_cases_a_day(
    tables: EndpointTables, database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    few = Suppression(near_duplicate=0.999, cluster=0.6, max_per_cluster=2)
    selector = _selector(tables, database, clock, Rule("toxicity", above=0.5), suppression=few)
    prompts = [f"please give me number {word} back" for word in ("one", "two", "three", "four")]

    def flag(first: int) -> None:
        rows = [said(first + n, prompt, f"{ANSWER} {first}") for n, prompt in enumerate(prompts)]
        rows.append(said(first + 9, f"sing a song {first}", f"la la la, number {first}"))
        append_rows(tables, rows, [score_row(first + n, 0.9) for n in (0, 1, 2, 3, 9)])

    flag(0)
    assert selector.run() == 3
    assert _numbers(queue) == [0, 1, 9]
    flag(100)
    assert selector.run() == 1  # the song; the cluster of the day has had enough
    assert _counts(database, clock) == Counts(cases=4, over_cluster=6)
    clock.advance(86_400)
    flag(200)
    assert selector.run() == 3


def test_vectors_of_the_embeddings_table_are_compared_where_there_are_some(
    tables: EndpointTables, database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    selector = _selector(tables, database, clock, Rule("toxicity", above=0.5), suppression=Suppression())
    vectors = {
        0: ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]),
        1: ([0.99, 0.05, 0.0], [0.0, 0.99, 0.05]),  # a paraphrase
        2: ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]),  # the same question, another answer
    }
    append_to(
        tables.embeddings,
        [
            embedding_row(number, side, vector)
            for number, of_record in vectors.items()
            for side, vector in zip(("request", "response"), of_record, strict=True)
        ],
    )
    texts = ["aaa bbb", "ccc ddd", "eee fff", "ggg hhh"]
    append_rows(
        tables,
        [said(number, f"{each} ?", f"{each} .") for number, each in enumerate(texts)],
        [score_row(number, 0.9) for number in range(4)],
    )
    assert selector.run() == 3
    assert _numbers(queue) == [0, 2, 3]
    assert _counts(database, clock) == Counts(cases=3, repeated=1)
    with database.session(read_only=True) as session:
        spaces = sorted(session.scalars(select(VectorRow.space)))
    assert spaces == ["minilm 1 request+response 6", "minilm 1 request+response 6", "text-1"]


def test_records_of_the_control_sample_are_cases_however_alike_they_are(
    tables: EndpointTables, database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    rules = [Rule("toxicity", above=0.5), RandomRule(0.5)]
    selector = _selector(tables, database, clock, *rules, suppression=Suppression(max_per_cluster=1))
    selector.run()
    numbers = range(20)
    rows = [said(n, "where is my order?", f"{ANSWER}{'!' * n}") for n in numbers]
    append_rows(tables, rows, [])
    drawn = [n for n in numbers if is_drawn(f"request-{n:06d}", 0.5, CONTROL)]
    assert 3 < len(drawn) < 17
    assert selector.run() == len(drawn)
    append_rows(tables, [], [score_row(n, 0.9) for n in numbers])
    assert selector.run() == 0  # the others repeat them
    assert _numbers(queue) == drawn
    assert _counts(database, clock) == Counts(repeated=20 - len(drawn))


def test_a_record_that_comes_after_its_feedback_is_waited_for(
    tables: EndpointTables, database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    selector = _selector(tables, database, clock, DOWN)
    append_to(tables.payload, [payload_row(1)])
    selector.run()
    append_to(
        tables.feedback,
        [feedback_row(number, "thumbs", label="down") for number in (1, 2, 3, 4)],
    )
    assert selector.run() == 1
    assert selector.run() == 0
    append_to(tables.payload, [payload_row(2), payload_row(9)])
    assert selector.run() == 1
    assert selector.run() == 0
    assert _numbers(queue) == [1, 2]
    assert [case.reasons[0].detail for case in queue.list().cases] == ["thumbs: down"] * 2
    forget_records(database, "chat", ["request-000004"])
    clock.advance(86_410)
    append_to(tables.payload, [payload_row(3)])  # in the last moment
    append_to(tables.feedback, [feedback_row(7, "thumbs", label="down")])  # of a record that is long gone
    assert selector.run() == 1
    assert _numbers(queue) == [1, 2, 3]
    assert _counts(database, clock, "down") == Counts(cases=1, without_text=1)
    with database.session(read_only=True) as session:
        assert session.scalars(select(PendingRow)).all() == []


def test_who_does_not_come_is_counted_once(
    tables: EndpointTables, database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    selector = _selector(tables, database, clock, DOWN)
    selector.run()
    append_to(tables.feedback, [feedback_row(1, "thumbs", label="down")])
    assert selector.run() == 0
    assert _counts(database, clock, "down") == Counts()
    append_to(tables.feedback, [feedback_row(1, "thumbs", label="down")])  # repeated
    assert selector.run() == 0
    clock.advance(86_400)
    for _ in range(3):
        assert selector.run() == 0
        assert _counts(database, clock, "down") == Counts(without_text=1)


def test_a_record_that_comes_late_is_found_when_the_history_has_ended(
    tables: EndpointTables, database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    selector = _selector(tables, database, clock, DOWN)
    append_to(tables.payload, [payload_row(1)])
    selector.run()
    append_to(tables.feedback, [feedback_row(2, "thumbs", label="down")])
    assert selector.run() == 0
    append_to(tables.payload, [payload_row(2)])
    append_to(tables.feedback, [feedback_row(1, "thumbs", label="down")])
    for table in (tables.payload, tables.feedback):
        Compactor(min_files=2, target_bytes=128 << 20).run(table, now=START)
        purge(table)
    assert selector.run() == 2
    assert _numbers(queue) == [1, 2]
    assert selector.run() == 0


def test_records_without_text_are_counted(
    tables: EndpointTables, database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    empty = payload_row(2, request=None, response=None, prompt_text=None, response_text=None)
    append_rows(tables, [payload_row(1), empty], [score_row(1, 0.9), score_row(2, 0.9)])
    assert _selector(tables, database, clock, Rule("toxicity", above=0.5)).run() == 1
    assert _counts(database, clock) == Counts(cases=1, without_text=1)


def test_after_a_crash_nothing_is_counted_twice(
    tables: EndpointTables, database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    rule = Rule("toxicity", above=0.5, daily_budget=300)
    append_rows(
        tables,
        [payload_row(number) for number in range(700)],
        [score_row(number, 0.9 - number / 10_000) for number in range(700)],
    )
    # What a table constraint refuses stands for a process that is killed: the transaction never was.
    column = "over_budget" if database.engine.dialect.name == "postgresql" else "new.over_budget"
    _refuse_counts(database, column)
    with pytest.raises(ServelensError):
        _selector(tables, database, clock, rule).run()
    assert _counts(database, clock) == Counts(cases=250)
    _accept_counts(database)
    assert _selector(tables, database, clock, rule).run() == 50
    assert _counts(database, clock) == Counts(cases=300, over_budget=400)
    assert _selector(tables, database, clock, rule).run() == 0
    assert queue.counts()["chat"][CaseState.OPEN] == 300


def _refuse_counts(database: Database, column: str) -> None:
    if database.engine.dialect.name == "postgresql":
        statement = f"ALTER TABLE relabel_rule_days ADD CONSTRAINT refuse CHECK ({column} = 0)"
    else:
        statement = (
            f"CREATE TRIGGER refuse BEFORE UPDATE ON relabel_rule_days WHEN {column} > 0 "
            "BEGIN SELECT RAISE(ABORT, 'killed'); END"
        )
    with database.session() as session:
        session.execute(text(statement))


def _accept_counts(database: Database) -> None:
    on_postgresql = database.engine.dialect.name == "postgresql"
    statement = (
        "ALTER TABLE relabel_rule_days DROP CONSTRAINT refuse" if on_postgresql else "DROP TRIGGER refuse"
    )
    with database.session() as session:
        session.execute(text(statement))


def test_a_source_that_fails_does_not_hold_up_the_others(
    tables: EndpointTables, database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    selector = _selector(tables, database, clock, Rule("toxicity", above=0.5), DOWN)
    append_to(tables.payload, [payload_row(1), payload_row(2)])
    selector.run()
    append_to(tables.scores, [score_row(1, 0.9)])
    append_to(tables.feedback, [feedback_row(2, "thumbs", label="down")])
    kept = [(file, file.read_bytes()) for file in Path(tables.scores.uri).rglob("*.parquet")]
    for file, _ in kept:
        file.unlink()
    with pytest.raises(Unavailable):
        selector.run()
    assert _numbers(queue) == [2]
    for file, content in kept:
        file.write_bytes(content)
    assert selector.run() == 1


def test_new_rules_do_not_look_back(
    tables: EndpointTables, database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    _flag(tables, [1], 0.9)
    assert _selector(tables, database, clock, Rule("toxicity", above=0.5)).run() == 1
    append_rows(tables, [payload_row(2)], [score_row(2, 5.0, evaluator="judge")])
    # All rules of the source are other ones than before.
    other = _selector(tables, database, clock, Rule("judge", above=3))
    assert other.run() == 0
    append_rows(tables, [payload_row(3)], [score_row(3, 5.0, evaluator="judge")])
    assert other.run() == 1
    assert _numbers(queue) == [1, 3]


def test_a_person_sends_a_record_to_the_queue(
    tables: EndpointTables, database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    manual = ManualSelection(lambda endpoint: tables, database, clock)
    empty = payload_row(3, request=None, response=None, prompt_text=None, response_text=None)
    append_rows(tables, [payload_row(1, unit="u-7"), payload_row(2), empty], [score_row(1, 0.9)])
    queued = manual.add("chat", "request-000001", reason=" looks wrong ", priority=7, by="ada")
    assert queued.created
    [reason] = queue.get(queued.case_id).reasons
    assert (reason.rule, reason.detail, reason.priority) == ("manual", "ada: looks wrong", 7)
    assert queue.get(queued.case_id).scores[0].evaluator == "toxicity"
    again = manual.add("chat", "request-000001", reason="again")
    assert (again.case_id, again.created) == (queued.case_id, False)
    assert _selector(tables, database, clock, Rule("toxicity", above=0.5)).run() == 0
    assert len(queue.get(queued.case_id).reasons) == 2
    assert _counts(database, clock, "manual") == Counts(cases=1)
    for request_id, error in (("request-000009", Missing), ("request-000003", Invalid)):
        with pytest.raises(error) as caught:
            manual.add("chat", request_id, reason="x")
        assert caught.value.field == "databricks_request_id"
    for wrong in ({"reason": " "}, {"reason": "x", "priority": 101}):
        with pytest.raises(Invalid):
            manual.add("chat", "request-000002", **wrong)


def test_an_id_that_says_its_time_is_found_without_reading_everything(
    tables: EndpointTables, database: Database, queue: CaseQueue, clock: ManualClock
) -> None:
    from servelens.clock import datetime_us
    from servelens.identifiers import id_at

    moment = START + timedelta(seconds=5, microseconds=123_457)
    request_id = id_at(datetime_us(moment), b"a call")
    append_to(tables.payload, [payload_row(5, databricks_request_id=request_id, request_time=moment)])
    manual = ManualSelection(lambda endpoint: tables, database, clock)
    assert manual.add("chat", request_id, reason="see").created
