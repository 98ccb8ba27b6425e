"""Stores flagged records as cases: new ones, more reasons for one there is, or another occurrence of the same
content, or of nearly the same.

Invariant: storing the same flagged record again changes nothing but to add reasons that were not known
before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import case as case_when
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from relabel.alternatives import stored, unlike
from relabel.case import Alternative, CaseState, Reason, RecordedScore
from relabel.conversation import Conversation
from relabel.models import CaseRow, HistoryRow, OccurrenceRow, ReasonRow, VectorRow

ACTOR = "selection"
_SELECTED = "selected"
_NEAR = "of a record that says nearly the same"


@dataclass(frozen=True, slots=True)
class Flagged:
    """A record that at least one rule applies to, with the snapshot for its case. ``sampled`` is the probability with which
    the control sample drew it.
    """

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
    unit: str | None = None
    session: str | None = None
    alternatives: Sequence[Alternative] = ()
    sampled: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What a record is like that no case has yet. Cases are named by their id, or by the id of an earlier record of the same
    call, whose case it then is.

    ``near`` is the case that it nearly repeats, with the cosine ``similarity``. Otherwise it becomes one, with ``vector`` of
    ``space``, in the cluster that ``cluster`` leads (``None``: it leads one itself).
    """

    near: int | str | None = None
    similarity: float | None = None
    space: str | None = None
    vector: bytes | None = None
    cluster: int | str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """The case of each record. ``new``: records that made one; ``repeated``: records that joined one."""

    cases: Mapping[str, int] = field(default_factory=dict)
    new: frozenset[str] = frozenset()
    repeated: frozenset[str] = frozenset()


def store(
    session: Session,
    endpoint: str,
    flagged: Sequence[Flagged],
    placements: Mapping[str, Placement],
    now: datetime,
) -> Stored:
    """Store ``flagged`` (each record once), by request id where ``placements`` say. A few hundred at a time."""
    by_record = cases_of_records(session, endpoint, [record.databricks_request_id for record in flagged])
    by_content = cases_of_contents(
        session, endpoint, [record.conversation.content_hash for record in flagged]
    )
    new: dict[str, list[Flagged]] = {}
    known: list[tuple[int, Flagged]] = []
    occurred: list[tuple[int, Flagged]] = []
    near: list[tuple[Placement, Flagged]] = []
    for record in flagged:
        content_hash = record.conversation.content_hash
        placement = placements.get(record.databricks_request_id)
        if (case_id := by_record.get(record.databricks_request_id)) is not None:
            known.append((case_id, record))
        elif (case_id := by_content.get(content_hash)) is not None:
            occurred.append((case_id, record))
        elif placement is not None and placement.near is not None and content_hash not in new:
            near.append((placement, record))
        else:
            new.setdefault(content_hash, []).append(record)
    created = _add_cases(session, endpoint, new, now)
    cases = {record.databricks_request_id: case_id for case_id, record in (*known, *occurred, *created)}
    joined: list[tuple[int, Flagged, float | None]] = [
        (case_id, record, None) for case_id, record in occurred
    ]
    for placement, record in near:
        case_id = _named(placement.near, cases)
        cases[record.databricks_request_id] = case_id
        joined.append((case_id, record, placement.similarity))
    _add_occurrences(session, endpoint, [*((case_id, record, None) for case_id, record in created), *joined])
    _add_vectors(session, endpoint, created, placements, cases, now)
    for case_id, times in sorted(Counter(case_id for case_id, _, _ in joined).items()):
        _change(session, case_id, {"occurrences": CaseRow.occurrences + times})
    _keep_probabilities(session, endpoint, [record for _, record in known])
    _add_reasons(
        session, [(case_id, record.reasons, record.scores) for case_id, record in created], set(), now
    )
    again = [(case_id, record.reasons, record.scores) for case_id, record in (*known, *occurred)]
    # The scores of a near duplicate are not those of the case's own text.
    again += [(cases[record.databricks_request_id], _of_near(record), ()) for _, record in near]
    add_reasons(session, again, now)
    first = {same[0].databricks_request_id for same in new.values()}
    return Stored(cases, frozenset(first), frozenset(cases) - first - frozenset(by_record))


def add_reasons(
    session: Session,
    records: Sequence[tuple[int, Sequence[Reason], Sequence[RecordedScore]]],
    now: datetime,
) -> None:
    """Add the reasons that cases (by id) did not have, and what follows from them: a higher priority, newer scores."""
    case_ids = {case_id for case_id, _, _ in records}
    if not case_ids:
        return
    reasons = select(ReasonRow.case_id, ReasonRow.rule).where(ReasonRow.case_id.in_(case_ids))
    there = {(row.case_id, row.rule) for row in session.execute(reasons)}
    for case_id, (priority, scores) in sorted(_add_reasons(session, records, there, now).items()):
        higher = case_when((CaseRow.priority < priority, priority), else_=CaseRow.priority)
        values: dict[str, Any] = {"priority": higher}
        if scores:
            values["scores"] = [asdict(score) for score in scores]
        _change(session, case_id, values)


def cases_of_records(session: Session, endpoint: str, request_ids: Sequence[str]) -> dict[str, int]:
    """The cases that these records have already."""
    found = select(OccurrenceRow.databricks_request_id, OccurrenceRow.case_id).where(
        OccurrenceRow.endpoint == endpoint, OccurrenceRow.databricks_request_id.in_(request_ids)
    )
    return {row.databricks_request_id: row.case_id for row in session.execute(found)}


def cases_of_contents(session: Session, endpoint: str, hashes: Sequence[str]) -> dict[str, int]:
    """The cases of these contents."""
    found = select(CaseRow.content_hash, CaseRow.id).where(
        CaseRow.endpoint == endpoint, CaseRow.content_hash.in_(hashes)
    )
    return {row.content_hash: row.id for row in session.execute(found)}


def keep_probabilities(session: Session, endpoint: str, sampled: Mapping[str, float]) -> None:
    """Note with which probability the control sample drew records that are in the queue already."""
    by_probability: dict[float, list[str]] = {}
    for request_id, probability in sampled.items():
        by_probability.setdefault(probability, []).append(request_id)
    for probability, request_ids in by_probability.items():
        session.execute(
            update(OccurrenceRow)
            .where(
                OccurrenceRow.endpoint == endpoint,
                OccurrenceRow.databricks_request_id.in_(request_ids),
                OccurrenceRow.sampled.is_(None),
            )
            .values(sampled=probability),
            execution_options={"synchronize_session": False},
        )


def _keep_probabilities(session: Session, endpoint: str, known: Sequence[Flagged]) -> None:
    keep_probabilities(
        session,
        endpoint,
        {record.databricks_request_id: record.sampled for record in known if record.sampled is not None},
    )


def _add_cases(
    session: Session, endpoint: str, records: Mapping[str, Sequence[Flagged]], now: datetime
) -> list[tuple[int, Flagged]]:
    """One case for the records of each content hash; every record with the id of its case."""
    if not records:
        return []
    rows = [_new_case(endpoint, content_hash, same, now) for content_hash, same in records.items()]
    ids = session.scalars(insert(CaseRow).returning(CaseRow.id, sort_by_parameter_order=True), rows).all()
    session.execute(
        insert(HistoryRow),
        [
            {
                "case_id": case_id,
                "at": now,
                "from_state": None,
                "to_state": CaseState.OPEN,
                "actor": ACTOR,
                "event": _SELECTED,
            }
            for case_id in ids
        ],
    )
    return [(case_id, record) for case_id, same in zip(ids, records.values(), strict=True) for record in same]


def _add_occurrences(
    session: Session, endpoint: str, records: Sequence[tuple[int, Flagged, float | None]]
) -> None:
    rows = [
        {
            "endpoint": endpoint,
            "databricks_request_id": record.databricks_request_id,
            "case_id": case_id,
            "request_time": record.request_time,
            "sampled": record.sampled,
            "similarity": similarity,
        }
        for case_id, record, similarity in records
    ]
    if rows:
        session.execute(insert(OccurrenceRow), rows)


def _add_vectors(
    session: Session,
    endpoint: str,
    created: Sequence[tuple[int, Flagged]],
    placements: Mapping[str, Placement],
    cases: Mapping[str, int],
    now: datetime,
) -> None:
    rows: dict[int, dict[str, Any]] = {}
    for case_id, record in created:
        placement = placements.get(record.databricks_request_id)
        if placement is None or placement.vector is None or case_id in rows:
            continue
        rows[case_id] = {
            "case_id": case_id,
            "endpoint": endpoint,
            "space": placement.space,
            "cluster": case_id if placement.cluster is None else _named(placement.cluster, cases),
            "created_at": now,
            "vector": placement.vector,
        }
    if rows:
        session.execute(insert(VectorRow), list(rows.values()))


def _of_near(record: Flagged) -> list[Reason]:
    return [
        replace(reason, detail=f"{reason.detail} ({_NEAR})" if reason.detail else _NEAR)
        for reason in record.reasons
    ]


def _named(case: int | str | None, cases: Mapping[str, int]) -> int:
    assert case is not None, "only asked of those that name one"
    return cases[case] if isinstance(case, str) else case


def _add_reasons(
    session: Session,
    records: Sequence[tuple[int, Sequence[Reason], Sequence[RecordedScore]]],
    there: set[tuple[int, str]],
    now: datetime,
) -> dict[int, tuple[int, Sequence[RecordedScore]]]:
    """Add the reasons that are not ``there``; for each case that got one, the highest priority and the scores."""
    changed: dict[int, tuple[int, Sequence[RecordedScore]]] = {}
    rows = []
    for case_id, reasons, scores in records:
        for reason in reasons:
            key = (case_id, reason.rule)
            if key in there:
                continue
            there.add(key)
            rows.append({**asdict(reason), "case_id": case_id, "created_at": now})
            priority, _ = changed.get(case_id, (reason.priority, ()))
            changed[case_id] = (max(priority, reason.priority), scores)
    if rows:
        session.execute(insert(ReasonRow), rows)
    return changed


def _new_case(endpoint: str, content_hash: str, records: Sequence[Flagged], now: datetime) -> dict[str, Any]:
    first = records[0]
    return {
        "endpoint": endpoint,
        "databricks_request_id": first.databricks_request_id,
        "content_hash": content_hash,
        "state": CaseState.OPEN,
        "priority": max(reason.priority for record in records for reason in record.reasons),
        "occurrences": len(records),
        "version": 1,
        "served_entity": first.served_entity,
        "variant": first.variant,
        "model": first.model,
        "unit": first.unit,
        "session": first.session,
        "request_time": first.request_time,
        "created_at": now,
        "updated_at": now,
        "messages": first.conversation.messages,
        "answered": first.conversation.answered,
        "tools": first.conversation.tools,
        "scores": [asdict(score) for score in first.scores],
        "prompt_text": first.prompt_text,
        "response_text": first.response_text,
        "alternatives": stored(unlike(first.conversation.answer, (), first.alternatives)) or None,
    }


def _change(session: Session, case_id: int, values: Mapping[str, Any]) -> None:
    # Computed in the database, for an annotator may hold the row in another transaction.
    session.execute(
        update(CaseRow).where(CaseRow.id == case_id).values(**values),
        execution_options={"synchronize_session": False},
    )
