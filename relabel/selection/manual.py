"""A person sends a record to the queue.

Invariant: a record is one case, however it came: one that is in the queue already gets the person's reason and, if it is
higher, their priority. Nobody's judgement is left out for being alike, and there is no budget for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import polars as pl

from collector.catalog import EndpointTables
from relabel.case import Reason, ReasonKind, checked_reason
from relabel.selection.case_writer import Placement, store
from relabel.selection.record_vectors import record_vectors
from relabel.selection.rule import MANUAL
from relabel.selection.rule_days import Tally
from relabel.selection.snapshots import read_scores, read_snapshots
from relabel.selection.sources.source import ID, collected
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Conflict, Invalid, Missing
from servelens.identifiers import time_us

MAX_PRIORITY: Final = 100
_ATTEMPTS: Final = 3
_NEAR: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Queued:
    """The case of the record; ``created`` says whether it is a new one."""

    case_id: int
    created: bool


class ManualSelection:
    """``tables`` finds the tables of an endpoint, or raises :class:`~servelens.errors.Missing`."""

    def __init__(
        self,
        tables: Callable[[str], EndpointTables],
        database: Database,
        clock: Clock,
    ) -> None:
        self._tables = tables
        self._database = database
        self._clock = clock

    def add(
        self,
        endpoint: str,
        databricks_request_id: str,
        *,
        reason: str,
        priority: int = 0,
        by: str | None = None,
    ) -> Queued:
        """Make the record a case, for ``reason`` (a sentence) of ``by``.

        Raises :class:`~servelens.errors.Missing` when there is no such endpoint or record (any more),
        :class:`~servelens.errors.Invalid` when the record holds no text or an input is wrong, and
        :class:`~servelens.errors.Unavailable`.
        """
        said = checked_reason(reason)
        if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
            raise Invalid(
                f"{priority} is out of range", field="priority", fix=f"Use -{MAX_PRIORITY} to {MAX_PRIORITY}."
            )
        why = Reason(
            rule=MANUAL,
            kind=ReasonKind.MANUAL,
            priority=priority,
            detail=said if by is None else f"{by}: {said}",
        )
        tables = self._tables(endpoint)
        for attempt in range(_ATTEMPTS):
            try:
                return self._add(tables, endpoint, databricks_request_id, why)
            except Conflict:  # selection stored it, or the same content, in the same moment
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returned or raised")

    def _add(self, tables: EndpointTables, endpoint: str, request_id: str, why: Reason) -> Queued:
        record = _found(tables, endpoint, request_id)
        scores = read_scores(tables, record)
        snapshots = read_snapshots(tables, record, scores)
        flagged = snapshots.records.get(request_id)
        if flagged is None:
            raise Invalid(
                "the record holds no text: it was over the size limit, or its payload is not logged",
                field="databricks_request_id",
                fix="Choose a record whose request or answer is shown.",
            )
        flagged = replace(flagged, reasons=(why,))
        vector = record_vectors(tables.embeddings, [flagged])[request_id]
        placement = Placement(space=vector.space, vector=vector.vector.astype("<f4").tobytes())
        now = self._clock.now()
        tally = Tally()
        with self._database.session() as session:
            stored = store(session, endpoint, [flagged], {request_id: placement}, now)
            tally.cases.update(MANUAL for _ in stored.new)
            tally.repeated.update(MANUAL for _ in stored.repeated)
            tally.add_to(session, endpoint, now.date())
        return Queued(stored.cases[request_id], request_id in stored.new)


def _found(tables: EndpointTables, endpoint: str, request_id: str) -> pl.DataFrame:
    """Id and time of the record."""
    since, until = _about(request_id)
    rows = tables.payload.scan(since=since, until=until).filter(pl.col(ID) == request_id)
    found = collected(rows.select(ID, "request_time").head(1))
    if found.is_empty():
        raise Missing(
            f"endpoint {endpoint!r} has no record {request_id!r}"[:400],
            field="databricks_request_id",
            fix="Use the id as the answer's header gave it; a record is in the table some seconds after its answer, until "
            "retention deletes it.",
        )
    return found


def _about(request_id: str) -> tuple[datetime | None, datetime | None]:
    """When the record was requested, by its id: not before and not after; nothing for an id that does not say it."""
    try:
        if UUID(request_id).version != 7:
            return None, None
        moment = datetime.fromtimestamp(time_us(request_id) / 1e6, UTC)
    except (ValueError, OverflowError):
        return None, None
    return moment - _NEAR, moment + _NEAR
