"""The ids of records that were forgotten, kept for as long as something that still knows them may write about them.

An evaluator may have read a record before it was deleted, or read its text from an older version of the table, and a
person's feedback may come late. Whoever finds rows with these ids deletes them. The ids say when a call was made and
nothing of whom; the person who asked is kept nowhere. Invariant: ids are stored before the first row is deleted, so a
run that was cut off is finished by the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import String, delete, insert, select
from sqlalchemy.orm import Mapped, mapped_column

from servelens.clock import Clock
from servelens.database import Base, Database, UtcDateTime

_CHUNK: Final = 500


class ForgottenRecordRow(Base):
    """A record of ``endpoint`` that is to be in no table any more."""

    __tablename__ = "forgotten_records"

    endpoint: Mapped[str] = mapped_column(String(255), primary_key=True)
    databricks_request_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    forgotten_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class ForgottenRecords:
    """Reads and writes those ids. Methods raise what :meth:`Database.session` raises."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add(self, endpoint: str, request_ids: Sequence[str]) -> None:
        """Remember ``request_ids``; for those that are known their time begins anew."""
        now = self._clock.now()
        with self._database.session() as session:
            for first in range(0, len(request_ids), _CHUNK):
                some = request_ids[first : first + _CHUNK]
                session.execute(
                    delete(ForgottenRecordRow).where(
                        ForgottenRecordRow.endpoint == endpoint,
                        ForgottenRecordRow.databricks_request_id.in_(some),
                    )
                )
                session.execute(
                    insert(ForgottenRecordRow),
                    [
                        {"endpoint": endpoint, "databricks_request_id": name, "forgotten_at": now}
                        for name in dict.fromkeys(some)
                    ],
                )

    def by_endpoint(self) -> Mapping[str, list[str]]:
        """All ids that are remembered."""
        found: dict[str, list[str]] = {}
        query = select(ForgottenRecordRow.endpoint, ForgottenRecordRow.databricks_request_id)
        with self._database.session(read_only=True) as session:
            for endpoint, request_id in session.execute(query):
                found.setdefault(endpoint, []).append(request_id)
        return found

    def drop(self, before: datetime) -> int:
        """Stop remembering what was forgotten before then; how many."""
        with self._database.session() as session:
            gone = session.scalars(
                delete(ForgottenRecordRow)
                .where(ForgottenRecordRow.forgotten_at < before)
                .returning(ForgottenRecordRow.databricks_request_id)
            )
            return len(gone.all())
