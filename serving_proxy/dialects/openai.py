"""OpenAI's error shape: ``{"error": {"message", "type", "param", "code"}}``.

Source: https://platform.openai.com/docs/guides/error-codes. Streams of chat and completions tell of an error in an
event like any other; those of the Responses API have an event of the type ``error`` for it
(https://platform.openai.com/docs/api-reference/responses-streaming/error).
"""

from __future__ import annotations

from typing import Final

import msgspec

from serving_proxy.failure import Failure

_TYPES: Final = {429: "rate_limit_error"}
_CODES: Final = {
    "unknown_endpoint": "model_not_found",
    "body_too_large": "request_too_large",
    "unauthenticated": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
}


class OpenAI:
    """Errors as OpenAI's own API words them, so that its client libraries raise the right exception."""

    def error(self, failure: Failure) -> bytes:
        kind = (
            "server_error" if failure.status >= 500 else _TYPES.get(failure.status, "invalid_request_error")
        )
        code = _CODES.get(failure.error_type, failure.error_type)
        return msgspec.json.encode(
            {"error": {"message": failure.message, "type": kind, "param": failure.field, "code": code}}
        )

    def error_event(self, failure: Failure) -> bytes:
        return b"data: %b\n\n" % self.error(failure)


class OpenAIResponses(OpenAI):
    """The same, but for errors inside a stream."""

    def error_event(self, failure: Failure) -> bytes:
        code = _CODES.get(failure.error_type, failure.error_type)
        event = {
            "type": "error",
            "code": code,
            "message": failure.message,
            "param": failure.field,
            "sequence_number": 0,
        }
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode(event)
