"""relabel.export.labels_table: every decision is in the Delta table once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import update

from collector.catalog import Catalog, EndpointTables, TableName
from relabel.case import CaseState
from relabel.export.labels_table import append_labels
from relabel.export.manifest import Manifests
from relabel.export.query import ExportQuery
from relabel.export.table_export import export_table
from relabel.forget import forget_records
from relabel.label import Label, Rating
from relabel.models import CaseRow
from relabel.queue.case_queue import CaseQueue
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Conflict, Invalid
from tests.labeled_cases import GOOD, add_labeled, add_many, decide
from tests.relabel_cases import START, endpoint_tables


@pytest.fixture
def tables(tmp_path: Path) -> EndpointTables:
    return endpoint_tables(str(tmp_path / "lake"))


def _rows(tables: EndpointTables) -> pl.DataFrame:
    return tables.labels.scan().collect().sort("decision_id")


def test_decisions_are_appended_once(database: Database, tables: EndpointTables) -> None:
    label = Label(
        rating=Rating.BAD, corrected_answer="better", tags=("a",), comment="!", values={"topic": "billing"}
    )
    first = add_labeled(database, 1, label, columns={"variant": "treatment"})
    gold = add_labeled(database, 2, GOOD)
    add_labeled(database, 3, GOOD, endpoint="other")
    with database.session() as session:
        session.execute(update(CaseRow).where(CaseRow.id == gold).values(state=CaseState.GOLD))
    assert append_labels(database, "chat", tables.labels).rows == 1
    assert append_labels(database, "chat", tables.labels).rows == 0
    (row,) = _rows(tables).to_dicts()
    assert row["databricks_request_id"] == "request-000001"
    assert str(row["request_date"]) == "2026-03-01"
    assert (row["rating"], row["corrected_answer"], row["tags"]) == ("bad", "better", ["a"])
    assert (row["values"], row["resolution"], row["variant"]) == (
        '{"topic": "billing"}',
        "single",
        "treatment",
    )
    decide(database, first, None)
    decide(database, first, GOOD, annotator="bea")
    assert append_labels(database, "chat", tables.labels).rows == 2
    rows = _rows(tables)
    assert rows["resolution"].to_list() == ["single", None, "single"]
    assert rows["rating"].to_list() == ["bad", None, "good"]
    newest = rows.group_by("case_id").last()
    assert newest["annotator"].to_list() == ["bea"]


def test_a_case_that_becomes_gold_has_no_label_in_the_table_any_more(
    database: Database, tables: EndpointTables
) -> None:
    case_id = add_labeled(database, 1, GOOD)
    assert append_labels(database, "chat", tables.labels).rows == 1
    CaseQueue(database, ManualClock(START)).set_gold(case_id, {"rating": "bad"}, actor="ann")
    assert append_labels(database, "chat", tables.labels).rows == 1
    assert _rows(tables)["rating"].to_list() == ["good", None]
    assert _rows(tables)["resolution"].to_list()[-1] is None


def test_a_newest_decision_that_was_forgotten_is_not_another_database(
    database: Database, tables: EndpointTables
) -> None:
    add_labeled(database, 1, GOOD)
    add_labeled(database, 2, GOOD)
    assert append_labels(database, "chat", tables.labels).as_of == 2
    forget_records(database, "chat", ["request-000002"])
    assert append_labels(database, "chat", tables.labels).rows == 0
    add_labeled(database, 3, GOOD)
    assert append_labels(database, "chat", tables.labels).rows == 1


def test_several_at_once_append_each_decision_once(database: Database, tmp_path: Path) -> None:
    add_many(database, 500)

    def append(_number: int) -> int:
        own = endpoint_tables(str(tmp_path / "lake"))
        for _attempt in range(10):
            try:
                return append_labels(database, "chat", own.labels).rows
            except Conflict:
                continue
        raise AssertionError("it never came to an end")

    with ThreadPoolExecutor(3) as pool:
        rows = list(pool.map(append, range(3)))
    assert sum(rows) == 500
    assert _rows(endpoint_tables(str(tmp_path / "lake")))["decision_id"].to_list() == list(range(1, 501))


def test_up_to_a_decision_and_then_the_rest(database: Database, tables: EndpointTables) -> None:
    add_many(database, 10)
    assert append_labels(database, "chat", tables.labels, 4).as_of == 4
    assert append_labels(database, "chat", tables.labels, 3).rows == 0
    assert append_labels(database, "chat", tables.labels).rows == 6


def test_a_table_of_another_database_is_refused(database: Database, tables: EndpointTables) -> None:
    tables.labels.append(
        pl.DataFrame({"case_id": [1], "request_date": [START.date()]}), transactions={"servelens-labels": 99}
    )
    add_many(database, 3)
    with pytest.raises(Invalid, match="another one's"):
        append_labels(database, "chat", tables.labels)


def test_the_manifest_says_where_the_labels_are(database: Database, tmp_path: Path) -> None:
    add_many(database, 3)
    catalog = Catalog(str(tmp_path / "lake"), {"chat": TableName("main", "default", "chat")})
    manifests = Manifests(database, ManualClock(START).now)
    query = ExportQuery(format="labels_table", endpoints=("chat",))
    made = export_table(database, catalog, query, manifests, by="ann")
    assert made["counts"] == {"written": 3}
    assert made["table"]["uri"].endswith("main/default/chat_labels")
    assert (made["table"]["decisions_up_to"], made["query"]["as_of"]) == (3, 3)
    assert list(made["label_schemas"]["chat"]) == ["0"]
    assert manifests.list()[0]["id"] == made["id"]
    with pytest.raises(Invalid) as caught:
        export_table(database, catalog, ExportQuery(format="labels_table"), manifests, by="ann")
    assert caught.value.field == "endpoint"
