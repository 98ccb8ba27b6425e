"""Every read of a table goes through here: bounded by time, projected to columns, cached by table version.

Invariant: a result is computed once per table version and filter, also when many viewers ask at the same moment; a
result of an older version is never served once a newer one has been seen. Versions themselves are looked up at most
once a second per table, so ten live viewers cost what one does.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar, cast

import polars as pl
from polars.exceptions import PanicException, PolarsError

from collector.table import Table
from servelens.clock import Clock
from servelens.errors import Unavailable

Result = TypeVar("Result")

ARM = "arm"
NO_ARM = "no entity"
_VERSION_AGE_S = 1.0


@dataclass(slots=True)
class _Entry:
    ready: threading.Event = field(default_factory=threading.Event)
    value: object = None
    error: Exception | None = None


class ReadCache:
    """Results by key, the least recently used forgotten first. May be shared by threads.

    A failed computation is raised to everybody who waited for it and then forgotten.
    """

    def __init__(self, size: int = 96) -> None:
        self._size = size
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    def get(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """The result under ``key``, from ``compute`` when it is not held."""
        with self._lock:
            entry = self._entries.get(key)
            mine = entry is None
            if entry is None:
                entry = self._entries[key] = _Entry()
                self.misses += 1
                while len(self._entries) > self._size:
                    self._entries.popitem(last=False)
            else:
                self._entries.move_to_end(key)
                self.hits += 1
        if mine:
            try:
                entry.value = compute()
            except BaseException as error:
                # Also what is no Exception: an entry without a value must not stay for others to find.
                entry.error = error if isinstance(error, Exception) else Unavailable("the read was cut off")
                with self._lock:
                    if self._entries.get(key) is entry:
                        del self._entries[key]
                raise
            finally:
                entry.ready.set()
        else:
            entry.ready.wait()
        if entry.error is not None:
            raise entry.error
        return cast("Result", entry.value)


class TableReader:
    """Bounded, cached reads of Delta tables."""

    def __init__(self, clock: Clock, cache: ReadCache | None = None) -> None:
        self.cache = cache or ReadCache()
        self._clock = clock
        self._versions: dict[str, tuple[float, int | None]] = {}
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """The time, for results that say how new they are."""
        return self._clock.now()

    def version(self, table: Table) -> int | None:
        """The newest version of ``table``, at most a second old; ``None`` before its first row."""
        now = self._clock.monotonic()
        with self._lock:
            known = self._versions.get(table.uri)
        if known is not None and 0 <= now - known[0] < _VERSION_AGE_S:
            return known[1]
        version = table.version()
        with self._lock:
            self._versions[table.uri] = (now, version)
        return version

    def read(self, tables: Sequence[Table], key: Hashable, compute: Callable[[], Result]) -> Result:
        """``compute()``, remembered under ``key`` until one of ``tables`` has a new version.

        Raises :class:`~servelens.errors.Unavailable` when a table cannot be read.
        """
        versions = tuple((table.uri, self.version(table)) for table in tables)

        def translated() -> Result:
            try:
                return compute()
            except (PolarsError, PanicException, OSError) as error:
                raise Unavailable(f"the table could not be read: {error}", field=tables[0].uri) from error

        return self.cache.get((versions, key), translated)


def arm_expression() -> pl.Expr:
    """The variant of a row, else the served entity that answered, else :data:`NO_ARM`."""
    return pl.coalesce(pl.col("variant"), pl.col("served_entity"), pl.lit(NO_ARM)).alias(ARM)


def failed_expression() -> pl.Expr:
    """Whether an invocation failed: an error status, or an error after a good status was sent.

    A client that left on its own is not a failure of the endpoint.
    """
    left = pl.col("error_type").fill_null("") == "client_disconnected"
    return ((pl.col("status_code") >= 400) | pl.col("error_type").is_not_null()) & ~left


def scan(
    table: Table, since: datetime, until: datetime, columns: Sequence[str], arms: Sequence[str] = ()
) -> pl.LazyFrame:
    """``columns`` of the rows in [``since``, ``until``) plus :data:`ARM`; only ``arms`` when some are named."""
    wanted = [*columns, *(name for name in ("variant", "served_entity") if name not in columns)]
    frame = table.scan(since=since, until=until).select(wanted).with_columns(arm_expression())
    return frame.filter(pl.col(ARM).is_in(list(arms))) if arms else frame


def collect(frame: pl.LazyFrame) -> pl.DataFrame:
    """Run a lazy frame in bounded memory."""
    return frame.collect(engine="streaming")


def number(value: Any) -> float | None:
    """A cell as a float, ``None`` when it is missing or not finite."""
    if value is None:
        return None
    result = float(value)
    return result if result == result and result not in (float("inf"), float("-inf")) else None
