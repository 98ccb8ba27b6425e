"""How old the oldest record is that an evaluator has not come to yet: the lag that people are told of.

Cheap enough for every scrape: two version numbers are compared, and where they differ the times of one commit are read,
once for each version that has been scored.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Final

import polars as pl
import pyarrow as pa

from collector.catalog import EndpointTables
from servelens.errors import Missing

_TIME: Final = "request_time"


class OldestUnscored:
    """Looks at one endpoint's tables for one evaluator. May be asked from several threads."""

    def __init__(self, tables: EndpointTables) -> None:
        self._tables = tables
        self._lock = threading.Lock()
        self._known: tuple[int | None, datetime | None] | None = None

    def age_s(self, application_id: str, now: datetime) -> float:
        """Seconds since the ``request_time`` of the oldest record that the evaluator has neither scored nor left out; 0
        when there is none. Raises what the tables raise.
        """
        payload = self._tables.payload
        newest = payload.version()
        if newest is None:
            return 0.0
        version = self._tables.scores.transaction_version(application_id)
        if version is not None and version >= newest:
            return 0.0
        with self._lock:
            if self._known is None or self._known[0] != version or self._known[1] is None:
                self._known = (version, self._oldest(version))
            oldest = self._known[1]
        return 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())

    def _oldest(self, version: int | None) -> datetime | None:
        payload = self._tables.payload
        if version is not None:
            try:
                changes = payload.read_since(version, columns=[_TIME], max_rows=1)
            except Missing:  # the history is gone, and with it what is new
                return self._oldest_at_all()
            oldest = changes.frame[_TIME].min()
            return oldest if isinstance(oldest, datetime) else None
        return self._oldest_at_all()

    def _oldest_at_all(self) -> datetime | None:
        with self._tables.payload.upkeep() as handle:
            if handle is None:
                return None
            actions = pl.DataFrame(pa.table(handle.get_add_actions(flatten=True)))
        name = f"min.{_TIME}"
        oldest = actions[name].min() if name in actions.columns else None
        if not isinstance(oldest, datetime):
            return None
        return oldest.replace(tzinfo=UTC) if oldest.tzinfo is None else oldest
