"""An appender as a process of its own: ``python -m tests.unit.collector.appending_process URI COMMITS``.

It commits numbered records with a worker's offset, over two days and as fast as it can, the way the collector does, and
reads the offset anew when a commit's outcome is not known. Then it prints how many commits it made.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from collector.inference_table import PAYLOAD_SCHEMA
from collector.lane import commit
from collector.table import Table

WORKER = "proxy-0-appender"
ROWS = 5
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def request_id(offset: int) -> str:
    """Ids sort by time, as the proxy's do."""
    return f"id-{offset:08d}"


def unit_of(offset: int) -> str:
    """Seven people call in turn."""
    return f"user-{offset % 7}"


def batch(number: int) -> pa.Table:
    """The rows of one commit."""
    offsets = range(number * ROWS, (number + 1) * ROWS)
    moments = [
        NOON + timedelta(days=offset // ROWS % 2) + timedelta(milliseconds=offset) for offset in offsets
    ]
    rows = pa.table(
        {
            "databricks_request_id": [request_id(offset) for offset in offsets],
            "request_date": [moment.date() for moment in moments],
            "request_time": pa.array(moments, pa.timestamp("us", tz="UTC")),
            "endpoint": ["chat"] * ROWS,
            "unit": [unit_of(offset) for offset in offsets],
            "prompt_text": [f"{unit_of(offset)} says hello" for offset in offsets],
            "worker_id": [WORKER] * ROWS,
            "spool_offset": list(offsets),
        }
    )
    columns = [
        rows.column(field.name) if field.name in rows.column_names else pa.nulls(ROWS, field.type)
        for field in PAYLOAD_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=PAYLOAD_SCHEMA)


def main(uri: str, commits: int) -> None:
    """Commit, one batch after the other."""
    table = Table(uri, PAYLOAD_SCHEMA)
    for number in range(commits):
        data = batch(number)
        outcome = commit(table, data, {WORKER: (number + 1) * ROWS - 1})
        assert outcome.records == ROWS, "nobody else commits for this worker"
    sys.stdout.write(f"{commits}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
