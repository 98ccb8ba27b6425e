"""API keys in the SQL database.

Invariants: a secret is shown once and kept as its SHA-256 (256 random bits need no slow hash); no two live keys have
the same name, so that a requester on a record is one key at any time; a key never comes back to life.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, NamedTuple

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from servelens.clock import Clock, datetime_us
from servelens.database import Database
from servelens.errors import Conflict, Invalid, Missing
from servelens.keys.models import KeyRow
from serving_proxy.authentication import SCOPES, Key, Keys, Requester, digest_of

_NAME_LENGTH: Final = 128
_PREFIX_LENGTH: Final = 7
_LONGEST: Final = timedelta(days=36_500)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as people may see it. ``prefix`` is the beginning of its secret, to recognise it by."""

    id: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_by: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def state(self, now: datetime) -> str:
        """``live``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "live"


class Generation(NamedTuple):
    """Differs as soon as :meth:`KeyStore.load` would: keys ever created, revoked, and past their expiry."""

    created: int
    revoked: int
    expired: int


class KeyStore:
    """Reads and writes API keys. Methods may be called from several threads and processes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create(
        self,
        name: str,
        scopes: Iterable[str],
        *,
        created_by: str | None = None,
        lifetime: timedelta | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key and its secret, which nobody can read again. An expired key gives its name up.

        Raises Invalid on a name, scope or lifetime that is not usable, and Conflict when a live key has
        the name.
        """
        _check_name(name)
        wanted = _checked_scopes(scopes)
        if lifetime is not None and not timedelta(0) < lifetime <= _LONGEST:
            raise Invalid(
                "a key cannot live that long or short.",
                field="lifetime",
                fix="Use up to 36500 days, or leave it out for a key without an end.",
            )
        secret = f"sl-{secrets.token_urlsafe(32)}"
        now = self._clock.now()
        row = KeyRow(
            id=secrets.token_hex(8),
            name=name,
            digest=digest_of(secret.encode()),
            prefix=secret[:_PREFIX_LENGTH],
            scopes=list(wanted),
            created_by=created_by,
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
        try:
            with self._database.session() as session:
                session.execute(
                    update(KeyRow)
                    .where(KeyRow.name == name, KeyRow.revoked_at.is_(None), KeyRow.expires_at <= now)
                    .values(revoked_at=now)
                )
                session.add(row)
        except Conflict as error:  # the index of live names refused it
            raise Conflict(
                f"there is a key named {name!r} already.",
                field="name",
                fix="Choose another name, or revoke that key first.",
            ) from error
        return _api_key(row), secret

    def all(self) -> list[ApiKey]:
        """All keys that ever were, the newest first."""
        with self._database.session(read_only=True) as session:
            rows = session.scalars(select(KeyRow).order_by(KeyRow.created_at.desc(), KeyRow.name))
            return [_api_key(row) for row in rows]

    def live(self) -> list[ApiKey]:
        """The keys that work now, the newest first."""
        now = self._clock.now()
        return [key for key in self.all() if key.state(now) == "live"]

    def revoke(self, name_or_id: str) -> ApiKey:
        """End a key by its id, or by the name of the one that is not revoked; a second time by its id changes
        nothing. Raises Missing.
        """
        with self._database.session() as session:
            row = session.get(KeyRow, name_or_id) or _live_named(session, name_or_id)
            if row is None:
                raise Missing(
                    f"there is no API key {name_or_id!r}.",
                    field="name",
                    fix="`servelens keys list` shows names and ids.",
                )
            if row.revoked_at is None:
                row.revoked_at = self._clock.now()
            return _api_key(row)

    def generation(self) -> Generation:
        """Cheap to ask every second; unequal to the one before when a key was created, revoked or has expired.

        Counts and not times, since the clocks of two machines that create keys need not agree.
        """
        is_over = KeyRow.expires_at <= self._clock.now()
        counted = select(
            func.count(),
            func.count(KeyRow.revoked_at),
            func.coalesce(func.sum(case((is_over, 1), else_=0)), 0),
        ).select_from(KeyRow)
        with self._database.session(read_only=True) as session:
            created, revoked, expired = session.execute(counted).one()
        return Generation(int(created), int(revoked), int(expired))

    def load(self) -> Keys:
        """What :func:`serving_proxy.authentication.authenticate` works with."""
        with self._database.session(read_only=True) as session:
            count = session.scalar(select(func.count()).select_from(KeyRow)) or 0
            rows = session.scalars(select(KeyRow).where(KeyRow.revoked_at.is_(None)))
            by_digest = {row.digest: _key(row) for row in rows}
        return Keys(MappingProxyType(by_digest), required=count > 0)


def _check_name(name: str) -> None:
    if not (0 < len(name) <= _NAME_LENGTH and name.isprintable() and name == name.strip()):
        raise Invalid(
            f"{name[:_NAME_LENGTH]!r} is not a usable name of a key.",
            field="name",
            fix=f"Use 1 to {_NAME_LENGTH} printable characters, without a space at either end.",
        )


def _checked_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    wanted = set(scopes)
    unknown = sorted(wanted.difference(SCOPES))
    if unknown or not wanted:
        raise Invalid(
            f"there is no scope {unknown[0]!r}." if unknown else "a key needs a scope.",
            field="scopes",
            fix=f"Use one or more of: {', '.join(SCOPES)}.",
        )
    return tuple(scope for scope in SCOPES if scope in wanted)


def _live_named(session: Session, name: str) -> KeyRow | None:
    return session.scalars(
        select(KeyRow).where(KeyRow.name == name, KeyRow.revoked_at.is_(None))
    ).one_or_none()


def _key(row: KeyRow) -> Key:
    requester = Requester(row.name, frozenset(row.scopes), row.id)
    return Key(requester, None if row.expires_at is None else datetime_us(row.expires_at))


def _api_key(row: KeyRow) -> ApiKey:
    return ApiKey(
        row.id,
        row.name,
        row.prefix,
        tuple(row.scopes),
        row.created_by,
        row.created_at,
        row.expires_at,
        row.revoked_at,
    )
