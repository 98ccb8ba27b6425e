"""Tables on S3, against a server that takes conditional puts as S3 does."""

from __future__ import annotations

import datetime as dt
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from collector.inference_table import PAYLOAD_SCHEMA
from collector.object_store import polars_options, storage_error
from collector.table import Table
from servelens.errors import Conflict, Invalid, Missing, ServelensError, Unavailable
from tests.s3_server import BUCKET, S3Server, s3_server

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
OLD_SCHEMA = pa.schema(list(PAYLOAD_SCHEMA)[:-2])
WRITERS = 4


@pytest.fixture(scope="module")
def started() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def server(started: S3Server) -> Iterator[S3Server]:
    yield started
    started.behave("well")


@pytest.fixture
def uri() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def rows(*ids: str, at: dt.datetime = NOON, schema: pa.Schema = PAYLOAD_SCHEMA) -> pa.Table:
    return pa.Table.from_pylist(
        [{"databricks_request_id": name, "request_date": at.date(), "request_time": at} for name in ids],
        schema=schema,
    )


def ids(table: Table) -> list[str]:
    return sorted(table.scan().select("databricks_request_id").collect()["databricks_request_id"].to_list())


def opened(server: S3Server, uri: str, schema: pa.Schema = PAYLOAD_SCHEMA, **options: str) -> Table:
    quick = {"max_retries": "1", "retry_timeout": "2s", "backoff_config.init_backoff": "10ms"}
    return Table(uri, schema, storage_options={**server.storage_options, **quick, **options})


def at_once(action: Callable[[int], None]) -> None:
    """Run ``action`` on :data:`WRITERS` threads that begin together."""
    start = threading.Barrier(WRITERS)

    def run(number: int) -> None:
        start.wait(10)
        action(number)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(run, range(WRITERS)))


def test_a_table_on_s3_is_written_and_read_as_one_in_a_folder(server: S3Server, uri: str) -> None:
    table = opened(server, uri)
    assert not table.exists()
    assert table.version() is None
    assert table.scan(since=NOON).collect().is_empty()
    table.append(rows("r1"), transactions={"w": 7})
    version = table.append(rows("r2", at=NOON + dt.timedelta(days=1)))
    other = opened(server, uri)
    assert other.exists()
    assert other.transaction_versions(["w", "v"]) == {"w": 7, "v": None}
    assert ids(other) == ["r1", "r2"]
    later = other.scan(since=NOON + dt.timedelta(hours=1)).collect()
    assert later["databricks_request_id"].to_list() == ["r2"]
    assert other.read_since(version - 1).frame["databricks_request_id"].to_list() == ["r2"]
    with pytest.raises(Missing):
        other.scan(version=99)


def test_writers_that_create_the_table_at_once_lose_no_row_and_double_none(
    server: S3Server, uri: str
) -> None:
    refused = server.counts()["refused"]
    tables = [opened(server, uri) for _ in range(WRITERS)]

    def append(number: int) -> None:
        for commit in range(3):
            tables[number].append(rows(f"{number}-{commit}"), transactions={f"w{number}": commit})

    server.behave("race")
    at_once(append)
    server.behave("well")
    assert ids(tables[0]) == sorted(f"{number}-{commit}" for number in range(WRITERS) for commit in range(3))
    assert tables[0].version() == 3 * WRITERS
    assert server.counts()["refused"] > refused  # so they did race, and the storage was the judge


def test_writers_that_add_columns_at_once_add_them_once(server: S3Server, uri: str) -> None:
    opened(server, uri, OLD_SCHEMA).append(rows("old", schema=OLD_SCHEMA))
    tables = [opened(server, uri) for _ in range(WRITERS)]
    server.behave("race")
    at_once(lambda number: tables[number].append(rows(f"new-{number}")) and None)
    server.behave("well")
    handle = DeltaTable(uri, storage_options=server.storage_options)
    assert [field.name for field in handle.schema().fields] == PAYLOAD_SCHEMA.names
    assert ids(tables[0]) == [*(f"new-{number}" for number in range(WRITERS)), "old"]
    assert handle.version() == 1 + 1 + WRITERS


def test_a_writer_that_does_not_know_the_new_columns_goes_on(server: S3Server, uri: str) -> None:
    old = opened(server, uri, OLD_SCHEMA)
    old.append(rows("before", schema=OLD_SCHEMA))
    new = opened(server, uri)
    new.append(rows("new"))
    old.append(rows("after", schema=OLD_SCHEMA), transactions={"w": 1})
    assert ids(new) == ["after", "before", "new"]
    assert ids(old) == ["after", "before", "new"]
    assert new.version() == 4


def test_a_commit_whose_answer_is_lost_is_not_made_again(server: S3Server, uri: str) -> None:
    table = opened(server, uri)
    table.append(rows("r1"), transactions={"w": 1})
    server.behave("lose")
    with pytest.raises(Conflict, match="committed 2 already"):
        table.append(rows("r2"), transactions={"w": 2})
    server.behave("well")
    assert table.transaction_version("w") == 2
    assert ids(table) == ["r1", "r2"]
    table.append(rows("r3"), transactions={"w": 3})
    assert ids(table) == ["r1", "r2", "r3"]


def test_a_storage_that_was_away_is_used_again_when_it_is_back(server: S3Server, uri: str) -> None:
    table = opened(server, uri)
    table.append(rows("r1"))
    server.go_away()
    try:
        with pytest.raises(Unavailable, match="Connection refused"):
            table.append(rows("r2"))
        with pytest.raises(Unavailable):
            table.scan()
        with pytest.raises(Unavailable):
            table.exists()
    finally:
        server.come_back()
    table.append(rows("r3"))
    assert ids(table) == ["r1", "r3"]


def test_failures_of_the_server_are_unavailable_in_one_plain_line(server: S3Server, uri: str) -> None:
    table = opened(server, uri)
    table.append(rows("r1"))
    server.behave("500")
    with pytest.raises(Unavailable, match="500 Internal Server Error") as caught:
        table.append(rows("r2"))
    said = str(caught.value)
    assert "\n" not in said
    assert "\x1b" not in said
    assert "list-type" not in said  # queries of Azure carry signatures


def test_refused_credentials_name_the_setting(server: S3Server, uri: str) -> None:
    table = opened(server, uri)
    server.behave("403")
    with pytest.raises(Unavailable, match=r"^tables\.storage_options: .*credentials.*docs/storage\.md"):
        table.append(rows("r1"))
    with pytest.raises(Unavailable, match=r"^tables\.storage_options"):
        table.version()
    table.check()  # not a mistake for certain: credentials are changed while servelens runs


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"aws_conditional_put": "maybe"}, r"^tables\.storage_options: .*maybe.*docs/storage\.md"),
        ({"aws_allow_http": "false"}, r"^tables\.storage_options: .*scheme is not allowed"),
        ({"max_retries": "many"}, r"^tables\.storage_options"),
    ],
)
def test_wrong_options_are_invalid_and_found_before_work_begins(
    server: S3Server, uri: str, options: dict[str, str], wanted: str
) -> None:
    with pytest.raises(Invalid, match=wanted):
        opened(server, uri, **options).append(rows("r1"))
    if "max_retries" not in options:  # not asked for in a hurry
        with pytest.raises(Invalid, match=wanted):
            opened(server, uri, **options).check()


@pytest.mark.parametrize(
    ("address", "options", "said"),
    [
        ("az://container/table", {}, "Account must be specified"),
        (
            "az://container/table",
            {"azure_storage_account_name": "a", "azure_storage_account_key": "!"},
            "Key",
        ),
        ("gs://bucket/table", {"google_service_account": "/no/such/file.json"}, "No such file"),
        ("gs://bucket/table", {"google_service_account_key": "{}"}, "private_key"),
        ("gs://bucket/table", {"google_application_credentials": "/no/such/file.json"}, "No such file"),
    ],
)
def test_options_of_azure_and_google_are_looked_at_too(
    address: str, options: dict[str, str], said: str
) -> None:
    with pytest.raises(Invalid, match=rf"^tables\.storage_options: .*{said}.*docs/storage\.md"):
        Table(address, PAYLOAD_SCHEMA, storage_options=options).check()


def test_an_address_of_no_storage_is_invalid(server: S3Server) -> None:
    table = opened(server, "ftp3://somewhere/table")
    for action in (table.check, table.version, lambda: table.append(rows("r1"))):
        with pytest.raises(Invalid, match=r"^tables\.root: ftp3:// is no storage"):
            action()


def test_unity_catalog_is_refused_rather_than_waited_for() -> None:
    with pytest.raises(Invalid, match=r"^tables\.root: .*Unity Catalog.*docs/storage\.md"):
        Table("uc://main/serving/chat_payload", PAYLOAD_SCHEMA)


def test_a_bucket_that_does_not_exist_is_said(server: S3Server) -> None:
    with pytest.raises(Unavailable, match=r"no such bucket.*Create it"):
        opened(server, "s3://no-such-bucket-here/table").append(rows("r1"))


def test_looking_at_a_slow_storage_holds_nobody_else_up(server: S3Server, uri: str) -> None:
    table = opened(server, uri)
    looked = threading.Event()
    longest, last = 0.0, time.monotonic()
    server.behave("late")
    looker = threading.Thread(target=lambda: (table.exists(), looked.set()))
    looker.start()
    while not looked.wait(0.005):
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    looker.join()
    assert longest < 0.8  # each request takes a second


def test_options_of_a_folder_stay_what_they_are_and_polars_gets_numbers() -> None:
    assert polars_options(None) == {}
    assert polars_options({"MAX_RETRIES": "3"})["max_retries"] == 3
    with pytest.raises(Invalid, match="max_retries"):
        polars_options({"max_retries": "some"})


def test_a_secret_in_the_address_of_a_failed_request_is_not_repeated() -> None:
    told: ServelensError = storage_error(
        OSError("Error performing GET https://x.blob.core.windows.net/c/p?sv=1&sig=SECRET in 3ms"), "az://c/p"
    )
    assert "SECRET" not in str(told)
    assert "x.blob.core.windows.net/c/p" in str(told)


def test_polars_and_delta_agree_on_what_is_there(server: S3Server, uri: str) -> None:
    table = opened(server, uri)
    for number in range(3):
        table.append(rows(f"r{number}", at=NOON + dt.timedelta(days=number)))
    counted = table.scan().group_by("request_date").agg(pl.len()).collect()
    assert counted["len"].to_list() == [1, 1, 1]
