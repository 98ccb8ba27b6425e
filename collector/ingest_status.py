"""What the collector says about itself, for metrics and health checks: a snapshot, replaced as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class IngestStatus:
    """Counts since the collector started, unless said otherwise; refreshed about twice a second.

    ``settled``: records in a table or the dead letter, ``dropped``: records that the writers refused or lost;
    both over the whole lives of the spools there are. ``backlog_bytes``: spool not read yet. ``lag_s``: age
    of the oldest answer that was read but is not in its table; 0 when there is none. ``failing``: table
    address → reason, for tables that do not take commits now. ``halted``: worker id → reason, for spools that
    are not read any more.
    """

    workers: int = 0
    in_table: int = 0
    dead_lettered: int = 0
    damaged_regions: int = 0
    settled: int = 0
    dropped: int = 0
    backlog_bytes: int = 0
    last_commit_us: int | None = None
    lag_s: float = 0.0
    failing: Mapping[str, str] = field(default_factory=dict)
    halted: Mapping[str, str] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Whether every table takes commits and every spool is read."""
        return not self.failing and not self.halted
