"""The paths that are not the data plane: health, metrics and the list of models. An ordinary FastAPI
application.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serving_proxy.failure import Failure
from serving_proxy.routing import Snapshot
from serving_proxy.target import MLFLOW, OPENAI

_PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def create_application(
    snapshot: Callable[[], Snapshot],
    status: Callable[[], tuple[bool, dict[str, Any]]],
    metrics: Callable[[], Awaitable[bytes]],
) -> FastAPI:
    """The application. ``status`` says whether the worker can serve, and the detail for people."""
    app = FastAPI(title="servelens proxy", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/health/ready")
    async def ready() -> JSONResponse:
        is_ready, detail = status()
        return JSONResponse(detail, 200 if is_ready else 503)

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(await metrics(), media_type=_PROMETHEUS_TEXT)

    @app.get("/v1/models")
    @app.get("/serving-endpoints/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name) for name in snapshot().endpoints]}

    @app.get("/v1/models/{name}")
    async def model(name: str) -> Any:
        if name in snapshot().endpoints:
            return _model(name)
        names = ", ".join(repr(each) for each in snapshot().endpoints)
        failure = Failure(
            "unknown_endpoint", 404, f"There is no endpoint named {name!r}. Use one of: {names}.", "model"
        )
        return Response(OPENAI.error(failure), 404, media_type="application/json")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        text = f"There is nothing at {path}." if error.status_code == 404 else str(error.detail)
        failure = Failure("invalid_request", error.status_code, text)
        if path.startswith("/v1/"):
            return Response(OPENAI.error(failure), error.status_code, error.headers, "application/json")
        if path.startswith("/serving-endpoints/"):
            return Response(MLFLOW.error(failure), error.status_code, error.headers, "application/json")
        problem = {"type": "about:blank", "title": text, "status": error.status_code}
        return JSONResponse(problem, error.status_code, error.headers, "application/problem+json")

    return app


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "servelens"}
