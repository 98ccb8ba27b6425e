"""An annotator's answer to a case: a label, a skip, or taking it back.

Invariants: a person gives a case one label at most; the last answer that a case waited for decides it, in the same
transaction; what is decided is appended to the decisions, and nothing of them ever changes but that a label which was taken
back is no longer named.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from relabel.case import CaseState, Resolution
from relabel.label import Label
from relabel.models import CaseRow, ClaimRow, ClaimState, DecisionRow, ImportRow, LabelRow
from relabel.queue.answers import SERVELENS, label_as_data, label_row, read_label
from relabel.queue.deciding import Ballot, agreeing, decide
from relabel.queue.known_schemas import SchemasOfCall
from relabel.queue.places import (
    FINISHED,
    check_may_answer,
    check_version,
    record,
    start_lease,
    take_place,
    unfinished_state,
)
from servelens.errors import Conflict


def give_label(
    session: Session,
    schemas: SchemasOfCall,
    row: CaseRow,
    claim: ClaimRow,
    label: Label,
    now: datetime,
    *,
    source: str = SERVELENS,
) -> LabelRow:
    """Keep the label of who holds the claim, and decide the case if it was the last one that it waited for."""
    event, detail = ("labeled", None) if source == SERVELENS else ("imported", f"labeled in {source}")
    _take_again(session, row, claim, now)
    given = label_row(claim, label, now, source)
    session.add(given)
    claim.state = ClaimState.LABELED
    claim.lease_expires_at = None
    if row.state is CaseState.GOLD:
        record(session, row, row.state, claim.annotator, now, event, detail)
    elif claim.is_adjudication:
        session.flush()
        _adjudicated(session, schemas, row, given, now)
    else:
        row.labeled += 1
        row.annotator = claim.annotator
        _settle(session, schemas, row, claim.annotator, now, event, detail, given)
    return given


def give_skip(
    session: Session, schemas: SchemasOfCall, row: CaseRow, claim: ClaimRow, reason: str, now: datetime
) -> None:
    """Use the place up without a label. An adjudicator's skip ends the case: it cannot be decided."""
    _take_again(session, row, claim, now)
    claim.state = ClaimState.SKIPPED
    claim.lease_expires_at = None
    claim.skip_reason = reason
    if row.state is CaseState.GOLD:
        record(session, row, row.state, claim.annotator, now, "skipped", reason)
        return
    row.annotator = claim.annotator
    if claim.is_adjudication:
        row.skip_reason = reason
        row.lease_expires_at = None
        session.add(DecisionRow(case_id=row.id, labels=row.labeled, created_at=now))
        record(session, row, CaseState.SKIPPED, claim.annotator, now, "skipped", reason)
        return
    _settle(session, schemas, row, claim.annotator, now, "skipped", reason, None)


def withdraw(
    session: Session, row: CaseRow, claim: ClaimRow | None, annotator: str, now: datetime, lease: timedelta
) -> None:
    """Take a label or a skip back; the annotator holds the case again.

    Raises :class:`~servelens.errors.Conflict` when they gave none, and when somebody decides or has decided the case.
    """
    if claim is None or claim.state not in (ClaimState.LABELED, ClaimState.SKIPPED):
        raise Conflict(
            f"{annotator} has given case {row.id} no answer", field="annotator", fix="Claim it first."
        )
    if (
        claim.is_adjudication
        or row.state is CaseState.ADJUDICATING
        or row.resolution is Resolution.ADJUDICATED
        or (row.state is CaseState.SKIPPED and row.labeled > 0)
    ):
        raise Conflict(
            f"case {row.id} has been decided, or is about to be", field="case_id", fix="Reopen the case."
        )
    detail = claim.skip_reason
    if claim.state is ClaimState.LABELED:
        given = session.scalars(
            select(LabelRow).where(LabelRow.case_id == row.id, LabelRow.annotator == annotator)
        ).one()
        detail = remove_label(session, given)
        row.labeled -= 0 if row.state is CaseState.GOLD else 1
    claim.state = ClaimState.HELD
    claim.skip_reason = None
    undecide(session, row, now)
    row.skip_reason = None
    record(session, row, unfinished_state(row), annotator, now, "withdrawn", detail)
    if row.state is CaseState.GOLD:
        claim.version += 2  # the answer was one change, and this is another
    else:
        claim.version = row.version
        row.annotator = annotator
    start_lease(session, row, claim, now + lease)


def remove_label(session: Session, given: LabelRow) -> str:
    """Take a label out of the database; what it said, for the history. Decisions that named it name none."""
    said = json.dumps(label_as_data(given), ensure_ascii=False)
    session.execute(delete(ImportRow).where(ImportRow.label_id == given.id))
    session.execute(
        update(DecisionRow).where(DecisionRow.label_id == given.id).values(label_id=None),
        execution_options={"synchronize_session": False},
    )
    session.delete(given)
    session.flush()
    return said


def undecide(session: Session, row: CaseRow, now: datetime) -> None:
    """From now on the case has no label, if it had been decided; before it changes its state."""
    if row.state in FINISHED:
        session.add(DecisionRow(case_id=row.id, labels=row.labeled, created_at=now))
    row.resolution = None


def check_held(row: CaseRow, claim: ClaimRow | None, annotator: str, version: int | None) -> ClaimRow:
    """The claim, when its holder may answer. Raises :class:`~servelens.errors.Conflict`."""
    check_may_answer(row, claim, annotator)
    assert claim is not None, "who has no claim may not answer"
    check_version(row, claim, version)
    return claim


def _take_again(session: Session, row: CaseRow, claim: ClaimRow, now: datetime) -> None:
    """A claim that ran out takes its place again: nobody else has."""
    if claim.state is ClaimState.EXPIRED:
        take_place(session, row, claim, now, "renewed", "answered after the lease ran out")


def _adjudicated(
    session: Session, schemas: SchemasOfCall, row: CaseRow, given: LabelRow, now: datetime
) -> None:
    labels = _labels(session, row.id)
    ballots = [_ballot(schemas, row, each) for each in labels]
    _decided(
        session,
        row,
        given,
        Resolution.ADJUDICATED,
        len(labels),
        agreeing(ballots, _ballot(schemas, row, given)),
        now,
    )
    row.annotator = given.annotator
    row.lease_expires_at = None
    record(session, row, CaseState.LABELED, given.annotator, now, "adjudicated")


def _settle(
    session: Session,
    schemas: SchemasOfCall,
    row: CaseRow,
    actor: str,
    now: datetime,
    event: str,
    detail: str | None,
    given: LabelRow | None,
) -> None:
    """Move on after an answer: wait for the others, or decide."""
    skipped, row.lease_expires_at = (0, None) if row.labeled == row.taken else _others(session, row.id)
    if row.taken < row.wanted or row.labeled + skipped < row.taken:
        record(session, row, unfinished_state(row), actor, now, event, detail)
        return
    session.flush()
    # The only label of a case is the one that was just given, which saves reading it.
    labels = [given] if given is not None and row.labeled == 1 else _labels(session, row.id)
    verdict = decide([_ballot(schemas, row, each) for each in labels])
    if not labels:
        row.skip_reason = detail
        session.add(DecisionRow(case_id=row.id, labels=0, created_at=now))
        state = CaseState.SKIPPED
    elif verdict.chosen is None or verdict.resolution is None:
        state = CaseState.DISPUTED
    else:
        chosen = labels[verdict.chosen]
        _decided(session, row, chosen, verdict.resolution, len(labels), verdict.agreement, now)
        state = CaseState.LABELED
    record(session, row, state, actor, now, event, detail)


def _decided(
    session: Session,
    row: CaseRow,
    given: LabelRow,
    resolution: Resolution,
    labels: int,
    agreement: float | None,
    now: datetime,
) -> None:
    session.add(
        DecisionRow(
            case_id=row.id,
            label_id=given.id,
            resolution=resolution,
            labels=labels,
            agreement=agreement,
            created_at=now,
        )
    )
    row.resolution = resolution


def _labels(session: Session, case_id: int) -> list[LabelRow]:
    """What annotators said, without the adjudicator, the earliest first."""
    given = select(LabelRow).where(LabelRow.case_id == case_id, LabelRow.is_adjudication.is_(False))
    return list(session.scalars(given.order_by(LabelRow.id)))


def _ballot(schemas: SchemasOfCall, row: CaseRow, given: LabelRow) -> Ballot:
    return Ballot(read_label(given), schemas.version(row.endpoint, given.schema_version))


def _others(session: Session, case_id: int) -> tuple[int, datetime | None]:
    """How many skipped the case, and when the first of the claims that are held ends."""
    counted = session.execute(
        select(ClaimRow.state, func.count(), func.min(ClaimRow.lease_expires_at))
        .where(
            ClaimRow.case_id == case_id,
            ClaimRow.state.in_([ClaimState.HELD, ClaimState.SKIPPED]),
            ClaimRow.is_adjudication.is_(False),
        )
        .group_by(ClaimRow.state)
    )
    by_state = {state: (number, first) for state, number, first in counted}
    return by_state.get(ClaimState.SKIPPED, (0, None))[0], by_state.get(ClaimState.HELD, (0, None))[1]
