"""Collectors on object storage that two machines share, and that fails in every way that it can."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psutil
import pytest

from collector.record import Record
from collector.spool import SpoolWriter
from tests.integration.collector_process import DRAIN_S, catalog, collector_process
from tests.integration.system import wait_until
from tests.s3_server import BUCKET, S3Server, s3_server

NOON_US = 1_772_366_400_000_000
MACHINES = ("one", "two")
ROOT = f"s3://{BUCKET}/lake"
BACKLOG_BYTES = 120 << 20
BATCH_BYTES = 4 << 20
MEMORY_BYTES = 300 << 20  # its own, without the pages of mapped libraries; idle it has some 170


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def options(server: S3Server) -> dict[str, str]:
    """As a user gives them, with less patience."""
    return {**server.storage_options, "max_retries": "1", "retry_timeout": "2s"}


def record(name: str, body: bytes = b'{"messages": [{"role": "user", "content": "Hi"}]}') -> Record:
    return Record(
        request_id=name,
        request_time_us=NOON_US,
        status_code=200,
        duration_us=1_000,
        endpoint="chat",
        api="chat",
        request=body,
    )


def spool_on(folder: Path, name: str, stop: threading.Event, spooled: list[str]) -> None:
    """Spool some 400 records a second until told to stop."""
    writer = SpoolWriter.open(folder / "spool" / "proxy-0", segment_bytes=64_000)
    number = 0
    while not stop.wait(0.05):
        for number in range(number + 1, number + 21):  # noqa: B020 - it goes on counting
            writer.append(record(f"{name}-{number}"), None)
            spooled.append(f"{name}-{number}")
    writer.flush(30)
    writer.close(30)


def commits(server: S3Server, more: int) -> None:
    """Wait until the table has ``more`` commits than now."""
    table = catalog(ROOT, options(server)).tables("chat").payload
    before = table.version() or 0
    wait_until(lambda: (table.version() or 0) >= before + more, 30, f"{more} commits")


def requests(server: S3Server, more: int) -> None:
    """Wait until the server was asked ``more`` times."""
    before = server.counts()["requests"]
    wait_until(lambda: server.counts()["requests"] >= before + more, 30, f"{more} requests")


def refusals(server: S3Server, more: int) -> None:
    """Wait until ``more`` commits came second: another's was first, or their own, of which they did not hear."""
    before = server.counts()["refused"]
    wait_until(lambda: server.counts()["refused"] >= before + more, 30, f"{more} refusals")


def test_two_collectors_on_one_table_through_outages(server: S3Server, tmp_path: Path) -> None:
    stop = threading.Event()
    spooled: dict[str, list[str]] = {name: [] for name in MACHINES}
    writers = [
        threading.Thread(target=spool_on, args=(tmp_path / name, name, stop, spooled[name]))
        for name in MACHINES
    ]
    with (
        collector_process(tmp_path / "one", ROOT, options(server), commit_interval_s=0.05) as one,
        collector_process(tmp_path / "two", ROOT, options(server), commit_interval_s=0.05) as two,
    ):
        for writer in writers:
            writer.start()
        try:
            server.behave("race")
            refusals(server, 4)
            server.behave("well")
            server.go_away()
            time.sleep(0.3)  # long enough that both meet it: they commit every 50 ms
            server.come_back()
            commits(server, 2)
            server.behave("lose")
            refusals(server, 1)
            server.behave("well")
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        for process in (one, two):
            process.terminate()
        for process in (one, two):
            assert process.wait(DRAIN_S + 20) == 0
    table = catalog(ROOT, options(server)).tables("chat").payload
    rows = table.scan().select("databricks_request_id", "worker_id", "spool_offset").collect()
    assert sorted(rows["databricks_request_id"]) == sorted(spooled["one"] + spooled["two"])
    last = rows.group_by("worker_id").agg(pl.col("spool_offset").max()).rows()
    assert len(last) == len(MACHINES)
    assert dict(last) == table.transaction_versions([worker for worker, _ in last])


def test_a_backlog_waits_in_the_spool_not_in_memory(server: S3Server, tmp_path: Path) -> None:
    writer = SpoolWriter.open(tmp_path / "spool" / "proxy-0")
    body = b'{"messages": [{"role": "user", "content": "' + b"x" * 120_000 + b'"}]}'
    count = BACKLOG_BYTES // len(body)
    for number in range(count):
        writer.append(record(f"r{number}", body), None)
        if number % 200 == 0:
            writer.flush(30)
    writer.flush(30)
    writer.close(30)
    server.behave("500")
    with collector_process(
        tmp_path, ROOT, options(server), commit_interval_s=0.2, max_bytes=BATCH_BYTES
    ) as process:
        requests(server, 4)
        requests(server, 3)
        assert psutil.Process(process.pid).memory_full_info().uss < MEMORY_BYTES
        server.behave("well")
        process.terminate()
        assert process.wait(DRAIN_S + 20) == 0
    rows = catalog(ROOT, options(server)).tables("chat").payload.scan().select("databricks_request_id")
    assert sorted(rows.collect()["databricks_request_id"]) == sorted(f"r{number}" for number in range(count))
