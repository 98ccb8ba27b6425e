"""Rows leave a table by commits that keep the books.

Invariant: what a worker has ever committed to a table is what the table still holds of it plus what has left it. How
many rows have left is an application transaction of the commit that removes them (:mod:`collector.departed_rows`), so the
two never disagree, and it outlives checkpoints and log clean-up.

A deletion names keys and days, never a person: its predicate stands in the table's log.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Final, NamedTuple

import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction, WriterProperties

from collector.departed_rows import DELETED
from collector.feedback_table import PART
from collector.table import Table
from collector.table_columns import column_names
from servelens.errors import Conflict, Unavailable

logger = logging.getLogger(__name__)

REWRITTEN: Final = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=32_768)
"""How maintenance writes files: denser than the collector does, in groups of rows that are small enough to hold."""
NO_HOOKS: Final = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)

_ATTEMPTS: Final = 10
_KEYS_PER_COMMIT: Final = 5_000
_BYTES_PER_COMMIT: Final = 160 << 20
_DATE: Final = "request_date"


class File(NamedTuple):
    """A data file: its smallest and largest key, and its bytes."""

    first: str
    last: str
    size: int


def delete_before(table: Table, first_day: date) -> int:
    """Remove the rows of the days before ``first_day``; how many there were. Whole partitions, so no file is rewritten.

    Raises :class:`~servelens.errors.Conflict` when others commit all the time, and
    :class:`~servelens.errors.Unavailable`.
    """
    return _delete(table, f"{_DATE} < '{first_day}'", pl.col(_DATE) < first_day)


class Also(NamedTuple):
    """What else must hold of a row: as SQL, which stands in the table's log, and the same for polars."""

    sql: str
    expression: pl.Expr


def delete_keys(
    table: Table, column: str, keys: Sequence[str], also: Also | None = None, *, has_left: bool = True
) -> int:
    """Remove the rows whose ``column`` is one of ``keys`` (of which ``also`` holds); how many there were. Not ``has_left``:
    they are in another table of the books now, so that the commit does not count them. Raises as :func:`delete_before`.
    """
    deleted = 0
    found = _found(table, column, keys)
    files = _files(table, column) if found else {}
    for day, of_day in found.items():
        for some in portions(of_day, files.get(day, [])):
            # The range lets a commit that adds other keys pass: it is held against the statistics of what is added.
            predicate = (
                f"{_DATE} = '{day}' AND {column} >= {_text(some[0])} AND {column} <= {_text(some[-1])} "
                f"AND {column} IN ({', '.join(_text(key) for key in some)})"
            )
            condition = (pl.col(_DATE) == day) & pl.col(column).is_in(some)
            if also is not None:
                predicate, condition = f"{predicate} AND {also.sql}", condition & also.expression
            deleted += _delete(table, predicate, condition, has_left)
    return deleted


def portions(keys: Sequence[str], files: Sequence[File]) -> Iterator[list[str]]:
    """``keys`` (sorted) in portions whose files are no larger together than one commit should write anew.

    That bounds its memory, and keeps the days in the order of time: what a deletion writes is mixed.
    """
    portion: list[str] = []
    touched: frozenset[int] = frozenset()
    for key in keys:
        holders = {index for index, file in enumerate(files) if file.first <= key <= file.last}
        with_key = touched | holders
        larger = with_key > touched and sum(files[index].size for index in with_key) > _BYTES_PER_COMMIT
        if portion and (larger or len(portion) >= _KEYS_PER_COMMIT):
            yield portion
            portion, with_key = [], frozenset(holders)
        portion.append(key)
        touched = with_key
    if portion:
        yield portion


def _found(table: Table, column: str, keys: Sequence[str]) -> dict[date, list[str]]:
    """The keys that the table has, sorted, by day."""
    if not keys:
        return {}
    within = pl.col(column).is_between(pl.lit(min(keys)), pl.lit(max(keys))) & pl.col(column).is_in(
        list(keys)
    )
    frame = _collected(table, table.scan().filter(within).select(_DATE, column).unique())
    days = sorted(frame.partition_by(_DATE, as_dict=True).items())
    return {day: part[column].sort().to_list() for (day,), part in days}


def _files(table: Table, column: str) -> dict[date, list[File]]:
    """The files of each day, where their statistics tell which keys are in them."""
    with table.upkeep() as handle:
        if handle is None:
            return {}
        actions = pl.DataFrame(pa.table(handle.get_add_actions(flatten=True)))
    names = (f"partition.{_DATE}", f"min.{column}", f"max.{column}", "size_bytes")
    if any(name not in actions.columns for name in names):
        return {}
    files: dict[date, list[File]] = {}
    for day, first, last, size in actions.select(names).drop_nulls().iter_rows():
        files.setdefault(day, []).append(File(first, last, size))
    return files


def _delete(table: Table, predicate: str, condition: pl.Expr, has_left: bool = True) -> int:
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(random.uniform(0.5, 1.0) * min(3.0, 0.05 * 2**attempt))
        try:
            with table.upkeep() as handle:
                return 0 if handle is None else _delete_once(table, handle, predicate, condition, has_left)
        except Conflict as error:
            logger.info("deletion lost a race: table=%s attempt=%d error=%s", table.uri, attempt, error)
    raise Conflict(f"{_ATTEMPTS} deletions in a row lost a race", field=table.uri, fix="Try again later.")


def _delete_once(table: Table, handle: DeltaTable, predicate: str, condition: pl.Expr, has_left: bool) -> int:
    present = set(column_names(handle))
    worker = pl.col("worker_id") if "worker_id" in present else pl.lit(None, pl.String).alias("worker_id")
    # Of a record with several rows the first one counts; all of them have one key, so they leave together.
    records = pl.col(PART) == 0 if PART in present else pl.lit(value=True)
    rows = pl.scan_delta(handle).filter(condition).select(_DATE, worker, records.alias("counts"))
    counted = _collected(table, rows.group_by("worker_id").agg(pl.len(), pl.col("counts").sum()))
    if counted.is_empty():
        return 0
    left = [
        Transaction(DELETED + name, (handle.transaction_version(DELETED + name) or 0) + records)
        for name, _, records in counted.iter_rows()
        if has_left and name is not None and records
    ]
    handle.delete(
        predicate,
        writer_properties=REWRITTEN,
        commit_properties=CommitProperties(app_transactions=left),
        post_commithook_properties=NO_HOOKS,
    )
    return int(counted["len"].sum())


def _collected(table: Table, frame: pl.LazyFrame) -> pl.DataFrame:
    try:
        return frame.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unavailable(f"the table cannot be read: {error}", field=table.uri) from error


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
