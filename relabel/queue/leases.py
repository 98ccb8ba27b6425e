"""Leases that ran out.

Invariant: a lease that ran out frees its place for others, but its holder's label is still taken as long as nobody else
has the place: nothing is thrown away because somebody was slow.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, select, text
from sqlalchemy.orm import Session, load_only

from relabel.case import CaseState
from relabel.models import CaseRow, ClaimRow, ClaimState
from relabel.queue.places import first_end, record, unfinished_state
from servelens.database import UtcDateTime

_MOST_AT_ONCE: Final = 100
_SYSTEM: Final = "lease"
_RAN_OUT: Final = text(
    f"SELECT case_id FROM relabel_claims WHERE state = 'held' AND lease_expires_at <= :now LIMIT {_MOST_AT_ONCE}"
).bindparams(bindparam("now", type_=UtcDateTime()))


def free_expired(session: Session, now: datetime) -> int:
    """Free the places whose leases ran out; how many of at most 100. Cases that others work on are left to them."""
    ran_out = (ClaimRow.state == ClaimState.HELD, ClaimRow.lease_expires_at <= now)
    ids = set(session.scalars(_RAN_OUT, {"now": now}))
    if not ids:
        return 0
    locked = (
        select(CaseRow)
        .where(CaseRow.id.in_(ids))
        .order_by(CaseRow.id)
        .options(
            load_only(
                CaseRow.state,
                CaseRow.annotator,
                CaseRow.version,
                CaseRow.taken,
                CaseRow.wanted,
                CaseRow.labeled,
                CaseRow.lease_expires_at,
            )
        )
        .with_for_update(skip_locked=True)
    )
    rows = {row.id: row for row in session.scalars(locked)}
    claims = session.scalars(
        select(ClaimRow).where(*ran_out, ClaimRow.case_id.in_(rows)).order_by(ClaimRow.id)
    ).all()
    for claim in claims:
        _expire(session, rows[claim.case_id], claim, now)
    return len(claims)


def free_expired_of(session: Session, row: CaseRow, now: datetime) -> None:
    """Free the places of one case, whose row is locked, whose leases ran out."""
    ran_out = (ClaimRow.state == ClaimState.HELD, ClaimRow.lease_expires_at <= now)
    for claim in session.scalars(select(ClaimRow).where(ClaimRow.case_id == row.id, *ran_out)).all():
        _expire(session, row, claim, now)


def _expire(session: Session, row: CaseRow, claim: ClaimRow, now: datetime) -> None:
    claim.state = ClaimState.EXPIRED
    claim.lease_expires_at = None
    if claim.is_adjudication:
        state = CaseState.DISPUTED
    elif row.state is CaseState.GOLD:
        state = row.state
    else:
        row.taken -= 1
        state = unfinished_state(row)
    # The version stays: nobody else has touched the case yet, so its holder's label is still welcome.
    detail = f"the lease of {claim.annotator} ran out"
    record(session, row, state, _SYSTEM, now, "expired", detail, new_version=False)
    if row.state is not CaseState.GOLD:
        session.flush()
        row.lease_expires_at = first_end(session, row.id)
