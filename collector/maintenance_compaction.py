"""Small files become large ones, and days that are over are put in the order of time.

Invariant: only the layout changes. The commits say so (``dataChange`` is false in them), hence readers that follow the
table by its changes do not see them (https://github.com/delta-io/delta/blob/master/PROTOCOL.md, "Add File and Remove
File"). Appends do not stop a compaction; an append that is under way when one is committed is made again, so there are
few commits: one for each partition.

A table has one endpoint's rows, so time is what is left to cluster by. Rows arrive nearly in its order; where they did
not, because of an outage or of several workers, the day is sorted once, when it is over and quiet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from collector.deletion import NO_HOOKS, REWRITTEN
from collector.table import Table
from servelens.errors import Conflict

logger = logging.getLogger(__name__)

_LIVE_SHARE: Final = (
    8  # files of a day that still grows are kept this much smaller, for they are written again
)
_QUIET: Final = timedelta(hours=1)
_SMALL_SHARE: Final = 2  # of the target: two that are smaller always fit one file
_OVERLAP: Final = 1.5
_SORTED_SHARE: Final = 2  # of the target: the largest day that is sorted, since that takes its size in memory
_SORT_MEMORY: Final = 1 << 30
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Files before and after, of the partitions that were written anew."""

    removed: int = 0
    added: int = 0
    partitions: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done with a partition (``None``: the whole table, which has none)."""

    day: date | None
    target_bytes: int
    sort: bool = False


class Compactor:
    """Compacts partitions that have ``min_files`` small files, towards files of ``target_bytes``.

    One partition at a time and one file at a time, so memory is a few times ``target_bytes``, or 1 GiB while a day is
    sorted; a day that does not fit there stays as it is.
    """

    def __init__(self, *, min_files: int, target_bytes: int) -> None:
        self._min_files = min_files
        self._target_bytes = target_bytes
        self._unsortable: set[tuple[str, date | None]] = set()

    def run(self, table: Table, *, now: datetime, stopping: Callable[[], bool] = lambda: False) -> Rewritten:
        """Compact what needs it. Raises :class:`~servelens.errors.Conflict` when deletions come between all the time,
        and :class:`~servelens.errors.Unavailable`.
        """
        with table.upkeep() as handle:
            planned = [] if handle is None else self.plan(table.uri, handle, now=now)
        removed = added = partitions = 0
        for work in planned:
            if stopping():
                break
            metrics = self._do(table, work)
            removed += metrics["numFilesRemoved"]
            added += metrics["numFilesAdded"]
            partitions += metrics["numFilesRemoved"] > 0
        return Rewritten(removed, added, partitions)

    def plan(self, uri: str, handle: DeltaTable, *, now: datetime) -> list[Work]:
        """What to do, the oldest day first."""
        if not handle.metadata().partition_columns:
            sizes = _files(handle)["size_bytes"]
            small = (sizes < self._target_bytes // _SMALL_SHARE).sum()
            return [Work(None, self._target_bytes)] if small >= self._min_files else []
        days = _files(handle).drop_nulls("day").partition_by("day", as_dict=True)
        works = (self._work(uri, day, files, now) for (day,), files in sorted(days.items()))
        return [work for work in works if work is not None]

    def _work(self, uri: str, day: date, files: pl.DataFrame, now: datetime) -> Work | None:
        sizes = files["size_bytes"]
        quiet = (files["modified"] <= now - _QUIET).all()
        if day >= now.date() or not quiet:
            target = self._target_bytes // _LIVE_SHARE
            small = (sizes < target // _SMALL_SHARE).sum()
            return Work(day, target) if small >= self._min_files else None
        sortable = sizes.sum() <= self._target_bytes * _SORTED_SHARE and (uri, day) not in self._unsortable
        if files.height > 1 and sortable and _overlap(files) > _OVERLAP:
            return Work(day, self._target_bytes, sort=True)
        small = (sizes < self._target_bytes // _SMALL_SHARE).sum()
        return Work(day, self._target_bytes) if small > 1 else None

    def _do(self, table: Table, work: Work) -> dict[str, Any]:
        for attempt in range(_ATTEMPTS):
            try:
                with table.upkeep() as handle:
                    assert handle is not None, "it was there when it was planned"
                    return self._sorted(table, handle, work) if work.sort else _compacted(handle, work)
            except Conflict as error:
                logger.info("compaction lost a race: table=%s attempt=%d error=%s", table.uri, attempt, error)
        raise Conflict(f"{_ATTEMPTS} compactions in a row lost a race", field=table.uri)

    def _sorted(self, table: Table, handle: DeltaTable, work: Work) -> dict[str, Any]:
        try:
            return handle.optimize.z_order(["request_time"], max_spill_size=_SORT_MEMORY, **_options(work))
        except DeltaError as error:
            if "Resources exhausted" not in str(error):
                raise
            logger.info("day too large to be sorted: table=%s day=%s", table.uri, work.day)
            self._unsortable.add((table.uri, work.day))
            return _compacted(handle, work)


def _compacted(handle: DeltaTable, work: Work) -> dict[str, Any]:
    return handle.optimize.compact(**_options(work))


def _options(work: Work) -> dict[str, Any]:
    return {
        "partition_filters": None if work.day is None else [("request_date", "=", str(work.day))],
        "target_size": work.target_bytes,
        "max_concurrent_tasks": 1,
        "writer_properties": REWRITTEN,
        "post_commithook_properties": NO_HOOKS,
    }


def _files(handle: DeltaTable) -> pl.DataFrame:
    """One row per file: ``size_bytes``, ``modified``, ``day``, ``first``, ``last`` (times of its rows, where known)."""
    files = pl.DataFrame(pa.table(handle.get_add_actions(flatten=True)))
    instant = pl.Datetime("us", "UTC")
    optional = {
        "day": ("partition.request_date", pl.Date()),
        "first": ("min.request_time", instant),
        "last": ("max.request_time", instant),
    }
    return files.select(
        "size_bytes",
        pl.from_epoch("modification_time", "ms").dt.replace_time_zone("UTC").alias("modified"),
        *(
            (pl.col(column) if column in files.columns else pl.lit(None)).cast(kind).alias(name)
            for name, (column, kind) in optional.items()
        ),
    )


def _overlap(files: pl.DataFrame) -> float:
    """How many files hold a moment, on average: 1 when they follow one another. Unknown times count for nothing."""
    times: list[tuple[datetime, datetime]] = files.select("first", "last").drop_nulls().rows()
    if not times:
        return 0.0
    covered = max(last for _, last in times) - min(first for first, _ in times)
    spans = sum((last - first for first, last in times), timedelta())
    return spans / covered if covered else float(len(times))
