"""What a provider's error answer says, in whichever of the usual shapes, and the status a client gets for it.

Shapes: OpenAI's and Anthropic's ``{"error": {"message", "type", "code"}}``, Cohere's ``{"message"}``, AI21's and
FastAPI's ``{"detail"}``, and plain text, as gateways in front of them send it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from serving_proxy.failure import Failure
from serving_proxy.translation.strict_json import NO_JSON

_decode: Final = msgspec.json.Decoder().decode
_MAX_MESSAGE: Final = 4000
_MAX_KIND: Final = 100

# Statuses that only one provider has: Cohere's 498 (key) and 499 (it gave up), Anthropic's 529.
_STATUSES: Final = {422: 400, 498: 401, 499: 500}
_OVERLOADED: Final = (503, 529)

_STATUS_OF_KIND: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "timeout_error": 504,
    "overloaded_error": 503,
}


def provider_failure(status: int, body: bytes, *, overloaded: int) -> Failure:
    """The failure to tell a client of, for a provider's error answer. ``overloaded`` is the status by which the
    client's own API says so.
    """
    try:
        value = _decode(body)
    except NO_JSON:
        value = None
    message, kind = _said(value)
    if not message:
        text = (
            "" if body.lstrip()[:1] in (b"<", b"{", b"[") else body[:200].decode("utf-8", "replace").strip()
        )
        message = f"The provider answered {status}: {text}" if text else f"The provider answered {status}."
    status = overloaded if status in _OVERLOADED else _STATUSES.get(status, status)
    return Failure(kind or "upstream_status", status, message)


def failure_in_stream(event: Any, *, overloaded: int) -> Failure:
    """The same for an error inside a stream, which has no status of its own."""
    message, kind = _said(event)
    status = _STATUS_OF_KIND.get(kind or "", 500)
    status = overloaded if status in _OVERLOADED else status
    return Failure(
        kind or "upstream_status", status, message or "The provider failed in the middle of its answer."
    )


def _said(value: Any) -> tuple[str | None, str | None]:
    """Message and machine word; either may be missing."""
    if isinstance(value, str):
        return value[:_MAX_MESSAGE], None
    if not isinstance(value, dict):
        return None, None
    error = value.get("error")
    if isinstance(error, dict):
        return _text(error.get("message")), _kind(error.get("type")) or _kind(error.get("code"))
    for name in ("message", "detail", "error", "msg"):
        if (text := _text(value.get(name))) is not None:
            return text, _kind(value.get("type"))
    return None, None


def _text(value: Any) -> str | None:
    if isinstance(value, list):  # FastAPI: one entry for each wrong field
        parts = [part for entry in value[:10] if (part := _entry(entry))]
        value = "; ".join(parts)
    if isinstance(value, dict):
        value = value.get("message") or value.get("msg")
    return value[:_MAX_MESSAGE] if isinstance(value, str) and value else None


def _entry(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return entry if isinstance(entry, str) else None
    where, what = entry.get("loc"), entry.get("msg")
    if not isinstance(what, str):
        return None
    return f"{'.'.join(str(step) for step in where)}: {what}" if isinstance(where, list) else what


def _kind(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_KIND else None
