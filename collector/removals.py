"""Notes of rows that were taken out of an inference table on purpose, so that an audit does not take them for lost.

Each payload table has a companion ``<prefix>_removals``. Whoever deletes rows calls :func:`note_removal` *first*, with
the rows about to go: a note without its deletion explains nothing that is missing, a deletion without its note would
look like a loss. A note says per worker in which span of offsets how many rows went, not which ones: it stays small
whoever is forgotten, and holds nothing about a person.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import polars as pl
import pyarrow as pa

from collector.inference_table import TIMESTAMP
from collector.table import Table

_COLUMNS: Final[list[tuple[str, pa.DataType]]] = [
    ("worker_id", pa.string()),
    ("first_offset", pa.int64()),
    ("last_offset", pa.int64()),
    ("row_count", pa.int64()),
    ("reason", pa.string()),
    ("removed_at", TIMESTAMP),
]

REMOVAL_SCHEMA: Final = pa.schema(_COLUMNS)


def note_removal(removals: Table, doomed: pl.LazyFrame, *, reason: str, removed_at: datetime) -> int:
    """Note that the rows of ``doomed`` (with ``worker_id`` and ``spool_offset``) are about to be deleted; how many.

    ``reason`` is a word such as ``retention`` or ``forget``. Raises :class:`~servelens.errors.Unavailable` and
    :class:`~servelens.errors.Conflict`; then delete nothing.
    """
    notes = (
        doomed.filter(pl.col("worker_id").is_not_null() & pl.col("spool_offset").is_not_null())
        .group_by("worker_id")
        .agg(
            first_offset=pl.col("spool_offset").min(),
            last_offset=pl.col("spool_offset").max(),
            row_count=pl.len().cast(pl.Int64),
        )
        .with_columns(reason=pl.lit(reason), removed_at=pl.lit(removed_at).cast(pl.Datetime("us", "UTC")))
        .collect(engine="streaming")
    )
    if notes.height:
        removals.append(notes)
    return int(notes["row_count"].sum())
