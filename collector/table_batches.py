"""A whole table, some columns of it, in batches: for what looks at every row and must not hold them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from collector.table import Table
from servelens.errors import Unavailable


def batches(
    table: Table, columns: Sequence[str], *, rows: int, where: pl.Expr | None = None
) -> Iterator[pl.DataFrame]:
    """About ``rows`` rows at a time, in no order, of the newest version when the first batch is asked for; at least one
    batch, which has no rows when the table has none. Raises :class:`~servelens.errors.Unavailable`.
    """
    frame = table.scan() if where is None else table.scan().filter(where)
    frame = frame.select(columns)
    yield pl.DataFrame(schema=frame.collect_schema())
    try:
        yield from frame.collect_batches(chunk_size=rows, maintain_order=False, lazy=True)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unavailable(f"the table's storage failed: {error}", field=table.uri) from error
