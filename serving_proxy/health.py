"""The paths that are not the data plane: health, metrics and the list of models. An ordinary FastAPI
application.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from servelens.clock import Clock
from serving_proxy.access import require
from serving_proxy.authentication import Keys
from serving_proxy.failure import Failure
from serving_proxy.routing import Snapshot
from serving_proxy.target import KSERVE, MLFLOW, OPENAI

_ERROR_TYPES = {401: "unauthenticated", 403: "forbidden"}
_PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def create_application(
    snapshot: Callable[[], Snapshot],
    status: Callable[[], tuple[bool, dict[str, Any]]],
    metrics: Callable[[], Awaitable[bytes]],
    clock: Clock,
    routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """The application. ``status`` says whether the worker can serve, and the detail for people.

    Once there are API keys, all but the health checks needs one; those then say no more than yes or no.
    """

    def keys() -> Keys:
        return snapshot().keys

    caller = [Depends(require("invoke", keys, clock, "admin"))]
    anybody = [Depends(require("invoke", keys, clock, "admin", "annotate"))]
    app = FastAPI(title="servelens proxy", docs_url=None, redoc_url=None, openapi_url=None)
    for router in routers:
        app.include_router(router)

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/health/ready")
    async def ready() -> JSONResponse:
        is_ready, detail = status()
        if keys().required:
            detail = {"status": detail["status"]}
        return JSONResponse(detail, 200 if is_ready else 503)

    @app.get("/metrics", dependencies=anybody)
    async def prometheus() -> Response:
        return Response(await metrics(), media_type=_PROMETHEUS_TEXT)

    @app.get("/v1/models", dependencies=caller)
    @app.get("/serving-endpoints/models", dependencies=caller)
    async def models(request: Request) -> dict[str, Any]:
        names = list(snapshot().endpoints)
        if "anthropic-version" in request.headers:
            data = [_anthropic_model(name) for name in names]
            return {
                "data": data,
                "has_more": False,
                "first_id": names[0] if names else None,
                "last_id": names[-1] if names else None,
            }
        return {"object": "list", "data": [_model(name) for name in names]}

    @app.get("/v1/models/{name}", dependencies=caller)
    async def model(name: str, request: Request) -> Any:
        if name in snapshot().endpoints:
            return _anthropic_model(name) if "anthropic-version" in request.headers else _model(name)
        names = ", ".join(repr(each) for each in snapshot().endpoints)
        failure = Failure(
            "unknown_endpoint", 404, f"There is no endpoint named {name!r}. Use one of: {names}.", "model"
        )
        return Response(OPENAI.error(failure), 404, media_type="application/json")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        text = f"There is nothing at {path}." if error.status_code == 404 else str(error.detail)
        failure = Failure(_ERROR_TYPES.get(error.status_code, "invalid_request"), error.status_code, text)
        if path.startswith("/v1/"):
            return Response(OPENAI.error(failure), error.status_code, error.headers, "application/json")
        if path.startswith("/serving-endpoints/"):
            return Response(MLFLOW.error(failure), error.status_code, error.headers, "application/json")
        if path.startswith("/v2/"):
            return Response(KSERVE.error(failure), error.status_code, error.headers, "application/json")
        problem = {"type": "about:blank", "title": text, "status": error.status_code}
        return JSONResponse(problem, error.status_code, error.headers, "application/problem+json")

    return app


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "servelens"}


def _anthropic_model(name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
