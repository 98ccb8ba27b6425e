"""One Delta table: everybody reads and writes through this class, whichever storage holds the table.

Invariant: an application transaction is committed at most once. delta-rs refuses a second commit of a
transaction only on a handle that is older than the first commit, so :meth:`Table.append` reads the committed
version on a fresh snapshot and commits on that same snapshot
(https://github.com/delta-io/delta/blob/master/PROTOCOL.md, "Transaction Identifiers"). Readers follow the
table by its version, through Delta's change data feed, in which compaction does not reappear.

A schema grows at its end only. A table that lacks columns of ours gets them before the next append, in a commit of
its own, which keeps their order (a merge with the append would move the partition's column); until then, and in
older rows, they read as null.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Schema,
    Transaction,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, SchemaMismatchError, TableNotFoundError

from collector.object_store import (
    impatient_options,
    is_remote,
    patient_options,
    polars_options,
    refuse_unusable,
    storage_error,
)
from collector.table_columns import column_names, time_column_of, time_condition, with_columns_of
from collector.table_feed import CHANGE_TYPE, COMMIT_VERSION, INSERTED, added_rows, last_that_fits
from collector.table_files import statistics_columns, writer_properties
from collector.table_transactions import refuse_committed
from servelens.errors import Conflict, Invalid, Missing, Unavailable

logger = logging.getLogger(__name__)

_COMMIT_ATTEMPTS = 8
_CHECKPOINT_EVERY = 50
_HISTORY_GONE = ("Invalid table version", "not found")
_NO_SUCH_VERSION = ("Invalid table version", "not the same as the specified end version")
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows that commits added, the table version up to which that is all of them (``None``: no table), and the rows of
    older commits that they took away or changed (``None``: that cannot be told, or none).
    """

    frame: pl.DataFrame
    version: int | None
    removed: pl.DataFrame | None = None


class Table:
    """The table at ``uri`` (a folder, or an address such as ``s3://bucket/path`` with ``storage_options``).

    ``time_column`` is what :meth:`scan` filters on: ``request_time`` when the schema has it, else
    ``window.start``; a dot reaches into a struct. Instances may be shared by threads. Several processes may
    append to one table: whoever loses a race for a version tries the next. Never log ``storage_options``.
    """

    def __init__(
        self,
        uri: str,
        schema: pa.Schema,
        *,
        partition_by: Sequence[str] = ("request_date",),
        time_column: str | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        missing = [name for name in partition_by if name not in schema.names]
        if missing:
            raise Invalid(f"the schema has no column {missing[0]!r}", field="partition_by")
        refuse_unusable(uri)
        self.uri = uri
        self.schema = schema
        self._partition_by = list(partition_by)
        self._time_column = time_column or time_column_of(schema)
        self.storage_options = patient_options(uri, storage_options)
        self._empty = pl.DataFrame(schema.empty_table())
        self._writing = writer_properties(schema)
        self._handle: DeltaTable | None = None
        self._complete: DeltaTable | None = None  # the handle that is known to have all columns
        self._lock = threading.Lock()

    def exists(self) -> bool:
        """Whether the table has been created."""
        with self._translated():
            return self._opened() is not None

    def check(self) -> None:
        """Raise :class:`~servelens.errors.Invalid` when the address or an option of the storage is wrong in itself; a
        storage that is away is not looked for longer than some seconds, and is no error here.
        """
        if is_remote(self.uri):
            try:
                with self._translated():
                    self._opened(options=impatient_options(self.storage_options))
            except Unavailable as error:
                logger.debug("storage not there yet: %s", error)

    def version(self) -> int | None:
        """The newest version; ``None`` when the table has not been created."""
        with self._lock:
            handle = self._refreshed()
            return None if handle is None else handle.version()

    def transaction_version(self, application_id: str) -> int | None:
        """The version that ``application_id`` has committed last; ``None`` when it never did."""
        return self.transaction_versions([application_id])[application_id]

    def transaction_versions(self, application_ids: Sequence[str]) -> dict[str, int | None]:
        """The versions that several application ids have committed last, all from one snapshot."""
        with self._lock:
            handle = self._refreshed()
            return {
                name: None if handle is None else handle.transaction_version(name) for name in application_ids
            }

    @contextmanager
    def upkeep(self) -> Iterator[DeltaTable | None]:
        """The newest version as delta-rs has it, for maintenance; what it raises in the block comes out as our errors."""
        with self._translated():
            yield self._opened()

    def scan(
        self, *, since: datetime | None = None, until: datetime | None = None, version: int | None = None
    ) -> pl.LazyFrame:
        """The rows with a time in [``since``, ``until``), newest version unless another is named.

        Only files whose partition and statistics fit are read. Without a table: no rows, the same columns.
        Raises :class:`~servelens.errors.Missing` for a version that does not exist.
        """
        condition = time_condition(self._time_column, since, until, self.schema)
        with self._translated():
            handle = self._opened(version)
        if handle is None:
            return self._empty.lazy()
        frame = self._widened(self._scanned(handle), handle)
        return frame if condition is None else frame.filter(condition)

    def read_since(
        self,
        version: int | None,
        *,
        columns: Sequence[str] | None = None,
        max_rows: int | None = None,
        until: int | None = None,
    ) -> Changes:
        """Rows added by the commits after ``version`` up to ``until`` (the newest), in the order of the commits; ``None``
        reads them all.

        Whole commits only: with ``max_rows`` as many as fit, but at least one that adds rows. Rewrites by
        compaction, updates and deletions add nothing. Maintenance shortens a table's history: where it no longer
        reaches back, ``None`` gives the rows that the table holds now, in one piece, and a version raises
        :class:`~servelens.errors.Missing`.
        """
        names = list(columns) if columns is not None else list(self.schema.names)
        nothing = self._empty.select(names)
        with self._translated():
            handle = self._opened(until)
            if handle is None:
                return Changes(nothing, None)
            newest = handle.version()
            if version is not None and version >= newest:
                if version > newest:
                    raise Missing(f"there is no version {version}, the newest is {newest}", field=self.uri)
                return Changes(nothing, newest)
            first = 0 if version is None else version + 1
            last = newest
            try:
                if max_rows is not None:
                    last = last_that_fits(handle, first, newest, max_rows)
                feed = self._feed(handle, first, last, names).sort(COMMIT_VERSION, maintain_order=True)
            except (DeltaError, pa.ArrowException, OSError) as error:
                if not any(words in str(error) for words in _HISTORY_GONE):
                    raise
                if version is not None:
                    raise Missing(
                        f"the table's history no longer reaches back to version {version}: {error}",
                        field=self.uri,
                        fix="Read it anew, from the start.",
                    ) from error
                frame = self._widened(self._scanned(handle), handle).select(names).collect()
                return Changes(frame.cast(nothing.schema), newest)
        feeds = (feed.filter(INSERTED), feed.filter(~INSERTED))
        added, removed = (each.select(names).cast(nothing.schema) for each in feeds)
        return Changes(added, last, removed)

    def rows_since(self, version: int | None, *, commits: int = 1_000) -> int | None:
        """How many rows the commits after ``version`` added; ``None`` where the history is gone or longer than ``commits``."""
        with self._translated():
            handle = self._opened()
            if handle is None:
                return 0
            first, newest = 0 if version is None else version + 1, handle.version()
            if newest - first >= commits:
                return None
            try:
                return sum(rows for _, rows in added_rows(handle, first, newest))
            except (DeltaError, pa.ArrowException, OSError) as error:
                if any(words in str(error) for words in _HISTORY_GONE):
                    return None
                raise

    def append(
        self,
        rows: pa.Table | pl.DataFrame,
        *,
        transactions: Mapping[str, int] | None = None,
        after: Mapping[str, int | None] | None = None,
    ) -> int:
        """Add ``rows`` in one commit and give its version; creates the table when there is none.

        Columns are matched by name and cast; a missing one is null. ``transactions`` maps application ids to the version
        each reaches with this commit, ``after`` to the one it has by the caller's knowledge. Raises
        :class:`~servelens.errors.Conflict` when the table holds one of the first already, or another than one of the
        second (nothing is written), :class:`~servelens.errors.Invalid` when the rows do not fit the schema, and
        :class:`~servelens.errors.Unavailable` when the storage fails: the commit may be in then, or not, and
        :meth:`transaction_version` tells.
        """
        data = self._conformed(rows)
        with self._lock:
            for attempt in range(_COMMIT_ATTEMPTS):
                if attempt:
                    time.sleep(random.uniform(0.2, 1.0) * 0.02 * 2**attempt)
                try:
                    return self._append_once(data, transactions or {}, after or {})
                except CommitFailedError as error:
                    self._handle = None
                    logger.warning("lost a race: table=%s attempt=%d error=%s", self.uri, attempt, error)
                except BaseException:
                    # How far the commit came is unknown: the next call must look at the storage, not at memory.
                    self._handle = None
                    raise
        raise Conflict(f"{_COMMIT_ATTEMPTS} commits in a row lost a race", field=self.uri)

    def _append_once(
        self, data: pa.Table, transactions: Mapping[str, int], after: Mapping[str, int | None]
    ) -> int:
        with self._translated(conflicts=False):
            handle = self._refreshed_or_created()
            self._add_missing_columns(handle)
            refuse_committed(handle, self.uri, transactions, after)
            write_deltalake(
                handle,
                with_columns_of(handle, data),
                mode="append",
                writer_properties=self._writing,
                commit_properties=CommitProperties(
                    app_transactions=[Transaction(name, version) for name, version in transactions.items()]
                ),
                post_commithook_properties=_NO_HOOKS,
            )
            version = handle.version()
        if version % _CHECKPOINT_EVERY == 0:
            self._checkpoint(handle)
        return version

    def _checkpoint(self, handle: DeltaTable) -> None:
        # Every commit makes the next on the same handle slower (10 ms at first, 35 ms after 50), whether its
        # log has a checkpoint or not: only a handle opened after the checkpoint is fast again.
        self._handle = None
        try:
            handle.create_checkpoint()
        except (DeltaError, OSError) as error:
            # The rows are committed; a missing checkpoint only makes the next open slower.
            logger.warning("checkpoint failed: table=%s error=%s", self.uri, error)

    def _opened(
        self, version: int | None = None, *, options: dict[str, str] | None = None
    ) -> DeltaTable | None:
        try:
            return DeltaTable(self.uri, version=version, storage_options=options or self.storage_options)
        except TableNotFoundError as error:
            if "Unknown scheme" in str(error):
                raise storage_error(error, self.uri) from error
            if not is_remote(self.uri):
                # A file or a broken link where a folder should be is a storage that failed, not an empty one.
                nearest = next(path for path in Path(self.uri).absolute().parents if os.path.lexists(path))
                if not nearest.is_dir():
                    raise Unavailable(f"{nearest} is not a folder", field=self.uri) from error
            return None

    def _refreshed(self) -> DeltaTable | None:
        with self._translated():
            if self._handle is None:
                self._handle = self._opened()
            else:
                self._handle.update_incremental()
            return self._handle

    def _refreshed_or_created(self) -> DeltaTable:
        handle = self._refreshed()
        if handle is not None:
            return handle
        configuration: dict[str, str | None] = {"delta.enableChangeDataFeed": "true"}
        statistics = statistics_columns(self.schema)
        if statistics:
            configuration["delta.dataSkippingStatsColumns"] = ",".join(statistics)
        try:
            self._handle = DeltaTable.create(
                self.uri,
                self.schema,
                mode="error",
                partition_by=self._partition_by,
                configuration=configuration,
                storage_options=self.storage_options,
                # Without this the loser of a race makes the table a second time, as version 1.
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except DeltaError as error:
            # Somebody else may have created it in the same moment.
            self._handle = self._opened()
            if self._handle is None:
                raise storage_error(error, self.uri) from error
        return self._handle

    def _scanned(self, handle: DeltaTable) -> pl.LazyFrame:
        return pl.scan_delta(handle, storage_options=polars_options(self.storage_options) or None)

    def _feed(self, handle: DeltaTable, first: int, last: int, names: Sequence[str]) -> pl.DataFrame:
        present = column_names(handle)
        wanted = [*(name for name in names if name in present), CHANGE_TYPE, COMMIT_VERSION]
        reader = handle.load_cdf(starting_version=first, ending_version=last, columns=wanted)
        frame = pl.DataFrame(pa.table(reader)).lazy()
        return self._widened(frame, handle).select(*names, CHANGE_TYPE, COMMIT_VERSION).collect()

    def _add_missing_columns(self, handle: DeltaTable) -> None:
        if self._complete is handle:
            return
        present = column_names(handle)
        missing = pa.schema([field for field in self.schema if field.name not in present])
        if missing:
            handle.alter.add_columns(
                list(Schema.from_arrow(missing).fields), post_commithook_properties=_NO_HOOKS
            )
            logger.info("columns added: table=%s columns=%s", self.uri, ",".join(missing.names))
        self._complete = handle

    def _widened(self, frame: pl.LazyFrame, handle: DeltaTable) -> pl.LazyFrame:
        present = column_names(handle)
        absent = {name: kind for name, kind in self._empty.schema.items() if name not in present}
        return frame.with_columns(pl.lit(None, kind).alias(name) for name, kind in absent.items())

    def _conformed(self, rows: pa.Table | pl.DataFrame) -> pa.Table:
        table = rows.to_arrow() if isinstance(rows, pl.DataFrame) else rows
        if table.schema.equals(self.schema):
            return table
        unknown = [name for name in table.column_names if name not in self.schema.names]
        if unknown:
            raise Invalid(
                f"there is no column {unknown[0]!r}", field=self.uri, fix="Leave it out or rename it."
            )
        columns = []
        for field in self.schema:
            if field.name not in table.column_names:
                columns.append(pa.nulls(table.num_rows, field.type))
                continue
            try:
                columns.append(table.column(field.name).cast(field.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise Invalid(f"the values do not fit {field.type}: {error}", field=field.name) from error
        return pa.Table.from_arrays(columns, schema=self.schema)

    @contextmanager
    def _translated(self, *, conflicts: bool = True) -> Iterator[None]:
        try:
            yield
        except CommitFailedError as error:
            if not conflicts:
                raise
            raise Conflict(f"somebody else committed first: {error}", field=self.uri) from error
        except SchemaMismatchError as error:
            raise Invalid(f"the rows do not fit the table: {error}", field=self.uri) from error
        except TableNotFoundError as error:
            raise Missing(f"there is no such table: {error}", field=self.uri) from error
        except (DeltaError, pa.ArrowException, OSError) as error:
            if any(words in str(error) for words in _NO_SUCH_VERSION):
                raise Missing(f"there is no such version: {error}", field=self.uri) from error
            raise storage_error(error, self.uri) from error
