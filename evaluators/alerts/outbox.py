"""The outbox: notifications that wait, one claimed at a time by whoever sends it, and what came of each attempt.

Invariants: a claim holds for :data:`LEASE`; a sender that dies leaves a notification that is tried again then, under
the same id. So each is sent at least once, and a receiver that knows the id has it once. A channel is told of an incident
in order: its end is not sent before its start was, or never will be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import and_, exists, select, update
from sqlalchemy.orm import Session, aliased

from evaluators.alerts.channels.channel import Outcome
from evaluators.alerts.models import AlertDeliveryRow
from servelens.clock import Clock
from servelens.database import Database

LEASE: Final = timedelta(minutes=5)
OLDEST: Final = timedelta(hours=24)
"""What could not be delivered for so long is given up."""

_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 600.0
_LOGGED: Final = 20


@dataclass(frozen=True, slots=True)
class Claimed:
    """A notification that is ours to send until the lease ends."""

    id: int
    channel: str
    attempt: int
    document: Mapping[str, Any]


class Outbox:
    """Reads and writes deliveries. Methods may be called from several threads and processes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def channels(self) -> list[str]:
        """The channels that have something to be sent now."""
        query = select(AlertDeliveryRow.channel).where(*_due(self._clock.now())).distinct()
        with self._database.session(read_only=True) as session:
            return sorted(session.scalars(query))

    def claim(self, channel: str) -> Claimed | None:
        """The oldest notification of ``channel`` that is due, now ours; ``None`` when there is none."""
        now = self._clock.now()
        earlier = aliased(AlertDeliveryRow)
        is_first = ~exists().where(
            and_(
                earlier.incident_id == AlertDeliveryRow.incident_id,
                earlier.channel == AlertDeliveryRow.channel,
                earlier.status == "waiting",
                earlier.id < AlertDeliveryRow.id,
            )
        )
        query = (
            select(AlertDeliveryRow)
            .where(*_due(now), AlertDeliveryRow.channel == channel, is_first)
            .order_by(AlertDeliveryRow.id)
            .limit(1)
            .with_for_update(skip_locked=True, of=AlertDeliveryRow)
        )
        with self._database.session() as session:
            row = session.scalar(query)
            if row is None:
                return None
            row.attempts += 1
            row.next_at = now + LEASE
            return Claimed(row.id, row.channel, row.attempts, dict(row.document))

    def finish(self, claimed: Claimed, outcome: Outcome) -> str:
        """Keep what came of it; the status that it has now."""
        now = self._clock.now()
        with self._database.session() as session:
            row = session.get_one(AlertDeliveryRow, claimed.id, with_for_update=True)
            if row.status != "waiting":  # the lease was over, and somebody else has sent it
                return row.status
            row.http_status, row.detail = outcome.status, outcome.detail.replace("\0", "")[:500]
            entry = {
                "at": now.isoformat(),
                "attempt": claimed.attempt,
                "ok": outcome.ok,
                "status": outcome.status,
                "detail": row.detail,
            }
            row.attempts_log = [*row.attempts_log, entry][-_LOGGED:]
            if outcome.ok:
                row.status, row.finished_at = "sent", now
            elif not outcome.again:
                row.status, row.finished_at = "failed", now
            elif now - row.created_at >= OLDEST:
                row.status, row.finished_at = "expired", now
            else:
                row.next_at = now + timedelta(seconds=pause_s(claimed.attempt, outcome.retry_after_s))
            return row.status

    def postpone(self, channel: str, until: datetime) -> None:
        """Leave a channel alone until then, since it has just failed."""
        with self._database.session() as session:
            _postpone(session, channel, self._clock.now(), until)


def pause_s(attempt: int, wished_s: float | None = None) -> float:
    """Seconds after the ``attempt``-th failed attempt: doubled each time, and at least what the receiver wishes.

    >>> [pause_s(attempt) for attempt in (1, 2, 3, 20)]
    [5.0, 10.0, 20.0, 600.0]
    """
    own = min(_FIRST_PAUSE_S * 2.0 ** min(attempt - 1, 20), _LONGEST_PAUSE_S)
    return max(own, wished_s or 0.0)


def _due(now: datetime) -> tuple[Any, ...]:
    return AlertDeliveryRow.status == "waiting", AlertDeliveryRow.next_at <= now


def _postpone(session: Session, channel: str, now: datetime, until: datetime) -> None:
    session.execute(
        update(AlertDeliveryRow)
        .where(*_due(now), AlertDeliveryRow.channel == channel)
        .values(next_at=until)
        .execution_options(synchronize_session=False)
    )
