"""The queue of cases: who looks at which case, and for how long.

Invariants: at most one annotator holds a case at any moment, and a case is labeled at most once. Both rest on
the database: a row is locked before its state is read (SQLite: one writing transaction at a time; PostgreSQL:
FOR UPDATE, with SKIP LOCKED when claiming, so that annotators do not queue behind each other). A lease that
ran out frees the case for others, but the label of its holder is still taken as long as nobody else has
claimed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, load_only

from relabel.case import Case, CaseState, HistoryEntry, Page, Resolution, checked_annotator, checked_reason
from relabel.label import Label
from relabel.models import CaseRow, DecisionRow, HistoryRow, LabelRow
from relabel.queue.case_reader import (
    case_filters,
    count_cases,
    read_case,
    read_history,
    read_label,
    read_page,
)
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Conflict, Invalid, Missing

_EXPIRED_PER_CLAIM = 100
_SYSTEM = "lease"


class CaseQueue:
    """The cases of all endpoints in ``database``. ``lease_s`` is how long a claim lasts, in seconds.

    Every method is one transaction and may be called from any thread. ``annotator`` is the name of a person;
    what they may raise besides: :class:`~servelens.errors.Missing` for an unknown case,
    :class:`~servelens.errors.Unavailable` when the database fails.
    """

    def __init__(self, database: Database, clock: Clock, *, lease_s: float = 900.0) -> None:
        if lease_s <= 0:
            raise Invalid(f"{lease_s:g} is not a time", field="lease_s", fix="Use a number over 0.")
        self._database = database
        self._clock = clock
        self._lease = timedelta(seconds=lease_s)

    def claim(self, annotator: str, endpoint: str | None = None) -> Case | None:
        """The annotator's own claimed case, else the open one of the highest priority, among those the
        oldest.

        The lease starts anew. ``None`` when there is nothing to do.
        """
        annotator = checked_annotator(annotator)
        now = self._clock.now()
        with self._database.session() as session:
            row = session.scalar(_own_case(annotator, endpoint))
            if row is None:
                self._free_expired(session, now)
                row = session.scalar(_next_open_case(endpoint))
                if row is None:
                    return None
                _move(session, row, CaseState.CLAIMED, annotator, now)
                row.annotator = annotator
            row.lease_expires_at = now + self._lease
            session.flush()
            return read_case(session, row)

    def renew(self, case_id: int, annotator: str) -> Case:
        """Start the lease anew. Raises :class:`~servelens.errors.Conflict` when it is not the annotator's."""
        annotator = checked_annotator(annotator)
        now = self._clock.now()
        with self._database.session() as session:
            row = _locked(session, case_id)
            _check_holder(row, annotator)
            if row.state is CaseState.OPEN:
                _move(session, row, CaseState.CLAIMED, annotator, now, "renewed after the lease ran out")
            row.lease_expires_at = now + self._lease
            session.flush()
            return read_case(session, row)

    def submit(self, case_id: int, annotator: str, label: Label, *, version: int | None = None) -> Case:
        """Give the case its label.

        The same label from the same annotator again changes nothing. ``version``: the case's version that the
        annotator saw. Raises :class:`~servelens.errors.Conflict` when the case is somebody else's by now, is
        finished, was never claimed, or has another version.
        """
        annotator = checked_annotator(annotator)
        now = self._clock.now()
        with self._database.session() as session:
            row = _locked(session, case_id)
            if not _is_labeled_so(session, row, annotator, label):
                _check_holder(row, annotator)
                _check_version(row, version)
                given = LabelRow(
                    case_id=row.id,
                    annotator=annotator,
                    rating=label.rating,
                    corrected_answer=label.corrected_answer,
                    tags=list(label.tags),
                    comment=label.comment,
                    preferred=label.preferred,
                    values=dict(label.values) or None,
                    created_at=now,
                )
                session.add(given)
                session.flush()
                session.add(
                    DecisionRow(
                        case_id=row.id,
                        label_id=given.id,
                        resolution=Resolution.SINGLE,
                        labels=1,
                        agreement=1.0,
                        created_at=now,
                    )
                )
                row.labeled, row.resolution = 1, Resolution.SINGLE
                _finish(session, row, CaseState.LABELED, annotator, now)
                session.flush()
            return read_case(session, row)

    def skip(self, case_id: int, annotator: str, reason: str, *, version: int | None = None) -> Case:
        """Finish the case without a label; the same skip again changes nothing. Raises as :meth:`submit`."""
        annotator = checked_annotator(annotator)
        reason = checked_reason(reason)
        now = self._clock.now()
        with self._database.session() as session:
            row = _locked(session, case_id)
            repeated = (
                row.state is CaseState.SKIPPED and row.annotator == annotator and row.skip_reason == reason
            )
            if not repeated:
                _check_holder(row, annotator)
                _check_version(row, version)
                row.skip_reason = reason
                session.add(DecisionRow(case_id=row.id, labels=0, created_at=now))
                _finish(session, row, CaseState.SKIPPED, annotator, now, reason)
                session.flush()
            return read_case(session, row)

    def release(self, case_id: int, annotator: str) -> Case:
        """Give the case back for others; releasing an open case changes nothing.

        Raises :class:`~servelens.errors.Conflict` when somebody else has the case or it is finished.
        """
        annotator = checked_annotator(annotator)
        with self._database.session() as session:
            row = _locked(session, case_id)
            if row.state is CaseState.OPEN:
                if row.annotator == annotator:
                    row.annotator = None
            else:
                _check_holder(row, annotator)
                _move(session, row, CaseState.OPEN, annotator, self._clock.now(), "released")
                row.annotator = None
                row.lease_expires_at = None
            session.flush()
            return read_case(session, row)

    def get(self, case_id: int) -> Case:
        """The case, whoever holds it."""
        with self._database.session(read_only=True) as session:
            row = session.get(CaseRow, case_id)
            if row is None:
                raise _no_case(case_id)
            return read_case(session, row)

    def history(self, case_id: int) -> tuple[HistoryEntry, ...]:
        """All changes of the case's state, the oldest first."""
        with self._database.session(read_only=True) as session:
            if session.get(CaseRow, case_id, options=[load_only(CaseRow.id)]) is None:
                raise _no_case(case_id)
            return read_history(session, case_id)

    def list(
        self,
        *,
        state: CaseState | None = None,
        endpoint: str | None = None,
        annotator: str | None = None,
        evaluator: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Cases in the order in which they are claimed; ``since`` ≤ request time < ``until``.

        ``limit`` is 1 to 500; ``cursor`` is :attr:`~relabel.case.Page.next_cursor` of the page before. Raises
        :class:`~servelens.errors.Invalid` for another limit or a cursor that is none.
        """
        filters = case_filters(
            state=state, endpoint=endpoint, annotator=annotator, evaluator=evaluator, since=since, until=until
        )
        with self._database.session(read_only=True) as session:
            return read_page(session, filters, limit=limit, cursor=cursor)

    def counts(self, endpoint: str | None = None) -> Mapping[str, Mapping[CaseState, int]]:
        """Cases per endpoint and state; every state is there, with 0 when there is none in it.

        An expired lease counts as claimed until somebody claims.
        """
        with self._database.session(read_only=True) as session:
            return count_cases(session, endpoint)

    def _free_expired(self, session: Session, now: datetime) -> None:
        expired = (
            select(CaseRow)
            .where(CaseRow.state == CaseState.CLAIMED, CaseRow.lease_expires_at <= now)
            .order_by(CaseRow.lease_expires_at)
            .limit(_EXPIRED_PER_CLAIM)
            .options(load_only(CaseRow.state, CaseRow.annotator, CaseRow.version))
            .with_for_update(skip_locked=True)
        )
        for row in session.scalars(expired):
            # The version stays: nobody else has touched the case yet, so its holder's label is still welcome.
            _move(
                session,
                row,
                CaseState.OPEN,
                _SYSTEM,
                now,
                f"the lease of {row.annotator} ran out",
                new_version=False,
            )
            row.lease_expires_at = None
        session.flush()


def _own_case(annotator: str, endpoint: str | None) -> Select[CaseRow]:
    own = select(CaseRow).where(CaseRow.annotator == annotator, CaseRow.state == CaseState.CLAIMED)
    if endpoint is not None:
        own = own.where(CaseRow.endpoint == endpoint)
    return own.order_by(CaseRow.id).limit(1).with_for_update()


def _next_open_case(endpoint: str | None) -> Select[CaseRow]:
    waiting = select(CaseRow).where(CaseRow.state == CaseState.OPEN)
    if endpoint is not None:
        waiting = waiting.where(CaseRow.endpoint == endpoint)
    return waiting.order_by(CaseRow.priority.desc(), CaseRow.id).limit(1).with_for_update(skip_locked=True)


def _locked(session: Session, case_id: int) -> CaseRow:
    row = session.scalar(select(CaseRow).where(CaseRow.id == case_id).with_for_update())
    if row is None:
        raise _no_case(case_id)
    return row


def _no_case(case_id: int) -> Missing:
    return Missing(f"there is no case {case_id}", field="case_id")


def _check_version(row: CaseRow, version: int | None) -> None:
    if version is not None and version != row.version:
        raise Conflict(
            f"case {row.id} has changed since version {version}; it is at {row.version} now",
            field="version",
            fix="Read the case again.",
        )


def _check_holder(row: CaseRow, annotator: str) -> None:
    if row.state in (CaseState.LABELED, CaseState.SKIPPED):
        raise Conflict(
            f"case {row.id} has been {row.state} by {row.annotator} already",
            field="case_id",
            fix="Claim another case.",
        )
    if row.annotator is None:
        raise Conflict(f"case {row.id} is not claimed", field="case_id", fix="Claim it first.")
    if row.annotator != annotator:
        raise Conflict(
            f"case {row.id} is claimed by {row.annotator}", field="annotator", fix="Claim another case."
        )


def _is_labeled_so(session: Session, row: CaseRow, annotator: str, label: Label) -> bool:
    given = session.scalar(
        select(LabelRow).where(LabelRow.case_id == row.id, LabelRow.annotator == annotator)
    )
    return given is not None and label == read_label(given)


def _finish(
    session: Session, row: CaseRow, state: CaseState, annotator: str, now: datetime, detail: str | None = None
) -> None:
    _move(session, row, state, annotator, now, detail)
    row.lease_expires_at = None


def _move(
    session: Session,
    row: CaseRow,
    state: CaseState,
    actor: str,
    now: datetime,
    detail: str | None = None,
    *,
    new_version: bool = True,
) -> None:
    session.add(
        HistoryRow(case_id=row.id, at=now, from_state=row.state, to_state=state, actor=actor, detail=detail)
    )
    row.state = state
    row.updated_at = now
    if new_version:
        row.version += 1
