"""The labels that people gave, by record: what evaluators are measured against.

A case is labeled at most once today; where several annotators have labeled one, each label is its own row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import select

from relabel.label import Rating
from relabel.models import CaseRow, LabelRow, ReasonRow
from servelens.database import Database

_READ = 1_000


@dataclass(frozen=True, slots=True)
class HumanLabel:
    """One label of one record; ``evaluators`` are those whose scores made it a case."""

    databricks_request_id: str
    rating: Rating | None
    tags: tuple[str, ...]
    evaluators: frozenset[str]


def human_labels(database: Database, endpoint: str) -> Iterator[HumanLabel]:
    """All labels of an endpoint's cases, in the order in which they were given. No transaction stays open between two
    reads. Raises :class:`~servelens.errors.Unavailable` when the database fails.
    """
    last = 0
    while True:
        query = (
            select(
                LabelRow.id, LabelRow.case_id, LabelRow.rating, LabelRow.tags, CaseRow.databricks_request_id
            )
            .join(CaseRow, CaseRow.id == LabelRow.case_id)
            .where(CaseRow.endpoint == endpoint, LabelRow.id > last)
            .order_by(LabelRow.id)
            .limit(_READ)
        )
        with database.session(read_only=True) as session:
            rows = list(session.execute(query))
            reasons: dict[int, set[str]] = {}
            cases = {row.case_id for row in rows}
            for case_id, evaluator in session.execute(
                select(ReasonRow.case_id, ReasonRow.evaluator).where(
                    ReasonRow.case_id.in_(cases), ReasonRow.evaluator.is_not(None)
                )
            ):
                assert evaluator is not None, "the query leaves these out"
                reasons.setdefault(case_id, set()).add(evaluator)
        if not rows:
            return
        for row in rows:
            last = row.id
            evaluators = frozenset(reasons.get(row.case_id, ()))
            yield HumanLabel(row.databricks_request_id, row.rating, tuple(row.tags), evaluators)
