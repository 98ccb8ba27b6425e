"""What the inference table says about one call, once it is readable."""

from __future__ import annotations

from typing import Any

import polars as pl

from tests.integration.system import System, wait_until

READABLE_WITHIN_S = 10.0


def recorded(
    system: System, endpoint: str, condition: pl.Expr, within_s: float = READABLE_WITHIN_S
) -> dict[str, Any]:
    """The one row that meets ``condition``; fails when there is none in time, or more than one."""
    table = system.tables(endpoint).payload
    found: list[dict[str, Any]] = []

    def readable() -> bool:
        found[:] = table.scan().filter(condition).collect().iter_rows(named=True)
        return bool(found)

    wait_until(readable, within_s, "the record is readable in the table")
    assert len(found) == 1
    return found[0]


def by_id(request_id: str) -> pl.Expr:
    return pl.col("databricks_request_id") == request_id


def by_client_id(client_request_id: str) -> pl.Expr:
    return pl.col("client_request_id") == client_request_id
