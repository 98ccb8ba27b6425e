"""A table that was made before a column existed."""

from __future__ import annotations

import datetime as dt
import threading
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from collector.catalog import Catalog, TableName
from collector.dead_letter import DeadLetter
from collector.inference_table import PAYLOAD_SCHEMA
from collector.ingest import Collector
from collector.record import Attempt, Record
from collector.spool import SpoolWriter
from collector.table import Table
from servelens.errors import Conflict

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
OLD_SCHEMA = pa.schema(list(PAYLOAD_SCHEMA)[:-2])
NEW = ["endpoint_config_version", "attempt_details"]


def rows(schema: pa.Schema, *ids: str) -> pa.Table:
    return pa.Table.from_pylist(
        [{"databricks_request_id": name, "request_date": NOON.date(), "request_time": NOON} for name in ids],
        schema=schema,
    )


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A table with the old columns and two rows, of which the application ``w`` committed version 7."""
    table = Table(str(tmp_path / "lake" / "main" / "serving" / "chat_payload"), OLD_SCHEMA)
    table.append(rows(OLD_SCHEMA, "old-1", "old-2"), transactions={"w": 7})
    return table.uri


def test_readers_of_an_old_table_see_nulls(uri: str) -> None:
    table = Table(uri, PAYLOAD_SCHEMA)
    empty = pl.DataFrame(PAYLOAD_SCHEMA.empty_table())
    assert table.scan(since=NOON).collect().schema == empty.schema
    assert table.scan().select(NEW).null_count().collect().row(0) == (2, 2)
    changes = table.read_since(None)
    assert changes.frame.schema == empty.schema
    assert changes.frame["attempt_details"].null_count() == 2
    assert table.read_since(None, columns=["attempt_details"], max_rows=1).frame.columns == [
        "attempt_details"
    ]
    assert len(DeltaTable(uri).schema().fields) == len(OLD_SCHEMA)


def test_the_next_append_adds_the_columns_in_their_order(uri: str) -> None:
    table = Table(uri, PAYLOAD_SCHEMA)
    before = table.version()
    assert before is not None
    version = table.append(rows(PAYLOAD_SCHEMA, "new-1"), transactions={"w": 8})
    delta = DeltaTable(uri)
    assert [field.name for field in delta.schema().fields] == PAYLOAD_SCHEMA.names
    assert delta.metadata().configuration["delta.enableChangeDataFeed"] == "true"
    assert sorted(table.scan().collect()["databricks_request_id"]) == ["new-1", "old-1", "old-2"]
    changes = table.read_since(before)
    assert (changes.frame["databricks_request_id"].to_list(), changes.version) == (["new-1"], version)
    assert len(table.read_since(None).frame) == 3
    assert table.append(rows(PAYLOAD_SCHEMA, "new-2")) == version + 1
    assert table.scan(version=before).select(NEW).null_count().collect().row(0) == (2, 2)


def test_a_transaction_is_still_committed_once(uri: str) -> None:
    with pytest.raises(Conflict):
        Table(uri, PAYLOAD_SCHEMA).append(rows(PAYLOAD_SCHEMA, "again"), transactions={"w": 7})
    assert Table(uri, PAYLOAD_SCHEMA).transaction_version("w") == 7
    assert len(Table(uri, PAYLOAD_SCHEMA).scan().collect()) == 2


def test_two_appenders_may_both_find_it_old(uri: str) -> None:
    tables = [Table(uri, PAYLOAD_SCHEMA) for _ in range(2)]
    start = threading.Barrier(2)

    def append(number: int) -> None:
        start.wait(10)
        tables[number].append(rows(PAYLOAD_SCHEMA, f"new-{number}"), transactions={f"w{number}": 1})

    threads = [threading.Thread(target=append, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = tables[0].scan().collect()["databricks_request_id"]
    assert sorted(found) == ["new-0", "new-1", "old-1", "old-2"]


def test_a_handle_that_was_open_before_the_columns_came_goes_on(uri: str) -> None:
    late = Table(uri, PAYLOAD_SCHEMA)
    assert late.version() is not None
    Table(uri, PAYLOAD_SCHEMA).append(rows(PAYLOAD_SCHEMA, "new-1"))
    late.append(rows(PAYLOAD_SCHEMA, "new-2"))
    assert len(late.scan().collect()) == 4


def test_the_collector_ingests_into_an_old_table(uri: str, tmp_path: Path) -> None:
    writer = SpoolWriter.open(tmp_path / "spool" / "proxy-0")
    record = Record(
        request_id="new-1",
        request_time_us=1_772_366_400_000_000,
        status_code=200,
        duration_us=1_000,
        endpoint="chat",
        api="chat",
        endpoint_config_version=2,
        attempt_details=[Attempt("champion", "http://a", 200, None, 1_000)],
    )
    writer.append(record, None)
    writer.flush(10)
    writer.close(10)
    for _ in range(2):  # the second finds nothing new
        catalog = Catalog(str(tmp_path / "lake"), {"chat": TableName("main", "serving", "chat")})
        collector = Collector(tmp_path / "spool", catalog, DeadLetter(tmp_path / "dead"))
        assert collector.drain()
        collector.close()
    table = catalog.tables("chat").payload
    assert table.uri == uri
    got = table.scan().sort("databricks_request_id").select("databricks_request_id", *NEW).collect().rows()
    attempt = {
        "served_entity": "champion",
        "url": "http://a",
        "status": 200,
        "error_type": None,
        "duration_ms": 1.0,
    }
    assert got == [("new-1", 2, [attempt]), ("old-1", None, None), ("old-2", None, None)]
    assert table.transaction_version("w") == 7
    assert table.transaction_version(writer.worker_id) is not None
