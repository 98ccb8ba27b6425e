"""Cases with labels, decisions, skips and known answers, written to the tables as the queue writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select

from relabel.case import CaseState, Resolution
from relabel.label_schema import Field, FieldType, LabelSchema
from relabel.models import CaseRow, ClaimRow, ClaimState, DecisionRow, LabelRow, OccurrenceRow
from servelens.database import Database
from servelens.errors import Missing
from tests.relabel_cases import START, add_cases, flagged

RICH = LabelSchema(
    version=1,
    fields=(
        Field(name="verdict", type=FieldType.RATING, decides=True),
        Field(name="helpful", type=FieldType.SCALE, scale=5, decides=True),
        Field(name="topic", type=FieldType.CHOICE, options=("billing", "bug", "other")),
        Field(name="faults", type=FieldType.MULTIPLE_CHOICE, options=("rude", "wrong", "long")),
        Field(name="marked", type=FieldType.SPANS, options=("claim", "name")),
        Field(name="better", type=FieldType.PREFERENCE),
        Field(name="tags", type=FieldType.TAGS),
        Field(name="why", type=FieldType.TEXT),
    ),
    annotators=2,
)


class Kept:
    """Schemas that are given, by version; the newest is current."""

    def __init__(self, *schemas: LabelSchema) -> None:
        self._schemas = {schema.version: schema for schema in schemas}

    def current(self, endpoint: str) -> LabelSchema:
        return self._schemas[max(self._schemas)]

    def version(self, endpoint: str, version: int) -> LabelSchema:
        if version not in self._schemas:
            raise Missing(f"{endpoint} has no schema {version}", field="version")
        return self._schemas[version]


def store(database: Database, count: int, *, endpoint: str = "chat", first: int = 0) -> list[int]:
    """New cases; their ids. Records are numbered from ``first``."""
    before = _most(database)
    records = [
        flagged(number, request_id=f"{endpoint}-{number:06d}") for number in range(first, first + count)
    ]
    assert add_cases(database, records, endpoint=endpoint) == count
    return list(range(before + 1, before + count + 1))


def label(database: Database, case: int, annotator: str, **values: Any) -> int:
    """A label of the case, as a row; its id."""
    values.setdefault("tags", [])
    row = LabelRow(case_id=case, annotator=annotator, created_at=START, **values)
    with database.session() as session:
        session.add(row)
        session.flush()
        return row.id


def labels(
    database: Database, cases: Sequence[int], rows: Mapping[str, Sequence[Mapping[str, Any] | None]]
) -> None:
    """One label a case of each person, at its place; ``None`` for none."""
    with database.session() as session:
        for person, given in rows.items():
            session.add_all(
                LabelRow(
                    case_id=case,
                    annotator=person,
                    created_at=START,
                    **{"tags": [], "schema_version": 0, **values},
                )
                for case, values in zip(cases, given, strict=True)
                if values is not None
            )


def decide(database: Database, case: int, label_id: int | None, *, labels: int = 1) -> int:
    """A decision on the case; its id."""
    with database.session() as session:
        row = DecisionRow(
            case_id=case,
            label_id=label_id,
            resolution=None if label_id is None else Resolution.MAJORITY,
            labels=labels,
            created_at=START,
        )
        session.add(row)
        found = session.get(CaseRow, case)
        assert found is not None
        found.state = CaseState.SKIPPED if label_id is None else CaseState.LABELED
        session.flush()
        return row.id


def skip(database: Database, case: int, annotator: str) -> None:
    """A skipped claim."""
    with database.session() as session:
        session.add(
            ClaimRow(
                case_id=case,
                annotator=annotator,
                state=ClaimState.SKIPPED,
                version=1,
                schema_version=0,
                is_adjudication=False,
                claimed_at=START,
            )
        )


def make_gold(database: Database, case: int, answer: Mapping[str, Any]) -> None:
    """The case becomes one whose answer is known."""
    with database.session() as session:
        row = session.get(CaseRow, case)
        assert row is not None
        row.state, row.gold = CaseState.GOLD, dict(answer)


def sample(database: Database, case: int, share: float, request_id: str | None = None) -> None:
    """The control sample drew the case's record, or another with the same content, with probability ``share``."""
    with database.session() as session:
        row = session.get(CaseRow, case)
        assert row is not None
        occurrence = session.get(OccurrenceRow, (row.endpoint, request_id or row.databricks_request_id))
        if occurrence is None:
            occurrence = OccurrenceRow(
                endpoint=row.endpoint,
                databricks_request_id=request_id,
                case_id=case,
                request_time=START,
            )
            session.add(occurrence)
        occurrence.sampled = share


def _most(database: Database) -> int:
    with database.session(read_only=True) as session:
        return session.scalar(select(func.max(CaseRow.id))) or 0
