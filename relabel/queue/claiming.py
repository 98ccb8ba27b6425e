"""Which case an annotator is given next.

Invariant: nobody is given a case that they have had, and no case is given to more people than it wants labels.

Claiming must not grow slow with the queue, so it never asks which of all open cases somebody has not had. It looks at two
ends: of the cases that somebody has started, the first by priority that the annotator has not had, within a bounded window;
and of the others, which nobody can have had, the first. The better of the two is theirs. Only when there is neither and the
window was full are all looked at.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Select, exists, false, select, true
from sqlalchemy.orm import Session

from relabel.case import CaseState
from relabel.label_schema import LabelSchema
from relabel.models import CaseRow, ClaimRow, ClaimState
from relabel.queue.known_schemas import SchemasOfCall
from relabel.queue.places import claim_of
from servelens.errors import Invalid

WINDOW: Final = 2_000
_CANDIDATES: Final = 32


def own_claim(
    session: Session, annotator: str, endpoint: str | None, *, is_adjudication: bool = False
) -> tuple[CaseRow, ClaimRow] | None:
    """The case that the annotator holds longest, locked."""
    own = (
        select(CaseRow, ClaimRow)
        .join(ClaimRow, ClaimRow.case_id == CaseRow.id)
        .where(
            ClaimRow.annotator == annotator,
            ClaimRow.state == ClaimState.HELD,
            ClaimRow.is_adjudication.is_(is_adjudication),
        )
        .order_by(ClaimRow.id)
        .limit(1)
        .with_for_update(of=(CaseRow, ClaimRow))
    )
    if endpoint is not None:
        own = own.where(CaseRow.endpoint == endpoint)
    found = session.execute(own).first()
    return None if found is None else (found[0], found[1])


def next_case(
    session: Session, annotator: str, endpoint: str | None
) -> tuple[CaseRow, ClaimRow | None] | None:
    """The next case for the annotator, locked, with their claim of it that ran out."""
    found = _lock_first(session, _ids(session, annotator, endpoint), annotator, wait=False)
    if found is None:
        # All that were found are in others' hands at this moment; of some a place may be left when they let go.
        found = _lock_first(session, _ids(session, annotator, endpoint), annotator, wait=True)
    return found


def next_dispute(
    session: Session, schemas: SchemasOfCall, annotator: str, endpoint: str | None
) -> tuple[CaseRow, ClaimRow | None] | None:
    """The next disputed case that the annotator may decide, locked, with their claim of it that ran out."""
    disputed = CaseRow.state == CaseState.DISPUTED
    if endpoint is not None:
        if not may_adjudicate(schemas.current(endpoint), annotator):
            raise Invalid(
                f"{annotator} does not decide disputes of {endpoint}",
                field="annotator",
                fix="Add the name to the schema's adjudicators.",
            )
        allowed = [endpoint]
    else:
        there = session.scalars(select(CaseRow.endpoint).where(disputed).distinct()).all()
        allowed = [name for name in there if may_adjudicate(schemas.current(name), annotator)]
    ids = session.scalars(
        select(CaseRow.id)
        .where(disputed, CaseRow.endpoint.in_(allowed), ~_touched(CaseRow.id, annotator))
        .order_by(CaseRow.priority.desc(), CaseRow.id)
        .limit(_CANDIDATES)
    ).all()
    return _lock_first(session, list(ids), annotator, wait=False, state=CaseState.DISPUTED)


def may_adjudicate(schema: LabelSchema, annotator: str) -> bool:
    """Whether the schema lets the annotator decide, if they have not labeled the case."""
    return not schema.adjudicators or annotator in schema.adjudicators


def _ids(session: Session, annotator: str, endpoint: str | None) -> list[int]:
    started = _in_order(endpoint, true()).limit(WINDOW).subquery()
    not_had = (
        select(started.c.id, started.c.priority)
        .where(~_touched(started.c.id, annotator))
        .order_by(started.c.priority.desc(), started.c.id)
        .limit(_CANDIDATES)
        .subquery()
    )
    fresh = _in_order(endpoint, false()).limit(_CANDIDATES).subquery()
    both = select(not_had.c.id, not_had.c.priority).union_all(select(fresh.c.id, fresh.c.priority)).subquery()
    first = select(both.c.id).order_by(both.c.priority.desc(), both.c.id).limit(_CANDIDATES)
    ids = list(session.scalars(first))
    if ids or session.scalar(_in_order(endpoint, true()).offset(WINDOW).limit(1)) is None:
        return ids
    beyond = _in_order(endpoint, true()).where(~_touched(CaseRow.id, annotator)).limit(_CANDIDATES)
    return list(session.scalars(beyond))


def _in_order(endpoint: str | None, started: ColumnElement[bool]) -> Select[Any]:
    waiting = select(CaseRow.id, CaseRow.priority).where(
        CaseRow.state == CaseState.OPEN, CaseRow.started == started
    )
    if endpoint is not None:
        waiting = waiting.where(CaseRow.endpoint == endpoint)
    return waiting.order_by(CaseRow.priority.desc(), CaseRow.id)


def _touched(case_id: ColumnElement[int], annotator: str) -> ColumnElement[bool]:
    """Whether the annotator has the case or has had it; who only let a lease run out has not."""
    return exists().where(
        ClaimRow.case_id == case_id, ClaimRow.annotator == annotator, ClaimRow.state != ClaimState.EXPIRED
    )


def _lock_first(
    session: Session,
    ids: list[int],
    annotator: str,
    *,
    wait: bool,
    state: CaseState = CaseState.OPEN,
) -> tuple[CaseRow, ClaimRow | None] | None:
    while ids:
        row = session.scalar(
            select(CaseRow)
            .where(CaseRow.id.in_(ids), CaseRow.state == state)
            .order_by(CaseRow.priority.desc(), CaseRow.id)
            .limit(1)
            .with_for_update(skip_locked=not wait)
        )
        if row is None:
            return None
        claim = claim_of(session, row.id, annotator)
        if claim is None or claim.state is ClaimState.EXPIRED:
            return row, claim
        # The same annotator has claimed it, or even labeled it, in the moment before it was locked.
        ids = [case_id for case_id in ids if case_id != row.id]
    return None
