"""What people decided of cases, by record: what evaluators are measured against.

Invariants: of a case only its newest decision counts, so a case that was reopened or skipped has none; gold cases, whose
answer was known before, are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from relabel.case import CaseState, ReasonKind, Resolution
from relabel.label import Rating
from relabel.models import CaseRow, DecisionRow, LabelRow, OccurrenceRow, ReasonRow
from servelens.database import Database

_READ: Final = 1_000


@dataclass(frozen=True, slots=True)
class Choice:
    """A rule that made the record a case by a score: its name, whose score, and past what."""

    rule: str
    kind: ReasonKind
    evaluator: str
    target: str | None
    direction: str | None
    threshold: float | None


@dataclass(frozen=True, slots=True)
class HumanLabel:
    """The decided label of one case. ``choices`` are the rules by a score that chose it, and ``labels`` of people there were
    when it was decided.
    """

    case_id: int
    databricks_request_id: str
    rating: Rating | None
    tags: tuple[str, ...]
    preferred: str | None
    values: Mapping[str, Any]
    schema_version: int
    resolution: Resolution | None
    labels: int
    choices: tuple[Choice, ...]

    @property
    def evaluators(self) -> frozenset[str]:
        """Those whose scores made it a case."""
        return frozenset(choice.evaluator for choice in self.choices)


@dataclass(frozen=True, slots=True)
class SampledRecord:
    """A record that the control sample drew with probability ``share``. ``is_near``: its case is that of another record with
    nearly the same content, whose label it borrows.
    """

    databricks_request_id: str
    case_id: int
    share: float
    is_near: bool


def human_labels(database: Database, endpoint: str, *, rows_at_once: int = _READ) -> Iterator[HumanLabel]:
    """The decided labels of an endpoint's cases, in the order in which they were decided, as of the first read. No transaction
    stays open between two reads. Raises :class:`~servelens.errors.Unavailable` when the database fails.
    """
    with database.session(read_only=True) as session:
        newest = sorted(session.scalars(_newest(endpoint)))
    for start in range(0, len(newest), rows_at_once):
        with database.session(read_only=True) as session:
            rows = session.execute(_decided(newest[start : start + rows_at_once])).all()
            choices = _choices(session, [row.case_id for row in rows])
        for row in rows:
            yield HumanLabel(
                case_id=row.case_id,
                databricks_request_id=row.databricks_request_id,
                rating=row.rating,
                tags=tuple(row.tags),
                preferred=row.preferred,
                values=row.answers or {},
                schema_version=row.schema_version,
                resolution=row.resolution,
                labels=row.labels,
                choices=tuple(choices.get(row.case_id, ())),
            )


def sampled_records(
    database: Database, endpoint: str, *, rows_at_once: int = _READ
) -> Iterator[SampledRecord]:
    """The control sample of an endpoint, labeled or not; as :func:`human_labels`. Records of gold cases are in it, as some that
    nobody has labeled: a person chose them, and nothing that depends on a record may take it out of the sample.
    """
    last = ""
    while True:
        query = (
            select(
                OccurrenceRow.databricks_request_id,
                OccurrenceRow.case_id,
                OccurrenceRow.sampled,
                OccurrenceRow.similarity,
            )
            .where(
                OccurrenceRow.endpoint == endpoint,
                OccurrenceRow.sampled.is_not(None),
                OccurrenceRow.databricks_request_id > last,
            )
            .order_by(OccurrenceRow.databricks_request_id)
            .limit(rows_at_once)
        )
        with database.session(read_only=True) as session:
            rows = session.execute(query).all()
        for name, case, share, similarity in rows:
            assert share is not None, "the query leaves these out"
            yield SampledRecord(name, case, share, similarity is not None)
        if len(rows) < rows_at_once:
            return
        last = rows[-1].databricks_request_id


def _newest(endpoint: str) -> Select[int]:
    """The ids of the newest decision of each case. In one query: asked for in pages, SQLite sorts all cases for each."""
    return (
        select(func.max(DecisionRow.id))
        .join(CaseRow, CaseRow.id == DecisionRow.case_id)
        .where(CaseRow.endpoint == endpoint, CaseRow.state != CaseState.GOLD, CaseRow.gold.is_(None))
        .group_by(DecisionRow.case_id)
    )


def _decided(decisions: Sequence[int]) -> Select[Any]:
    return (
        select(
            DecisionRow.case_id,
            DecisionRow.resolution,
            DecisionRow.labels,
            CaseRow.databricks_request_id,
            LabelRow.rating,
            LabelRow.tags,
            LabelRow.preferred,
            LabelRow.values.label("answers"),
            LabelRow.schema_version,
        )
        .join(CaseRow, CaseRow.id == DecisionRow.case_id)
        .join(LabelRow, LabelRow.id == DecisionRow.label_id)
        .where(DecisionRow.id.in_(decisions))
        .order_by(DecisionRow.id)
    )


def _choices(session: Session, cases: Sequence[int]) -> dict[int, list[Choice]]:
    query = select(ReasonRow).where(ReasonRow.case_id.in_(cases), ReasonRow.evaluator.is_not(None))
    found: dict[int, list[Choice]] = defaultdict(list)
    for row in session.scalars(query):
        assert row.evaluator is not None, "the query leaves these out"
        found[row.case_id].append(
            Choice(row.rule, row.kind, row.evaluator, row.target, row.direction, row.threshold)
        )
    return found
