"""Reads a case and its history out of the database, as far as the reader may see them.

Invariant: who has yet to judge a case sees nobody's judgement but their own, and who is measured by a gold case cannot tell
it from another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from relabel.case import (
    Alternative,
    Case,
    CaseState,
    Comment,
    HistoryEntry,
    Reason,
    RecordedScore,
)
from relabel.label import GivenLabel, Label
from relabel.models import CaseRow, ClaimRow, ClaimState, CommentRow, HistoryRow, LabelRow, ReasonRow
from relabel.queue.answers import read_label
from relabel.queue.gold import as_any_other
from relabel.queue.places import FINISHED, SAID

_PREVIEW_LENGTH: Final = 200
_REASONS: Final = (
    select(
        ReasonRow.case_id,
        ReasonRow.rule,
        ReasonRow.kind,
        ReasonRow.priority,
        ReasonRow.evaluator,
        ReasonRow.evaluator_version,
        ReasonRow.target,
        ReasonRow.score,
        ReasonRow.direction,
        ReasonRow.threshold,
        ReasonRow.label,
        ReasonRow.detail,
    )
    .where(ReasonRow.case_id.in_(bindparam("ids", expanding=True)))
    .order_by(ReasonRow.case_id, ReasonRow.priority.desc(), ReasonRow.id)
)
_LABELS: Final = select(LabelRow).where(LabelRow.case_id == bindparam("case_id")).order_by(LabelRow.id)
_OWN_LABEL: Final = _LABELS.where(LabelRow.annotator == bindparam("annotator"))
_COMMENTS: Final = (
    select(CommentRow.author, CommentRow.text, CommentRow.created_at)
    .where(CommentRow.case_id == bindparam("case_id"))
    .order_by(CommentRow.id)
)


def read_case(
    session: Session, row: CaseRow, reader: str | None = None, claim: ClaimRow | None = None
) -> Case:
    """The whole case of a row of this session, as ``reader`` may see it; ``claim`` is theirs, where they have one."""
    holds = claim is not None and claim.state is ClaimState.HELD
    state, version, annotator, ends = row.state, row.version, row.annotator, row.lease_expires_at
    if claim is not None and holds:
        state = CaseState.ADJUDICATING if claim.is_adjudication else CaseState.CLAIMED
        version, annotator, ends = claim.version, claim.annotator, claim.lease_expires_at
    case = Case(
        id=row.id,
        endpoint=row.endpoint,
        databricks_request_id=row.databricks_request_id,
        state=state,
        priority=row.priority,
        occurrences=row.occurrences,
        version=version,
        annotator=annotator,
        lease_expires_at=ends,
        served_entity=row.served_entity,
        variant=row.variant,
        model=row.model,
        request_time=row.request_time,
        created_at=row.created_at,
        updated_at=row.updated_at,
        prompt_preview=preview(row.prompt_text),
        response_preview=preview(row.response_text),
        reasons=read_reasons(session, [row.id]).get(row.id, ()),
        wanted=row.wanted,
        labeled=row.labeled,
        resolution=row.resolution,
        messages=tuple(row.messages),
        answered=row.answered,
        tools=None if row.tools is None else tuple(row.tools),
        prompt_text=row.prompt_text,
        response_text=row.response_text,
        scores=tuple(RecordedScore(**score) for score in row.scores),
        labels=_labels(session, row, reader, claim),
        skip_reason=row.skip_reason,
        alternatives=tuple(Alternative(**each) for each in row.alternatives or ()),
        comments=_comments(session, row.id),
        schema_version=0 if claim is None else claim.schema_version,
    )
    if row.state is CaseState.GOLD and reader is not None:
        return as_any_other(case, row, claim)
    return case


def read_history(
    session: Session, row: CaseRow, reader: str | None = None, claim: ClaimRow | None = None
) -> tuple[HistoryEntry, ...]:
    """All that happened to a case, the oldest first. A ``reader`` who has yet to judge it (``claim`` is theirs, where they
    have one) does not see what others said, nor the known answer.
    """
    is_blind = reader is not None and row.state not in FINISHED and not _adjudicates(claim)
    rows = session.scalars(select(HistoryRow).where(HistoryRow.case_id == row.id).order_by(HistoryRow.id))
    return tuple(
        HistoryEntry(
            each.at,
            each.from_state,
            each.to_state,
            each.actor,
            _without_judgement(each) if is_blind and each.actor != reader else each.detail,
            each.event,
        )
        for each in rows
    )


def read_reasons(session: Session, case_ids: Sequence[int]) -> dict[int, tuple[Reason, ...]]:
    """The reasons of each of the cases, the most urgent first."""
    found: dict[int, list[Reason]] = defaultdict(list)
    rows = session.execute(_REASONS, {"ids": case_ids})
    names = list(rows.keys())[1:]
    for case_id, *values in rows:
        found[case_id].append(Reason(**dict(zip(names, values, strict=True))))
    return {case_id: tuple(reasons) for case_id, reasons in found.items()}


def read_label_of(session: Session, claim: ClaimRow) -> Label | None:
    """The label that the holder of the claim has given."""
    given = session.scalar(
        select(LabelRow).where(LabelRow.case_id == claim.case_id, LabelRow.annotator == claim.annotator)
    )
    return None if given is None else read_label(given)


def preview(text: str | None) -> str | None:
    """The beginning of a text, as lists show it."""
    if text is None or len(text) <= _PREVIEW_LENGTH:
        return text
    return text[:_PREVIEW_LENGTH].rstrip() + "…"


def _labels(
    session: Session, row: CaseRow, reader: str | None, claim: ClaimRow | None
) -> tuple[GivenLabel, ...]:
    given = _LABELS
    if row.state not in FINISHED and not _adjudicates(claim):
        if claim is None or claim.state is not ClaimState.LABELED:
            return ()
        given = _OWN_LABEL
    return tuple(
        GivenLabel(
            each.annotator,
            read_label(each),
            each.created_at,
            each.schema_version,
            each.is_adjudication,
            each.duration_s,
            each.source,
        )
        for each in session.scalars(given, {"case_id": row.id, "annotator": reader})
    )


def _without_judgement(entry: HistoryRow) -> str | None:
    if entry.detail is None or entry.event in ("withdrawn", "skipped"):
        return None
    if entry.event == "gold" and entry.to_state is CaseState.GOLD:
        return None
    return entry.detail.partition(SAID)[0]


def _adjudicates(claim: ClaimRow | None) -> bool:
    return claim is not None and claim.is_adjudication and claim.state is ClaimState.HELD


def _comments(session: Session, case_id: int) -> tuple[Comment, ...]:
    rows = session.execute(_COMMENTS, {"case_id": case_id})
    return tuple(Comment(*row) for row in rows)
