"""The records that have no score yet, found by looking at both tables: for when the history does not tell any more.

Maintenance ends a table's history, and a deletion can take files of it at once. An evaluator that stayed away for longer,
or that is new, then reads the table as it is. Memory is bounded by the request ids of a day and ``max_rows`` records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import polars as pl

from collector.catalog import EndpointTables
from servelens.errors import Unavailable

_ID: Final = "databricks_request_id"
_DATE: Final = "request_date"


def unscored_records(
    tables: EndpointTables,
    evaluator: str,
    target: str,
    *,
    version: int,
    columns: Sequence[str],
    max_rows: int,
) -> Iterator[pl.DataFrame]:
    """Records of the inference table at ``version`` that have no row of ``evaluator`` and ``target`` in the scores
    table, the oldest day first, at most ``max_rows`` at a time. Raises what scans raise, and
    :class:`~servelens.errors.Unavailable`.
    """
    payload = tables.payload.scan(version=version)
    scored = tables.scores.scan().filter(pl.col("evaluator") == evaluator, pl.col("target") == target)
    for day in _collected(payload.select(_DATE).unique())[_DATE].drop_nulls().sort():
        of_day = pl.col(_DATE) == day
        done = scored.filter(of_day).select(_ID)
        waiting = _collected(payload.filter(of_day).select(_ID).join(done, on=_ID, how="anti")).sort(_ID)
        for some in waiting.iter_slices(max_rows):
            ids = some[_ID]
            near = pl.col(_ID).is_between(pl.lit(ids[0]), pl.lit(ids[-1]))
            yield _collected(payload.filter(of_day, near, pl.col(_ID).is_in(ids.to_list())).select(columns))


def _collected(frame: pl.LazyFrame) -> pl.DataFrame:
    try:
        return frame.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unavailable(f"a table cannot be read: {error}") from error
