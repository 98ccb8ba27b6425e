"""The places of a case: who holds one, who may answer, and what is written down when that changes.

Invariants: the row of the case is locked before its claims are read or changed; ``taken`` counts the claims that are held,
labeled or skipped, without adjudications; every change has a row in the history. A gold case has no places: its row stays
as it is, however many hold it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from relabel.case import CaseState
from relabel.models import CaseRow, ClaimRow, ClaimState, HistoryRow
from servelens.errors import Conflict, Missing

GOLD_VERSION: Final = 2
"""The version of a first claim of a gold case: what a case that nobody has had yet shows to the first who claims it. From
then on it grows with what its holder does, as that of a case of theirs alone would.
"""
_LOCKED: Final = select(CaseRow).where(CaseRow.id == bindparam("case_id")).with_for_update()
_CLAIM: Final = select(ClaimRow).where(
    ClaimRow.case_id == bindparam("case_id"), ClaimRow.annotator == bindparam("annotator")
)
_HISTORY: Final = HistoryRow.metadata.tables[HistoryRow.__tablename__].insert()
FINISHED: Final = (CaseState.LABELED, CaseState.SKIPPED)
SAID: Final = "\nlabels: "
"""In the detail of an entry of the history, between a reason and the labels (JSON) that left the case."""


def locked_case(session: Session, case_id: int) -> CaseRow:
    """The row of a case, for this transaction alone. Raises :class:`~servelens.errors.Missing`."""
    row = session.scalar(_LOCKED, {"case_id": case_id})
    if row is None:
        raise no_case(case_id)
    return row


def claim_of(session: Session, case_id: int, annotator: str) -> ClaimRow | None:
    """The annotator's claim of a case, whatever became of it."""
    return session.scalar(_CLAIM, {"case_id": case_id, "annotator": annotator})


def no_case(case_id: int) -> Missing:
    """There is no such case."""
    return Missing(f"there is no case {case_id}", field="case_id")


def record(
    session: Session,
    row: CaseRow,
    state: CaseState,
    actor: str,
    now: datetime,
    event: str,
    detail: str | None = None,
    *,
    new_version: bool = True,
    ends_gold: bool = False,
) -> None:
    """Move the case to ``state`` (which may be the one it is in) and write down who did it and how. A gold case stays one
    whatever becomes of a claim of it, until ``ends_gold``.
    """
    if row.state is CaseState.GOLD and not ends_gold:
        state, new_version = CaseState.GOLD, False
    entry = {
        "case_id": row.id,
        "at": now,
        "from_state": row.state,
        "to_state": state,
        "actor": actor,
        "detail": detail,
        "event": event,
    }
    session.connection().execute(_HISTORY, entry)
    row.state = state
    row.updated_at = now
    if new_version:
        row.version += 1


def hold(
    session: Session,
    row: CaseRow,
    claim: ClaimRow | None,
    annotator: str,
    schema_version: int,
    now: datetime,
    lease: timedelta,
    *,
    event: str = "claimed",
    detail: str | None = None,
    is_adjudication: bool = False,
) -> ClaimRow:
    """Give ``annotator`` a place; ``claim`` is the one that ran out, where they had one."""
    if claim is None:
        claim = ClaimRow(case_id=row.id, annotator=annotator)
        session.add(claim)
    claim.schema_version = schema_version
    claim.claimed_at = now
    claim.skip_reason = None
    claim.is_adjudication = is_adjudication
    take_place(session, row, claim, now, event, detail)
    claim.lease_expires_at = ends = now + lease
    if row.state is not CaseState.GOLD:
        # Leases are equally long, so that this one ends after those that have begun.
        row.lease_expires_at = min(row.lease_expires_at or ends, ends)
    return claim


def take_place(
    session: Session, row: CaseRow, claim: ClaimRow, now: datetime, event: str, detail: str | None = None
) -> None:
    """``claim``, which is new or ran out, is held from now on."""
    is_again = claim.state is not None
    claim.state = ClaimState.HELD
    if row.state is CaseState.GOLD:
        record(session, row, row.state, claim.annotator, now, event, detail)
        claim.version = claim.version + 1 if is_again else GOLD_VERSION
        return
    if claim.is_adjudication:
        state = CaseState.ADJUDICATING
    else:
        row.taken += 1
        row.started = True
        state = unfinished_state(row)
    record(session, row, state, claim.annotator, now, event, detail)
    claim.version = row.version
    row.annotator = claim.annotator


def unfinished_state(row: CaseRow) -> CaseState:
    """Whether a place is free."""
    return CaseState.OPEN if row.taken < row.wanted else CaseState.CLAIMED


def start_lease(session: Session, row: CaseRow, claim: ClaimRow, until: datetime) -> None:
    """The claim, which is held, lasts until then."""
    claim.lease_expires_at = until
    if row.state is not CaseState.GOLD:
        session.flush()
        row.lease_expires_at = first_end(session, row.id)


def first_end(session: Session, case_id: int) -> datetime | None:
    """When the first lease of the case ends."""
    held = ClaimRow.case_id == case_id, ClaimRow.state == ClaimState.HELD
    return session.scalar(select(func.min(ClaimRow.lease_expires_at)).where(*held))


def check_may_answer(row: CaseRow, claim: ClaimRow | None, annotator: str) -> None:
    """Raise :class:`~servelens.errors.Conflict` when the annotator holds no place and cannot have theirs again."""
    if claim is not None:
        if claim.state is ClaimState.HELD or (claim.state is ClaimState.EXPIRED and _is_free(row, claim)):
            return
        if claim.state in (ClaimState.LABELED, ClaimState.SKIPPED):
            raise Conflict(
                f"case {row.id} has been {claim.state} by {annotator} already",
                field="case_id",
                fix="Claim another case.",
            )
    raise not_held(row, annotator)


def not_held(row: CaseRow, annotator: str) -> Conflict:
    """Why somebody who has no place at the case cannot act on it."""
    by = f" by {row.annotator}" if row.wanted == 1 and row.annotator else ""
    if row.state in FINISHED:
        return Conflict(
            f"case {row.id} has been {row.state}{by} already", field="case_id", fix="Claim another case."
        )
    if row.state is CaseState.CLAIMED:
        return Conflict(
            f"case {row.id} is claimed{by or ' by others'}", field="annotator", fix="Claim another case."
        )
    if row.state in (CaseState.DISPUTED, CaseState.ADJUDICATING):
        return Conflict(
            f"case {row.id} has all its labels, which disagree",
            field="annotator",
            fix="Claim another case; who decides claims it as a dispute.",
        )
    return Conflict(f"case {row.id} is not claimed by {annotator}", field="case_id", fix="Claim it first.")


def check_version(row: CaseRow, claim: ClaimRow | None, version: int | None) -> None:
    """Raise :class:`~servelens.errors.Conflict` when ``version`` is not what the claim was handed out with."""
    handed_out = row.version if claim is None else claim.version
    if version is not None and version != handed_out:
        raise Conflict(
            f"case {row.id} has changed since version {version}; it is at {handed_out} now",
            field="version",
            fix="Read the case again.",
        )


def _is_free(row: CaseRow, claim: ClaimRow) -> bool:
    """Whether nobody took the place of a claim that ran out."""
    if claim.is_adjudication:
        return row.state is CaseState.DISPUTED
    return row.state in (CaseState.OPEN, CaseState.GOLD)
