from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from collector.catalog import UNROUTED, Catalog, EndpointTables
from collector.dead_letter import DeadLetter
from collector.deletion import delete_keys
from collector.departed_rows import departed_rows
from collector.forget import Forgetting
from collector.forget_spool import dead_letters, spooled_records
from collector.forgotten import ForgottenRecords
from collector.maintenance_history import purge
from collector.normalize import rows as rows_of
from collector.record import Record
from collector.spool import SpoolWriter
from servelens.clock import ManualClock
from servelens.database import Database
from tests.new_database import new_database
from tests.unit.collector.maintained import TODAY, WORKER, catalog, records
from tests.unit.collector.test_feedback import feedback

PERSON = "ada@example.com"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = new_database(tmp_path / "servelens.db")
    yield opened
    opened.dispose()


@pytest.fixture
def lake(tmp_path: Path) -> Catalog:
    return catalog(tmp_path / "lake", "code")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(TODAY)


class Queue:
    """Stands for what other parts keep of records."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []

    def __call__(self, endpoint: str, request_ids: Sequence[str]) -> Mapping[str, int]:
        self.asked.append((endpoint, list(request_ids)))
        return {"cases": 0}


def about(payload: pl.DataFrame, **columns: str) -> pl.DataFrame:
    kept = payload.select("databricks_request_id", "request_date", "request_time")
    return kept.with_columns(pl.lit(value).alias(name) for name, value in columns.items())


def filled(tables: EndpointTables) -> pl.DataFrame:
    """Two days; of each five records, one is the person's and one mirrors it."""
    for day in range(2):
        part = records(
            10 * day,
            5,
            TODAY - timedelta(days=day),
            unit=["bob", PERSON, PERSON, None, "eve"],
            shadow_of=[None, None, f"id-{10 * day + 1:06d}", None, None],
            prompt_text=[f"{name} asks" for name in ("bob", PERSON, PERSON, "nobody", "eve")],
        )
        tables.payload.append(part, transactions={WORKER: 10 * day + 4})
        tables.scores.append(about(part, evaluator="toxicity"))
        tables.embeddings.append(about(part, target="request", model="minilm"))
        tables.labels.append(about(part, endpoint="chat", rating="bad"))
        tables.feedback.append(
            about(part, source="user", source_id="bob").with_columns(
                feedback_id=pl.format("f-{}", pl.col("databricks_request_id"))
            )
        )
    return tables.payload.scan().collect()


def held(tables: EndpointTables) -> dict[str, list[str]]:
    return {
        name: sorted(table.scan().collect()["databricks_request_id"])
        for name, table in (
            ("payload", tables.payload),
            ("scores", tables.scores),
            ("feedback", tables.feedback),
            ("embeddings", tables.embeddings),
            ("exported labels", tables.labels),
        )
    }


def test_one_persons_records_leave_with_what_hangs_on_them(
    lake: Catalog, database: Database, clock: ManualClock
) -> None:
    tables, queue = lake.tables("chat"), Queue()
    filled(tables)
    forgetting = Forgetting(ForgottenRecords(database, clock), clock, queue)
    gone = forgetting.forget("chat", tables, [PERSON, "anon-0000"])
    assert gone == {
        "records": 4,
        "scores": 4,
        "feedback": 4,
        "embeddings": 4,
        "exported labels": 4,
        "cases": 0,
    }
    assert set(map(tuple, held(tables).values())) == {
        ("id-000000", "id-000003", "id-000004", "id-000010", "id-000013", "id-000014")
    }
    assert queue.asked == [("chat", ["id-000001", "id-000002", "id-000011", "id-000012"])]
    assert tables.payload.transaction_version(WORKER) == 14
    assert departed_rows(tables.payload, [WORKER]) == {WORKER: 4}
    again = forgetting.forget("chat", tables, [PERSON])
    assert again == {
        "records": 0,
        "scores": 0,
        "feedback": 0,
        "embeddings": 0,
        "exported labels": 0,
        "cases": 0,
    }


def test_what_hangs_on_records_that_retention_has_deleted_leaves(
    lake: Catalog, database: Database, clock: ManualClock
) -> None:
    tables, queue = lake.tables("chat"), Queue()
    filled(tables)
    delete_keys(tables.payload, "databricks_request_id", ["id-000001"])
    known = {("chat", PERSON): ["id-000001"]}
    forgetting = Forgetting(
        ForgottenRecords(database, clock), clock, queue, lambda endpoint, units: known[endpoint, units[0]]
    )
    gone = forgetting.forget("chat", tables, [PERSON])
    assert (gone["records"], gone["exported labels"]) == (3, 4)
    assert queue.asked == [("chat", ["id-000001", "id-000002", "id-000011", "id-000012"])]


def test_what_asked_the_persons_question_again_leaves(
    lake: Catalog, database: Database, clock: ManualClock
) -> None:
    tables = lake.tables("chat")
    filled(tables)
    again = records(
        20,
        5,
        TODAY,
        unit=["a call", "another", "of it", "one more", "bob's"],
        shadow_of=[None, "id-000020", None, None, None],
    ).with_columns(
        tags=pl.Series(
            [
                {"regenerated_for": "id-000001"},
                {"regenerated_for": "id-000001"},
                {"regenerated_for": "id-000020"},
                {"team": "id-000001"},
                {"regenerated_for": "id-000000"},
            ],
            dtype=pl.Map(pl.String, pl.String),
        )
    )
    tables.payload.append(again, transactions={WORKER: 24})
    gone = Forgetting(ForgottenRecords(database, clock), clock, Queue()).forget("chat", tables, [PERSON])
    assert gone["records"] == 4 + 3
    left = set(held(tables)["payload"])
    assert left & {f"id-{number:06d}" for number in range(20, 25)} == {"id-000023", "id-000024"}


def test_feedback_that_the_person_gave_on_other_records_leaves(
    lake: Catalog, database: Database, clock: ManualClock
) -> None:
    tables = lake.tables("chat")
    filled(tables)
    forgetting = Forgetting(ForgottenRecords(database, clock), clock, Queue())
    assert forgetting.forget("chat", tables, ["bob"]) == {
        "records": 2,
        "scores": 2,
        "feedback": 10,
        "embeddings": 2,
        "exported labels": 2,
        "cases": 0,
    }
    assert held(tables)["feedback"] == []


def test_the_persons_name_is_written_nowhere_and_a_purge_takes_it_off_the_disk(
    lake: Catalog, database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    tables = lake.tables("chat")
    filled(tables)
    Forgetting(ForgottenRecords(database, clock), clock, Queue()).forget("chat", tables, [PERSON])

    def naming() -> list[Path]:
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        parquet = [path for path in files if path.suffix == ".parquet" and "_delta_log" not in path.parts]
        texts = [path for path in parquet if PERSON in pl.read_parquet(path).write_json()]
        return texts + [
            path for path in files if path not in parquet and PERSON.encode() in path.read_bytes()
        ]

    assert naming(), "older versions of the table have it until the history ends"
    assert all("lake" in path.parts and "_delta_log" not in path.parts for path in naming())
    for table in (tables.payload, tables.scores, tables.feedback, tables.embeddings):
        purge(table)
    assert naming() == []
    assert held(tables)["payload"][0] == "id-000000"


def test_what_is_written_about_forgotten_records_later_is_swept(
    lake: Catalog, database: Database, clock: ManualClock
) -> None:
    tables, queue = lake.tables("chat"), Queue()
    everything = filled(tables)
    forgetting = Forgetting(ForgottenRecords(database, clock), clock, queue)
    forgetting.forget("chat", tables, [PERSON])
    sweep = timedelta(hours=2)
    assert forgetting.sweep(lake.tables, keep=sweep) == {}
    # An evaluator that had read the records before they were deleted.
    tables.scores.append(about(everything, evaluator="late"))
    assert forgetting.sweep(lake.tables, keep=sweep) == {
        "chat": {"records": 0, "scores": 4, "feedback": 0, "embeddings": 0, "exported labels": 0, "cases": 0}
    }
    assert held(tables)["scores"] == sorted([*held(tables)["payload"], *held(tables)["payload"]], key=str)
    clock.advance(2 * 3600 + 1)
    forgetting.sweep(lake.tables, keep=sweep)
    asked = len(queue.asked)
    assert forgetting.sweep(lake.tables, keep=sweep) == {}
    assert len(queue.asked) == asked, "nothing is remembered any more"


def test_a_run_that_was_cut_off_is_finished_by_the_next_sweep(
    lake: Catalog, database: Database, clock: ManualClock
) -> None:
    tables = lake.tables("chat")
    filled(tables)

    class Killed(Exception):
        pass

    def killed(endpoint: str, request_ids: Sequence[str]) -> Mapping[str, int]:
        raise Killed

    with pytest.raises(Killed):
        Forgetting(ForgottenRecords(database, clock), clock, killed).forget("chat", tables, [PERSON])
    queue = Queue()
    Forgetting(ForgottenRecords(database, clock), clock, queue).sweep(lake.tables, keep=timedelta(hours=1))
    assert queue.asked == [("chat", ["id-000001", "id-000002", "id-000011", "id-000012"])]


def test_ids_of_many_records_and_of_foreign_spelling(
    lake: Catalog, database: Database, clock: ManualClock
) -> None:
    tables = lake.tables("chat")
    tables.payload.append(records(0, 5_500, unit=PERSON))
    strange = records(9_000, 2, unit=[PERSON, "bob"]).with_columns(
        databricks_request_id=pl.Series(['it\'s \\ "quoted"', "zz"])
    )
    tables.payload.append(strange)
    forgetting = Forgetting(ForgottenRecords(database, clock), clock, Queue())
    assert forgetting.forget("chat", tables, [PERSON])["records"] == 5_501
    assert held(tables)["payload"] == ["zz"]


def record(number: int, *, endpoint: str = "chat", unit: str | None = PERSON) -> Record:
    return Record(
        request_id=f"spooled-{number:03d}",
        request_time_us=int(TODAY.timestamp() * 1e6) + number,
        status_code=200,
        duration_us=1_000,
        endpoint=endpoint,
        api="chat",
        unit=unit,
    )


def test_records_that_are_still_in_the_spool_are_found_and_known_to_arrive(
    lake: Catalog, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    given = [
        record(0),
        record(1, unit="bob"),
        record(2, endpoint="code"),
        record(3, endpoint="code"),
        record(4, unit=None),
        record(5, endpoint="elsewhere"),
    ]
    writer = SpoolWriter.open(spool / "proxy-0")
    for one in given:
        writer.append(one, None)
    writer.close(10)
    of = {name: lake.tables(name) for name in ("chat", "code")}
    payload = {name: tables.payload for name, tables in of.items()}

    def waiting() -> set[tuple[str, int]]:
        found = spooled_records(
            spool,
            lambda endpoint: {PERSON} if endpoint in of else set(),
            lambda endpoint: of[endpoint],
        )
        return {(Path(each.table.uri).name, each.offset) for each in found if not each.arrived()}

    assert waiting() == {("chat_payload", 0), ("code_payload", 3)}
    found = spooled_records(spool, lambda _: {PERSON}, lambda name: of["code"])
    assert [each.offset for each in found] == [5]
    worker = found[0].worker_id
    payload["chat"].append(rows_of(given[:1], worker, [0]), transactions={worker: 0})
    assert waiting() == {("code_payload", 3)}
    payload["code"].append(rows_of(given[2:3], worker, [2]), transactions={worker: 2})
    assert waiting() == {("code_payload", 3)}
    payload["code"].append(rows_of(given[3:4], worker, [3]), transactions={worker: 3})
    assert waiting() == set()
    assert len(spooled_records(spool, lambda _: {PERSON}, lambda name: of["chat"])) == 1, "it has copies"
    assert spooled_records(tmp_path / "nowhere", lambda _: {PERSON}, lambda name: of["chat"]) == []


def test_feedback_that_has_not_found_its_record_leaves_too(
    lake: Catalog, database: Database, clock: ManualClock
) -> None:
    tables, unmatched = lake.tables("chat"), lake.tables(UNROUTED).feedback
    everything = filled(tables)
    given = about(everything, source="user", source_id="bob").with_columns(
        feedback_id=pl.format("u-{}", pl.col("databricks_request_id"))
    )
    unmatched.append(given)
    unmatched.append(given.head(1).with_columns(feedback_id=pl.lit("by her"), source_id=pl.lit(PERSON)))
    forgetting = Forgetting(ForgottenRecords(database, clock), clock, Queue())
    gone = forgetting.forget("chat", tables, [PERSON], unmatched=unmatched)
    assert gone["feedback"] == 4 + 4 + 1
    left = unmatched.scan().collect()
    assert sorted(left["databricks_request_id"]) == held(tables)["payload"]
    unmatched.append(given)
    assert forgetting.sweep(lake.tables, keep=timedelta(hours=2))["chat"]["feedback"] == 4
    assert forgetting.sweep(lake.tables, keep=timedelta(hours=2)) == {}


def test_feedback_that_is_still_in_the_spool_is_found_by_who_gave_it(lake: Catalog, tmp_path: Path) -> None:
    writer = SpoolWriter.open(tmp_path / "spool" / "proxy-0")
    for one in (record(0), feedback(1, user=PERSON), feedback(2, user="bob")):
        writer.append(one, None)
    writer.close(10)
    found = spooled_records(tmp_path / "spool", lambda _: {PERSON}, lake.tables)
    assert {(Path(each.table.uri).name, each.offset) for each in found} == {
        ("chat_payload", 0),
        ("chat_feedback", 1),
    }


def test_dead_letters_with_the_name_are_found(tmp_path: Path) -> None:
    dead_letter = DeadLetter(tmp_path)
    dead_letter.put_record("proxy-0", 7, b"\x93broken " + PERSON.encode(), "not a record")
    dead_letter.put_record("proxy-0", 8, b"\x93broken bob", "not a record")
    dead_letter.put_record("proxy-0", 9, PERSON.encode(), "not a record")
    next((tmp_path / "proxy-0").glob("*9.frame")).unlink()
    assert [entry.offset for entry in dead_letters(dead_letter, {PERSON, "anon-1"})] == [7]
