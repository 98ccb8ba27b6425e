"""relabel.api.interchange over HTTP: tasks out, annotations in, and their errors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse

from relabel.api import interchange
from relabel.label_schema import default_schema
from relabel.queue.case_queue import CaseQueue
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import ServelensError
from tests.interchange_cases import FixedSchemas
from tests.interchange_imports import rated, task
from tests.new_database import new_database
from tests.relabel_cases import START, add_cases, flagged


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = new_database(tmp_path / "servelens.db")
    add_cases(opened, [flagged(1), flagged(2, priority=3), flagged(3)])
    yield opened
    opened.dispose()


def _routes(database: Database) -> APIRouter:
    return interchange.router(
        database, ManualClock(START), FixedSchemas(default_schema()), lambda: ("chat", "other", "html")
    )


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(_routes(database))

    @app.exception_handler(ServelensError)
    async def problem(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ServelensError)
        return JSONResponse({"detail": error.message, "field": error.field}, status_code=error.status)

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://console/api/relabel/interchange"
    ) as opened:
        yield opened


async def test_the_configuration_is_what_the_tool_reads(client: httpx.AsyncClient) -> None:
    studio = await client.get("/label_studio/config", params={"endpoint": "chat"})
    assert studio.headers["content-type"].startswith("application/xml")
    assert ElementTree.fromstring(studio.text).tag == "View"
    argilla = await client.get("/argilla/config", params={"endpoint": "chat"})
    assert argilla.headers["content-type"] == "application/json"
    assert argilla.json()["questions"][0]["name"] == "rating"


@pytest.mark.parametrize("path", ["/argilla/config", "/label_studio/tasks"])
async def test_an_endpoint_that_is_not_there_has_neither(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, params={"endpoint": "chatt"})
    assert (answer.status_code, answer.json()["field"]) == (404, "endpoint")


async def test_tasks_are_the_most_urgent_open_cases(client: httpx.AsyncClient, database: Database) -> None:
    def numbers(response: httpx.Response) -> list[int]:
        assert response.status_code == 200
        return [each["meta"]["case_id"] for each in response.json()]

    path = "/label_studio/tasks"
    assert numbers(await client.get(path, params={"endpoint": "chat"})) == [2, 1, 3]
    assert numbers(await client.get(path, params={"endpoint": "chat", "limit": 2})) == [2, 1]
    assert numbers(await client.get(path, params={"endpoint": "other"})) == []
    CaseQueue(database, ManualClock(START)).claim("ann")
    assert numbers(await client.get(path, params={"endpoint": "chat"})) == [1, 3]
    assert numbers(await client.get(path, params={"endpoint": "chat", "state": "claimed"})) == [2]


async def test_annotations_are_taken_in_once(client: httpx.AsyncClient, database: Database) -> None:
    tasks = (await client.get("/label_studio/tasks", params={"endpoint": "chat"})).json()
    done = [
        {**each, "annotations": [rated(number, user=f"{number}")]} for number, each in enumerate(tasks, 1)
    ]
    done[0]["annotations"][0]["completed_by"] = 7
    path = "/label_studio/annotations"
    named = {"annotator": "7=ann", "endpoint": "chat"}
    dry = await client.post(path, params={**named, "dry_run": True}, json=done)
    assert (dry.json()["dry_run"], dry.json()["outcomes"]) == (True, {"taken": 3})
    assert CaseQueue(database, ManualClock(START)).counts("chat")["chat"]["labeled"] == 0
    first = await client.post(path, params=named, json=done)
    assert first.json() == {"dry_run": False, "outcomes": {"taken": 3}, "problems": [], "more_problems": 0}
    assert CaseQueue(database, ManualClock(START)).get(2).labels[0].annotator == "ann"
    assert (await client.post(path, params=named, json=done)).json()["outcomes"] == {"unchanged": 3}


async def test_a_problem_says_which_and_why(client: httpx.AsyncClient) -> None:
    response = await client.post("/label_studio/annotations", json=[task(1, rated(11, "superb"))])
    [problem] = response.json()["problems"]
    assert problem["message"].startswith("values.rating: 'superb' is none of the options")
    assert (problem["case_id"], problem["outcome"], problem["annotator"]) == (1, "refused", "ann@example.com")


@pytest.mark.parametrize(
    ("method", "path", "content", "field"),
    [
        ("GET", "/label_studio/tasks?endpoint=chat&state=labeled", None, "state"),
        ("POST", "/label_studio/annotations", b'{"a": 1}', "file"),
        ("POST", "/label_studio/annotations", b"[{", "[0]"),
        ("POST", "/label_studio/annotations?annotator=ann", b"[]", "annotator"),
        ("POST", "/label_studio/annotations?annotator=1=", b"[]", "annotator"),
        ("POST", "/label_studio/annotations", b"[" + b" " * (interchange.MAX_BODY + 1), "body"),
    ],
)
async def test_errors_say_which_field(
    client: httpx.AsyncClient, method: str, path: str, content: bytes | None, field: str
) -> None:
    response = await client.request(method, path, content=content)
    assert (response.status_code, response.json()["field"]) == (422, field)


@pytest.mark.parametrize(
    "path", ["/doccano/tasks?endpoint=chat", "/argilla/tasks", "/argilla/tasks?endpoint=a&limit=0"]
)
async def test_a_malformed_request_is_refused(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 422


async def test_text_is_data(client: httpx.AsyncClient, database: Database) -> None:
    messages = [{"role": "user", "content": '</View><script>alert("1")</script>'}]
    add_cases(database, [flagged(9, messages=messages, answered=False)], endpoint="html")
    response = await client.get("/label_studio/tasks", params={"endpoint": "html"})
    assert json.loads(response.content)[0]["data"]["dialogue"][0]["text"] == messages[0]["content"]


def described(app: FastAPI) -> Any:
    return app.openapi()["paths"]["/api/relabel/interchange/{tool}/annotations"]["post"]["requestBody"]


def test_the_body_is_described(database: Database) -> None:
    app = FastAPI()
    app.include_router(_routes(database))
    assert described(app)["content"]["application/json"]["schema"]["type"] == "array"


async def test_what_cannot_be_taken_stops_nothing_else(client: httpx.AsyncClient) -> None:
    """Half surrogates, times that no float holds, and a version of the schema that there is not."""
    elements = [
        task(1, rated(1), schema_version=99),
        task(1, rated("\ud800")),
        task(1, rated(3) | {"result": [{"from_name": "x\ud800", "value": {"choices": ["good"]}}]}),
        task(2, rated(4, lead_time=10**400)),
        task(3, rated(5)),
    ]
    answer = await client.post("/label_studio/annotations", content=json.dumps(elements))
    report = answer.json()
    assert report["outcomes"] == {"taken": 2, "refused": 3}
    assert [problem["message"].partition(":")[0] for problem in report["problems"]] == [
        "schema_version",
        "external_id",
        "values.x\ufffd",
    ]
