"""``POST /v1/feedback`` and the same below ``/serving-endpoints``: a thumb, a score, a text, a better answer, the truth.

The answer is 202 once the feedback is durable, with an id and the parts that were recorded for each; errors have the shape of
the path's dialect. An ordinary FastAPI router beside the data plane, on whose connections it lives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from servelens.clock import Clock
from servelens.errors import Conflict, Invalid, ServelensError
from serving_proxy.access import require
from serving_proxy.authentication import Keys
from serving_proxy.failure import Failure, failure_of
from serving_proxy.feedback.intake import FeedbackIntake, Taken
from serving_proxy.request_body import MAX_IDENTIFIER
from serving_proxy.target import MLFLOW, OPENAI

MAX_BODY_BYTES: Final = 2 << 20
_JSON: Final = "application/json"
_PATHS: Final = ("/v1/feedback", "/serving-endpoints/feedback", "/serving-endpoints/v1/feedback")


def create_feedback_router(intake: FeedbackIntake, keys: Callable[[], Keys], clock: Clock) -> APIRouter:
    """The routes; with API keys in use they need the scope ``invoke``."""
    router = APIRouter()
    caller = require("invoke", keys, clock)

    async def taken(request: Request, name: str | None) -> Response:
        requester = await caller(request)
        try:
            body = await _body(request)
            found, is_list = await intake.take(
                body,
                named=name,
                user=_identifier(request, "x-servelens-unit"),
                key=_identifier(request, "idempotency-key"),
                requester=None if requester is None else requester.name,
            )
        except ClientDisconnect:  # nobody hears the answer
            return Response(status_code=400)
        except _TooLarge:
            intake.refused("too_large")
            text = f"The request body is larger than {MAX_BODY_BYTES} bytes. Send fewer at once."
            return _refusal(request, Failure("body_too_large", 413, text, "body"))
        except Conflict as error:
            text = f"{error.message} {error.fix}" if error.fix else error.message
            return _refusal(request, Failure("not_kept", 409, text, error.field))
        except ServelensError as error:
            return _refusal(request, failure_of(error))
        answers = [_answer(each) for each in found]
        return JSONResponse({"feedback": answers} if is_list else answers[0], 202)

    async def feedback(request: Request) -> Response:
        return await taken(request, None)

    async def feedback_on(request: Request, name: str) -> Response:
        return await taken(request, name)

    for path in _PATHS:
        router.add_api_route(path, feedback, methods=["POST"])
    router.add_api_route("/serving-endpoints/{name}/feedback", feedback_on, methods=["POST"])
    return router


class _TooLarge(Exception):
    """The body is over its limit."""


async def _body(request: Request) -> bytes:
    """The whole body. Raises _TooLarge before it has been taken in."""
    if int(request.headers.get("content-length") or 0) > MAX_BODY_BYTES:
        raise _TooLarge
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise _TooLarge
        pieces.append(piece)
    return b"".join(pieces)


def _identifier(request: Request, header: str) -> str | None:
    value = request.headers.get(header, "").strip()
    if len(value) > MAX_IDENTIFIER:
        raise Invalid(
            f"It has {len(value)} characters.", field=header, fix=f"Send at most {MAX_IDENTIFIER} characters."
        )
    return value or None


def _answer(taken: Taken) -> dict[str, Any]:
    return {"feedback_id": taken.feedback_id, "endpoint": taken.endpoint, "recorded": taken.recorded}


def _refusal(request: Request, failure: Failure) -> Response:
    dialect = OPENAI if request.url.path.startswith("/v1/") else MLFLOW
    headers = {"retry-after": "1"} if failure.status == 503 else None
    return Response(dialect.error(failure), failure.status, headers, _JSON)
