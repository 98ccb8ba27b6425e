from __future__ import annotations

import datetime as dt
import shutil
import threading
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from collector.inference_table import PAYLOAD_SCHEMA
from collector.profile_tables import DRIFT_SCHEMA, PROFILE_SCHEMA
from collector.score_table import SCORE_SCHEMA
from collector.table import Table
from servelens.errors import Conflict, Invalid, Missing, Unavailable

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def rows(*ids: str, at: dt.datetime = NOON) -> pa.Table:
    return pa.table(
        {
            "databricks_request_id": list(ids),
            "request_date": [at.date()] * len(ids),
            "request_time": pa.array([at] * len(ids), pa.timestamp("us", tz="UTC")),
            "endpoint": ["chat"] * len(ids),
        }
    )


def ids(frame: pl.DataFrame | pl.LazyFrame) -> list[str]:
    return sorted(frame.lazy().collect()["databricks_request_id"].to_list())


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(str(tmp_path / "a" / "b_payload"), PAYLOAD_SCHEMA)


def test_a_table_that_does_not_exist_is_empty_with_the_right_columns(table: Table) -> None:
    assert not table.exists()
    assert table.version() is None
    assert table.transaction_version("w") is None
    frame = table.scan(since=NOON).collect()
    assert frame.columns == PAYLOAD_SCHEMA.names
    assert frame.schema["request_time"] == pl.Datetime("us", "UTC")
    changes = table.read_since(None, columns=["endpoint", "phase"])
    assert changes.version is None
    assert changes.frame.schema == {"endpoint": pl.String, "phase": pl.Int32}
    assert not Path(table.uri).exists()


def test_append_creates_the_table_with_its_schema_partitions_and_change_feed(table: Table) -> None:
    assert table.append(rows("r1", "r2")) == 1
    delta = DeltaTable(table.uri)
    assert delta.metadata().partition_columns == ["request_date"]
    assert delta.metadata().configuration["delta.enableChangeDataFeed"] == "true"
    frame = table.scan().collect()
    assert frame.schema == pl.DataFrame(PAYLOAD_SCHEMA.empty_table()).schema
    assert ids(frame) == ["r1", "r2"]
    assert frame["response"].null_count() == 2
    assert "min.response" not in pa.table(delta.get_add_actions(flatten=True)).column_names
    assert "min.databricks_request_id" in pa.table(delta.get_add_actions(flatten=True)).column_names


def test_polars_frames_with_maps_and_lists_come_back_equal(table: Table) -> None:
    table.append(rows("r1"))
    frame = (
        table.scan()
        .collect()
        .with_columns(
            logging_error_codes=pl.lit(["MAX_REQUEST_SIZE_EXCEEDED"]), status_code=pl.lit(200, pl.Int64)
        )
    )
    given = frame.to_arrow().set_column(
        frame.columns.index("tags"), "tags", pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string()))
    )
    table.append(pl.DataFrame(given))
    back = pa.table(DeltaTable(table.uri).to_pyarrow_table())
    assert {tuple(t) for t in back["tags"].to_pylist() if t} == {(("k", "v"),)}
    assert back["status_code"].to_pylist().count(200) == 1


def test_rows_that_do_not_fit_are_refused_and_name_the_column(table: Table) -> None:
    with pytest.raises(Invalid, match="colour"):
        table.append(pa.table({"colour": ["red"]}))
    with pytest.raises(Invalid, match="status_code"):
        table.append(pa.table({"status_code": ["many"]}))
    assert not table.exists()


def test_scan_takes_a_half_open_window(table: Table) -> None:
    for hour in range(4):
        table.append(rows(f"r{hour}", at=NOON + dt.timedelta(hours=hour)))
    table.append(rows("next-day", at=NOON + dt.timedelta(days=1)))
    window = table.scan(since=NOON + dt.timedelta(hours=1), until=NOON + dt.timedelta(hours=3))
    assert ids(window) == ["r1", "r2"]
    assert ids(table.scan(until=NOON)) == []
    elsewhere = dt.timezone(dt.timedelta(hours=14))
    assert ids(table.scan(since=(NOON + dt.timedelta(days=1)).astimezone(elsewhere))) == ["next-day"]
    with pytest.raises(Invalid, match="zone"):
        table.scan(since=NOON.replace(tzinfo=None))


def test_scan_of_an_older_version_and_of_one_that_never_was(table: Table) -> None:
    first = table.append(rows("r1"))
    table.append(rows("r2"))
    assert ids(table.scan(version=first)) == ["r1"]
    with pytest.raises(Missing):
        table.scan(version=17)


def test_metric_tables_filter_on_the_start_of_the_window(tmp_path: Path) -> None:
    for schema in (PROFILE_SCHEMA, DRIFT_SCHEMA):
        table = Table(str(tmp_path / str(len(schema))), schema, partition_by=())
        frame = pl.DataFrame(
            {
                "window": [{"start": NOON, "end": NOON + dt.timedelta(hours=1)}],
                "granularity": ["1 hour"],
                "column_name": [":table"],
            }
        )
        table.append(frame)
        table.append(frame)
        assert table.scan(since=NOON).collect().height == 2
        assert table.scan(since=NOON + dt.timedelta(seconds=1)).collect().height == 0
        assert table.read_since(None).frame["window"].struct.field("start").to_list() == [NOON, NOON]


def test_read_since_gives_each_appended_row_once(table: Table) -> None:
    table.append(rows("r1", "r2"))
    first = table.read_since(None)
    assert ids(first.frame) == ["r1", "r2"]
    assert first.frame.schema == pl.DataFrame(PAYLOAD_SCHEMA.empty_table()).schema
    nothing = table.read_since(first.version)
    assert nothing.frame.is_empty()
    assert nothing.version == first.version
    table.append(rows("r3"))
    DeltaTable(table.uri).optimize.compact()
    second = table.read_since(first.version, columns=["endpoint", "databricks_request_id"])
    assert second.frame.columns == ["endpoint", "databricks_request_id"]
    assert ids(second.frame) == ["r3"]
    assert second.version == table.version()
    assert table.read_since(second.version).frame.is_empty()


def test_read_since_takes_whole_commits_in_order_up_to_max_rows(table: Table) -> None:
    for name in "abcd":
        table.append(rows(f"{name}1", f"{name}2"))
    DeltaTable(table.uri).optimize.compact()
    read: list[list[str]] = []
    version: int | None = None
    while version != table.version():
        changes = table.read_since(version, max_rows=5)
        read.append(ids(changes.frame))
        version = changes.version
    assert read == [["a1", "a2", "b1", "b2"], ["c1", "c2", "d1", "d2"]]
    assert table.read_since(None, max_rows=1).frame.height == 2


def test_a_history_that_was_cut_is_never_taken_for_an_empty_one(table: Table) -> None:
    for number in range(4):
        table.append(rows(f"r{number}"))
    delta = DeltaTable(table.uri)
    delta.create_checkpoint()
    for version in range(3):
        (Path(table.uri) / "_delta_log" / f"{version:020d}.json").unlink()
    with pytest.raises(Missing, match="no longer reaches back"):
        table.read_since(1)
    assert ids(table.read_since(None, max_rows=1).frame) == ["r0", "r1", "r2", "r3"]
    assert ids(table.read_since(3).frame) == ["r3"]
    with pytest.raises(Missing, match="no version 99"):
        table.read_since(99)


def test_files_that_were_compacted_and_vacuumed_do_not_hide_rows(table: Table) -> None:
    for number in range(4):
        table.append(rows(f"r{number}"))
    delta = DeltaTable(table.uri)
    delta.optimize.compact()
    delta.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    version = table.append(rows("r4"))
    everything = table.read_since(None, columns=["databricks_request_id"])
    assert ids(everything.frame) == ["r0", "r1", "r2", "r3", "r4"]
    assert everything.version == version
    with pytest.raises(Missing, match="anew"):
        table.read_since(2)
    assert ids(table.read_since(version - 1).frame) == ["r4"]


def test_deleted_and_updated_rows_are_no_additions(table: Table) -> None:
    version = table.append(rows("r1", "r2", "r3"))
    delta = DeltaTable(table.uri)
    delta.delete("databricks_request_id = 'r1'")
    delta.update({"endpoint": "'renamed'"}, predicate="databricks_request_id = 'r2'")
    changes = table.read_since(version)
    assert changes.frame.is_empty()
    assert changes.removed is not None
    assert "r1" in ids(changes.removed)


def test_read_since_stops_at_a_version(table: Table) -> None:
    first, second = table.append(rows("r1")), table.append(rows("r2"))
    table.append(rows("r3"))
    changes = table.read_since(first, until=second)
    assert (ids(changes.frame), changes.version) == (["r2"], second)
    with pytest.raises(Missing):
        table.read_since(first, until=99)


def test_a_transaction_is_committed_once(table: Table) -> None:
    table.append(rows("r1"), transactions={"worker-a": 9, "worker-b": 4})
    assert table.transaction_versions(["worker-a", "worker-b", "worker-c"]) == {
        "worker-a": 9,
        "worker-b": 4,
        "worker-c": None,
    }
    again = Table(table.uri, PAYLOAD_SCHEMA)
    with pytest.raises(Conflict, match="worker-b"):
        again.append(rows("r1"), transactions={"worker-a": 10, "worker-b": 4})
    assert ids(table.scan()) == ["r1"]
    assert table.transaction_version("worker-a") == 9


def test_who_has_read_an_older_version_of_a_transaction_adds_nothing(table: Table) -> None:
    table.append(rows("r1"), transactions={"score": 5}, after={"score": None})
    table.append(rows("r1"), transactions={"score": 7}, after={"score": 5})
    # Newer than what is there, but made from what was there before.
    with pytest.raises(
        Conflict, match="score has committed 7 meanwhile, so what comes after 5 was not added"
    ):
        table.append(rows("r1"), transactions={"score": 9}, after={"score": 5})
    assert table.transaction_version("score") == 7


def test_two_appenders_with_the_same_transaction_write_one_of_them(tmp_path: Path) -> None:
    uri = str(tmp_path / "t")
    Table(uri, PAYLOAD_SCHEMA).append(rows("r0"))
    outcomes: list[str] = []
    barrier = threading.Barrier(4)

    def race(name: str) -> None:
        table = Table(uri, PAYLOAD_SCHEMA)
        barrier.wait()
        for step in range(5):
            try:
                table.append(rows(f"{name}{step}"), transactions={"app": step})
                outcomes.append(f"{name}{step}")
            except Conflict:
                pass

    threads = [threading.Thread(target=race, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    table = Table(uri, PAYLOAD_SCHEMA)
    assert ids(table.scan()) == sorted(["r0", *outcomes])
    assert table.transaction_version("app") == 4
    assert len(outcomes) == 5


def test_appenders_without_transactions_all_get_in(tmp_path: Path) -> None:
    uri = str(tmp_path / "t")
    barrier = threading.Barrier(3)

    def write(name: str) -> None:
        table = Table(uri, SCORE_SCHEMA)
        barrier.wait()
        for step in range(5):
            table.append(rows(f"{name}{step}"))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Table(uri, SCORE_SCHEMA).scan().collect().height == 15


def test_a_checkpoint_is_written_on_purpose(table: Table) -> None:
    for number in range(51):
        table.append(rows(f"r{number}"), transactions={"w": number})
    assert list(Path(table.uri).glob("_delta_log/*.checkpoint.parquet"))
    fresh = Table(table.uri, PAYLOAD_SCHEMA)
    assert fresh.transaction_version("w") == 50
    assert fresh.scan().collect().height == 51


def test_storage_that_fails_is_unavailable_and_works_again_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    table = Table(str(folder / "t"), PAYLOAD_SCHEMA)
    table.append(rows("r1"), transactions={"w": 1})
    folder.rename(tmp_path / "away")
    folder.write_text("a file where the folder was")
    with pytest.raises(Unavailable):
        table.append(rows("r2"), transactions={"w": 2})
    with pytest.raises(Unavailable):
        table.scan()
    with pytest.raises(Unavailable):
        table.version()
    folder.unlink()
    (tmp_path / "away").rename(folder)
    table.append(rows("r2"), transactions={"w": 2})
    assert ids(table.scan()) == ["r1", "r2"]


def test_a_table_that_was_removed_is_made_anew(table: Table) -> None:
    table.append(rows("r1"), transactions={"w": 1})
    shutil.rmtree(table.uri)
    assert not table.exists()
    with pytest.raises((Conflict, Unavailable)):
        table.append(rows("r2"), transactions={"w": 1})
    table.append(rows("r2"), transactions={"w": 1})
    assert ids(table.scan()) == ["r2"]


def test_a_long_catch_up_takes_each_commit_once_and_knows_what_is_left(table: Table) -> None:
    for number in range(70):  # more than are looked at at a time
        table.append(rows(f"r{number:02}"))
    assert table.rows_since(None) == 70
    read: list[str] = []
    version: int | None = None
    while version != table.version():
        changes = table.read_since(version, columns=["databricks_request_id"], max_rows=66)
        read += ids(changes.frame)
        version = changes.version
        assert table.rows_since(version) == 70 - len(read)
    assert read == [f"r{number:02}" for number in range(70)]
    assert table.rows_since(None, commits=10) is None
