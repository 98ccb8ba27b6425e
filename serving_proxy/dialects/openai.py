"""OpenAI's error shape: ``{"error": {"message", "type", "param", "code"}}`` (API reference, "Error
codes").
"""

from __future__ import annotations

from typing import Final

import msgspec

from serving_proxy.failure import Failure

_CODES: Final = {"unknown_endpoint": "model_not_found", "body_too_large": "request_too_large"}


class OpenAI:
    """Errors as OpenAI's own API words them, so that its client libraries raise the right exception."""

    def error(self, failure: Failure) -> bytes:
        kind = "server_error" if failure.status >= 500 else "invalid_request_error"
        code = _CODES.get(failure.error_type, failure.error_type)
        return msgspec.json.encode(
            {"error": {"message": failure.message, "type": kind, "param": failure.field, "code": code}}
        )
