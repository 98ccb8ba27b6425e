"""The calls of KServe's V2 protocol that are no invocations: health, metadata, the list of models.

An endpoint is a model here. What only its backend knows is asked of a replica of the endpoint's first routed entity
that speaks the protocol, and passed on with the endpoint's name in place of the model's. Nothing here is recorded.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md;
``/config``, ``/stats`` and the repository index are Triton's extensions of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request, Response, params
from fastapi.responses import JSONResponse

from servelens.errors import Missing, ServelensError, Unavailable
from serving_proxy.dialects.kserve import model_path
from serving_proxy.endpoint import Backend, Endpoint
from serving_proxy.failure import Failure, failure_of
from serving_proxy.fetch import Fetched, fetch
from serving_proxy.routing import Snapshot
from serving_proxy.target import KSERVE
from serving_proxy.upstreams import Upstreams

_TIMEOUT_S: Final = 10.0
_JSON: Final = "application/json"
_EXTENSIONS: Final = ["binary_tensor_data", "model_repository(index)"]


def create_kserve_router(
    snapshot: Callable[[], Snapshot],
    upstreams: Upstreams,
    is_ready: Callable[[], bool],
    guards: Sequence[params.Depends] = (),
) -> APIRouter:
    """The routes below ``/v2`` but those of inference. ``is_ready`` says whether the worker can serve; whoever
    fails ``guards`` is told about its health only.
    """
    probes = APIRouter()
    router = APIRouter(dependencies=guards)

    @router.get("/v2")
    async def server() -> dict[str, Any]:
        return {"name": "servelens", "version": version("servelens"), "extensions": _EXTENSIONS}

    @probes.get("/v2/health/live")
    async def live() -> Response:
        return Response()

    @probes.get("/v2/health/ready")
    async def ready() -> Response:
        return Response(status_code=200 if is_ready() else 503)

    @router.post("/v2/repository/index")
    async def index() -> JSONResponse:
        models = [
            {"name": name, "version": "", "state": "READY", "reason": ""} for name in snapshot().endpoints
        ]
        return JSONResponse(models)

    async def model(name: str, model_version: str | None = None, call: str | None = None) -> Response:
        try:
            return await _ask(upstreams, _endpoint(snapshot(), name), model_version, call)
        except Unavailable as error:
            return _refusal(Failure("upstream_connect", 503 if call == "ready" else 502, error.message))
        except ServelensError as error:
            return _refusal(failure_of(error))

    base = "/v2/models/{name}"
    for path in (base, base + "/versions/{model_version}"):
        router.add_api_route(path, model, methods=["GET"])

        for call in ("ready", "config", "stats"):
            router.add_api_route(f"{path}/{call}", _bound(model, call), methods=["GET"])

    @router.api_route("/v2/{rest:path}", methods=["GET", "POST", "PUT", "DELETE", "PATCH"])
    async def nothing(request: Request) -> Response:
        path = request.url.path
        return _refusal(Failure("invalid_request", 404, f"There is nothing at {request.method} {path}."))

    probes.include_router(router)
    return probes


def _bound(model: Callable[..., Any], call: str) -> Callable[..., Any]:
    async def asked(name: str, model_version: str | None = None) -> Response:
        answer: Response = await model(name, model_version, call)
        return answer

    return asked


def _endpoint(snapshot: Snapshot, name: str) -> Endpoint:
    endpoint = snapshot.endpoints.get(name)
    if endpoint is None:
        names = ", ".join(repr(each) for each in snapshot.endpoints)
        raise Missing(f"There is no endpoint named {name!r}.", fix=f"Use one of: {names}.")
    return endpoint


async def _ask(
    upstreams: Upstreams, endpoint: Endpoint, model_version: str | None, call: str | None
) -> Response:
    backend = next((each for each in _backends(endpoint) if each.api == "kserve"), None)
    if backend is None:
        return await _ask_translated(upstreams, endpoint, call)
    path = model_path(backend.model or endpoint.name, model_version) + (f"/{call}".encode() if call else b"")
    answer = await _first_answer(upstreams, backend, path)
    media_type = answer.headers.get(b"content-type", _JSON.encode()).decode("latin-1")
    return Response(_renamed(answer.body, endpoint.name), answer.status, media_type=media_type)


async def _ask_translated(upstreams: Upstreams, endpoint: Endpoint, call: str | None) -> Response:
    """An MLflow server can be called by this protocol; it has no tensors of its own to tell about."""
    backend = next((each for each in _backends(endpoint) if each.api == "mlflow"), None)
    if backend is None or call in ("config", "stats"):
        raise Missing(f"No backend of endpoint {endpoint.name!r} speaks the V2 protocol.")
    if call == "ready":
        return Response(status_code=(await _first_answer(upstreams, backend, b"/ping")).status)
    return JSONResponse({"name": endpoint.name, "platform": "mlflow", "inputs": [], "outputs": []})


def _backends(endpoint: Endpoint) -> list[Backend]:
    return [entity.backend for _, entity, _ in endpoint.split]


async def _first_answer(upstreams: Upstreams, backend: Backend, path: bytes) -> Fetched:
    """The answer of the first replica that gives one."""
    key = backend.api_key
    headers = [] if key is None else [(b"authorization", b"Bearer " + key.encode())]
    tried: frozenset[str] = frozenset()
    problem = "No replica is left."
    while (replica := upstreams.pick(backend.urls, tried)) is not None:
        tried |= {replica.url}
        try:
            return await fetch(replica, b"GET", replica.base_path + path, headers, _TIMEOUT_S)
        except Unavailable as error:
            problem = error.message
    raise Unavailable(problem)


def _renamed(body: bytes, name: str) -> bytes:
    """The answer with the endpoint's name where the model's is."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return body
    if not isinstance(document, dict):
        return body
    statistics = document.get("model_stats")
    for named in (document, *(statistics if isinstance(statistics, list) else ())):
        if isinstance(named, dict) and "name" in named:
            named["name"] = name
    return msgspec.json.encode(document)


def _refusal(failure: Failure) -> Response:
    return Response(KSERVE.error(failure), failure.status, media_type=_JSON)
