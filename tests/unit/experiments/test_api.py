from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from experiments.api import router
from experiments.experiment import experiment_from_dict
from servelens.errors import ServelensError
from tests.unit.experiments.analysis.test_analyzer import Scene
from tests.unit.experiments.records import experiment


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
async def client(scene: Scene) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(router(scene.store, lambda _experiment: scene.analyzer))

    @app.exception_handler(ServelensError)
    async def problem(_request: Request, error: ServelensError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=error.status)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://console") as found:
        yield found
    scene.database.dispose()


async def test_list_look_and_history(client: httpx.AsyncClient, scene: Scene) -> None:
    assert (await client.get("/api/experiments")).json() == {"experiments": []}
    scene.store.register(experiment())
    (listed,) = (await client.get("/api/experiments")).json()["experiments"]
    assert (listed["name"], listed["state"], listed["verdict"]) == ("tone", "running", None)
    assert experiment_from_dict(listed["definition"]) == experiment()

    scene.write(scene.traffic(experiment(), range(100)))
    looked = (await client.post("/api/experiments/tone/analysis")).json()
    assert looked["units"] == 100
    assert (await client.get("/api/experiments/tone")).json()["report"] == looked
    history = (await client.get("/api/experiments/tone/history", params={"limit": 5})).json()
    assert history == {"experiment": "tone", "reports": [looked]}
    (listed,) = (await client.get("/api/experiments")).json()["experiments"]
    assert listed["verdict"] == looked["verdict"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nobody"), ("GET", "/nobody/history"), ("POST", "/nobody/analysis")],
)
async def test_an_unknown_experiment_is_missing(client: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, f"/api/experiments{path}")
    assert answer.status_code == 404
    assert "nobody" in answer.json()["detail"]
