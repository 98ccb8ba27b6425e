"""What a receiver is told: one JSON document an event, the same for every channel, which each puts into its own form.

Invariant: a document is bounded, and made when its incident changes: a late delivery says what was true then.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from evaluators.alerts.models import AlertIncidentRow

Kind = Literal["firing", "reminder", "resolved"]

VERSION: Final = 1
_REASON: Final = 1_000


def document_of(incident: AlertIncidentRow, kind: Kind, number: int) -> dict[str, Any]:
    """The document. ``id`` is of this notification and stays the same when it is sent again; ``incident`` joins start,
    reminders and end.
    """
    resolved = incident.resolved_at
    return {
        "version": VERSION,
        "id": f"{incident.key}-{kind}-{number}",
        "incident": incident.key,
        "kind": kind,
        "rule": incident.rule,
        "description": shortened(incident.description, _REASON),
        "endpoint": incident.endpoint,
        "variant": incident.slice or None,
        "severity": incident.severity,
        "reason": shortened(incident.reason, _REASON),
        "resolution": None if incident.resolution is None else shortened(incident.resolution, _REASON),
        "value": incident.value,
        "reference": incident.reference,
        "breached_at": _time(incident.breached_at),
        "fired_at": _time(incident.fired_at),
        "resolved_at": None if resolved is None else _time(resolved),
        "examples": list(incident.examples),
        "evidence": dict(incident.evidence),
    }


def title_of(document: Mapping[str, Any]) -> str:
    """``[critical] toxic answers on chat (small)`` in one line."""
    words = {"firing": document["severity"], "reminder": "still firing", "resolved": "resolved"}
    variant = f" ({document['variant']})" if document.get("variant") else ""
    title = f"[{words[document['kind']]}] {document['rule']} on {document['endpoint']}{variant}"
    return shortened(" ".join(title.split()), 200)


def text_of(document: Mapping[str, Any]) -> str:
    """The sentence that says why."""
    if document["kind"] == "resolved":
        return str(document["resolution"] or document["reason"])
    return str(document["reason"])


def details_of(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and value of what else a person wants to know."""
    found = [
        ("Description", str(document["description"] or "")),
        ("Since", str(document["breached_at"])),
        ("Until", str(document["resolved_at"] or "")),
        ("Examples", ", ".join(document["examples"])),
        ("Look", str(document.get("link") or "")),
    ]
    return [(label, value) for label, value in found if value]


def shortened(text: str, characters: int) -> str:
    """``text`` with an ellipsis in place of what is too much."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
