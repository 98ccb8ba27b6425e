"""Slack, by an incoming webhook (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks): blocks, with
``text`` for notifications.

Invariant: no text of a record, a rule or a variant can mention people or link anywhere: ``&``, ``<`` and ``>`` are escaped
as Slack asks (https://docs.slack.dev/messaging/formatting-message-text#escaping). Slack has no key to drop repeats by: a
message that was sent, and whose answer was lost, is there twice.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from typing import Any, Final

from evaluators.alerts.channels.channel import Outcome
from evaluators.alerts.channels.http_post import post
from evaluators.alerts.notification import details_of, shortened, text_of, title_of

_SIGNS: Final = {"critical": "🔴", "error": "🟠", "warning": "🟡", "info": "🔵"}
_SECTION: Final = 2_900  # Slack takes 3,000 characters


class SlackChannel:
    """Posts to the incoming webhook ``url``, which is a secret as a whole."""

    kind = "slack"

    def __init__(self, url: str, *, timeout_s: float = 10.0, verify: ssl.SSLContext | None = None) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._verify = verify

    def send(self, document: Mapping[str, Any]) -> Outcome:
        body = json.dumps(message(document)).encode()
        headers = {"content-type": "application/json"}
        return post(
            self._url, body, headers, timeout_s=self._timeout_s, verify=self._verify, quote_answer=True
        )


def message(document: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the POST."""
    sign = "✅" if document["kind"] == "resolved" else _SIGNS[document["severity"]]
    title, text = escaped(title_of(document)), escaped(text_of(document))
    fields = [
        f"{label}: {_link(value) if label == 'Look' else escaped(value)}"
        for label, value in details_of(document)
    ]
    return {
        "text": f"{sign} {title}: {text}"[:_SECTION],
        "blocks": [
            {"type": "section", "text": _words(f"{sign} *{title}*\n{text}"[:_SECTION])},
            {"type": "context", "elements": [_words(shortened("\n".join(fields), _SECTION))]},
        ],
    }


def _words(text: str) -> dict[str, Any]:
    # Without ``verbatim`` Slack makes links of addresses, and mentions of names, in plain words too.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def escaped(text: str) -> str:
    """``text`` that Slack shows as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _link(address: str) -> str:
    return f"<{escaped(address).replace('|', '%7C')}|on the dashboard>"
