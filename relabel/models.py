"""Tables of the relabeling queue in the SQL database.

Invariants kept by constraints: one case per record and per (endpoint, content), one row per record that was
flagged, one label per case and annotator. Every change of ``state`` has a row in ``relabel_history``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from relabel.case import MAX_ANNOTATOR_LENGTH, CaseState, Rating
from servelens.database import Base, UtcDateTime

# SQLite numbers rows by itself only in a column declared INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")
_Name = String(MAX_ANNOTATOR_LENGTH)
_State = Enum(
    CaseState, native_enum=False, length=16, values_callable=lambda states: [str(state) for state in states]
)
_Rating = Enum(
    Rating, native_enum=False, length=16, values_callable=lambda ratings: [str(rating) for rating in ratings]
)


class CaseRow(Base):
    """A case. Meanings of the columns: :class:`relabel.case.Case`.

    An expired lease leaves ``annotator`` in place, so that a label that comes late is still taken while
    nobody else has claimed the case.
    """

    __tablename__ = "relabel_cases"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    endpoint: Mapped[str] = mapped_column(String(255))
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
    # The long columns come last: SQLite then reads the others without them.
    messages: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    answered: Mapped[bool] = mapped_column(Boolean)
    tools: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))
    scores: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    prompt_text: Mapped[str | None] = mapped_column(Text)
    response_text: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        UniqueConstraint("endpoint", "databricks_request_id"),
        UniqueConstraint("endpoint", "content_hash"),
        Index("ix_relabel_cases_queue", "state", priority.desc(), "id"),
        Index("ix_relabel_cases_endpoint_queue", "endpoint", "state", priority.desc(), "id"),
        Index("ix_relabel_cases_order", priority.desc(), "id"),
        Index("ix_relabel_cases_lease", "state", "lease_expires_at"),
        Index("ix_relabel_cases_holder", "annotator", "state"),
    )


class OccurrenceRow(Base):
    """A flagged record and its case, which may be that of an earlier record with the same content."""

    __tablename__ = "relabel_occurrences"

    endpoint: Mapped[str] = mapped_column(String(255), primary_key=True)
    databricks_request_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    case_id: Mapped[int] = mapped_column(_Id, ForeignKey("relabel_cases.id"), index=True)
    request_time: Mapped[datetime] = mapped_column(UtcDateTime)


class ReasonRow(Base):
    """Why a case is one; a rule gives one reason per case, the first."""

    __tablename__ = "relabel_reasons"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    case_id: Mapped[int] = mapped_column(_Id, ForeignKey("relabel_cases.id"))
    evaluator: Mapped[str] = mapped_column(String(255))
    target: Mapped[str] = mapped_column(String(32))
    direction: Mapped[str] = mapped_column(String(8))
    threshold: Mapped[float] = mapped_column(Float)
    score: Mapped[float] = mapped_column(Float)
    priority: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (UniqueConstraint("case_id", "evaluator", "target", "direction"),)


class LabelRow(Base):
    """A label, never changed once it is given."""

    __tablename__ = "relabel_labels"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    case_id: Mapped[int] = mapped_column(_Id, ForeignKey("relabel_cases.id"))
    annotator: Mapped[str] = mapped_column(_Name)
    rating: Mapped[Rating] = mapped_column(_Rating)
    corrected_answer: Mapped[str | None] = mapped_column(Text)
    tags: Mapped[list[str]] = mapped_column(JSON)
    comment: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (UniqueConstraint("case_id", "annotator"),)


class HistoryRow(Base):
    """The audit trail: one row per change of a case's state, written in the transaction that changes it."""

    __tablename__ = "relabel_history"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    case_id: Mapped[int] = mapped_column(_Id, ForeignKey("relabel_cases.id"), index=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    from_state: Mapped[CaseState | None] = mapped_column(_State)
    to_state: Mapped[CaseState] = mapped_column(_State)
    actor: Mapped[str] = mapped_column(_Name)
    detail: Mapped[str | None] = mapped_column(Text)


class SelectionRow(Base):
    """Up to which version of an endpoint's scores table cases have been selected."""

    __tablename__ = "relabel_selections"

    endpoint: Mapped[str] = mapped_column(String(255), primary_key=True)
    scores_version: Mapped[int | None] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
