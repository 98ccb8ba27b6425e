"""Reads cases out of the database: one whole, a page of a list, counts, the history.

Pages are cut by key (priority, id), never by offset, so the last page costs what the first one does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from relabel.case import (
    Case,
    CaseState,
    CaseSummary,
    HistoryEntry,
    Page,
    Reason,
    RecordedScore,
)
from relabel.label import GivenLabel, Label
from relabel.models import CaseRow, HistoryRow, LabelRow, ReasonRow
from servelens.errors import Invalid

MAX_PAGE = 500
_PREVIEW_LENGTH = 200


def read_case(session: Session, row: CaseRow) -> Case:
    """The whole case of a row of this session."""
    return Case(
        id=row.id,
        endpoint=row.endpoint,
        databricks_request_id=row.databricks_request_id,
        state=row.state,
        priority=row.priority,
        occurrences=row.occurrences,
        version=row.version,
        annotator=row.annotator,
        lease_expires_at=row.lease_expires_at,
        served_entity=row.served_entity,
        variant=row.variant,
        model=row.model,
        request_time=row.request_time,
        created_at=row.created_at,
        updated_at=row.updated_at,
        prompt_preview=_preview(row.prompt_text),
        response_preview=_preview(row.response_text),
        reasons=_reasons(session, [row.id]).get(row.id, ()),
        messages=tuple(row.messages),
        answered=row.answered,
        tools=None if row.tools is None else tuple(row.tools),
        prompt_text=row.prompt_text,
        response_text=row.response_text,
        scores=tuple(RecordedScore(**score) for score in row.scores),
        labels=_labels(session, row.id),
        skip_reason=row.skip_reason,
    )


def read_history(session: Session, case_id: int) -> tuple[HistoryEntry, ...]:
    """The changes of a case's state, the oldest first."""
    rows = session.scalars(select(HistoryRow).where(HistoryRow.case_id == case_id).order_by(HistoryRow.id))
    return tuple(
        HistoryEntry(row.at, row.from_state, row.to_state, row.actor, row.detail, row.event) for row in rows
    )


def count_cases(session: Session, endpoint: str | None) -> Mapping[str, Mapping[CaseState, int]]:
    """Cases per endpoint and state."""
    counted = select(CaseRow.endpoint, CaseRow.state, func.count()).group_by(CaseRow.endpoint, CaseRow.state)
    if endpoint is not None:
        counted = counted.where(CaseRow.endpoint == endpoint)
    counts: dict[str, dict[CaseState, int]] = defaultdict(lambda: dict.fromkeys(CaseState, 0))
    if endpoint is not None:
        counts[endpoint] = dict.fromkeys(CaseState, 0)
    for name, state, number in session.execute(counted):
        counts[name][state] = number
    return dict(sorted(counts.items()))


def case_filters(
    *,
    state: CaseState | None,
    endpoint: str | None,
    annotator: str | None,
    evaluator: str | None,
    since: datetime | None,
    until: datetime | None,
) -> list[ColumnElement[bool]]:
    """Conditions on :class:`~relabel.models.CaseRow`; ``None`` is no condition."""
    filters: list[ColumnElement[bool]] = []
    if state is not None:
        filters.append(CaseRow.state == state)
    if endpoint is not None:
        filters.append(CaseRow.endpoint == endpoint)
    if annotator is not None:
        filters.append(CaseRow.annotator == annotator)
    if evaluator is not None:
        filters.append(exists().where(ReasonRow.case_id == CaseRow.id, ReasonRow.evaluator == evaluator))
    if since is not None:
        filters.append(CaseRow.request_time >= since)
    if until is not None:
        filters.append(CaseRow.request_time < until)
    return filters


def read_page(
    session: Session, filters: Sequence[ColumnElement[bool]], *, limit: int, cursor: str | None
) -> Page:
    """One page, in the order in which cases are claimed."""
    if not 1 <= limit <= MAX_PAGE:
        raise Invalid(f"{limit} is out of range", field="limit", fix=f"Use 1 to {MAX_PAGE}.")
    wanted = select(
        CaseRow.id,
        CaseRow.endpoint,
        CaseRow.databricks_request_id,
        CaseRow.state,
        CaseRow.priority,
        CaseRow.occurrences,
        CaseRow.version,
        CaseRow.annotator,
        CaseRow.lease_expires_at,
        CaseRow.served_entity,
        CaseRow.variant,
        CaseRow.model,
        CaseRow.request_time,
        CaseRow.created_at,
        CaseRow.updated_at,
        func.substr(CaseRow.prompt_text, 1, _PREVIEW_LENGTH + 1).label("prompt_preview"),
        func.substr(CaseRow.response_text, 1, _PREVIEW_LENGTH + 1).label("response_preview"),
    ).where(*filters)
    if cursor is not None:
        priority, case_id = _position(cursor)
        wanted = wanted.where(
            CaseRow.priority <= priority,
            or_(CaseRow.priority < priority, and_(CaseRow.priority == priority, CaseRow.id > case_id)),
        )
    rows = session.execute(wanted.order_by(CaseRow.priority.desc(), CaseRow.id).limit(limit + 1)).mappings()
    found = [dict(row) for row in rows]
    shown = found[:limit]
    reasons = _reasons(session, [row["id"] for row in shown])
    for row in shown:
        row["prompt_preview"] = _preview(row["prompt_preview"])
        row["response_preview"] = _preview(row["response_preview"])
        row["reasons"] = reasons.get(row["id"], ())
    more = len(found) > limit
    return Page(
        cases=tuple(CaseSummary(**row) for row in shown),
        next_cursor=f"{shown[-1]['priority']}.{shown[-1]['id']}" if more else None,
    )


def _position(cursor: str) -> tuple[int, int]:
    priority, _, case_id = cursor.partition(".")
    try:
        return int(priority), int(case_id)
    except ValueError as error:
        raise Invalid(
            f"{cursor!r} is not a cursor", field="cursor", fix="Use next_cursor of the page before."
        ) from error


def _preview(text: str | None) -> str | None:
    if text is None or len(text) <= _PREVIEW_LENGTH:
        return text
    return text[:_PREVIEW_LENGTH].rstrip() + "…"


def _reasons(session: Session, case_ids: Sequence[int]) -> dict[int, tuple[Reason, ...]]:
    found: dict[int, list[Reason]] = defaultdict(list)
    rows = session.scalars(
        select(ReasonRow)
        .where(ReasonRow.case_id.in_(case_ids))
        .order_by(ReasonRow.case_id, ReasonRow.priority.desc(), ReasonRow.id)
    )
    for row in rows:
        found[row.case_id].append(
            Reason(
                rule=row.rule,
                kind=row.kind,
                priority=row.priority,
                evaluator=row.evaluator,
                evaluator_version=row.evaluator_version,
                target=row.target,
                score=row.score,
                direction=row.direction,
                threshold=row.threshold,
                label=row.label,
                detail=row.detail,
            )
        )
    return {case_id: tuple(reasons) for case_id, reasons in found.items()}


def _labels(session: Session, case_id: int) -> tuple[GivenLabel, ...]:
    rows = session.scalars(select(LabelRow).where(LabelRow.case_id == case_id).order_by(LabelRow.id))
    return tuple(
        GivenLabel(
            row.annotator,
            read_label(row),
            row.created_at,
            row.schema_version,
            row.is_adjudication,
            row.duration_s,
            row.source,
        )
        for row in rows
    )


def read_label(row: LabelRow) -> Label:
    """The label of a row."""
    return Label(
        row.rating, row.corrected_answer, tuple(row.tags), row.comment, row.preferred, row.values or {}
    )
