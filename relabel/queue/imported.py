"""Takes a label that was given in another tool, where nobody claimed the case.

Invariant: such a label uses a place as a claim would have, so a case never has more labels than it wants, nor two of one
person. A gold case takes one of everybody.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy.orm import Session

from relabel.case import CaseState
from relabel.label import Label
from relabel.models import CaseRow, ClaimRow, ClaimState, LabelRow
from relabel.queue.answering import give_label
from relabel.queue.known_schemas import SchemasOfCall
from relabel.queue.leases import free_expired_of
from relabel.queue.places import claim_of, hold
from servelens.errors import Conflict

_AT_ONCE: Final = timedelta(0)


class Reason(StrEnum):
    """Why a label was not taken."""

    FINISHED = "finished"
    ALREADY_LABELED = "already_labeled"
    NO_PLACE = "no_place"


class NotTaken(Conflict):
    """The label cannot be taken; ``reason`` says why in a word."""

    def __init__(self, message: str, *, reason: Reason, fix: str | None = None) -> None:
        super().__init__(message, field="case_id", fix=fix)
        self.reason = reason


def take_label(
    session: Session,
    schemas: SchemasOfCall,
    row: CaseRow,
    annotator: str,
    label: Label,
    schema_version: int,
    source: str,
    now: datetime,
    *,
    duration_s: float | None = None,
) -> LabelRow:
    """Give the case, whose row is locked, a label that ``annotator`` gave in ``source``; the row of the label, flushed.

    A claim of theirs here ends with it. Raises :class:`NotTaken` when the case is finished, they have answered it already,
    or others have its places.
    """
    claim = claim_of(session, row.id, annotator)
    _check(row, claim, annotator)
    if claim is None or claim.state is not ClaimState.HELD:
        free_expired_of(session, row, now)
        if row.state is CaseState.CLAIMED:
            raise NotTaken(
                f"others hold all places of case {row.id}",
                reason=Reason.NO_PLACE,
                fix="Import again when they have released it, or leave it to them.",
            )
        if row.taken == 0 and row.state is not CaseState.GOLD:
            row.wanted = schemas.current(row.endpoint).annotators
        claim = hold(
            session, row, claim, annotator, schema_version, now, _AT_ONCE, detail=f"for a label of {source}"
        )
    claim.schema_version = schema_version
    given = give_label(session, schemas, row, claim, label, now, source=source)
    given.duration_s = duration_s
    session.flush()
    return given


def _check(row: CaseRow, claim: ClaimRow | None, annotator: str) -> None:
    if claim is not None and claim.state in (ClaimState.LABELED, ClaimState.SKIPPED):
        raise NotTaken(
            f"{annotator} has answered case {row.id} already",
            reason=Reason.ALREADY_LABELED,
            fix="Reopen the case if the newer answer is to count.",
        )
    if row.state not in (CaseState.OPEN, CaseState.CLAIMED, CaseState.GOLD):
        raise NotTaken(
            f"case {row.id} is {row.state}",
            reason=Reason.FINISHED,
            fix="Reopen the case if the answer is to count.",
        )
