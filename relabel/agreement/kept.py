"""Reports of agreement, kept for a short while, since they read all labels of an endpoint.

Invariant: a report is never served once a decision is newer than it, or after :data:`KEPT_S` seconds: a label that does not
decide its case yet is seen no later than then. A report that several ask for at once is made once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from relabel.agreement.answers import newest_decision
from relabel.agreement.report import PeopleAgreement, people_agreement
from relabel.label_schema import Schemas
from servelens.clock import Clock
from servelens.database import Database

KEPT_S: Final = 60.0
_MOST: Final = 64
Report = TypeVar("Report")


@dataclass(slots=True)
class _Slot(Generic[Report]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    report: Report | None = None
    decision: int = -1
    made_at: float = 0.0


class KeptReports(Generic[Report]):
    """The newest report by key. May be shared by threads."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._slots: dict[Hashable, _Slot[Report]] = {}

    def get(self, key: Hashable, make: Callable[[], Report]) -> Report:
        """The report under ``key``, from ``make`` when there is none that still holds."""
        with self._lock:
            slot = self._slots.pop(key, None) or _Slot()
            self._slots[key] = slot
            while len(self._slots) > _MOST:
                del self._slots[next(iter(self._slots))]
        with slot.lock:
            decision, now = newest_decision(self._database), self._clock.monotonic()
            if slot.report is None or slot.decision != decision or now - slot.made_at > KEPT_S:
                slot.report = make()
                slot.decision, slot.made_at = decision, now
            return slot.report


class PeopleAgreements:
    """The reports of :func:`~relabel.agreement.report.people_agreement`, kept."""

    def __init__(self, database: Database, clock: Clock, schemas: Schemas | None = None) -> None:
        self._database = database
        self._schemas = schemas
        self._kept: KeptReports[PeopleAgreement] = KeptReports(database, clock)

    def report(self, endpoint: str) -> PeopleAgreement:
        """The report of ``endpoint``; takes seconds for hundreds of thousands of labels, so never on an event loop."""
        return self._kept.get(endpoint, lambda: people_agreement(self._database, endpoint, self._schemas))
