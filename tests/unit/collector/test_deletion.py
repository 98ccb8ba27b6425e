from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from collector.catalog import EndpointTables
from collector.deletion import File, delete_keys, portions
from collector.departed_rows import departed_rows
from collector.table import Table
from servelens.errors import Unavailable
from tests.unit.collector.maintained import TODAY, WORKER, catalog, fill, offsets, records

MB = 1 << 20


@pytest.fixture
def tables(tmp_path: Path) -> EndpointTables:
    return catalog(tmp_path).tables("chat")


def test_one_commit_writes_few_large_files_anew() -> None:
    files = [File("a", "c", 100 * MB), File("d", "f", 100 * MB), File("g", "i", 10 * MB)]
    assert list(portions(list("abdgh"), files)) == [["a", "b"], ["d", "g", "h"]]
    overlapping = [File("a", "z", 100 * MB), File("b", "y", 100 * MB)]
    assert list(portions(list("abcz"), overlapping)) == [["a"], ["b", "c", "z"]]
    assert list(portions(list("abc"), [])) == [["a", "b", "c"]]
    assert list(portions([], files)) == []
    many = [f"{number:05d}" for number in range(12_000)]
    assert [len(portion) for portion in portions(many, [])] == [5_000, 5_000, 2_000]


def test_only_files_that_hold_a_key_are_written_anew(tables: EndpointTables) -> None:
    fill(tables, 3)
    before = set(DeltaTable(tables.payload.uri).file_uris())
    assert delete_keys(tables.payload, "databricks_request_id", ["id-000004", "nobody"]) == 1
    after = set(DeltaTable(tables.payload.uri).file_uris())
    assert len(before & after) == 2
    assert offsets(tables) == [0, 1, 2, 3, *range(5, 9)]


def test_keys_that_are_not_there_commit_nothing(tables: EndpointTables) -> None:
    assert delete_keys(tables.payload, "databricks_request_id", ["id-000001"]) == 0
    assert not tables.payload.exists()
    fill(tables, 1)
    version = tables.payload.version()
    assert delete_keys(tables.payload, "databricks_request_id", ["nobody"]) == 0
    assert delete_keys(tables.payload, "databricks_request_id", []) == 0
    assert tables.payload.version() == version


def test_the_books_are_kept_by_worker(tables: EndpointTables) -> None:
    both = pl.concat([records(0, 4), records(4, 4, worker_id="other")])
    tables.payload.append(both, transactions={WORKER: 3, "other": 7})
    delete_keys(tables.payload, "databricks_request_id", ["id-000000", "id-000004", "id-000005"])
    delete_keys(tables.payload, "databricks_request_id", ["id-000006"])
    again = Table(tables.payload.uri, tables.payload.schema)
    assert departed_rows(again, [WORKER, "other", "nobody"]) == {WORKER: 1, "other": 3, "nobody": 0}
    assert tables.payload.transaction_versions([WORKER, "other"]) == {WORKER: 3, "other": 7}


def test_an_append_under_way_does_not_stop_a_deletion(tables: EndpointTables) -> None:
    fill(tables, 2)
    with tables.payload.upkeep() as stale:
        assert stale is not None
        fill(tables, 1, first=6)
        # As delete_keys does, with a snapshot from before the append.
        stale.delete(
            f"request_date = '{TODAY.date()}' AND databricks_request_id >= 'id-000001' "
            "AND databricks_request_id <= 'id-000004' AND databricks_request_id IN ('id-000001', 'id-000004')"
        )
    assert offsets(tables) == [0, 2, 3, 5, 6, 7, 8]


def test_a_storage_that_fails_is_said(tables: EndpointTables) -> None:
    fill(tables, 1)
    for file in DeltaTable(tables.payload.uri).file_uris():
        Path(file).unlink()
    with pytest.raises(Unavailable, match="cannot be read"):
        delete_keys(tables.payload, "databricks_request_id", ["id-000001"])
