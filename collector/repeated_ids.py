"""Request ids with more than one row, over all tables, without holding all ids.

Ids are compared by 64-bit hash, some millions of hashes at a time, and those that seem repeated once more as texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from collector.table import Table
from collector.table_batches import batches

_ID: Final = "databricks_request_id"
_HASHES: Final = 4_000_000
_BATCH_ROWS: Final = 200_000
_NAMED: Final = 20


def repeated_ids(tables: Sequence[Table], rows: int) -> tuple[list[str], int]:
    """Up to twenty ids that more than one row has, and how many rows there are too many.

    ``rows`` is about how many rows the tables have together. Raises :class:`~servelens.errors.Unavailable`.
    """
    named: list[str] = []
    too_many = 0
    parts = rows // _HASHES + 1
    for part in range(parts):
        suspects = _suspects(tables, part, parts)
        if not suspects.len():
            continue
        ids = pl.concat(
            batch.filter(pl.col(_ID).hash().is_in(suspects.implode()))
            for table in tables
            for batch in batches(table, [_ID], rows=_BATCH_ROWS)
        )
        found = ids.group_by(_ID).len().filter(pl.col("len") > 1).sort(_ID)
        too_many += int((found["len"] - 1).sum())
        named += found[_ID].head(_NAMED - len(named)).to_list()
    return named, too_many


def _suspects(tables: Sequence[Table], part: int, parts: int) -> pl.Series:
    """The hashes of this part that come more than once."""
    hashed = pl.col(_ID).hash()
    hashes = pl.concat(
        batch.select(hashed).filter(pl.col(_ID) % parts == part)
        for table in tables
        for batch in batches(table, [_ID], rows=_BATCH_ROWS)
    )
    ordered = hashes.to_series().sort()
    return ordered.filter(ordered == ordered.shift(1)).unique()
