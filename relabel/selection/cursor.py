"""How far a source of cases has been read: a row that is locked in every transaction which stores what the source found.

What a read found is stored in several transactions. Each notes how many of the records it has done with, so that after a
crash the same commits are read again and these are not counted a second time. The records are in the same order then, as
long as the rules and what they find are the same (``digest``); else they are all looked at again, and those that are cases
are recognised by their id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from relabel.models import CursorRow
from servelens.errors import Conflict


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything up to ``version`` is done with, and of what came up to ``reaching`` the first ``done`` records.

    ``rules`` are the names of the rules that were applied last (``None``: an earlier release wrote the row), ``state`` what
    the source remembers.
    """

    version: int | None
    updated_at: datetime | None = None
    rules: frozenset[str] | None = None
    reaching: int | None = None
    done: int = 0
    digest: str | None = None
    state: Mapping[str, Any] = field(default_factory=dict)

    def at(self, version: int | None, state: Mapping[str, Any]) -> Cursor:
        """Done with everything up to ``version``."""
        return replace(self, version=version, reaching=None, done=0, state=state)


def read_cursor(session: Session, endpoint: str, source: str) -> Cursor | None:
    """``None`` when the source was never read."""
    row = session.get(CursorRow, (endpoint, source))
    return None if row is None else _of(row)


def move_cursor(
    session: Session, endpoint: str, source: str, before: Cursor | None, after: Cursor, now: datetime
) -> None:
    """Lock the row and set it. Raises :class:`~servelens.errors.Conflict` when it is not as ``before`` any more."""
    row = session.scalar(
        select(CursorRow).where(CursorRow.endpoint == endpoint, CursorRow.source == source).with_for_update()
    )
    if row is None:
        row = CursorRow(endpoint=endpoint, source=source, version=None, updated_at=now)
        session.add(row)
        session.flush()  # somebody else may insert it in the same moment: then this fails, and nothing is stored
    there, known = _of(row), before or Cursor(None)
    if (there.version, there.reaching, there.done) != (known.version, known.reaching, known.done):
        raise Conflict(
            f"another selector has taken endpoint {endpoint!r} from {source} version {known.version} to {there.version}",
            fix="Run the selection again.",
        )
    detail: dict[str, Any] = {
        "rules": None if after.rules is None else sorted(after.rules),
        "reaching": after.reaching,
        "done": after.done or None,
        "digest": after.digest,
        "state": dict(after.state) or None,
    }
    row.version = after.version
    row.detail = {name: value for name, value in detail.items() if value is not None} or None
    row.updated_at = now


def _of(row: CursorRow) -> Cursor:
    detail = row.detail or {}
    rules = detail.get("rules")
    return Cursor(
        row.version,
        row.updated_at,
        None if rules is None else frozenset(rules),
        detail.get("reaching"),
        detail.get("done", 0),
        detail.get("digest"),
        detail.get("state", {}),
    )
