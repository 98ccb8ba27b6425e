"""Errors of the HTTP API as problem details (RFC 9457), for servelens errors, bad requests and what nobody expected."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from servelens.errors import Backpressure, ServelensError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


def problem_response(
    status: int, detail: str, *, title: str | None = None, headers: dict[str, str] | None = None, **extra: Any
) -> Response:
    """A problem detail; members that are ``None`` are left out."""
    body = {
        "type": "about:blank",
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    body.update({name: value for name, value in extra.items() if value is not None})
    # In ASCII, since what a caller sent and is told of need not be valid Unicode.
    return Response(json.dumps(body), status_code=status, media_type=MEDIA_TYPE, headers=headers)


def _title(kind: type) -> str:
    """The name of the kind of error; a private one is of the kind that it derives from."""
    return next(each.__name__ for each in kind.__mro__ if not each.__name__.startswith("_"))


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem detail."""

    async def servelens_error(_request: Request, error: Exception) -> Response:
        assert isinstance(error, ServelensError)
        headers = {"retry-after": f"{error.retry_after_s:.0f}"} if isinstance(error, Backpressure) else None
        return problem_response(
            error.status,
            error.message,
            title=_title(type(error)),
            headers=headers,
            field=error.field,
            fix=error.fix,
        )

    async def validation_error(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [{"field": ".".join(map(str, one["loc"])), "detail": one["msg"]} for one in error.errors()]
        detail = "; ".join(f"{one['field']}: {one['detail']}" for one in errors)
        field = errors[0]["field"].partition(".")[2] or errors[0]["field"]
        if error.errors()[0]["type"] == "json_invalid":
            return problem_response(422, detail, errors=errors, field="body", fix="Send JSON.")
        return problem_response(422, detail, errors=errors, field=field, fix="Correct the value.")

    async def http_error(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers) if error.headers else None
        return problem_response(error.status_code, str(error.detail), headers=headers)

    async def unexpected(request: Request, error: Exception) -> Response:
        logger.error("request failed: path=%s", request.url.path, exc_info=error)
        return problem_response(500, "Something went wrong on the server; its log has the details.")

    app.add_exception_handler(ServelensError, servelens_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, unexpected)
