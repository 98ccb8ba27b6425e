from __future__ import annotations

import os
import time
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from collector.catalog import EndpointTables
from collector.deletion import delete_keys
from collector.departed_rows import departed_rows
from collector.maintenance import MaintainedEndpoint, Maintenance, Rules
from collector.maintenance_history import clean_log, purge, vacuum
from collector.table import Table
from servelens.clock import ManualClock
from servelens.errors import Missing
from tests.unit.collector.maintained import TODAY, WORKER, catalog, fill, offsets

HOUR = 3_600


@pytest.fixture
def tables(tmp_path: Path) -> EndpointTables:
    return catalog(tmp_path).tables("chat")


def log(table: Table) -> list[str]:
    return sorted(path.name for path in (Path(table.uri) / "_delta_log").glob("0*.json"))


def age(table: Table, hours: float, pattern: str = "_delta_log/0*") -> None:
    moment = time.time() - hours * HOUR
    for path in Path(table.uri).glob(pattern):
        os.utime(path, (moment, moment))


def test_the_log_ends_at_the_history_and_transactions_outlive_it(tables: EndpointTables) -> None:
    rows = fill(tables, 4)
    delete_keys(tables.payload, "databricks_request_id", ["id-000001", "id-000005"])
    follower = Table(tables.payload.uri, tables.payload.schema)
    assert follower.transaction_version(WORKER) == rows - 1
    clean_log(tables.payload, 48)
    age(tables.payload, 49)
    fill(tables, 2, first=rows)
    clean_log(tables.payload, 48)
    newest = DeltaTable(tables.payload.uri).version()
    assert log(tables.payload)[0] != f"{0:020d}.json"
    assert len(log(tables.payload)) == 3, "two commits, and the checkpoint that they build on"
    with pytest.raises(Missing, match="no longer reaches back"):
        tables.payload.read_since(2)
    assert tables.payload.read_since(newest - 2).frame["spool_offset"].to_list() == list(range(12, 18))
    for table in (follower, Table(tables.payload.uri, tables.payload.schema)):
        assert table.transaction_version(WORKER) == rows + 5
        assert departed_rows(table, [WORKER]) == {WORKER: 2}
    vacuum(tables.payload, 48)
    assert offsets(tables) == [0, 2, 3, 4, *range(6, 18)]
    follower.append(tables.payload.scan().collect().head(1), transactions={WORKER: rows + 6})
    assert tables.payload.transaction_version(WORKER) == rows + 6


def test_a_younger_history_is_kept(tables: EndpointTables) -> None:
    fill(tables, 4)
    clean_log(tables.payload, 48)
    age(tables.payload, 47)
    fill(tables, 1, first=12)
    clean_log(tables.payload, 48)
    assert tables.payload.read_since(1).frame.height == 12
    assert log(tables.payload)[0] == f"{0:020d}.json"


def test_files_that_no_version_knows_leave_when_they_are_old(tables: EndpointTables) -> None:
    fill(tables, 2)
    live = DeltaTable(tables.payload.uri).file_uris()
    folder = Path(live[0]).parent
    for name in ("old.parquet", "just-being-written.parquet"):
        (folder / name).write_bytes(b"PAR1")
    age(tables.payload, 49, "*/*.parquet")
    os.utime(folder / "just-being-written.parquet")
    assert vacuum(tables.payload, 48) == 1
    assert not (folder / "old.parquet").exists()
    assert (folder / "just-being-written.parquet").exists()
    assert offsets(tables) == list(range(6))
    version = tables.payload.version()
    assert vacuum(tables.payload, 48) == 0
    assert tables.payload.version() == version, "a vacuum that finds nothing commits nothing"


def test_replaced_files_are_kept_for_readers_and_leave_checkpoints_in_time(tables: EndpointTables) -> None:
    fill(tables, 3)
    DeltaTable(tables.payload.uri).optimize.compact()
    age(tables.payload, 49, "*/*.parquet")
    assert vacuum(tables.payload, 48) == 0, "they were replaced just now"
    clean_log(tables.payload, 48)
    newest = sorted((Path(tables.payload.uri) / "_delta_log").glob("*.checkpoint.parquet"))[-1]
    assert pl.read_parquet(newest)["remove"].drop_nulls().len() == 3
    properties = DeltaTable(tables.payload.uri).metadata().configuration
    assert properties["delta.deletedFileRetentionDuration"] == "interval 1 hours"
    assert tables.payload.read_since(1).frame.height == 6


def test_a_purge_leaves_no_byte_of_deleted_rows(tables: EndpointTables) -> None:
    fill(tables, 2)
    names = [f"id-{number:06d}" for number in range(6)]
    assert delete_keys(tables.payload, "databricks_request_id", names[:2]) == 2
    root = Path(tables.payload.uri)
    leftover = Path(DeltaTable(tables.payload.uri).file_uris()[0]).parent / "just-being-written.parquet"
    leftover.write_bytes(b"PAR1")
    assert list(root.glob("_change_data/**/*.parquet"))
    assert purge(tables.payload) == 2, "the file that held them, and the change feed's"
    assert not list(root.glob("_change_data/**/*.parquet"))
    assert leftover.exists(), "it may be an append under way"
    held = pl.concat(pl.read_parquet(file) for file in DeltaTable(tables.payload.uri).file_uris())
    assert sorted(held["databricks_request_id"]) == names[2:]
    on_disk = {path.name for path in root.glob("request_date=*/part-*.parquet")}
    assert on_disk == {Path(file).name for file in DeltaTable(tables.payload.uri).file_uris()}
    with pytest.raises(Missing, match="anew"):
        tables.payload.read_since(0)
    assert tables.payload.read_since(None).frame.height == 4


def test_the_past_is_cleaned_now_and_then_and_not_at_each_run(tables: EndpointTables) -> None:
    clock = ManualClock(TODAY)
    maintenance = Maintenance(
        lambda: [MaintainedEndpoint("chat", tables)], clock, Rules(min_files=99, history_hours=48)
    )

    def cleaned() -> int:
        maintenance.run()
        return len(list((Path(tables.payload.uri) / "_delta_log").glob("*.checkpoint.parquet")))

    fill(tables, 1)
    assert cleaned() == 1
    fill(tables, 1, first=3)
    assert cleaned() == 1
    clock.advance(2 * HOUR)
    assert cleaned() == 2
