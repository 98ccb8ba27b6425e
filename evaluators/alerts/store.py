"""Keeps where alerts stand, and writes to the outbox what is to be told, in the transaction that changes it.

Invariants: a restart neither forgets nor repeats. The state is read, advanced and written under a lock of its row, so
two schedulers that look at the same moment make one incident; the notification of its start is written with it, or by
the first look after the silence that held it back, and that of its end with its end. An incident that nobody was told of
ends untold; one that was told of is always told to end, also in a silence, or its receiver would keep it open for ever.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from evaluators.alerts.findings import Finding
from evaluators.alerts.models import AlertDeliveryRow, AlertIncidentRow, AlertStateRow
from evaluators.alerts.notification import Kind, document_of
from evaluators.alerts.rule import AlertRule
from evaluators.alerts.samples import rounded
from evaluators.alerts.silences import Silence, active_silences, silence_of
from evaluators.alerts.state import Event, State, Status, advance
from servelens.clock import Clock
from servelens.database import Database

_TEXT: Final = 2_000
_SLICE: Final = 255
_STATUSES: Final[dict[str, Status]] = {
    "ok": "ok",
    "pending": "pending",
    "firing": "firing",
    "no_data": "no_data",
}


class AlertStore:
    """Reads and writes states and incidents. Methods may be called from several threads and processes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def states(self, rule: str) -> dict[str, State]:
        """Where the slices of a rule stand."""
        query = select(AlertStateRow).where(AlertStateRow.rule == rule)
        with self._database.session(read_only=True) as session:
            return {row.slice: _state(row) for row in session.scalars(query)}

    def record(
        self, rule: AlertRule, slice_: str, finding: Finding, examples: Callable[[], Sequence[str]]
    ) -> Event | None:
        """Take a finding into the slice's state; what came of it. ``examples`` is asked, before anything is locked, for
        ids of records when the alert is about to fire.

        Raises :class:`~servelens.errors.Conflict` when two were first at the same moment: the next look finds its state.
        """
        slice_ = stored_slice(slice_)
        now = self._clock.now()
        _, likely = advance(self.states(rule.name).get(slice_), finding, rule, now)
        shown = list(examples()) if likely == "fire" else []
        with self._database.session() as session:
            row = session.get(AlertStateRow, (rule.name, slice_), with_for_update=True)
            state, event = advance(None if row is None else _state(row), finding, rule, now)
            if row is None:
                row = AlertStateRow(rule=rule.name, slice=slice_, incident_id=None)
                session.add(row)
            _write(row, rule, state, finding)
            if event == "fire":
                session.flush()  # its row is locked, or refused, before there is an incident
                row.incident_id = _open(session, row, rule, finding, shown, now)
            elif event == "resolve":
                _close(session, row, finding.reason, now)
            return event

    def forget_slices(self, rule: AlertRule, gone: Iterable[str], reason: str) -> int:
        """Drop slices that there are no longer; what fires there ends with ``reason``. How many."""
        dropped = 0
        for slice_ in gone:
            dropped += self._drop(rule.name, slice_, reason)
        return dropped

    def retire(self, rules: Iterable[str]) -> int:
        """Drop the states of all rules but these; what fires there ends. How many."""
        kept = set(rules)
        with self._database.session(read_only=True) as session:
            known = [(row.rule, row.slice) for row in session.scalars(select(AlertStateRow))]
        return sum(
            self._drop(rule, slice_, "the rule is no longer in the settings")
            for rule, slice_ in known
            if rule not in kept
        )

    def announce(self) -> int:
        """Write to the outbox what may be told by now: incidents whose silence is over, and reminders that are due. How
        many incidents.
        """
        now = self._clock.now()
        told = 0
        opened = select(AlertIncidentRow).where(AlertIncidentRow.resolved_at.is_(None))
        with self._database.session(read_only=True) as session:
            due = [row.id for row in session.scalars(opened) if _is_due(row, now)]
        for number in due:
            with self._database.session() as session:
                incident = session.get(AlertIncidentRow, number, with_for_update=True)
                if incident is None or incident.resolved_at is not None or not _is_due(incident, now):
                    continue
                told += _announce(session, incident, active_silences(session, now), now)
        return told

    def forget(self, before: datetime) -> int:
        """Delete incidents that ended before ``before``, with their deliveries, as far as these are finished. How many."""
        ended = select(AlertIncidentRow.id).where(AlertIncidentRow.resolved_at < before)
        waiting = select(AlertDeliveryRow.incident_id).where(AlertDeliveryRow.status == "waiting")
        with self._database.session() as session:
            old = session.scalars(ended.where(AlertIncidentRow.id.not_in(waiting)).limit(1_000)).all()
            session.execute(delete(AlertDeliveryRow).where(AlertDeliveryRow.incident_id.in_(old)))
            session.execute(delete(AlertIncidentRow).where(AlertIncidentRow.id.in_(old)))
            return len(old)

    def _drop(self, rule: str, slice_: str, reason: str) -> int:
        with self._database.session() as session:
            row = session.get(AlertStateRow, (rule, slice_), with_for_update=True)
            if row is None:
                return 0
            _close(session, row, reason, self._clock.now())
            session.flush()
            session.delete(row)
            return 1


def stored_slice(slice_: str) -> str:
    """The slice's name as the database can hold it."""
    return slice_.replace("\0", "")[:_SLICE]


def _state(row: AlertStateRow) -> State:
    return State(
        status=_STATUSES[row.status],
        since=row.since,
        evaluated_at=row.evaluated_at,
        breached_since=row.breached_since,
        clear_since=row.clear_since,
        data_at=row.data_at,
    )


def _write(row: AlertStateRow, rule: AlertRule, state: State, finding: Finding) -> None:
    row.endpoint, row.severity = rule.endpoint, rule.severity
    row.status, row.since, row.evaluated_at = state.status, state.since, state.evaluated_at
    row.breached_since, row.clear_since, row.data_at = state.breached_since, state.clear_since, state.data_at
    row.value, row.reference = rounded(finding.value), rounded(finding.reference)
    row.samples, row.reason, row.evidence = finding.samples, _text(finding.reason), dict(finding.evidence)


def _open(
    session: Session,
    row: AlertStateRow,
    rule: AlertRule,
    finding: Finding,
    examples: Sequence[str],
    now: datetime,
) -> int:
    incident = AlertIncidentRow(
        key=str(uuid.uuid4()),
        rule=rule.name,
        slice=row.slice,
        endpoint=rule.endpoint,
        severity=rule.severity,
        description=rule.description,
        channels=list(rule.channels),
        remind_s=None if rule.remind_every is None else rule.remind_every.total_seconds(),
        breached_at=row.breached_since or now,
        fired_at=now,
        announced_at=None,
        reminded_at=None,
        reminders=0,
        silence_id=None,
        resolved_at=None,
        value=rounded(finding.value),
        reference=rounded(finding.reference),
        reason=_text(finding.reason),
        resolution=None,
        evidence=dict(finding.evidence),
        examples=[_text(each)[:255] for each in examples],
    )
    session.add(incident)
    session.flush()
    _announce(session, incident, active_silences(session, now), now)
    return incident.id


def _close(session: Session, row: AlertStateRow, reason: str, now: datetime) -> None:
    if row.incident_id is None:
        return
    incident = session.get_one(AlertIncidentRow, row.incident_id, with_for_update=True)
    row.incident_id = None
    incident.resolved_at, incident.resolution = now, _text(reason)
    if incident.announced_at is not None:
        _enqueue(session, incident, "resolved", 0, now)


def _is_due(incident: AlertIncidentRow, now: datetime) -> bool:
    if incident.announced_at is None:
        return True
    if incident.remind_s is None:
        return False
    last = incident.reminded_at or incident.announced_at
    return now - last >= timedelta(seconds=incident.remind_s)


def _announce(
    session: Session, incident: AlertIncidentRow, silences: Sequence[Silence], now: datetime
) -> bool:
    silence = silence_of(silences, rule=incident.rule, endpoint=incident.endpoint, slice_=incident.slice)
    incident.silence_id = None if silence is None else silence.id
    if silence is not None:
        return False
    if incident.announced_at is None:
        incident.announced_at = now
        _enqueue(session, incident, "firing", 0, now)
    else:
        incident.reminded_at = now
        incident.reminders += 1
        _enqueue(session, incident, "reminder", incident.reminders, now)
    return True


def _enqueue(session: Session, incident: AlertIncidentRow, kind: Kind, number: int, now: datetime) -> None:
    document = document_of(incident, kind, number)
    untold: set[str] = set()
    if kind == "reminder":
        waiting = select(AlertDeliveryRow.channel).where(
            AlertDeliveryRow.incident_id == incident.id, AlertDeliveryRow.status == "waiting"
        )
        untold = set(session.scalars(waiting))  # who is away needs no reminders of what they have not heard
    for channel in dict.fromkeys(incident.channels):
        if channel in untold:
            continue
        session.add(
            AlertDeliveryRow(
                incident_id=incident.id,
                channel=channel,
                kind=kind,
                number=number,
                status="waiting",
                attempts=0,
                created_at=now,
                next_at=now,
                finished_at=None,
                http_status=None,
                detail=None,
                document=document,
                attempts_log=[],
            )
        )


def _text(text: str) -> str:
    return text.replace("\0", "")[:_TEXT]
