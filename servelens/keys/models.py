"""SQL table of the API keys. Rows are never deleted: an inference table names requesters for years."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from servelens.database import Base, UtcDateTime

_NOT_REVOKED = text("revoked_at IS NULL")


class KeyRow(Base):
    """One API key. ``digest`` is the SHA-256 of its secret; the secret itself is kept nowhere."""

    __tablename__ = "api_keys"
    __table_args__ = (
        Index(
            "ix_api_keys_live_name",
            "name",
            unique=True,
            sqlite_where=_NOT_REVOKED,
            postgresql_where=_NOT_REVOKED,
        ),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    prefix: Mapped[str] = mapped_column(String(16))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created_by: Mapped[str | None] = mapped_column(String(128))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
