"""Takes a label that was given in another tool, where nobody claimed the case.

Invariant: such a label uses a place as a claim would have, so a case never has more labels than it wants, nor two of one
person. A gold case takes one of everybody.
"""

from __future__ import annotations

import json
from datetime import datetime
from enum import StrEnum

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from relabel.case import CaseState, Resolution
from relabel.label import Label
from relabel.label_schema import LabelSchema
from relabel.models import CaseRow, ClaimRow, ClaimState, DecisionRow, HistoryRow, LabelRow
from relabel.queue.answers import read_label
from servelens.errors import Conflict


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
    case_row: CaseRow,
    annotator: str,
    label: Label,
    schema: LabelSchema,
    source: str,
    now: datetime,
    *,
    duration_s: float | None = None,
) -> LabelRow:
    """Give the case, whose row is locked, a label that ``annotator`` gave in ``source``; the row of the label, flushed.

    A claim of theirs here ends with it. Raises :class:`NotTaken` when the case is finished, they have answered it already,
    or others have its places.
    """
    claim = _check(session, case_row, annotator)
    before = case_row.state
    if not case_row.started and before is not CaseState.GOLD:
        case_row.wanted, case_row.started = schema.annotators, True
    holds = claim is not None and claim.state is ClaimState.HELD
    if before is not CaseState.GOLD and not holds:
        holder_without_claim = before is CaseState.CLAIMED and case_row.annotator == annotator
        if (
            before is CaseState.CLAIMED
            and not holder_without_claim
            and not _free_place(session, case_row, now)
        ):
            raise NotTaken(
                f"others hold all places of case {case_row.id}",
                reason=Reason.NO_PLACE,
                fix="Import again when they have released it, or leave it to them.",
            )
        case_row.taken = min(case_row.taken + 1, case_row.wanted)
    given = LabelRow(
        case_id=case_row.id,
        annotator=annotator,
        rating=label.rating,
        corrected_answer=label.corrected_answer,
        tags=list(label.tags),
        comment=label.comment,
        created_at=now,
        preferred=label.preferred,
        values=dict(label.values) or None,
        schema_version=schema.version,
        is_adjudication=False,
        duration_s=duration_s,
        source=source,
    )
    session.add(given)
    if claim is None:
        claim = ClaimRow(case_id=case_row.id, annotator=annotator, is_adjudication=False, claimed_at=now)
        claim.version, claim.schema_version = case_row.version, schema.version
        session.add(claim)
    claim.state, claim.lease_expires_at = ClaimState.LABELED, None
    case_row.version += 1
    case_row.updated_at = now
    session.flush()
    if before is not CaseState.GOLD:
        case_row.labeled += 1
        case_row.annotator = annotator
        _settle(session, case_row, schema, now)
    session.add(
        HistoryRow(
            case_id=case_row.id,
            at=now,
            from_state=before,
            to_state=case_row.state,
            actor=annotator,
            detail=f"labeled in {source}",
            event="imported",
        )
    )
    session.flush()
    return given


def _check(session: Session, row: CaseRow, annotator: str) -> ClaimRow | None:
    """The annotator's claim, when they may still label the case."""
    labeled = select(LabelRow.id).where(LabelRow.case_id == row.id, LabelRow.annotator == annotator)
    claim = session.scalar(
        select(ClaimRow).where(ClaimRow.case_id == row.id, ClaimRow.annotator == annotator)
    )
    if session.scalar(labeled) is not None or (claim is not None and claim.state is ClaimState.SKIPPED):
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
    return claim


def _free_place(session: Session, row: CaseRow, now: datetime) -> bool:
    """Whether a lease ran out, whose place is free then."""
    held = session.scalars(
        select(ClaimRow).where(ClaimRow.case_id == row.id, ClaimRow.state == ClaimState.HELD)
    ).all()
    expired = [
        claim for claim in held if claim.lease_expires_at is not None and claim.lease_expires_at <= now
    ]
    for claim in expired:
        claim.state, claim.lease_expires_at = ClaimState.EXPIRED, None
        row.taken -= 1
    if held:
        return bool(expired)
    return row.lease_expires_at is not None and row.lease_expires_at <= now


def _settle(session: Session, row: CaseRow, schema: LabelSchema, now: datetime) -> None:
    """What the case is now: free for others, in the hands of others, or finished."""
    held = session.scalar(
        select(func.min(ClaimRow.lease_expires_at)).where(
            ClaimRow.case_id == row.id, ClaimRow.state == ClaimState.HELD
        )
    )
    row.lease_expires_at = held
    if row.taken < row.wanted:
        row.state = CaseState.OPEN
    elif held is not None:
        row.state = CaseState.CLAIMED
    else:
        _decide(session, row, schema, now)


def _decide(session: Session, row: CaseRow, schema: LabelSchema, now: datetime) -> None:
    """Say what the case's label is. Those who answer the deciding fields alike are one side; the largest wins where the
    schema lets it, and otherwise somebody decides.
    """
    labels = session.scalars(select(LabelRow).where(LabelRow.case_id == row.id).order_by(LabelRow.id)).all()
    deciding = [field.name for field in schema.fields if field.decides]
    sides: dict[str, list[LabelRow]] = {}
    for label in labels:
        answers = schema.answers(read_label(label))
        key = json.dumps([answers.get(name) for name in deciding], sort_keys=True)
        sides.setdefault(key, []).append(label)
    largest = max(sides.values(), key=len)
    share = len(largest) / len(labels)
    lets_majority = schema.adjudicate == "no_majority" and share > 0.5
    if len(sides) > 1 and not lets_majority and schema.adjudicate != "never":
        row.state = CaseState.DISPUTED
        return
    if len(labels) == 1:
        row.resolution = Resolution.SINGLE
    else:
        row.resolution = Resolution.UNANIMOUS if len(sides) == 1 else Resolution.MAJORITY
    row.state = CaseState.LABELED
    session.add(
        DecisionRow(
            case_id=row.id,
            label_id=largest[0].id,
            resolution=row.resolution,
            labels=len(labels),
            agreement=share,
            created_at=now,
        )
    )
