"""Anthropic's error shape: ``{"type": "error", "error": {"type", "message"}}``, its types by HTTP status.

Source: https://platform.claude.com/docs/en/api/errors. A failure of a stream that has begun is an event named
``error`` with the same body.
"""

from __future__ import annotations

from typing import Final

import msgspec

from serving_proxy.failure import Failure

_TYPES: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class Anthropic:
    """Errors as Anthropic's own API words them, so that its client libraries raise the right exception."""

    def error(self, failure: Failure) -> bytes:
        default = "api_error" if failure.status >= 500 else "invalid_request_error"
        kind = _TYPES.get(failure.status, default)
        text = f"{failure.field}: {failure.message}" if failure.field else failure.message
        return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": text}})

    def error_event(self, failure: Failure) -> bytes:
        return b"event: error\ndata: %b\n\n" % self.error(failure)
