"""Appends decisions to an endpoint's Delta table ``<prefix>_labels``.

Invariant: every decision is in the table once, but for labels of cases that are gold. The commit that adds decisions also
says, in an application transaction, which is the last one, and it is refused when another process has said so meanwhile; so
it can be run again after any failure, and by several at once. The rows of forgotten people leave the table and do not come
back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from sqlalchemy import or_, select

from collector.label_table import LABEL_SCHEMA
from collector.table import Table
from relabel.case import CaseState
from relabel.export.reader import highest_decision, newest_decision
from relabel.models import CaseRow, DecisionRow, LabelRow
from servelens.database import Database
from servelens.errors import Invalid

APPLICATION: Final = "servelens-labels"
DECISIONS_PER_COMMIT: Final = 5_000


@dataclass(frozen=True, slots=True)
class Appended:
    """How many decisions were appended, up to which one the table holds them, and its version (``None``: no table)."""

    rows: int
    as_of: int
    version: int | None


def append_labels(database: Database, endpoint: str, table: Table, as_of: int | None = None) -> Appended:
    """Append the decisions up to ``as_of`` (``None``: now) that the table does not hold.

    Raises :class:`~servelens.errors.Conflict` when another process appends at the same time (run it again),
    :class:`~servelens.errors.Invalid` when the table was written from another database, and
    :class:`~servelens.errors.Unavailable`.
    """
    newest = newest_decision(database)
    until = newest if as_of is None else min(as_of, newest)
    last = table.transaction_version(APPLICATION)
    if last is not None and last > newest and last > (highest := highest_decision(database)):
        raise Invalid(
            f"the table holds decisions up to {last}, and this database has them up to {highest}: it is another one's",
            field=table.uri,
            fix="Use the database that it was written from, or move the table away.",
        )
    appended = 0
    while rows := _decisions(database, endpoint, last or 0, until):
        reached = int(rows[-1][0])
        table.append(_columns(rows), transactions={APPLICATION: reached}, after={APPLICATION: last})
        appended, last = appended + len(rows), reached
    return Appended(appended, last or 0, table.version())


def schema_versions(database: Database, endpoint: str, as_of: int) -> set[int]:
    """The versions of the label schema that the labels up to ``as_of`` answered. Raises what the database raises."""
    wanted = (
        select(LabelRow.schema_version)
        .distinct()
        .join(DecisionRow, DecisionRow.label_id == LabelRow.id)
        .join(CaseRow, CaseRow.id == LabelRow.case_id)
        .where(CaseRow.endpoint == endpoint, DecisionRow.id <= as_of)
    )
    with database.session(read_only=True) as session:
        return set(session.scalars(wanted))


def _decisions(database: Database, endpoint: str, after: int, until: int) -> list[Any]:
    wanted = (
        select(
            DecisionRow.id,
            CaseRow.id,
            CaseRow.databricks_request_id,
            CaseRow.request_time,
            CaseRow.endpoint,
            CaseRow.served_entity,
            CaseRow.variant,
            CaseRow.model,
            DecisionRow.created_at,
            DecisionRow.resolution,
            DecisionRow.labels,
            DecisionRow.agreement,
            LabelRow.rating,
            LabelRow.corrected_answer,
            LabelRow.preferred,
            LabelRow.tags,
            LabelRow.values,
            LabelRow.comment,
            LabelRow.annotator,
            LabelRow.created_at,
            LabelRow.schema_version,
            LabelRow.source,
        )
        .join_from(DecisionRow, CaseRow, CaseRow.id == DecisionRow.case_id)
        .outerjoin(LabelRow, LabelRow.id == DecisionRow.label_id)
        .where(
            DecisionRow.id > after,
            DecisionRow.id <= until,
            CaseRow.endpoint == endpoint,
            # That a gold case has no label any more has to be there, if it had one before.
            or_(CaseRow.state != CaseState.GOLD, DecisionRow.label_id.is_(None)),
        )
        .order_by(DecisionRow.id)
        .limit(DECISIONS_PER_COMMIT)
    )
    with database.session(read_only=True) as session:
        return list(session.execute(wanted))


_ORDER: Final = (
    "decision_id",
    "case_id",
    "databricks_request_id",
    "request_time",
    "endpoint",
    "served_entity",
    "variant",
    "model",
    "decided_at",
    "resolution",
    "labels",
    "agreement",
    "rating",
    "corrected_answer",
    "preferred",
    "tags",
    "values",
    "comment",
    "annotator",
    "labeled_at",
    "schema_version",
    "source",
)


def _columns(rows: Sequence[Any]) -> pa.Table:
    columns: dict[str, list[Any]] = {
        name: list(column) for name, column in zip(_ORDER, zip(*rows, strict=True), strict=True)
    }
    columns["request_date"] = [moment.date() for moment in columns["request_time"]]
    columns["values"] = [json.dumps(each, ensure_ascii=False) if each else None for each in columns["values"]]
    for name in ("resolution", "rating"):
        columns[name] = [None if word is None else str(word) for word in columns[name]]
    return pa.table(
        {column.name: pa.array(columns[column.name], column.type) for column in LABEL_SCHEMA},
        schema=LABEL_SCHEMA,
    )
