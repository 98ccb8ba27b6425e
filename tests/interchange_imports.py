"""Annotations as Label Studio exports them, and importing them, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select

from relabel.interchange.importer import Importer, ImportReport
from relabel.interchange.tools import TOOLS, ToolName
from relabel.label import Rating
from relabel.label_schema import LabelSchema, default_schema
from relabel.models import CaseRow, LabelRow
from servelens.clock import ManualClock
from servelens.database import Database
from tests.interchange_cases import FixedSchemas, origin


def task(
    number: int, *annotations: dict[str, Any], schema_version: int = 0, **changed: Any
) -> dict[str, Any]:
    """A task of Label Studio's full export."""
    where = origin(number, schema_version=schema_version, **changed)
    return {"id": 100 + number, "data": {**where}, "meta": {**where}, "annotations": list(annotations)}


def rated(
    number: int | str, rating: str = "good", user: Any = "ann@example.com", **more: Any
) -> dict[str, Any]:
    result = [
        {"from_name": "rating", "to_name": "dialogue", "type": "choices", "value": {"choices": [rating]}}
    ]
    return {"id": number, "completed_by": {"email": user}, "result": result, "lead_time": 4.5, **more}


class Imports:
    """Imports into one database."""

    def __init__(self, database: Database, clock: ManualClock, schema: LabelSchema | None = None) -> None:
        self.database = database
        self.clock = clock
        self.schemas = FixedSchemas(schema or default_schema())

    def run(
        self,
        *elements: Mapping[str, Any],
        dry_run: bool = False,
        tool: ToolName = ToolName.LABEL_STUDIO,
        **options: Any,
    ) -> ImportReport:
        importer = Importer(self.database, self.clock, self.schemas, TOOLS[tool], **options)
        return importer.run(elements, dry_run=dry_run)

    def case(self, number: int) -> CaseRow:
        with self.database.session(read_only=True) as session:
            return session.get_one(CaseRow, number)

    def labels(self, number: int) -> list[tuple[str, Rating | None]]:
        with self.database.session(read_only=True) as session:
            found = select(LabelRow).where(LabelRow.case_id == number).order_by(LabelRow.id)
            return [(row.annotator, row.rating) for row in session.scalars(found)]

    def count(self, row: Any) -> int:
        with self.database.session(read_only=True) as session:
            return session.scalar(select(func.count()).select_from(row)) or 0


def outcomes(report: ImportReport) -> dict[str, int]:
    return {str(outcome): count for outcome, count in report.outcomes.items()}
