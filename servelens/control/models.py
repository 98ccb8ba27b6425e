"""Tables of the control plane: endpoints, all their versions, one counter of changes, and who serves which of them.

Invariant: a row of ``serving_endpoints`` is never removed. A deleted endpoint keeps its name, its config_version and the
name of its inference table, so that records that are still in a spool, and an endpoint created again under the name, go
to the table where its other records are.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from servelens.database import Base, UtcDateTime

_NAME = 63
_PERSON = 255


class GenerationRow(Base):
    """One row: the number of the last change. Its lock puts all changes in an order, so a reader that has seen a
    number has seen everything up to it.
    """

    __tablename__ = "serving_generation"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    value: Mapped[int]


class EndpointRow(Base):
    """An endpoint as it is configured now. ``settings`` is an EndpointSettings as JSON, with its secrets; ``shown`` is
    the same without. ``generation`` is the number of its last change, ``config_generation`` of the last one that
    concerns what it serves.
    """

    __tablename__ = "serving_endpoints"
    __table_args__ = (UniqueConstraint("table_catalog", "table_schema", "table_prefix"),)

    name: Mapped[str] = mapped_column(String(_NAME), primary_key=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    shown: Mapped[dict[str, Any]] = mapped_column(JSON)
    config_version: Mapped[int]
    generation: Mapped[int]
    config_generation: Mapped[int]
    created_generation: Mapped[int]
    source: Mapped[str] = mapped_column(String(8))
    file_digest: Mapped[str | None] = mapped_column(String(64))
    description: Mapped[str | None] = mapped_column(Text)
    creator: Mapped[str] = mapped_column(String(_PERSON))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    table_catalog: Mapped[str] = mapped_column(String(_NAME))
    table_schema: Mapped[str] = mapped_column(String(_NAME))
    table_prefix: Mapped[str] = mapped_column(String(_NAME))


class EndpointVersionRow(Base):
    """What was changed, by whom and when; ``settings`` without secrets."""

    __tablename__ = "serving_endpoint_versions"
    __table_args__ = (Index("ix_serving_endpoint_versions_name", "name", "generation"),)

    generation: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(_NAME), primary_key=True)
    config_version: Mapped[int]
    action: Mapped[str] = mapped_column(String(16))
    changed_by: Mapped[str] = mapped_column(String(_PERSON))
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)


class ProxyWorkerRow(Base):
    """A proxy worker, the generation that it serves, and the endpoints that it could not build (name to reason)."""

    __tablename__ = "serving_proxy_workers"

    worker: Mapped[str] = mapped_column(String(255), primary_key=True)
    generation: Mapped[int]
    failing: Mapped[dict[str, str]] = mapped_column(JSON)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
