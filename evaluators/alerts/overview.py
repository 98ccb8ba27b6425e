"""What people and pages are shown of alerts: where each rule stands, incidents, and what came of their deliveries.

Reads the database only, so it is as quick with ten years of tables as with a day. All answers are JSON-able.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select

from evaluators.alerts.models import AlertDeliveryRow, AlertIncidentRow, AlertStateRow
from evaluators.alerts.rule import AlertRule
from evaluators.alerts.silences import active_silences, silence_of
from evaluators.alerts.state import longest_gap
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Missing

_ORDER: Final = {"firing": 0, "pending": 1, "no_data": 2, "not_looked_at": 3, "ok": 4}


class AlertOverview:
    """Reads states, incidents and deliveries."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def alerts(self, rules: Sequence[AlertRule], *, endpoint: str | None = None) -> list[dict[str, Any]]:
        """Every rule with its slices; the rules that fire first, else in their order.

        A rule's ``status`` is the worst of its slices'; ``not_looked_at`` when there has been no look, and ``stale`` when
        the last one is too long ago for the status to mean anything.
        """
        now = self._clock.now()
        with self._database.session(read_only=True) as session:
            silences = active_silences(session, now)
            slices: dict[str, list[dict[str, Any]]] = {}
            for row in session.scalars(
                select(AlertStateRow).order_by(AlertStateRow.rule, AlertStateRow.slice)
            ):
                shown = _state(row)
                silence = silence_of(silences, rule=row.rule, endpoint=row.endpoint, slice_=row.slice)
                shown["silenced_by"] = None if silence is None else silence.id
                slices.setdefault(row.rule, []).append(shown)
        found = []
        for rule in rules:
            if endpoint is not None and rule.endpoint != endpoint:
                continue
            own = slices.get(rule.name, [])
            statuses = [str(each["status"]) for each in own] or ["not_looked_at"]
            looks = [datetime.fromisoformat(each["evaluated_at"]) for each in own]
            found.append(
                {
                    "rule": rule.name,
                    "endpoint": rule.endpoint,
                    "severity": rule.severity,
                    "description": rule.description,
                    "measure": rule.measure.words(),
                    "channels": list(rule.channels),
                    "status": min(statuses, key=_ORDER.__getitem__),
                    "stale": bool(looks) and now - max(looks) > longest_gap(rule) + timedelta(minutes=1),
                    "slices": own,
                }
            )
        return sorted(found, key=lambda each: _ORDER[str(each["status"])])

    def incidents(
        self,
        *,
        open_only: bool = False,
        endpoint: str | None = None,
        rule: str | None = None,
        since: datetime | None = None,
        limit: int = 100,
    ) -> list[dict[str, Any]]:
        """Incidents, the newest first. ``since`` leaves out those that ended before it."""
        query = select(AlertIncidentRow).order_by(AlertIncidentRow.id.desc()).limit(limit)
        if open_only:
            query = query.where(AlertIncidentRow.resolved_at.is_(None))
        if endpoint is not None:
            query = query.where(AlertIncidentRow.endpoint == endpoint)
        if rule is not None:
            query = query.where(AlertIncidentRow.rule == rule)
        if since is not None:
            ended = AlertIncidentRow.resolved_at
            query = query.where(ended.is_(None) | (ended >= since))
        with self._database.session(read_only=True) as session:
            return [_incident(row) for row in session.scalars(query)]

    def incident(self, key: str) -> dict[str, Any]:
        """One incident with its ``deliveries``, the oldest first. Raises :class:`~servelens.errors.Missing`."""
        with self._database.session(read_only=True) as session:
            row = session.scalar(select(AlertIncidentRow).where(AlertIncidentRow.key == key))
            if row is None:
                raise Missing(f"there is no incident {key!r}", fix="Look at the list of incidents.")
            deliveries = session.scalars(
                select(AlertDeliveryRow)
                .where(AlertDeliveryRow.incident_id == row.id)
                .order_by(AlertDeliveryRow.id)
            )
            return {**_incident(row), "deliveries": [_delivery(each) for each in deliveries]}

    def firing(self) -> list[tuple[str, str, str, int]]:
        """Rule, endpoint, severity and number of firing slices, of every rule that has looked."""
        counts: dict[tuple[str, str, str], int] = {}
        columns = (AlertStateRow.rule, AlertStateRow.endpoint, AlertStateRow.severity, AlertStateRow.status)
        with self._database.session(read_only=True) as session:
            for rule, endpoint, severity, status in session.execute(select(*columns)):
                key = (rule, endpoint, severity)
                counts[key] = counts.get(key, 0) + (status == "firing")
        return [(*key, count) for key, count in sorted(counts.items())]

    def delivery_counts(self) -> list[tuple[str, str, int]]:
        """Channel, status and number of the deliveries that are kept."""
        query = select(AlertDeliveryRow.channel, AlertDeliveryRow.status, func.count()).group_by(
            AlertDeliveryRow.channel, AlertDeliveryRow.status
        )
        with self._database.session(read_only=True) as session:
            return sorted((channel, status, count) for channel, status, count in session.execute(query))


def worst(alerts: Iterable[dict[str, Any]]) -> str:
    """The worst status of :meth:`AlertOverview.alerts`, ``ok`` without any: for a badge."""
    return min((str(alert["status"]) for alert in alerts), key=_ORDER.__getitem__, default="ok")


def _state(row: AlertStateRow) -> dict[str, Any]:
    return {
        "slice": row.slice or None,
        "status": row.status,
        "since": row.since.isoformat(),
        "breached_since": _time(row.breached_since),
        "evaluated_at": row.evaluated_at.isoformat(),
        "data_at": _time(row.data_at),
        "value": row.value,
        "reference": row.reference,
        "samples": row.samples,
        "reason": row.reason,
        "evidence": dict(row.evidence),
    }


def _incident(row: AlertIncidentRow) -> dict[str, Any]:
    return {
        "incident": row.key,
        "state": "firing" if row.resolved_at is None else "resolved",
        "rule": row.rule,
        "slice": row.slice or None,
        "endpoint": row.endpoint,
        "severity": row.severity,
        "description": row.description,
        "breached_at": row.breached_at.isoformat(),
        "fired_at": row.fired_at.isoformat(),
        "announced_at": _time(row.announced_at),
        "resolved_at": _time(row.resolved_at),
        "silenced_by": row.silence_id,
        "reminders": row.reminders,
        "value": row.value,
        "reference": row.reference,
        "reason": row.reason,
        "resolution": row.resolution,
        "evidence": dict(row.evidence),
        "examples": list(row.examples),
        "channels": list(row.channels),
    }


def _delivery(row: AlertDeliveryRow) -> dict[str, Any]:
    return {
        "channel": row.channel,
        "kind": row.kind,
        "status": row.status,
        "attempts": row.attempts,
        "created_at": row.created_at.isoformat(),
        "next_at": row.next_at.isoformat() if row.status == "waiting" else None,
        "finished_at": _time(row.finished_at),
        "http_status": row.http_status,
        "detail": row.detail,
        "attempts_log": list(row.attempts_log),
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
