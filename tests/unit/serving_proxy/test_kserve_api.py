"""Health, metadata and the list of models, as a client of the V2 protocol sees them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from serving_proxy.endpoint import Backend, BackendApi, Endpoint, Route, ServedEntity
from serving_proxy.kserve_api import create_kserve_router
from serving_proxy.routing import Snapshot
from serving_proxy.upstreams import Upstreams
from tests.unit.serving_proxy.scripted_server import serving

NOWHERE = "http://127.0.0.1:1"


def endpoint(name: str, api: BackendApi, *urls: str, **fields: Any) -> Endpoint:
    other = ServedEntity("other", Backend((NOWHERE,), api="openai"))
    served = ServedEntity("only", Backend(urls or (NOWHERE,), api=api, **fields))
    return Endpoint(name, (other, served), (Route("other", 50), Route("only", 50)))


@asynccontextmanager
async def client(*endpoints: Endpoint, is_ready: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    upstreams = Upstreams(asyncio.get_running_loop())
    snapshot = Snapshot.of(endpoints)
    app = FastAPI()
    app.include_router(create_kserve_router(lambda: snapshot, upstreams, lambda: is_ready))
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://proxy") as running:
            yield running
    finally:
        upstreams.close()


def answer(document: object, status: int = 200) -> bytes:
    body = json.dumps(document).encode() if document is not None else b""
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        len(body),
        body,
    )


async def test_the_server_answers_for_itself() -> None:
    async with client(endpoint("a", "kserve"), endpoint("b", "openai")) as proxy:
        assert (await proxy.get("/v2/health/live")).status_code == 200
        assert (await proxy.get("/v2/health/ready")).status_code == 200
        server = (await proxy.get("/v2")).json()
        assert server["name"] == "servelens"
        assert server["version"]
        assert "binary_tensor_data" in server["extensions"]
        models = (await proxy.post("/v2/repository/index", content=b"{}")).json()
        assert [(model["name"], model["state"]) for model in models] == [("a", "READY"), ("b", "READY")]
    async with client(is_ready=False) as proxy:
        assert (await proxy.get("/v2/health/live")).status_code == 200
        assert (await proxy.get("/v2/health/ready")).status_code == 503


@pytest.mark.parametrize(
    ("path", "asked", "said", "told"),
    [
        ("iris", "m%2F1", {"name": "m/1", "inputs": []}, {"name": "iris", "inputs": []}),
        ("iris/versions/3", "m%2F1/versions/3", {"name": "m/1"}, {"name": "iris"}),
        (
            "iris/config",
            "m%2F1/config",
            {"name": "m/1", "backend": "python"},
            {"name": "iris", "backend": "python"},
        ),
        ("iris/versions/3/config", "m%2F1/versions/3/config", {"name": "m/1"}, {"name": "iris"}),
        (
            "iris/stats",
            "m%2F1/stats",
            {"model_stats": [{"name": "m/1"}]},
            {"model_stats": [{"name": "iris"}]},
        ),
        ("iris", "m%2F1", ["unexpected"], ["unexpected"]),
    ],
)
async def test_a_model_is_asked_of_its_backend_by_the_endpoints_name(
    path: str, asked: str, said: object, told: object
) -> None:
    async with serving(answer(said)) as (server, replica):
        iris = endpoint("iris", "kserve", replica.url, model="m/1", api_key="k")
        async with client(iris) as proxy:
            got = await proxy.get(f"/v2/models/{path}")
        assert (got.status_code, got.json()) == (200, told)
        (request,) = server.received
        assert request.startswith(f"GET /base/v2/models/{asked} HTTP/1.1\r\n".encode())
        assert b"\r\nauthorization: Bearer k\r\n" in request


async def test_readiness_and_errors_are_the_backends() -> None:
    async with (
        serving(answer(None), answer(None, 400), answer({"error": "unknown model"}, 404)) as (
            _,
            replica,
        ),
        client(endpoint("iris", "kserve", replica.url)) as proxy,
    ):
        assert (await proxy.get("/v2/models/iris/ready")).status_code == 200
        assert (await proxy.get("/v2/models/iris/versions/1/ready")).status_code == 400
        unknown = await proxy.get("/v2/models/iris")
        assert (unknown.status_code, unknown.json()) == (404, {"error": "unknown model"})


async def test_another_replica_is_asked_when_one_is_gone() -> None:
    async with (
        serving(answer({"name": "iris"})) as (_, replica),
        client(endpoint("iris", "kserve", NOWHERE, replica.url)) as proxy,
    ):
        assert (await proxy.get("/v2/models/iris")).json() == {"name": "iris"}


async def test_nobody_is_there() -> None:
    async with client(endpoint("iris", "kserve")) as proxy:
        ready = await proxy.get("/v2/models/iris/ready")
        assert ready.status_code == 503
        metadata = await proxy.get("/v2/models/iris")
        assert metadata.status_code == 502
        assert NOWHERE in metadata.json()["error"]


async def test_endpoints_whose_backends_are_mlflow_servers() -> None:
    async with serving(answer(None), answer(None, 500)) as (server, replica):
        async with client(endpoint("iris", "mlflow", replica.url)) as proxy:
            assert (await proxy.get("/v2/models/iris/ready")).status_code == 200
            assert (await proxy.get("/v2/models/iris/ready")).status_code == 500
            assert (await proxy.get("/v2/models/iris")).json()["platform"] == "mlflow"
            assert (await proxy.get("/v2/models/iris/config")).status_code == 404
        assert [request[:20] for request in server.received] == [b"GET /base/ping HTTP/"] * 2


async def test_language_models_have_no_tensors() -> None:
    async with client(endpoint("chat", "openai")) as proxy:
        for path in ("", "/ready", "/config"):
            got = await proxy.get(f"/v2/models/chat{path}")
            assert got.status_code == 404
            assert "V2 protocol" in got.json()["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models/nope"),
        ("GET", "/v2/models/nope/ready"),
        ("POST", "/v2/repository/models/iris/load"),
        ("GET", "/v2/logging"),
        ("POST", "/v2/models/iris"),
    ],
)
async def test_what_is_not_there_is_said_in_the_protocols_words(method: str, path: str) -> None:
    async with client(endpoint("iris", "kserve")) as proxy:
        got = await proxy.request(method, path)
        assert got.status_code == 404
        assert set(got.json()) == {"error"}
