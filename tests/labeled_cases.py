"""Labeled cases for tests of exports, as the queue leaves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import insert, select, update

from relabel.case import CaseState, Resolution
from relabel.export.labeled_case import LabeledCase
from relabel.label import Label, Rating
from relabel.models import CaseRow, DecisionRow, LabelRow, OccurrenceRow
from servelens.database import Database
from tests.relabel_cases import START, add_cases, flagged

GOOD, BAD = Label(rating=Rating.GOOD), Label(rating=Rating.BAD)


def corrected(answer: str, rating: Rating = Rating.BAD) -> Label:
    """A bad answer with a better one."""
    return Label(rating=rating, corrected_answer=answer)


def alternative(name: str, text: str) -> dict[str, Any]:
    """Another answer, as stored."""
    message = {"role": "assistant", "content": text}
    return {"id": name, "source": "shadow", "message": message, "text": text}


def add_labeled(
    database: Database,
    number: int,
    label: Label,
    *,
    endpoint: str = "chat",
    messages: list[dict[str, Any]] | None = None,
    answered: bool = True,
    tools: list[dict[str, Any]] | None = None,
    columns: Mapping[str, Any] | None = None,
    agreement: float = 1.0,
    resolution: Resolution = Resolution.SINGLE,
) -> int:
    """A case of record ``number`` with its label and decision; its id. ``columns`` are set on the case."""
    add_cases(
        database, [flagged(number, messages=messages, answered=answered, tools=tools)], endpoint=endpoint
    )
    with database.session() as session:
        case_id = session.scalars(
            select(CaseRow.id).where(
                CaseRow.endpoint == endpoint, CaseRow.databricks_request_id == f"request-{number:06d}"
            )
        ).one()
        session.execute(
            update(CaseRow)
            .where(CaseRow.id == case_id)
            .values(state=CaseState.LABELED, labeled=1, resolution=resolution, **(columns or {}))
        )
    decide(database, case_id, label, agreement=agreement, resolution=resolution)
    return case_id


def decide(
    database: Database,
    case_id: int,
    label: Label | None,
    *,
    annotator: str = "ann",
    agreement: float = 1.0,
    resolution: Resolution = Resolution.SINGLE,
) -> int:
    """A decision that the case has ``label``, or none any more; its id."""
    with database.session() as session:
        given = None
        if label is not None:
            given = LabelRow(
                case_id=case_id,
                annotator=annotator,
                rating=label.rating,
                corrected_answer=label.corrected_answer,
                tags=list(label.tags),
                comment=label.comment,
                preferred=label.preferred,
                values=dict(label.values) or None,
                created_at=START,
            )
            session.add(given)
            session.flush()
        decision = DecisionRow(
            case_id=case_id,
            label_id=None if given is None else given.id,
            resolution=None if given is None else resolution,
            labels=0 if given is None else 1,
            agreement=None if given is None else agreement,
            created_at=START,
        )
        session.add(decision)
        session.flush()
        return decision.id


def add_many(database: Database, count: int, *, text: str = "") -> None:
    """Labeled cases 1 … ``count`` in an empty database, in few statements: every third is bad, with a better answer."""
    with database.session() as session:
        for first in range(1, count + 1, 2_000):
            numbers = range(first, min(first + 2_000, count + 1))
            session.execute(insert(CaseRow), [_case(number, text) for number in numbers])
            session.execute(insert(OccurrenceRow), [_occurrence(number) for number in numbers])
            session.execute(insert(LabelRow), [_label(number, text) for number in numbers])
            session.execute(
                insert(DecisionRow),
                [
                    {
                        "case_id": number,
                        "label_id": number,
                        "resolution": Resolution.SINGLE,
                        "labels": 1,
                        "agreement": 1.0,
                        "created_at": START,
                    }
                    for number in numbers
                ],
            )


def _case(number: int, text: str) -> dict[str, Any]:
    return {
        "endpoint": "chat",
        "databricks_request_id": f"request-{number:06d}",
        "content_hash": f"{number:064d}",
        "state": CaseState.LABELED,
        "priority": 0,
        "occurrences": 1,
        "version": 3,
        "request_time": START + timedelta(seconds=number),
        "created_at": START,
        "updated_at": START,
        "unit": f"user-{number % 997}",
        "messages": [
            {"role": "user", "content": f"question {number} {text}"},
            {"role": "assistant", "content": f"answer {number} {text}"},
        ],
        "answered": True,
        "scores": [],
    }


def _occurrence(number: int) -> dict[str, Any]:
    return {
        "endpoint": "chat",
        "databricks_request_id": f"request-{number:06d}",
        "case_id": number,
        "request_time": START + timedelta(seconds=number),
    }


def _label(number: int, text: str) -> dict[str, Any]:
    is_good = number % 3 != 0
    return {
        "case_id": number,
        "annotator": "ann",
        "rating": Rating.GOOD if is_good else Rating.BAD,
        "corrected_answer": None if is_good else f"better {number} {text}",
        "tags": [],
        "created_at": START,
    }


def labeled_case(
    label: Label = GOOD,
    *,
    messages: Sequence[Mapping[str, Any]] = (
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": "because"},
    ),
    answered: bool = True,
    **parts: Any,
) -> LabeledCase:
    """A case as an export reads it, without a database."""
    return LabeledCase(
        case_id=1,
        decision_id=1,
        label_id=1,
        endpoint="chat",
        databricks_request_id="request-000001",
        request_time=START,
        messages=messages,
        answered=answered,
        rating=label.rating,
        corrected_answer=label.corrected_answer,
        tags=label.tags,
        comment=label.comment,
        preferred=label.preferred,
        values=label.values,
        labeled_at=START,
        decided_at=START,
        **parts,
    )
