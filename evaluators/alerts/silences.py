"""Silences: for some time, nobody is told of what they match. What happens meanwhile is recorded and shown.

A silence ends by its time or by hand and stays in the database, so that it can be seen later why nobody was told. A
text matches as in a shell: ``*`` is any text, ``?`` any character.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from evaluators.alerts.models import AlertSilenceRow
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Conflict, Invalid, Missing

_LONGEST_DAYS: Final = 366
_PATTERN: Final = 200
_REASON: Final = 2_000


@dataclass(frozen=True, slots=True)
class Silence:
    """One silence; what it matches is ``None`` for everything."""

    id: int
    rule: str | None
    endpoint: str | None
    slice: str | None
    starts_at: datetime
    ends_at: datetime
    author: str
    reason: str
    created_at: datetime
    ended_by: str | None

    def active(self, now: datetime) -> bool:
        """Whether it holds at ``now``."""
        return self.starts_at <= now < self.ends_at

    def matches(self, *, rule: str, endpoint: str, slice_: str) -> bool:
        """Whether it is about that alert."""
        return all(
            pattern is None or fnmatchcase(text, pattern)
            for pattern, text in ((self.rule, rule), (self.endpoint, endpoint), (self.slice, slice_))
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values only."""
        return {
            "id": self.id,
            "rule": self.rule,
            "endpoint": self.endpoint,
            "slice": self.slice,
            "starts_at": self.starts_at.isoformat(),
            "ends_at": self.ends_at.isoformat(),
            "author": self.author,
            "reason": self.reason,
            "created_at": self.created_at.isoformat(),
            "ended_by": self.ended_by,
        }


class Silences:
    """Reads and writes silences. Methods may be called from several threads and processes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add(
        self,
        *,
        ends_at: datetime,
        author: str,
        reason: str,
        starts_at: datetime | None = None,
        rule: str | None = None,
        endpoint: str | None = None,
        slice_: str | None = None,
    ) -> Silence:
        """A new silence, from now on or from ``starts_at``. Raises :class:`~servelens.errors.Invalid`."""
        now = self._clock.now()
        start = starts_at or now
        _check(start, ends_at, now, author, reason, {"rule": rule, "endpoint": endpoint, "slice": slice_})
        with self._database.session() as session:
            row = AlertSilenceRow(
                rule=rule,
                endpoint=endpoint,
                slice=slice_,
                starts_at=start,
                ends_at=ends_at,
                author=author.strip(),
                reason=reason.strip(),
                created_at=now,
                ended_by=None,
            )
            session.add(row)
            session.flush()
            return _silence(row)

    def end(self, number: int, by: str) -> Silence:
        """End it now. Raises :class:`~servelens.errors.Missing`, and Conflict when it is over already."""
        now = self._clock.now()
        with self._database.session() as session:
            row = session.get(AlertSilenceRow, number, with_for_update=True)
            if row is None:
                raise Missing(f"there is no silence {number}", fix="Look at the list of silences.")
            if row.ends_at <= now:
                raise Conflict(f"silence {number} is over since {row.ends_at:%Y-%m-%d %H:%M} UTC")
            row.ends_at, row.starts_at, row.ended_by = now, min(row.starts_at, now), by
            return _silence(row)

    def list(self, *, with_ended: bool = False, limit: int = 200) -> list[Silence]:
        """Those that hold or will hold, or all of them; the newest first."""
        query = select(AlertSilenceRow).order_by(AlertSilenceRow.id.desc()).limit(limit)
        if not with_ended:
            query = query.where(AlertSilenceRow.ends_at > self._clock.now())
        with self._database.session(read_only=True) as session:
            return [_silence(row) for row in session.scalars(query)]


def active_silences(session: Session, now: datetime) -> list[Silence]:
    """Those that hold at ``now``, in the order in which they were made."""
    query = select(AlertSilenceRow).where(AlertSilenceRow.starts_at <= now, AlertSilenceRow.ends_at > now)
    return [_silence(row) for row in session.scalars(query.order_by(AlertSilenceRow.id))]


def silence_of(silences: Iterable[Silence], *, rule: str, endpoint: str, slice_: str) -> Silence | None:
    """The first of ``silences`` that is about that alert."""
    return next((one for one in silences if one.matches(rule=rule, endpoint=endpoint, slice_=slice_)), None)


def _check(
    start: datetime, end: datetime, now: datetime, author: str, reason: str, patterns: dict[str, str | None]
) -> None:
    for field, moment in (("starts_at", start), ("ends_at", end)):
        if moment.tzinfo is None:
            raise Invalid("a time without a zone means nothing", field=field, fix="Write 2026-01-01T12:00Z.")
    if end <= start or end <= now:
        raise Invalid("it is over before it begins, or already", field="ends_at", fix="Give a later time.")
    if (end - start).days >= _LONGEST_DAYS:
        raise Invalid("is longer than a year", field="ends_at", fix="Remove the rule, or silence it again.")
    for field, text, longest in (("author", author, 255), ("reason", reason, _REASON)):
        if not text.strip() or len(text) > longest:
            raise Invalid(
                f"has {len(text)} characters", field=field, fix=f"Write 1 to {longest:,} characters."
            )
    if all(pattern is None for pattern in patterns.values()):
        raise Invalid(
            "it says nothing of what it silences", field="rule", fix="Give rule, endpoint or slice; * is all."
        )
    for field, pattern in patterns.items():
        if pattern is not None and (not pattern or len(pattern) > _PATTERN or "\0" in pattern):
            raise Invalid("cannot be matched", field=field, fix=f"Write 1 to {_PATTERN} characters.")


def _silence(row: AlertSilenceRow) -> Silence:
    return Silence(
        id=row.id,
        rule=row.rule,
        endpoint=row.endpoint,
        slice=row.slice,
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        author=row.author,
        reason=row.reason,
        created_at=row.created_at,
        ended_by=row.ended_by,
    )
