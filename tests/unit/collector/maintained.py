"""Tables and rows that the tests of maintenance share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from collector.catalog import Catalog, EndpointTables, TableName
from collector.inference_table import PAYLOAD_SCHEMA

WORKER = "proxy-0-test"
# Files are as old as the machine's clock says, so the tests begin there.
TODAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)


def catalog(root: Path, *endpoints: str) -> Catalog:
    """``chat`` and others."""
    names = {name: TableName("main", "serving", name) for name in ("chat", *endpoints)}
    return Catalog(str(root), names)


def records(first: int, count: int, at: datetime = TODAY, **columns: Any) -> pl.DataFrame:
    """Records with the offsets from ``first`` on, a second apart."""
    schema = pl.DataFrame(PAYLOAD_SCHEMA.empty_table()).schema
    times = [at + timedelta(seconds=index) for index in range(count)]
    values = {
        "databricks_request_id": [f"id-{offset:06d}" for offset in range(first, first + count)],
        "request_date": [moment.date() for moment in times],
        "request_time": times,
        "endpoint": "chat",
        "worker_id": WORKER,
        "spool_offset": list(range(first, first + count)),
        **columns,
    }
    return pl.DataFrame(values, schema_overrides={name: schema[name] for name in values})


def fill(tables: EndpointTables, commits: int, at: datetime = TODAY, *, rows: int = 3, first: int = 0) -> int:
    """Commit as the collector does; the number of rows."""
    for number in range(commits):
        offset = first + number * rows
        part = records(offset, rows, at + timedelta(seconds=number * rows))
        tables.payload.append(part, transactions={WORKER: offset + rows - 1})
    return commits * rows


def offsets(tables: EndpointTables) -> list[int]:
    """What the inference table holds, sorted."""
    return sorted(tables.payload.scan().select("spool_offset").collect()["spool_offset"].to_list())
