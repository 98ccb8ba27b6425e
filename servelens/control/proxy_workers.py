"""Which proxy workers live, and which changes each of them serves: what tells when an update is through.

A worker says so at every change that it has taken over, and again every :data:`BEAT_S`. One that has said nothing for
:data:`GONE_S` counts as dead, so it holds no update up. The clocks of the machines must agree within a few seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, select

from servelens.clock import Clock
from servelens.control.models import ProxyWorkerRow
from servelens.database import Database

BEAT_S: Final = 2.0
GONE_S: Final = 8.0


@dataclass(frozen=True, slots=True)
class WorkerState:
    """The generation that a worker serves, and the endpoints that it could not build (name to reason)."""

    worker: str
    generation: int
    failing: Mapping[str, str] = field(default_factory=dict)


class ProxyWorkers:
    """Reads and writes the states of workers. Methods may be called from several threads and processes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def report(self, state: WorkerState) -> None:
        """Say that a worker lives and what it serves."""
        now = self._clock.now()
        with self._database.session() as session:
            row = session.get(ProxyWorkerRow, state.worker)
            if row is None:
                gone = now - timedelta(days=1)
                session.execute(delete(ProxyWorkerRow).where(ProxyWorkerRow.seen_at < gone))
                row = ProxyWorkerRow(worker=state.worker)
                session.add(row)
            row.generation, row.failing, row.seen_at = state.generation, dict(state.failing), now

    def leave(self, worker: str) -> None:
        """A worker ends."""
        with self._database.session() as session:
            session.execute(delete(ProxyWorkerRow).where(ProxyWorkerRow.worker == worker))

    def live(self) -> list[WorkerState]:
        """All workers that have reported lately."""
        since = self._clock.now() - timedelta(seconds=GONE_S)
        query = select(ProxyWorkerRow).where(ProxyWorkerRow.seen_at >= since).order_by(ProxyWorkerRow.worker)
        with self._database.session(read_only=True) as session:
            return [WorkerState(row.worker, row.generation, row.failing) for row in session.scalars(query)]
