"""The records that have no score yet, found by looking at both tables: for when the history does not tell.

Maintenance ends a table's history, and a deletion can take files of it at once. An evaluator that stayed away for longer,
or that is new, then reads the table as it is; so does a backfill, of a period and by the version of the evaluator. Memory
is bounded by the request ids of a day and ``max_rows`` records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import polars as pl

from collector.catalog import EndpointTables
from servelens.errors import Unavailable

_ID: Final = "databricks_request_id"
_DATE: Final = "request_date"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Records that have no row of ``evaluator`` and ``target``; with ``evaluator_version``, none of that version; with
    ``scored_from``, none that was scored then or later. Of those with a ``request_time`` in [``since``, ``until``), and
    without the ids in ``but``.
    """

    evaluator: str
    target: str
    evaluator_version: str | None = None
    scored_from: datetime | None = None
    since: datetime | None = None
    until: datetime | None = None
    but: pl.Series | None = None

    def rows(self, tables: EndpointTables) -> pl.LazyFrame:
        """The rows of the scores table that say that a record is done."""
        scores = tables.scores.scan(since=self.since, until=self.until).filter(
            pl.col("evaluator") == self.evaluator, pl.col("target") == self.target
        )
        if self.evaluator_version is not None:
            scores = scores.filter(pl.col("evaluator_version") == self.evaluator_version)
        if self.scored_from is not None:
            scores = scores.filter(pl.col("scored_at") >= self.scored_from)
        return scores


def unscored_records(
    tables: EndpointTables, wanted: Wanted, *, version: int, columns: Sequence[str], max_rows: int
) -> Iterator[pl.DataFrame]:
    """The wanted records of the inference table at ``version``, the oldest day first, at most ``max_rows`` at a time.
    Raises what scans raise, and :class:`~servelens.errors.Unavailable`.
    """
    payload = tables.payload.scan(version=version, since=wanted.since, until=wanted.until)
    for day, waiting in _days(tables, wanted, payload):
        for some in waiting.sort(_ID).iter_slices(max_rows):
            ids = some[_ID]
            near = pl.col(_ID).is_between(pl.lit(ids[0]), pl.lit(ids[-1]))
            of_day = pl.col(_DATE) == day
            yield _collected(payload.filter(of_day, near, pl.col(_ID).is_in(ids.to_list())).select(columns))


def count_unscored(tables: EndpointTables, wanted: Wanted, *, version: int) -> int:
    """How many records :func:`unscored_records` would give now."""
    payload = tables.payload.scan(version=version, since=wanted.since, until=wanted.until)
    return sum(waiting.height for _, waiting in _days(tables, wanted, payload))


def _days(
    tables: EndpointTables, wanted: Wanted, payload: pl.LazyFrame
) -> Iterator[tuple[object, pl.DataFrame]]:
    """Each day with the ids that are waiting on it."""
    for day in _collected(payload.select(_DATE).unique())[_DATE].drop_nulls().sort():
        of_day = pl.col(_DATE) == day
        done = wanted.rows(tables).filter(of_day).select(_ID)
        waiting = _collected(payload.filter(of_day).select(_ID).join(done, on=_ID, how="anti"))
        if wanted.but is not None and wanted.but.len():
            waiting = waiting.join(wanted.but.to_frame(_ID), on=_ID, how="anti")
        yield day, waiting


def _collected(frame: pl.LazyFrame) -> pl.DataFrame:
    try:
        return frame.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unavailable(f"a table cannot be read: {error}") from error
