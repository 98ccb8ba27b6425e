"""Errors as Databricks' REST API words them: ``{"error_code": …, "message": …}`` with the status that belongs to the code.

databricks-sdk turns the codes into exceptions (``databricks/sdk/errors/platform.py``):
https://docs.databricks.com/api/workspace/introduction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from servelens.control.store import EndpointExists
from servelens.errors import Conflict, Invalid, Missing, ServelensError, Unavailable

logger = logging.getLogger(__name__)


_CODES: Final[tuple[tuple[type[ServelensError], str, int], ...]] = (
    (EndpointExists, "RESOURCE_ALREADY_EXISTS", 409),
    (Conflict, "RESOURCE_CONFLICT", 409),
    (Missing, "RESOURCE_DOES_NOT_EXIST", 404),
    (Invalid, "INVALID_PARAMETER_VALUE", 400),
    (Unavailable, "TEMPORARILY_UNAVAILABLE", 503),
)

_STATUS_CODES: Final = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "ENDPOINT_NOT_FOUND"}


def refusal(error: ServelensError) -> JSONResponse:
    """The answer to one of our own errors."""
    for kind, code, status in _CODES:
        if isinstance(error, kind):
            return _answer(status, code, str(error))
    logger.error("control plane failed: %s", error, exc_info=error)
    return _answer(500, "INTERNAL_ERROR", str(error))


class DatabricksRoute(APIRoute):
    """A route whose errors have Databricks' shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except ServelensError as error:
                return refusal(error)
            except RequestValidationError as error:
                return _answer(400, "MALFORMED_REQUEST", _malformed(error))
            except HTTPException as error:
                code = _STATUS_CODES.get(error.status_code, "BAD_REQUEST")
                return _answer(error.status_code, code, str(error.detail), error.headers)

        return handled


def _malformed(error: RequestValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return f"The body is not JSON: {first['ctx']['error']}."
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}. Send a JSON object."


def _answer(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error_code": code, "message": message}, status, headers)
