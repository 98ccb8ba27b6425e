"""A small table for the tests of servelens.database."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from servelens.database import Base, Database, UtcDateTime


class Note(Base):
    """A text with a time; texts are unique where ``key`` is given."""

    __tablename__ = "test_notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str | None] = mapped_column(unique=True)
    text: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime | None] = mapped_column(UtcDateTime)


def create_notes(database: Database) -> None:
    """Make the table, which no version of the database knows."""
    Base.metadata.create_all(database.engine, tables=[Base.metadata.tables[Note.__tablename__]])
