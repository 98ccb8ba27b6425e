"""Stores flagged records as cases: new ones, more reasons for one there is, or another occurrence of the same
content.

Invariant: storing the same flagged record again changes nothing but to add reasons that were not known
before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import case as case_when
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from relabel.case import CaseState, Reason, RecordedScore
from relabel.conversation import Conversation
from relabel.models import CaseRow, HistoryRow, OccurrenceRow, ReasonRow

_ACTOR = "selection"


@dataclass(frozen=True, slots=True)
class Flagged:
    """A record that at least one rule applies to, with the snapshot for its case."""

    databricks_request_id: str
    request_time: datetime
    served_entity: str | None
    variant: str | None
    model: str | None
    prompt_text: str | None
    response_text: str | None
    conversation: Conversation
    reasons: Sequence[Reason]
    scores: Sequence[RecordedScore]


def store_flagged(session: Session, endpoint: str, flagged: Sequence[Flagged], now: datetime) -> int:
    """Store ``flagged`` (each record once); the number of new cases. A few hundred at a time."""
    by_record = _cases_by_record(session, endpoint, [record.databricks_request_id for record in flagged])
    by_content = _cases_by_content(
        session, endpoint, [record.conversation.content_hash for record in flagged]
    )
    new: dict[str, list[Flagged]] = {}
    known: list[tuple[int, Flagged]] = []
    occurred: list[tuple[int, Flagged]] = []
    for record in flagged:
        content_hash = record.conversation.content_hash
        case_id = by_record.get(record.databricks_request_id)
        if case_id is None and content_hash not in by_content:
            new.setdefault(content_hash, []).append(record)
            continue
        if case_id is None:
            case_id = by_content[content_hash]
            occurred.append((case_id, record))
        known.append((case_id, record))
    created = _add_cases(session, endpoint, new, now)
    session.add_all(
        OccurrenceRow(
            endpoint=endpoint,
            databricks_request_id=record.databricks_request_id,
            case_id=case_id,
            request_time=record.request_time,
        )
        for case_id, record in (*created, *occurred)
    )
    session.flush()
    for case_id, times in sorted(Counter(case_id for case_id, _ in occurred).items()):
        _change(session, case_id, {"occurrences": CaseRow.occurrences + times})
    _add_reasons(session, created, set(), now)
    _add_to_known(session, known, now)
    return len(new)


def _add_cases(
    session: Session, endpoint: str, records: Mapping[str, Sequence[Flagged]], now: datetime
) -> list[tuple[int, Flagged]]:
    """One case for the records of each content hash; every record with the id of its case."""
    rows = [_new_case(endpoint, content_hash, same, now) for content_hash, same in records.items()]
    session.add_all(rows)
    session.flush()
    session.add_all(
        HistoryRow(case_id=row.id, at=now, from_state=None, to_state=CaseState.OPEN, actor=_ACTOR)
        for row in rows
    )
    return [(row.id, record) for row in rows for record in records[row.content_hash]]


def _add_to_known(session: Session, records: Sequence[tuple[int, Flagged]], now: datetime) -> None:
    """Add the reasons that cases did not have, and what follows from them: a higher priority, newer scores."""
    reasons = select(ReasonRow.case_id, ReasonRow.rule).where(
        ReasonRow.case_id.in_({case_id for case_id, _ in records})
    )
    there = {(row.case_id, row.rule) for row in session.execute(reasons)}
    for case_id, (priority, scores) in sorted(_add_reasons(session, records, there, now).items()):
        higher = case_when((CaseRow.priority < priority, priority), else_=CaseRow.priority)
        _change(session, case_id, {"priority": higher, "scores": [asdict(score) for score in scores]})


def _add_reasons(
    session: Session,
    records: Sequence[tuple[int, Flagged]],
    there: set[tuple[int, str]],
    now: datetime,
) -> dict[int, tuple[int, Sequence[RecordedScore]]]:
    """Add the reasons that are not ``there``; for each case that got one, the highest priority and the scores."""
    changed: dict[int, tuple[int, Sequence[RecordedScore]]] = {}
    for case_id, record in records:
        for reason in record.reasons:
            key = (case_id, reason.rule)
            if key in there:
                continue
            there.add(key)
            session.add(ReasonRow(case_id=case_id, created_at=now, **asdict(reason)))
            priority, _ = changed.get(case_id, (reason.priority, ()))
            changed[case_id] = (max(priority, reason.priority), record.scores)
    session.flush()
    return changed


def _cases_by_record(session: Session, endpoint: str, request_ids: Sequence[str]) -> dict[str, int]:
    found = select(OccurrenceRow.databricks_request_id, OccurrenceRow.case_id).where(
        OccurrenceRow.endpoint == endpoint, OccurrenceRow.databricks_request_id.in_(request_ids)
    )
    return {row.databricks_request_id: row.case_id for row in session.execute(found)}


def _cases_by_content(session: Session, endpoint: str, hashes: Sequence[str]) -> dict[str, int]:
    found = select(CaseRow.content_hash, CaseRow.id).where(
        CaseRow.endpoint == endpoint, CaseRow.content_hash.in_(hashes)
    )
    return {row.content_hash: row.id for row in session.execute(found)}


def _new_case(endpoint: str, content_hash: str, records: Sequence[Flagged], now: datetime) -> CaseRow:
    first = records[0]
    return CaseRow(
        endpoint=endpoint,
        databricks_request_id=first.databricks_request_id,
        content_hash=content_hash,
        state=CaseState.OPEN,
        priority=max(reason.priority for record in records for reason in record.reasons),
        occurrences=len(records),
        version=1,
        served_entity=first.served_entity,
        variant=first.variant,
        model=first.model,
        request_time=first.request_time,
        created_at=now,
        updated_at=now,
        messages=first.conversation.messages,
        answered=first.conversation.answered,
        tools=first.conversation.tools,
        scores=[asdict(score) for score in first.scores],
        prompt_text=first.prompt_text,
        response_text=first.response_text,
    )


def _change(session: Session, case_id: int, values: Mapping[str, Any]) -> None:
    # Computed in the database, for an annotator may hold the row in another transaction.
    session.execute(
        update(CaseRow).where(CaseRow.id == case_id).values(**values),
        execution_options={"synchronize_session": False},
    )
