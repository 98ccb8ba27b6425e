"""Databricks' and MLflow's error shape: ``{"error_code", "message"}`` with the platform's upper-case
codes.
"""

from __future__ import annotations

from typing import Final

import msgspec

from serving_proxy.failure import Failure

_CODES: Final = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    409: "RESOURCE_CONFLICT",
    413: "MAX_REQUEST_SIZE_EXCEEDED",
    429: "REQUEST_LIMIT_EXCEEDED",
    502: "TEMPORARILY_UNAVAILABLE",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class MLflow:
    """Errors as Databricks Model Serving words them."""

    def error(self, failure: Failure) -> bytes:
        default = "INTERNAL_ERROR" if failure.status >= 500 else "INVALID_PARAMETER_VALUE"
        text = f"{failure.field}: {failure.message}" if failure.field else failure.message
        return msgspec.json.encode({"error_code": _CODES.get(failure.status, default), "message": text})

    def error_event(self, failure: Failure) -> bytes:
        return b"data: %b\n\n" % self.error(failure)
