"""Gold cases: those whose answer is known, which measure annotators.

Invariants: a gold case is offered to an annotator at most once, whatever became of it, after as many labels of theirs as the
schema says; what they are told of it is what they are told of a case that nobody has had before.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from relabel.case import Case, CaseState, Resolution
from relabel.label_schema import LabelSchema
from relabel.models import CaseRow, ClaimRow, ClaimState
from relabel.queue.places import claim_of


def next_gold(session: Session, schema: LabelSchema, annotator: str, endpoint: str) -> CaseRow | None:
    """A gold case of ``endpoint`` that is due for the annotator and that they have not had."""
    if schema.gold_every is None or not _is_due(session, schema.gold_every, annotator, endpoint):
        return None
    had = exists().where(ClaimRow.case_id == CaseRow.id, ClaimRow.annotator == annotator)
    row = session.scalar(
        select(CaseRow)
        .where(CaseRow.endpoint == endpoint, CaseRow.state == CaseState.GOLD, ~had)
        .order_by(CaseRow.priority.desc(), CaseRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)  # one that others are at right now can wait for the next time
    )
    # The same annotator may have been given it in the moment before it was locked.
    return None if row is None or claim_of(session, row.id, annotator) is not None else row


def _is_due(session: Session, every: int, annotator: str, endpoint: str) -> bool:
    here = (ClaimRow.annotator == annotator, CaseRow.endpoint == endpoint)
    labeled = (
        select(ClaimRow.id)
        .join(CaseRow, CaseRow.id == ClaimRow.case_id)
        .where(*here, ClaimRow.state == ClaimState.LABELED, ClaimRow.is_adjudication.is_(False))
        .order_by(ClaimRow.id.desc())
        .offset(every - 1)
        .limit(1)
    )
    since = session.scalar(labeled)
    if since is None:
        return False
    # One for each state, so that the index on (annotator, state, id) is used for each.
    recent = (
        select(ClaimRow.id)
        .join(CaseRow, CaseRow.id == ClaimRow.case_id)
        .where(
            *here,
            ClaimRow.state.in_(list(ClaimState)),
            ClaimRow.id >= since,
            CaseRow.state == CaseState.GOLD,
        )
        .limit(1)
    )
    return session.scalar(recent) is None


def as_any_other(case: Case, row: CaseRow, claim: ClaimRow | None) -> Case:
    """A gold case as its annotator is shown it: the first to have a case that nobody had before."""
    if claim is None or claim.state in (ClaimState.EXPIRED, ClaimState.RELEASED):
        untouched = replace(
            case,
            state=CaseState.OPEN,
            version=1,
            annotator=None,
            lease_expires_at=None,
            labeled=0,
            wanted=1,  # as long as nobody has had a case
            updated_at=row.created_at,
        )
        if claim is None:
            return untouched
        touched = replace(untouched, wanted=row.wanted, updated_at=claim.claimed_at)
        if claim.state is ClaimState.EXPIRED:  # the lease ends without a change
            return replace(touched, version=claim.version, annotator=claim.annotator)
        return replace(touched, version=claim.version + 1)
    if claim.state is ClaimState.HELD:
        return replace(
            case,
            state=CaseState.CLAIMED,
            version=claim.version,
            labeled=0,
            updated_at=claim.claimed_at,
        )
    is_labeled = claim.state is ClaimState.LABELED
    shown = replace(
        case,
        state=CaseState.OPEN,
        version=claim.version + 1,
        annotator=claim.annotator,
        lease_expires_at=None,
        labeled=int(is_labeled),
        updated_at=max((label.created_at for label in case.labels), default=claim.claimed_at),
    )
    if row.wanted > 1:
        return shown
    if is_labeled:
        return replace(shown, state=CaseState.LABELED, resolution=Resolution.SINGLE)
    return replace(shown, state=CaseState.SKIPPED, skip_reason=claim.skip_reason)
