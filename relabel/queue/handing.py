"""Cases pass from hand to hand other than by an answer: given back, given to somebody else, opened again, made gold.

Invariant: labels leave a case only into its history.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from relabel.case import CaseState
from relabel.label_schema import LabelSchema
from relabel.models import CaseRow, ClaimRow, ClaimState, LabelRow
from relabel.queue.answering import remove_label, undecide
from relabel.queue.answers import read_answers, texts_of
from relabel.queue.claiming import may_adjudicate
from relabel.queue.known_schemas import SchemasOfCall
from relabel.queue.places import (
    SAID,
    check_may_answer,
    claim_of,
    first_end,
    not_held,
    record,
    start_lease,
    unfinished_state,
)
from servelens.errors import Conflict


def release(session: Session, row: CaseRow, claim: ClaimRow | None, annotator: str, now: datetime) -> None:
    """Free the annotator's place; nothing happens when they have none and the case is open."""
    if claim is None and row.state in (CaseState.OPEN, CaseState.GOLD):
        return
    if claim is not None and claim.state is ClaimState.RELEASED:
        return
    if row.state is CaseState.GOLD:
        check_may_answer(row, claim, annotator)
        assert claim is not None, "who has no claim may not answer"
        claim.state = ClaimState.RELEASED  # kept, so that the case is not offered again
        claim.lease_expires_at = None
        record(session, row, row.state, annotator, now, "released")
        return
    if claim is not None and claim.state is ClaimState.EXPIRED:
        _remove_claim(session, row, claim)
        return
    check_may_answer(row, claim, annotator)
    assert claim is not None, "who has no claim may not answer"
    if claim.is_adjudication:
        state = CaseState.DISPUTED
    else:
        row.taken -= 1
        state = unfinished_state(row)
    record(session, row, state, annotator, now, "released")
    _remove_claim(session, row, claim)


def reassign(
    session: Session,
    schemas: SchemasOfCall,
    row: CaseRow,
    from_annotator: str,
    to_annotator: str,
    actor: str,
    now: datetime,
    lease: timedelta,
) -> ClaimRow:
    """Give a place that is held to somebody else, with a new lease and a new version."""
    claim = claim_of(session, row.id, from_annotator)
    if claim is None or claim.state is not ClaimState.HELD:
        raise not_held(row, from_annotator)
    if from_annotator == to_annotator:
        raise Conflict(
            f"{to_annotator} holds case {row.id} already", field="to_annotator", fix="Name somebody else."
        )
    there = claim_of(session, row.id, to_annotator)
    if there is not None and there.state is not ClaimState.EXPIRED:
        raise Conflict(
            f"{to_annotator} has or has had case {row.id} already",
            field="to_annotator",
            fix="Name somebody who has not.",
        )
    if claim.is_adjudication and not may_adjudicate(schemas.current(row.endpoint), to_annotator):
        raise Conflict(
            f"{to_annotator} does not decide disputes of {row.endpoint}",
            field="to_annotator",
            fix="Name one of the schema's adjudicators.",
        )
    if there is not None:
        session.delete(there)
        session.flush()
    claim.annotator = to_annotator
    claim.claimed_at = now
    record(session, row, row.state, actor, now, "reassigned", f"from {from_annotator} to {to_annotator}")
    if row.state is CaseState.GOLD:
        claim.version += 1
    else:
        claim.version = row.version
        row.annotator = to_annotator
    start_lease(session, row, claim, now + lease)
    return claim


def reopen(session: Session, row: CaseRow, actor: str, reason: str, now: datetime) -> None:
    """All labels and claims leave, and the case waits for new ones. Raises :class:`~servelens.errors.Conflict` while
    annotators are at it, for that would throw away what they are doing.
    """
    if row.state in (CaseState.OPEN, CaseState.CLAIMED, CaseState.GOLD):
        raise Conflict(
            f"case {row.id} is {row.state}, so there is nothing to reopen",
            field="case_id",
            fix="Reopen cases that are labeled, skipped or disputed.",
        )
    undecide(session, row, now)
    said = _empty(session, row)
    record(session, row, CaseState.OPEN, actor, now, "reopened", _detail(reason, said))


def make_gold(
    session: Session,
    schema: LabelSchema,
    row: CaseRow,
    values: Mapping[str, Any],
    actor: str,
    now: datetime,
) -> None:
    """The case has a known answer from now on: ``values`` by the schema's fields.

    Raises :class:`~servelens.errors.Invalid` for an answer that the schema does not allow, and
    :class:`~servelens.errors.Conflict` while somebody works on the case.
    """
    known = schema.answers(read_answers(schema, values, None, texts=texts_of(row)))
    is_in_hand = row.state is CaseState.OPEN and row.taken > 0
    if is_in_hand or row.state in (CaseState.CLAIMED, CaseState.DISPUTED, CaseState.ADJUDICATING):
        raise Conflict(
            f"case {row.id} is being worked on: it is {row.state}",
            field="case_id",
            fix="Wait until it is labeled, or use a case that nobody has claimed.",
        )
    if row.state is not CaseState.GOLD:
        undecide(session, row, now)
        row.annotator = row.lease_expires_at = row.skip_reason = None
        row.wanted = schema.annotators
    detail = json.dumps(known, ensure_ascii=False)
    record(session, row, CaseState.GOLD, actor, now, "gold", detail)
    row.gold = known


def unmake_gold(session: Session, row: CaseRow, actor: str, now: datetime) -> None:
    """The case is like any other again, and open: the labels that measured annotators leave into the history."""
    if row.state is not CaseState.GOLD:
        raise Conflict(f"case {row.id} is no gold case", field="case_id", fix="Give the known answer.")
    detail = _detail("the answer is no longer taken as known", _empty(session, row))
    row.gold = None
    record(session, row, CaseState.OPEN, actor, now, "gold", detail, ends_gold=True)


def _empty(session: Session, row: CaseRow) -> list[str]:
    """Take all labels and claims out; what the labels said."""
    labels = session.scalars(select(LabelRow).where(LabelRow.case_id == row.id).order_by(LabelRow.id)).all()
    said = [remove_label(session, given) for given in labels]
    session.execute(delete(ClaimRow).where(ClaimRow.case_id == row.id))
    row.taken = row.labeled = 0
    row.annotator = row.lease_expires_at = row.skip_reason = None
    return said


def _detail(reason: str, said: list[str]) -> str:
    return f"{reason}{SAID}[{', '.join(said)}]" if said else reason


def _remove_claim(session: Session, row: CaseRow, claim: ClaimRow) -> None:
    session.delete(claim)
    session.flush()
    row.lease_expires_at = first_end(session, row.id)
    working = (ClaimState.HELD, ClaimState.LABELED, ClaimState.SKIPPED)
    row.annotator = session.scalar(
        select(ClaimRow.annotator)
        .where(ClaimRow.case_id == row.id, ClaimRow.state.in_(working))
        .order_by(ClaimRow.id.desc())
        .limit(1)
    )
