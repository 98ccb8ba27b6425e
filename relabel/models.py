"""Tables of the relabeling queue in the SQL database.

Invariants kept by constraints: one case per record and per (endpoint, content), one row per record that was
flagged, one claim and one label per case and annotator, one reason per case and rule. Every change of ``state`` has a row
in ``relabel_history``, and what a case's label is has a row in ``relabel_decisions``, which only grows.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Date,
    Double,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import Mapped, mapped_column

from relabel.case import MAX_ANNOTATOR_LENGTH, CaseState, ReasonKind, Resolution
from relabel.label import Rating
from servelens.database import Base, UtcDateTime

# SQLite numbers rows by itself only in a column declared INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")
_Name = String(MAX_ANNOTATOR_LENGTH)
_Endpoint = String(255)


def _words(kind: type[StrEnum], length: int) -> Enum:
    return Enum(
        kind, native_enum=False, length=length, values_callable=lambda words: [str(word) for word in words]
    )


class ClaimState(StrEnum):
    """What became of a claim. An ``expired`` one holds no place, but its label is taken while a place is free. Only of a gold
    case is a ``released`` one kept, so that nobody is given it twice.
    """

    HELD = "held"
    EXPIRED = "expired"
    LABELED = "labeled"
    SKIPPED = "skipped"
    RELEASED = "released"


_State = _words(CaseState, 16)


class CaseRow(Base):
    """A case. Meanings of the columns: :class:`relabel.case.Case`.

    ``taken`` counts the places that are held or used up, and ``started`` says whether anybody holds or held one.
    ``annotator`` and ``lease_expires_at`` repeat the last and the first of the claims, for lists. ``gold`` is the known answer
    of a gold case: values by the name of the field.
    ``unit`` is whom the record belongs to and ``session`` which conversation, so that a split of an export keeps them
    together.
    """

    __tablename__ = "relabel_cases"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    endpoint: Mapped[str] = mapped_column(_Endpoint)
    databricks_request_id: Mapped[str] = mapped_column(String(255))
    content_hash: Mapped[str] = mapped_column(String(64))
    state: Mapped[CaseState] = mapped_column(_State)
    priority: Mapped[int] = mapped_column(Integer)
    occurrences: Mapped[int] = mapped_column(Integer)
    version: Mapped[int] = mapped_column(Integer)
    annotator: Mapped[str | None] = mapped_column(_Name)
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    served_entity: Mapped[str | None] = mapped_column(Text)
    variant: Mapped[str | None] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(Text)
    request_time: Mapped[datetime] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    skip_reason: Mapped[str | None] = mapped_column(Text)
    wanted: Mapped[int] = mapped_column(Integer, default=1, server_default="1")
    taken: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    labeled: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    started: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    resolution: Mapped[Resolution | None] = mapped_column(_words(Resolution, 16))
    unit: Mapped[str | None] = mapped_column(Text)
    session: Mapped[str | None] = mapped_column(Text)
    # The long columns come last: SQLite then reads the others without them.
    messages: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    answered: Mapped[bool] = mapped_column(Boolean)
    tools: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))
    scores: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    prompt_text: Mapped[str | None] = mapped_column(Text)
    response_text: Mapped[str | None] = mapped_column(Text)
    alternatives: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))
    gold: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))

    __table_args__ = (
        UniqueConstraint("endpoint", "databricks_request_id"),
        UniqueConstraint("endpoint", "content_hash"),
        # In the order of lists, with what they are filtered by: a page is then found without reading a case.
        Index("ix_relabel_cases_queue", "state", priority.desc(), "id", "request_time"),
        Index("ix_relabel_cases_endpoint_queue", "endpoint", "state", priority.desc(), "id", "request_time"),
        Index("ix_relabel_cases_order", priority.desc(), "id", "request_time"),
        Index("ix_relabel_cases_endpoint_order", "endpoint", priority.desc(), "id", "request_time"),
        Index("ix_relabel_cases_claim", "state", "started", priority.desc(), "id"),
        Index("ix_relabel_cases_endpoint_claim", "endpoint", "state", "started", priority.desc(), "id"),
        Index("ix_relabel_cases_time", "endpoint", "request_time"),
    )


class ClaimRow(Base):
    """One annotator's place at a case. ``version`` is the case's when it was handed out, and ``schema_version`` what they
    were asked; the row of a released claim is gone.
    """

    __tablename__ = "relabel_claims"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    case_id: Mapped[int] = mapped_column(_Id, ForeignKey("relabel_cases.id"))
    annotator: Mapped[str] = mapped_column(_Name)
    state: Mapped[ClaimState] = mapped_column(_words(ClaimState, 16))
    version: Mapped[int] = mapped_column(Integer)
    schema_version: Mapped[int] = mapped_column(Integer)
    is_adjudication: Mapped[bool] = mapped_column(Boolean)
    claimed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    skip_reason: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        UniqueConstraint("case_id", "annotator"),
        Index("ix_relabel_claims_holder", "annotator", "state", "id"),
        Index("ix_relabel_claims_lease", "state", "lease_expires_at"),
    )


class OccurrenceRow(Base):
    """A flagged record and its case, which may be that of an earlier record with the same content, or nearly the same:
    ``similarity`` is then the cosine. ``sampled`` is the probability with which the control sample drew the record.
    """

    __tablename__ = "relabel_occurrences"

    endpoint: Mapped[str] = mapped_column(_Endpoint, primary_key=True)
    databricks_request_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    case_id: Mapped[int] = mapped_column(_Id, ForeignKey("relabel_cases.id"), index=True)
    request_time: Mapped[datetime] = mapped_column(UtcDateTime)
    sampled: Mapped[float | None] = mapped_column(Double)
    similarity: Mapped[float | None] = mapped_column(Double)


class ReasonRow(Base):
    """Why a case is one; a rule gives one reason per case, the first."""

    __tablename__ = "relabel_reasons"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    case_id: Mapped[int] = mapped_column(_Id, ForeignKey("relabel_cases.id"))
    rule: Mapped[str] = mapped_column(_Endpoint)
    kind: Mapped[ReasonKind] = mapped_column(_words(ReasonKind, 32))
    evaluator: Mapped[str | None] = mapped_column(String(255))
    evaluator_version: Mapped[str | None] = mapped_column(String(255))
    target: Mapped[str | None] = mapped_column(String(32))
    direction: Mapped[str | None] = mapped_column(String(8))
    threshold: Mapped[float | None] = mapped_column(Float)
    score: Mapped[float | None] = mapped_column(Float)
    label: Mapped[str | None] = mapped_column(Text)
    detail: Mapped[str | None] = mapped_column(Text)
    priority: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (
        UniqueConstraint("case_id", "rule"),
        Index("ix_relabel_reasons_evaluator", "evaluator", "case_id"),
        Index("ix_relabel_reasons_kind", "kind", "case_id"),
    )


class LabelRow(Base):
    """A label, never changed once it is given. ``values`` are the answers that have no column of their own."""

    __tablename__ = "relabel_labels"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    case_id: Mapped[int] = mapped_column(_Id, ForeignKey("relabel_cases.id"))
    annotator: Mapped[str] = mapped_column(_Name)
    rating: Mapped[Rating | None] = mapped_column(_words(Rating, 16))
    corrected_answer: Mapped[str | None] = mapped_column(Text)
    tags: Mapped[list[str]] = mapped_column(JSON)
    comment: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    preferred: Mapped[str | None] = mapped_column(String(255))
    values: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    schema_version: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    is_adjudication: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    duration_s: Mapped[float | None] = mapped_column(Double)
    source: Mapped[str] = mapped_column(String(32), default="servelens", server_default="servelens")

    __table_args__ = (
        UniqueConstraint("case_id", "annotator"),
        Index("ix_relabel_labels_annotator", "annotator", "id"),
    )


class DecisionRow(Base):
    """What a case's label is from this row on, until a later one: that of ``label_id``, or none when it was skipped or
    reopened. ``agreement`` is the share of its ``labels`` that say the same. An id is never used twice, since exports name
    the last one that they have seen.
    """

    __tablename__ = "relabel_decisions"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    case_id: Mapped[int] = mapped_column(_Id, ForeignKey("relabel_cases.id"))
    label_id: Mapped[int | None] = mapped_column(_Id, ForeignKey("relabel_labels.id"))
    resolution: Mapped[Resolution | None] = mapped_column(_words(Resolution, 16))
    labels: Mapped[int] = mapped_column(Integer)
    agreement: Mapped[float | None] = mapped_column(Double)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index("ix_relabel_decisions_case", "case_id", "id"),
        {"sqlite_autoincrement": True},
    )


class HistoryRow(Base):
    """The audit trail: one row per thing that happens to a case, written in the transaction that does it."""

    __tablename__ = "relabel_history"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    case_id: Mapped[int] = mapped_column(_Id, ForeignKey("relabel_cases.id"), index=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    from_state: Mapped[CaseState | None] = mapped_column(_State)
    to_state: Mapped[CaseState] = mapped_column(_State)
    actor: Mapped[str] = mapped_column(_Name)
    detail: Mapped[str | None] = mapped_column(Text)
    event: Mapped[str | None] = mapped_column(String(32))


class CommentRow(Base):
    """A remark of a person on a case."""

    __tablename__ = "relabel_comments"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    case_id: Mapped[int] = mapped_column(_Id, ForeignKey("relabel_cases.id"), index=True)
    author: Mapped[str] = mapped_column(_Name)
    text: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SchemaRow(Base):
    """A version of an endpoint's label schema, as the settings or the API gave it. Versions begin at 1."""

    __tablename__ = "relabel_schemas"

    endpoint: Mapped[str] = mapped_column(_Endpoint, primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    definition: Mapped[dict[str, Any]] = mapped_column(JSON)
    from_file: Mapped[bool] = mapped_column(Boolean)
    created_by: Mapped[str | None] = mapped_column(_Name)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class CursorRow(Base):
    """Up to which version of a table a source of cases has been read; ``detail`` is what else the source remembers."""

    __tablename__ = "relabel_cursors"

    endpoint: Mapped[str] = mapped_column(_Endpoint, primary_key=True)
    source: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int | None] = mapped_column(BigInteger)
    detail: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PendingRow(Base):
    """A record that a rule applies to and that is not in the inference table yet, as of ``payload_version``. ``match`` is
    what the rule saw; after ``give_up_at`` the record counts as gone.
    """

    __tablename__ = "relabel_pending"

    endpoint: Mapped[str] = mapped_column(_Endpoint, primary_key=True)
    databricks_request_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    rule: Mapped[str] = mapped_column(_Endpoint, primary_key=True)
    request_time: Mapped[datetime] = mapped_column(UtcDateTime)
    payload_version: Mapped[int | None] = mapped_column(BigInteger)
    give_up_at: Mapped[datetime] = mapped_column(UtcDateTime)
    match: Mapped[dict[str, Any]] = mapped_column(JSON)


class RuleDayRow(Base):
    """What a rule found on a day (UTC, of selection): new cases, and records that made none, by why."""

    __tablename__ = "relabel_rule_days"

    endpoint: Mapped[str] = mapped_column(_Endpoint, primary_key=True)
    rule: Mapped[str] = mapped_column(_Endpoint, primary_key=True)
    day: Mapped[Any] = mapped_column(Date, primary_key=True)
    cases: Mapped[int] = mapped_column(Integer)
    over_budget: Mapped[int] = mapped_column(Integer)
    repeated: Mapped[int] = mapped_column(Integer)
    over_cluster: Mapped[int] = mapped_column(Integer)
    without_text: Mapped[int] = mapped_column(Integer)


class VectorRow(Base):
    """A case's vector (little-endian float32, unit length) in ``space``, for near duplicates and clusters: ``cluster`` is
    the id of the case that leads it.
    """

    __tablename__ = "relabel_vectors"

    case_id: Mapped[int] = mapped_column(_Id, ForeignKey("relabel_cases.id"), primary_key=True)
    endpoint: Mapped[str] = mapped_column(_Endpoint)
    space: Mapped[str] = mapped_column(String(255))
    cluster: Mapped[int] = mapped_column(_Id)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    vector: Mapped[bytes] = mapped_column(LargeBinary)

    __table_args__ = (Index("ix_relabel_vectors_recent", "endpoint", "space", "created_at"),)


class ImportRow(Base):
    """An annotation of another tool that has been taken in: the same one again changes nothing."""

    __tablename__ = "relabel_imports"

    tool: Mapped[str] = mapped_column(String(32), primary_key=True)
    external_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    label_id: Mapped[int] = mapped_column(_Id, ForeignKey("relabel_labels.id"))
    imported_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ExportRow(Base):
    """An export that was made, with the manifest that says how to make it again."""

    __tablename__ = "relabel_exports"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    created_by: Mapped[str | None] = mapped_column(_Name)
    manifest: Mapped[dict[str, Any]] = mapped_column(JSON)
