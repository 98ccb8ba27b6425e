"""SQL tables of the alerts: where each rule stands, its incidents, what is to be told of them, and silences.

Invariants kept by constraints: one state per rule and slice; one delivery per incident, channel, kind and number.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from servelens.database import Base, UtcDateTime

_NAME = String(200)
_SLICE = String(255)
_SHORT = String(20)


class AlertStateRow(Base):
    """Where one slice of a rule stands, as its last look left it. ``incident_id`` is the open incident, while it fires.

    ``breached_since`` and ``clear_since`` say from when on the condition has been met, or not met, at every look.
    """

    __tablename__ = "alert_states"

    rule: Mapped[str] = mapped_column(_NAME, primary_key=True)
    slice: Mapped[str] = mapped_column(_SLICE, primary_key=True)
    endpoint: Mapped[str] = mapped_column(_NAME)
    severity: Mapped[str] = mapped_column(_SHORT)
    status: Mapped[str] = mapped_column(_SHORT)
    since: Mapped[datetime] = mapped_column(UtcDateTime)
    breached_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    clear_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    data_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    evaluated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    value: Mapped[float | None]
    reference: Mapped[float | None]
    samples: Mapped[int | None]
    reason: Mapped[str] = mapped_column(Text)
    evidence: Mapped[dict[str, Any]] = mapped_column(JSON)
    incident_id: Mapped[int | None] = mapped_column(ForeignKey("alert_incidents.id"))


class AlertIncidentRow(Base):
    """One time that an alert fired, from start to end. ``key`` is what receivers know it by.

    Nobody is told before ``announced_at``: it is null while a silence holds it back, ``silence_id`` then. The rule's
    channels and reminder are copied, so that an incident ends well when its rule is gone.
    """

    __tablename__ = "alert_incidents"
    __table_args__ = (
        Index("alert_incidents_open", "resolved_at", "id"),
        Index("alert_incidents_of_rule", "rule", "slice", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(36), unique=True)
    rule: Mapped[str] = mapped_column(_NAME)
    slice: Mapped[str] = mapped_column(_SLICE)
    endpoint: Mapped[str] = mapped_column(_NAME)
    severity: Mapped[str] = mapped_column(_SHORT)
    description: Mapped[str] = mapped_column(Text)
    channels: Mapped[list[str]] = mapped_column(JSON)
    remind_s: Mapped[float | None]
    breached_at: Mapped[datetime] = mapped_column(UtcDateTime)
    fired_at: Mapped[datetime] = mapped_column(UtcDateTime)
    announced_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    reminded_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    reminders: Mapped[int]
    silence_id: Mapped[int | None] = mapped_column(ForeignKey("alert_silences.id"))
    resolved_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    value: Mapped[float | None]
    reference: Mapped[float | None]
    reason: Mapped[str] = mapped_column(Text)
    resolution: Mapped[str | None] = mapped_column(Text)
    evidence: Mapped[dict[str, Any]] = mapped_column(JSON)
    examples: Mapped[list[str]] = mapped_column(JSON)


class AlertDeliveryRow(Base):
    """One notification for one channel: the outbox, and the log of what came of it.

    ``status`` is waiting, sent, failed (the receiver will never take it) or expired (it was away for too long);
    ``next_at`` is when a waiting one is tried, or tried again should its sender have died. ``attempts_log`` has the last
    attempts, each with its time, HTTP status and words.
    """

    __tablename__ = "alert_deliveries"
    __table_args__ = (
        UniqueConstraint("incident_id", "channel", "kind", "number"),
        Index("alert_deliveries_waiting", "status", "channel", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    incident_id: Mapped[int] = mapped_column(ForeignKey("alert_incidents.id"))
    channel: Mapped[str] = mapped_column(_NAME)
    kind: Mapped[str] = mapped_column(_SHORT)
    number: Mapped[int]
    status: Mapped[str] = mapped_column(_SHORT)
    attempts: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    next_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    http_status: Mapped[int | None]
    detail: Mapped[str | None] = mapped_column(Text)
    document: Mapped[dict[str, Any]] = mapped_column(JSON)
    attempts_log: Mapped[list[dict[str, Any]]] = mapped_column(JSON)


class AlertSilenceRow(Base):
    """From ``starts_at`` to ``ends_at`` nobody is told of what it matches; null matches everything, ``*`` any text."""

    __tablename__ = "alert_silences"

    id: Mapped[int] = mapped_column(primary_key=True)
    rule: Mapped[str | None] = mapped_column(_NAME)
    endpoint: Mapped[str | None] = mapped_column(_NAME)
    slice: Mapped[str | None] = mapped_column(_SLICE)
    starts_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    ends_at: Mapped[datetime] = mapped_column(UtcDateTime)
    author: Mapped[str] = mapped_column(String(255))
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_by: Mapped[str | None] = mapped_column(String(255))
