"""Upkeep of all endpoints' tables: old rows leave, small files are compacted, the past is cut off.

Invariant: each step is a commit of its own, safe beside appends and readers, and a table that fails stops no other. The
endpoints are asked for at each run, since they come and go; what a table holds decides what is done, so a run that was
cut off is made up for by the next.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from collector.catalog import EndpointTables
from collector.deletion import delete_before
from collector.maintenance_compaction import Compactor
from collector.maintenance_history import clean_log, vacuum
from collector.table import Table
from servelens.clock import Clock
from servelens.errors import ServelensError, Unavailable

logger = logging.getLogger(__name__)

_CLEAN_SHARE: Final = 24  # of the history: how much older than promised it may get


@dataclass(frozen=True, slots=True)
class MaintainedEndpoint:
    """An endpoint's tables; rows of requests that are older than ``retention_days`` leave (``None``: never)."""

    name: str
    tables: EndpointTables
    retention_days: int | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """When a partition is compacted and into what, and for how many hours older versions can be read."""

    min_files: int = 16
    target_bytes: int = 128 << 20
    history_hours: int = 48

    @property
    def clean_every(self) -> timedelta:
        """Time between two clean-ups of a table's past."""
        return timedelta(hours=max(1.0, self.history_hours / _CLEAN_SHARE))


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What a run did, over all tables."""

    tables: int = 0
    rows_deleted: int = 0
    files_removed: int = 0
    files_added: int = 0
    files_vacuumed: int = 0

    def __add__(self, other: Upkeep) -> Upkeep:
        return Upkeep(
            self.tables + other.tables,
            self.rows_deleted + other.rows_deleted,
            self.files_removed + other.files_removed,
            self.files_added + other.files_added,
            self.files_vacuumed + other.files_vacuumed,
        )


_DEFAULT_RULES: Final = Rules()


class Maintenance:
    """Keeps the tables of ``endpoints`` up. One process should; two only waste work."""

    def __init__(
        self,
        endpoints: Callable[[], Iterable[MaintainedEndpoint]],
        clock: Clock,
        rules: Rules = Rules(),
    ) -> None:
        self._endpoints = endpoints
        self._clock = clock
        self._rules = rules
        self._compactor = Compactor(min_files=rules.min_files, target_bytes=rules.target_bytes)
        self._cleaned: dict[str, float] = {}

    def run(self, stop: threading.Event | None = None) -> Upkeep:
        """Look at every table; with ``stop`` set it ends after the step in hand.

        Raises :class:`~servelens.errors.Unavailable` at the end when a table failed, and what asking for the endpoints
        raises.
        """
        done = Upkeep()
        failed: list[tuple[Table, str]] = []
        for endpoint in self._endpoints():
            for table, expires in _tables(endpoint.tables):
                if stop is not None and stop.is_set():
                    return done
                try:
                    done += self._keep_up(table, endpoint.retention_days if expires else None, stop)
                except ServelensError as error:
                    logger.warning("table not maintained: table=%s error=%s", table.uri, error)
                    failed.append((table, str(error)))
        if failed:
            table, reason = failed[0]
            raise Unavailable(f"{len(failed)} tables were not maintained; {reason}", field=table.uri)
        return done

    def _keep_up(self, table: Table, retention_days: int | None, stop: threading.Event | None) -> Upkeep:
        if not table.exists():
            return Upkeep()
        started, now = self._clock.monotonic(), self._clock.now()
        deleted = 0
        if retention_days is not None:
            deleted = delete_before(table, now.date() - timedelta(days=retention_days))
        stopping = stop.is_set if stop is not None else bool
        files = self._compactor.run(table, now=now, stopping=stopping)
        vacuumed = 0
        last = self._cleaned.get(table.uri)
        if last is None or started - last >= self._rules.clean_every.total_seconds():
            clean_log(table, self._rules.history_hours)
            vacuumed = vacuum(table, self._rules.history_hours)
            self._cleaned[table.uri] = started
        if deleted or files.removed or vacuumed:
            logger.info(
                "table maintained: table=%s rows_deleted=%d files_before=%d files_after=%d partitions=%d "
                "files_vacuumed=%d seconds=%.1f",
                table.uri,
                deleted,
                files.removed,
                files.added,
                files.partitions,
                vacuumed,
                self._clock.monotonic() - started,
            )
        return Upkeep(1, deleted, files.removed, files.added, vacuumed)


def _tables(tables: EndpointTables) -> Iterator[tuple[Table, bool]]:
    """Each table, and whether its rows expire: those about single requests, and the sketches, which hold the values of
    small windows; the others sum up windows."""
    yield tables.payload, True
    yield tables.scores, True
    yield tables.feedback, True
    yield tables.embeddings, True
    yield tables.labels, True
    yield tables.sketches, True
    yield tables.profiles, False
    yield tables.drift, False
