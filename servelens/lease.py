"""A lease in the SQL database: at most one process at a time holds a name, and loses it when it stops renewing.

Invariant: a term belongs to one holder, and terms of a name only grow. Times are those of the database's clock, so the
clocks of the machines do not matter; who holds a lease stops believing in it by its own monotonic clock before the
database lets another have it, also when the database cannot be reached. What must not happen after a lease was lost asks
:meth:`Lease.check` right before it is done (Gray and Cheriton, "Leases", SOSP 1989, with the term as the fencing number).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import String, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from servelens.clock import Clock, SystemClock
from servelens.database import Base, Database, UtcDateTime
from servelens.errors import Conflict, ServelensError

logger = logging.getLogger(__name__)

TTL_S: Final = 10.0
RENEW_S: Final = 3.0
POLL_S: Final = 1.0
_NOW: Final = {
    "sqlite": "SELECT strftime('%Y-%m-%dT%H:%M:%f', 'now')",
    "postgresql": "SELECT clock_timestamp()",
}


class LeaseRow(Base):
    """Who holds the name, in which term, and until when. A lease that was released has expired."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    holder: Mapped[str] = mapped_column(String(255))
    term: Mapped[int]
    acquired_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Lease:
    """One process's hold on ``name``. Methods may be called from several threads."""

    def __init__(
        self, database: Database, name: str, *, ttl_s: float = TTL_S, clock: Clock | None = None
    ) -> None:
        self.name = name
        self.holder = f"{socket.gethostname()[:150]}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        self._database = database
        self._ttl_s = ttl_s
        self._clock = clock or SystemClock()
        self._term: int | None = None
        self._good_until = float("-inf")

    @property
    def term(self) -> int | None:
        """The term that this process holds; ``None`` when it holds none, or has not renewed it in time."""
        return self._term if self._clock.monotonic() < self._good_until else None

    def acquire(self) -> bool:
        """Take the lease if it is free, or renew it if it is ours; whether it is ours now.

        Raises :class:`~servelens.errors.Unavailable` when the database does not answer: nothing is known then, and what
        was held is held until its time is over.
        """
        asked = self._clock.monotonic()
        try:
            with self._database.session() as session:
                term = self._taken(session)
        except Conflict as error:  # two made the first row, or waited for each other
            logger.debug("lease not taken: name=%s reason=%s", self.name, error)
            return False
        self._term = term
        # From before the question: the database's count began later, so ours is over first.
        self._good_until = asked + self._ttl_s if term is not None else float("-inf")
        return term is not None

    def release(self) -> None:
        """Let another have it at once. Does nothing when it is not ours. Raises as :meth:`acquire`."""
        term, self._term, self._good_until = self._term, None, float("-inf")
        if term is None:
            return
        with self._database.session() as session:
            row = session.get(LeaseRow, self.name, with_for_update=True)
            if row is not None and (row.holder, row.term) == (self.holder, term):
                row.expires_at = _now(session)

    def check(self) -> None:
        """Raise :class:`~servelens.errors.Conflict` unless the lease is ours this moment, by the database's word."""
        if self.term is not None:
            with self._database.session(read_only=True) as session:
                row = session.get(LeaseRow, self.name)
                ours = row is not None and (row.holder, row.term) == (self.holder, self._term)
                if row is not None and ours and row.expires_at > _now(session):
                    return
        raise Conflict(
            f"this process does not hold the lease '{self.name}' any more, so what it was about to write was not kept",
            fix="Nothing: who holds it now goes on from the last commit.",
        )

    @contextmanager
    def held(self, *, renew_s: float = RENEW_S) -> Iterator[bool]:
        """Hold the lease, renewed in a thread, while the block runs; the value says whether it could be had."""
        if not self.acquire():
            yield False
            return
        over = threading.Event()
        thread = threading.Thread(
            target=self._renew, args=(over, renew_s), name=f"lease {self.name}", daemon=True
        )
        thread.start()
        try:
            yield True
        finally:
            over.set()
            thread.join()
            self.release()

    def holder_now(self) -> str | None:
        """Who holds the lease by the database's word; ``None`` when nobody does."""
        with self._database.session(read_only=True) as session:
            row = session.get(LeaseRow, self.name)
            return row.holder if row is not None and row.expires_at > _now(session) else None

    def _renew(self, over: threading.Event, renew_s: float) -> None:
        while not over.wait(renew_s):
            try:
                if not self.acquire():
                    return
            except ServelensError as error:
                logger.warning("lease not renewed: name=%s reason=%s", self.name, error)

    def _taken(self, session: Session) -> int | None:
        """The term if the lease is ours afterwards."""
        row = session.get(LeaseRow, self.name, with_for_update=True)
        now = _now(session)
        until = now + timedelta(seconds=self._ttl_s)
        if row is None:
            row = LeaseRow(name=self.name, holder=self.holder, term=1, acquired_at=now, expires_at=until)
            session.add(row)
        elif row.holder == self.holder and row.expires_at > now and row.term == self._term:
            row.expires_at = until
        elif row.expires_at <= now:
            row.holder, row.term, row.acquired_at, row.expires_at = self.holder, row.term + 1, now, until
        else:
            return None
        return row.term


def _now(session: Session) -> datetime:
    """The time by the database's clock."""
    kind = session.get_bind().dialect.name
    value = session.execute(text(_NOW[kind])).scalar_one()
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
