"""Cases about records that are to be forgotten leave the queue, with their labels and their history.

Invariant: a case stays while another record has the same content, and is then that record's. The text is the other's
as well, and so is the label. A record that says only nearly the same keeps no case: its text is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from relabel.models import (
    CaseRow,
    ClaimRow,
    CommentRow,
    DecisionRow,
    HistoryRow,
    ImportRow,
    LabelRow,
    OccurrenceRow,
    PendingRow,
    ReasonRow,
    VectorRow,
)
from servelens.database import Database

_RECORDS_PER_TRANSACTION: Final = 500
_RECORD: Final = "databricks_request_id"


def forget_records(database: Database, endpoint: str, request_ids: Sequence[str]) -> Mapping[str, int]:
    """Delete the cases of ``request_ids``; how many ``cases`` and ``labels`` left. Raises what sessions raise."""
    gone = {"cases": 0, "labels": 0}
    for first in range(0, len(request_ids), _RECORDS_PER_TRANSACTION):
        with database.session() as session:
            cases, labels = _forget(session, endpoint, request_ids[first : first + _RECORDS_PER_TRANSACTION])
        gone["cases"] += cases
        gone["labels"] += labels
    return gone


def records_of(database: Database, endpoint: str, units: Sequence[str]) -> list[str]:
    """The records of ``units`` that cases are made of; their cases outlive what the inference table keeps. Raises what sessions
    raise.
    """
    wanted = select(CaseRow.databricks_request_id).where(
        CaseRow.endpoint == endpoint, CaseRow.unit.in_(list(units))
    )
    with database.session(read_only=True) as session:
        return sorted(session.scalars(wanted))


def _forget(session: Session, endpoint: str, request_ids: Sequence[str]) -> tuple[int, int]:
    ours = (OccurrenceRow.endpoint == endpoint, OccurrenceRow.databricks_request_id.in_(request_ids))
    session.execute(
        delete(PendingRow).where(
            PendingRow.endpoint == endpoint, PendingRow.databricks_request_id.in_(request_ids)
        )
    )
    concerned = select(OccurrenceRow.case_id).where(*ours)
    cases = session.scalars(
        select(CaseRow).where(CaseRow.id.in_(concerned)).order_by(CaseRow.id).with_for_update()
    ).all()
    session.execute(delete(OccurrenceRow).where(*ours))
    left: list[int] = []
    ids = frozenset(request_ids)
    for case in cases:
        other = session.scalar(
            select(OccurrenceRow)
            .where(OccurrenceRow.case_id == case.id, OccurrenceRow.similarity.is_(None))
            .order_by(OccurrenceRow.request_time, OccurrenceRow.databricks_request_id)
            .limit(1)
        )
        if other is None:
            left.append(case.id)
            continue
        case.occurrences = (
            session.scalar(
                select(func.count()).select_from(OccurrenceRow).where(OccurrenceRow.case_id == case.id)
            )
            or 1
        )
        if case.databricks_request_id in ids:
            case.databricks_request_id, case.request_time = other.databricks_request_id, other.request_time
            case.unit = case.session = None  # whose the other is, nothing here knows
        case.alternatives = _unnamed(case.alternatives, ids)
    theirs = select(LabelRow.id).where(LabelRow.case_id.in_(left))
    session.execute(delete(ImportRow).where(ImportRow.label_id.in_(theirs)))
    session.execute(delete(DecisionRow).where(DecisionRow.case_id.in_(left)))
    labels = session.scalars(delete(LabelRow).where(LabelRow.case_id.in_(left)).returning(LabelRow.id)).all()
    for row in (OccurrenceRow, ReasonRow, HistoryRow, ClaimRow, CommentRow, VectorRow):
        session.execute(delete(row).where(row.case_id.in_(left)))
    session.execute(delete(CaseRow).where(CaseRow.id.in_(left)))
    return len(left), len(labels)


def _unnamed(alternatives: list[dict[str, Any]] | None, ids: frozenset[str]) -> list[dict[str, Any]] | None:
    """Other answers without the ids of forgotten records."""
    if alternatives is None or not any(each.get(_RECORD) in ids for each in alternatives):
        return alternatives
    return [{**each, _RECORD: None} if each.get(_RECORD) in ids else each for each in alternatives]
