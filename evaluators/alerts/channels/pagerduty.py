"""PagerDuty, by Events API v2 (https://developer.pagerduty.com/docs/events-api-v2/trigger-events/): an incident triggers
and resolves under one ``dedup_key``, so that PagerDuty drops repeats.

Any service that takes this format can be named as ``url``.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from typing import Any, Final

from evaluators.alerts.channels.channel import Outcome
from evaluators.alerts.channels.http_post import post
from evaluators.alerts.notification import shortened, text_of, title_of

EVENTS_URL: Final = "https://events.pagerduty.com/v2/enqueue"

_SUMMARY: Final = 1_024


class PagerDutyChannel:
    """Sends events of the integration ``routing_key``."""

    kind = "pagerduty"

    def __init__(
        self,
        routing_key: str,
        *,
        url: str = EVENTS_URL,
        timeout_s: float = 10.0,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._routing_key = routing_key
        self._url = url
        self._timeout_s = timeout_s
        self._verify = verify

    def send(self, document: Mapping[str, Any]) -> Outcome:
        body = json.dumps(event(document, self._routing_key), allow_nan=False).encode()
        headers = {"content-type": "application/json"}
        return post(
            self._url, body, headers, timeout_s=self._timeout_s, verify=self._verify, quote_answer=True
        )


def event(document: Mapping[str, Any], routing_key: str) -> dict[str, Any]:
    """The body of the POST."""
    resolved = document["kind"] == "resolved"
    names = ("rule", "variant", "value", "reference", "reason", "examples", "evidence", "description")
    made: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": "resolve" if resolved else "trigger",
        "dedup_key": document["incident"],
        "client": "servelens",
        "payload": {
            "summary": shortened(f"{title_of(document)}: {text_of(document)}", _SUMMARY),
            "source": document["endpoint"],
            "severity": document["severity"],
            "timestamp": document["resolved_at"] if resolved else document["fired_at"],
            "component": document["variant"] or document["endpoint"],
            "group": document["endpoint"],
            "class": document["rule"],
            "custom_details": {name: document[name] for name in names if document[name] not in (None, "")},
        },
    }
    if document.get("link"):
        made["client_url"] = document["link"]
        made["links"] = [{"href": document["link"], "text": "Dashboard"}]
    return made
