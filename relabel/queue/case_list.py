"""Lists of cases, a page at a time, and how many there are in each state.

Pages are cut by key (priority, id), never by offset, so the last page costs what the first one does. Two ways lead to a page:
along an index in the order of the list until the page is full, or from the few cases that a narrow filter lets through, which
are then put in order. The first is slow when the filter lets few through, and the second when it lets many through, so a
narrow filter is counted first, up to a bound. Neither reads a case that is not on the page.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, exists, func, literal, or_, select
from sqlalchemy.orm import Session

from relabel.case import CaseState, CaseSummary, Page, ReasonKind
from relabel.models import CaseRow, ClaimRow, ReasonRow
from relabel.queue.case_reader import preview, read_reasons
from servelens.errors import Invalid

MAX_PAGE: Final = 500
_FEW: Final = 3_000
_PREVIEW_READ: Final = 201


@dataclass(frozen=True, slots=True)
class CaseFilter:
    """Which cases; ``None`` is no condition. ``annotator``: who has or has had the case. ``since`` ≤ request time <
    ``until``. ``evaluator``, ``rule`` and ``kind``: those of one of its reasons.
    """

    state: CaseState | None = None
    endpoint: str | None = None
    annotator: str | None = None
    evaluator: str | None = None
    rule: str | None = None
    kind: ReasonKind | None = None
    since: datetime | None = None
    until: datetime | None = None

    def columns(self) -> list[ColumnElement[bool]]:
        """The conditions on the case itself."""
        found: list[ColumnElement[bool]] = []
        if self.state is not None:
            found.append(CaseRow.state == self.state)
        if self.endpoint is not None:
            found.append(CaseRow.endpoint == self.endpoint)
        if self.since is not None:
            found.append(CaseRow.request_time >= self.since)
        if self.until is not None:
            found.append(CaseRow.request_time < self.until)
        return found

    def others(self) -> list[tuple[Any, list[ColumnElement[bool]]]]:
        """The conditions on other tables: of each the column with the case's id, and the conditions."""
        found: list[tuple[Any, list[ColumnElement[bool]]]] = []
        if self.annotator is not None:
            found.append((ClaimRow.case_id, [ClaimRow.annotator == self.annotator]))
        reasons: list[ColumnElement[bool]] = []
        if self.evaluator is not None:
            reasons.append(ReasonRow.evaluator == self.evaluator)
        if self.rule is not None:
            reasons.append(ReasonRow.rule == self.rule)
        if self.kind is not None:
            reasons.append(ReasonRow.kind == self.kind)
        if reasons:
            found.append((ReasonRow.case_id, reasons))
        return found


def read_page(session: Session, wanted: CaseFilter, *, limit: int, cursor: str | None) -> Page:
    """One page, in the order in which cases are claimed."""
    if not 1 <= limit <= MAX_PAGE:
        raise Invalid(f"{limit} is out of range", field="limit", fix=f"Use 1 to {MAX_PAGE}.")
    query = _found(session, wanted)
    if cursor is not None:
        priority, case_id = _position(cursor)
        query = query.where(
            CaseRow.priority <= priority,
            or_(CaseRow.priority < priority, and_(CaseRow.priority == priority, CaseRow.id > case_id)),
        )
    ids = list(session.scalars(query.limit(limit + 1)))
    more = len(ids) > limit
    shown = _summaries(session, ids[:limit])
    return Page(
        cases=shown,
        next_cursor=f"{shown[-1].priority}.{shown[-1].id}" if more else None,
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


def _found(session: Session, wanted: CaseFilter) -> Select[int]:
    query = select(CaseRow.id).where(*wanted.columns())
    narrow = False
    for case_id, conditions in wanted.others():
        if _are_few(session, select(case_id).where(*conditions)):
            few = select(case_id.label("id")).where(*conditions).distinct().subquery()
            query = query.join(few, few.c.id == CaseRow.id)
            narrow = True
        else:
            query = query.where(exists().where(case_id == CaseRow.id, *conditions))
    if not narrow and wanted.endpoint is not None and (wanted.since or wanted.until):
        narrow = _are_few(session, select(CaseRow.request_time).where(*_without_state(wanted)))
    if narrow:
        # The order of an expression: no index is in it, so that the database begins at the narrow end.
        return query.order_by((CaseRow.priority * literal(-1)), CaseRow.id)
    return query.order_by(CaseRow.priority.desc(), CaseRow.id)


def _without_state(wanted: CaseFilter) -> list[ColumnElement[bool]]:
    return CaseFilter(endpoint=wanted.endpoint, since=wanted.since, until=wanted.until).columns()


def _are_few(session: Session, query: Select[Any]) -> bool:
    """Whether the query has no more than so many rows, without counting more than that."""
    return session.scalar(query.offset(_FEW).limit(1)) is None


def _summaries(session: Session, ids: list[int]) -> tuple[CaseSummary, ...]:
    rows = session.execute(
        select(
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
            CaseRow.wanted,
            CaseRow.labeled,
            CaseRow.resolution,
            func.substr(CaseRow.prompt_text, 1, _PREVIEW_READ).label("prompt_preview"),
            func.substr(CaseRow.response_text, 1, _PREVIEW_READ).label("response_preview"),
        ).where(CaseRow.id.in_(ids))
    ).mappings()
    found = {row["id"]: dict(row) for row in rows}
    reasons = read_reasons(session, ids)
    for case_id, row in found.items():
        row["prompt_preview"] = preview(row["prompt_preview"])
        row["response_preview"] = preview(row["response_preview"])
        row["reasons"] = reasons.get(case_id, ())
    return tuple(CaseSummary(**found[case_id]) for case_id in ids)


def _position(cursor: str) -> tuple[int, int]:
    priority, _, case_id = cursor.partition(".")
    try:
        return int(priority), int(case_id)
    except ValueError as error:
        raise Invalid(
            f"{cursor!r} is not a cursor", field="cursor", fix="Use next_cursor of the page before."
        ) from error
