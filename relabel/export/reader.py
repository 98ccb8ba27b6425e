"""Reads labeled cases, each as the newest decision about it left its label.

Invariants: the same query reads the same cases in the same order, that of their ids, whatever is labeled meanwhile; no
transaction stays open between two chunks, and memory does not grow with the number of cases. Gold cases are none: their
labels measure annotators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Select, func, select, text

from relabel.case import CaseState
from relabel.export.field_words import FieldWords
from relabel.export.labeled_case import LabeledCase, Message
from relabel.export.query import ExportQuery
from relabel.models import CaseRow, DecisionRow, LabelRow, ReasonRow
from servelens.database import Database
from servelens.errors import Unavailable

CASES_PER_READ: Final = 250
_LOCK_WAIT_MS: Final = 10_000


class Asked(NamedTuple):
    """What a case was asked, and whose it is: what tells which cases belong together."""

    case_id: int
    unit: str | None
    session: str | None
    messages: list[Message]
    answered: bool


def newest_decision(database: Database) -> int:
    """The id of the newest decision, 0 when there is none. No decision with a smaller id will appear later.

    Raises :class:`~servelens.errors.Conflict` when others write so long that this cannot be known, and
    :class:`~servelens.errors.Unavailable`.
    """
    is_shared = database.engine.dialect.name == "postgresql"
    with database.session(read_only=not is_shared) as session:
        if is_shared:
            # Ids are drawn before transactions commit, so a smaller one may still be on its way: wait for those.
            session.execute(text(f"SET LOCAL lock_timeout = {_LOCK_WAIT_MS}"))
            session.execute(text(f"LOCK TABLE {DecisionRow.__tablename__} IN SHARE MODE"))
        return session.scalar(select(func.max(DecisionRow.id))) or 0


def highest_decision(database: Database) -> int:
    """The highest id that a decision ever had, also one that has left with its case. Raises as sessions do."""
    table = DecisionRow.__tablename__
    with database.session(read_only=True) as session:
        if database.engine.dialect.name == "postgresql":
            sequence = session.scalar(select(func.pg_get_serial_sequence(table, "id")))
            numbered = text(f"SELECT last_value FROM {sequence}")
        else:
            numbered = text("SELECT seq FROM sqlite_sequence WHERE name = :name").bindparams(name=table)
        return session.scalar(numbered) or 0


def read_labeled(database: Database, query: ExportQuery, as_of: int) -> Iterator[list[LabeledCase]]:
    """The cases of ``query``, some hundreds at a time; a chunk may be empty.

    Raises :class:`~servelens.errors.Unavailable` when the database fails on the way or holds a case that cannot be read, and
    :class:`~servelens.errors.Invalid` when the query names a field that no label schema has.
    """
    fields = FieldWords(database, query.endpoints) if query.values else None
    if fields is not None:
        for name, _ in query.values:
            fields.check(name)
    last = 0
    while chunk := _newest(database, last, as_of):
        last = max(chunk)
        wanted = _filtered(_LABELED.where(DecisionRow.id.in_(chunk.values())), query)
        yield [case for case in map(_labeled, _read(database, wanted)) if _fits(case, query, fields)]


def read_asked(database: Database, endpoints: tuple[str, ...], as_of: int) -> Iterator[list[Asked]]:
    """What all labeled cases of ``endpoints`` (none: of all) were asked. Raises as :func:`read_labeled`."""
    last = 0
    while chunk := _newest(database, last, as_of):
        last = max(chunk)
        wanted = _ASKED.where(DecisionRow.id.in_(chunk.values()))
        if endpoints:
            wanted = wanted.where(CaseRow.endpoint.in_(endpoints))
        yield [Asked(*row) for row in _read(database, wanted)]


_GIVEN: Final = (DecisionRow.label_id.is_not(None), CaseRow.state != CaseState.GOLD)
_LABELED: Final = (
    select(
        CaseRow.id,
        DecisionRow.id,
        LabelRow.id,
        CaseRow.endpoint,
        CaseRow.databricks_request_id,
        CaseRow.request_time,
        CaseRow.served_entity,
        CaseRow.variant,
        CaseRow.model,
        CaseRow.messages,
        CaseRow.answered,
        CaseRow.tools,
        CaseRow.alternatives,
        LabelRow.rating,
        LabelRow.corrected_answer,
        LabelRow.tags,
        LabelRow.comment,
        LabelRow.preferred,
        LabelRow.values,
        LabelRow.annotator,
        LabelRow.schema_version,
        LabelRow.created_at,
        LabelRow.source,
        DecisionRow.resolution,
        DecisionRow.labels,
        DecisionRow.agreement,
        DecisionRow.created_at,
    )
    .join_from(DecisionRow, CaseRow, CaseRow.id == DecisionRow.case_id)
    .join(LabelRow, LabelRow.id == DecisionRow.label_id)
    .where(*_GIVEN)
    .order_by(DecisionRow.case_id)
)
_ASKED: Final = (
    select(CaseRow.id, CaseRow.unit, CaseRow.session, CaseRow.messages, CaseRow.answered)
    .join_from(DecisionRow, CaseRow, CaseRow.id == DecisionRow.case_id)
    .where(*_GIVEN)
    .order_by(DecisionRow.case_id)
)


def _read(database: Database, query: Select[Any]) -> list[Any]:
    with database.session(read_only=True) as session:
        try:
            return list(session.execute(query))
        except ValueError as error:  # JSON that is none
            raise Unavailable(
                f"a case cannot be read from the database: {error}",
                fix="Look for damage in the tables relabel_cases and relabel_labels.",
            ) from error


def _newest(database: Database, last_case: int, as_of: int) -> Mapping[int, int]:
    """The newest decision about each of the next cases, by case."""
    wanted = (
        select(DecisionRow.case_id, func.max(DecisionRow.id))
        .where(DecisionRow.case_id > last_case, DecisionRow.id <= as_of)
        .group_by(DecisionRow.case_id)
        .order_by(DecisionRow.case_id)
        .limit(CASES_PER_READ)
    )
    with database.session(read_only=True) as session:
        return dict(iter(session.execute(wanted)))


def _filtered(wanted: Select[Any], query: ExportQuery) -> Select[Any]:
    if query.endpoints:
        wanted = wanted.where(CaseRow.endpoint.in_(query.endpoints))
    if query.since is not None:
        wanted = wanted.where(CaseRow.request_time >= query.since)
    if query.until is not None:
        wanted = wanted.where(CaseRow.request_time < query.until)
    if query.rating is not None:
        wanted = wanted.where(LabelRow.rating == query.rating)
    if query.min_agreement is not None:
        wanted = wanted.where(DecisionRow.agreement >= query.min_agreement)
    if query.resolutions:
        wanted = wanted.where(DecisionRow.resolution.in_(query.resolutions))
    if query.served_entity is not None:
        wanted = wanted.where(CaseRow.served_entity == query.served_entity)
    if query.variant is not None:
        wanted = wanted.where(CaseRow.variant == query.variant)
    if query.rules or query.reasons:
        why = select(ReasonRow.id).where(ReasonRow.case_id == CaseRow.id)
        if query.rules:
            why = why.where(ReasonRow.rule.in_(query.rules))
        if query.reasons:
            why = why.where(ReasonRow.kind.in_(query.reasons))
        wanted = wanted.where(why.exists())
    return wanted


def _labeled(row: Any) -> LabeledCase:
    (case_id, decision_id, label_id, endpoint, request_id, request_time, entity, variant, model) = row[:9]
    (messages, answered, tools, alternatives) = row[9:13]
    (rating, corrected, tags, comment, preferred, values, annotator, version, labeled_at, source) = row[13:23]
    (resolution, labels, agreement, decided_at) = row[23:]
    return LabeledCase(
        case_id=case_id,
        decision_id=decision_id,
        label_id=label_id,
        endpoint=endpoint,
        databricks_request_id=request_id,
        request_time=request_time,
        served_entity=entity,
        variant=variant,
        model=model,
        messages=messages,
        answered=answered,
        tools=tools,
        alternatives=alternatives or (),
        rating=rating,
        corrected_answer=corrected,
        tags=tags,
        comment=comment,
        preferred=preferred,
        values=values or {},
        annotator=annotator,
        schema_version=version,
        labeled_at=labeled_at,
        source=source,
        resolution=resolution,
        labels=labels,
        agreement=agreement,
        decided_at=decided_at,
    )


def _fits(case: LabeledCase, query: ExportQuery, fields: FieldWords | None) -> bool:
    if query.tags and not set(query.tags) <= set(case.tags):
        return False
    if not query.of_preferred(case.preferred):
        return False
    return fields is None or all(word in fields.of(case, name) for name, word in query.values)
