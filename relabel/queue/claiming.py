"""Which case an annotator is given next.

Invariant: nobody is given a case that they have had, and no case is given to more people than it wants labels.

Claiming must not grow slow with the queue, so it never asks which of all open cases somebody has not had. It looks at two
ends: of the cases that somebody has started, the first by priority that the annotator has not had, within a bounded window;
and of the others, which nobody can have had, the first. The better of the two is theirs. Only when there is neither and the
window was full are all looked at.

The statements are made once, and those that only find ids are plain SQL, the same for every database: putting one together
from parts costs more than SQLite needs to run it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import TextClause, bindparam, select, text
from sqlalchemy.orm import Session

from relabel.case import CaseState
from relabel.label_schema import LabelSchema
from relabel.models import CaseRow, ClaimRow, ClaimState
from relabel.queue.known_schemas import SchemasOfCall
from relabel.queue.places import claim_of
from servelens.errors import Invalid

WINDOW: Final = 2_000
_CANDIDATES: Final = 32

_NOT_HAD: Final = """(
    SELECT 1 FROM relabel_claims
    WHERE relabel_claims.case_id = {}.id AND annotator = :annotator AND relabel_claims.state <> 'expired'
) IS NULL"""
"""Who only let a lease run out has not had the case. As NOT EXISTS it would say the same, but PostgreSQL makes a join of that
and then reads all that the annotator ever claimed; so it looks one claim up by its key for each case.
"""
_ORDER: Final = "ORDER BY priority DESC, id"


def _two_ends(place: str) -> str:
    return f"""
SELECT id FROM (
    SELECT id, priority FROM (
        SELECT id, priority FROM (
            SELECT id, priority FROM relabel_cases WHERE {place} AND started = true {_ORDER} LIMIT {WINDOW}
        ) AS in_window
        WHERE {_NOT_HAD.format("in_window")} {_ORDER} LIMIT {_CANDIDATES}
    ) AS begun
    UNION ALL
    SELECT id, priority FROM (
        SELECT id, priority FROM relabel_cases WHERE {place} AND started = false {_ORDER} LIMIT {_CANDIDATES}
    ) AS fresh
) AS both_ends
{_ORDER} LIMIT {_CANDIDATES}"""


def _beyond(place: str) -> str:
    return f"""
SELECT id FROM relabel_cases WHERE {place} AND started = true
    AND EXISTS (SELECT 1 FROM relabel_cases WHERE {place} AND started = true {_ORDER} LIMIT 1 OFFSET {WINDOW})
    AND {_NOT_HAD.format("relabel_cases")}
{_ORDER} LIMIT {_CANDIDATES}"""


def _by_endpoint(make: Any) -> dict[bool, TextClause]:
    """Of all endpoints (``False``), and of one."""
    return {False: text(make("state = 'open'")), True: text(make("endpoint = :endpoint AND state = 'open'"))}


_TWO_ENDS: Final = _by_endpoint(_two_ends)
_BEYOND: Final = _by_endpoint(_beyond)
_OWN: Final = {
    of_one: text(f"""
SELECT relabel_claims.id, case_id FROM relabel_claims JOIN relabel_cases ON relabel_cases.id = case_id
WHERE relabel_claims.annotator = :annotator AND relabel_claims.state = 'held' AND is_adjudication = :is_adjudication
    {"AND endpoint = :endpoint" if of_one else ""}
ORDER BY relabel_claims.id LIMIT 1""")
    for of_one in (False, True)
}
_LOCK: Final = (
    select(CaseRow)
    .where(
        CaseRow.id.in_(bindparam("ids", expanding=True)),
        CaseRow.state == bindparam("state", type_=CaseRow.state.type),
    )
    .order_by(CaseRow.priority.desc(), CaseRow.id)
    .limit(1)
    .with_for_update(skip_locked=True)
)


def own_claim(
    session: Session, annotator: str, endpoint: str | None, *, is_adjudication: bool = False
) -> tuple[CaseRow, ClaimRow] | None:
    """The case that the annotator holds longest, locked."""
    asked = {"annotator": annotator, "endpoint": endpoint, "is_adjudication": is_adjudication}
    found = session.execute(_OWN[endpoint is not None], asked).first()
    if found is None:
        return None
    row = session.scalar(select(CaseRow).where(CaseRow.id == found.case_id).with_for_update())
    claim = session.get(ClaimRow, found.id)
    if row is None or claim is None:
        return None
    # Between the two the same annotator may have answered it, or somebody may have given it to another.
    is_theirs = claim.state is ClaimState.HELD and claim.annotator == annotator
    return (row, claim) if is_theirs and claim.is_adjudication == is_adjudication else None


@dataclass(frozen=True, slots=True)
class Busy:
    """There are cases for the annotator, but others are at all of them at this moment. Of ``case_id``, the first, a place
    may be left when they let go.
    """

    case_id: int


def next_case(
    session: Session, annotator: str, endpoint: str | None
) -> tuple[CaseRow, ClaimRow | None] | Busy | None:
    """The next case for the annotator, locked, with their claim of it that ran out."""
    return _lock_first(session, _ids(session, annotator, endpoint), annotator)


def wait_for(session: Session, busy: Busy) -> None:
    """Wait until nobody is at the case. The transaction must hold no other: two might wait for each other."""
    session.execute(select(CaseRow.id).where(CaseRow.id == busy.case_id).with_for_update())


def next_dispute(
    session: Session, schemas: SchemasOfCall, annotator: str, endpoint: str | None
) -> tuple[CaseRow, ClaimRow | None] | Busy | None:
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
    not_had = text(_NOT_HAD.format("relabel_cases")).bindparams(annotator=annotator)
    ids = session.scalars(
        select(CaseRow.id)
        .where(disputed, CaseRow.endpoint.in_(allowed), not_had)
        .order_by(CaseRow.priority.desc(), CaseRow.id)
        .limit(_CANDIDATES)
    ).all()
    return _lock_first(session, ids, annotator, CaseState.DISPUTED)


def may_adjudicate(schema: LabelSchema, annotator: str) -> bool:
    """Whether the schema lets the annotator decide, if they have not labeled the case."""
    return not schema.adjudicators or annotator in schema.adjudicators


def _ids(session: Session, annotator: str, endpoint: str | None) -> Sequence[int]:
    asked = {"annotator": annotator, "endpoint": endpoint}
    of_one = endpoint is not None
    found = session.scalars(_TWO_ENDS[of_one], asked).all() or session.scalars(_BEYOND[of_one], asked).all()
    # On SQLite nobody else changes anything meanwhile, so the first is free. More only mislead it into another index.
    return found[:1] if session.get_bind().dialect.name == "sqlite" else found


def _lock_first(
    session: Session, ids: Sequence[int], annotator: str, state: CaseState = CaseState.OPEN
) -> tuple[CaseRow, ClaimRow | None] | Busy | None:
    while ids:
        row = session.scalar(_LOCK, {"ids": ids, "state": state})
        if row is None:
            return Busy(ids[0])
        claim = claim_of(session, row.id, annotator) if row.started else None
        if claim is None or claim.state is ClaimState.EXPIRED:
            return row, claim
        # The same annotator has claimed it, or even labeled it, in the moment before it was locked.
        ids = [case_id for case_id in ids if case_id != row.id]
    return None
