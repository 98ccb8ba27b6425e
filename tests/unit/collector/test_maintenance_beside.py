"""Maintenance beside a process that appends and a reader that follows: nothing is lost, doubled or seen twice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from collector.catalog import Catalog, TableName
from collector.deletion import delete_keys
from collector.departed_rows import departed_rows
from collector.maintenance import MaintainedEndpoint, Maintenance, Rules
from collector.maintenance_history import purge
from collector.table import Table
from servelens.clock import ManualClock
from tests.unit.collector.appending_process import ROWS, WORKER, request_id

COMMITS = 80
NOW = datetime(2026, 3, 2, 18, tzinfo=UTC)


class Follower:
    """Reads by version, as evaluators do."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.version: int | None = None
        self.seen: list[int] = []

    def look(self) -> None:
        changes = self._table.read_since(self.version, columns=["spool_offset"])
        self.version = changes.version
        self.seen += changes.frame["spool_offset"].to_list()


def age(table: Table, version: int | None) -> None:
    """Let the log that the reader has read be two weeks old, so that clean-up may take it."""
    if version is None:
        return
    log = Path(table.uri) / "_delta_log"
    moment = time.time() - 14 * 86_400
    for path in log.glob("0*"):
        if int(path.name[:20]) <= version:
            os.utime(path, (moment, moment))


def test_compaction_deletion_and_clean_up_beside_appends_and_a_reader(tmp_path: Path) -> None:
    catalog = Catalog(str(tmp_path), {"chat": TableName("main", "serving", "chat")})
    tables = catalog.tables("chat")
    clock = ManualClock(NOW)
    maintenance = Maintenance(
        lambda: [MaintainedEndpoint("chat", tables)], clock, Rules(min_files=2, target_bytes=1 << 20)
    )
    appender = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.collector.appending_process", tables.payload.uri, str(COMMITS)],
        stdout=subprocess.PIPE,
        text=True,
    )
    deleted: set[int] = set()
    compacted = purged = 0
    follower = Follower(Table(tables.payload.uri, tables.payload.schema))

    def maintain() -> None:
        nonlocal compacted, purged
        compacted += maintenance.run().files_removed
        clock.advance(3 * 3600)  # the log is cleaned each time
        follower.look()
        age(tables.payload, follower.version)
        purged += purge(tables.payload)  # the reader has seen what these files held

    def forget() -> None:
        reached = tables.payload.transaction_version(WORKER)
        if reached is not None:
            wanted = set(range(max(0, reached - 40), reached, 3)) - deleted
            ids = [request_id(offset) for offset in wanted]
            assert delete_keys(tables.payload, "databricks_request_id", ids) == len(wanted)
            deleted.update(wanted)

    try:
        while appender.poll() is None:
            maintain()
            forget()
        assert appender.wait(60) == 0
    finally:
        appender.kill()
        output, _ = appender.communicate()
    assert output.split() == [str(COMMITS)]
    forget()
    maintain()
    maintain()
    everything = set(range(COMMITS * ROWS))
    held = tables.payload.scan().collect()["spool_offset"].to_list()
    assert sorted(held) == sorted(everything - deleted)
    assert sorted(follower.seen) == sorted(everything)
    assert compacted > COMMITS / 2
    assert purged > COMMITS / 2
    assert len(list((Path(tables.payload.uri) / "_delta_log").glob("*.json"))) < COMMITS / 2
    assert deleted
    assert tables.payload.transaction_version(WORKER) == COMMITS * ROWS - 1
    assert departed_rows(tables.payload, [WORKER]) == {WORKER: len(deleted)}
