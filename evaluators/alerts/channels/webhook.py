"""A webhook: the document as JSON by POST, signed if there is a secret.

The signature is that of Standard Webhooks 1.0 (https://github.com/standard-webhooks/standard-webhooks): headers
``webhook-id``, ``webhook-timestamp`` and ``webhook-signature: v1,<base64 HMAC-SHA256 of id.timestamp.body>``. The id, also as
``Idempotency-Key``, stays the same when a document is sent again, so that a receiver can drop repeats.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import ssl
from collections.abc import Mapping
from typing import Any, Final

from evaluators.alerts.channels.channel import Outcome
from evaluators.alerts.channels.http_post import post
from servelens.clock import Clock
from servelens.errors import Invalid

_PREFIX: Final = "whsec_"


class WebhookChannel:
    """Posts to ``url`` with ``headers`` of its own; ``secret`` signs (``whsec_<base64>``, or any text)."""

    kind = "webhook"

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        secret: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        self._clock = clock
        self._key = None if secret is None else signing_key(secret)
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self._verify = verify

    def send(self, document: Mapping[str, Any]) -> Outcome:
        body = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        headers = {
            **self._headers,
            "content-type": "application/json",
            "idempotency-key": str(document["id"]),
            "webhook-id": str(document["id"]),
        }
        if self._key is not None:
            stamp = str(self._clock.now_us() // 1_000_000)
            headers["webhook-timestamp"] = stamp
            headers["webhook-signature"] = signature(self._key, str(document["id"]), stamp, body)
        return post(self._url, body, headers, timeout_s=self._timeout_s, verify=self._verify)


def signing_key(secret: str) -> bytes:
    """The key that ``secret`` stands for. Raises :class:`~servelens.errors.Invalid` when it is no base64 after
    ``whsec_``."""
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise Invalid(
            "what follows whsec_ is no base64", field="secret", fix="Copy it whole, or use any other text."
        ) from error


def signature(key: bytes, identifier: str, timestamp: str, body: bytes) -> str:
    """The value of ``webhook-signature``."""
    signed = hmac.new(key, f"{identifier}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"
