"""relabel.api.schemas over HTTP: schemas, suggestions, and other answers from a real proxy and real backends."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from relabel.alternatives import Alternatives
from relabel.api.schemas import router
from relabel.case import RecordedScore
from relabel.label_schema import FieldType
from relabel.regeneration import AT_ONCE, Regeneration
from relabel.schema_definition import parse_schema
from relabel.schema_store import SchemaStore
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import ServelensError
from tests.backends import Behaviour, OpenAIBackend
from tests.new_database import new_database
from tests.relabel_cases import START, add_cases, append_rows, endpoint_tables, flagged, payload_row
from tests.unit.serving_proxy.running_proxy import eventually, running_proxy, split

SCHEMA: dict[str, Any] = {
    "show_suggestions": True,
    "fields": [
        {
            "name": "rating",
            "type": "rating",
            "suggest": [{"evaluator": "toxicity", "above": 0.5, "value": "bad"}],
        },
        {"name": "best", "type": "preference"},
    ],
}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = new_database(tmp_path / "servelens.db")
    yield opened
    opened.dispose()


@asynccontextmanager
async def console(
    database: Database, folder: Path, proxy_url: str = "http://127.0.0.1:9", timeout_s: float = 20.0
) -> AsyncIterator[httpx.AsyncClient]:
    clock = ManualClock(START)
    app = FastAPI()
    app.include_router(
        router(
            SchemaStore(database, clock),
            database,
            Alternatives(database, clock),
            endpoints=lambda: {"chat", "code"},
            tables=lambda endpoint: endpoint_tables(str(folder / "tables"), endpoint),
            regeneration=Regeneration(proxy_url, timeout_s=timeout_s),
        )
    )

    @app.exception_handler(ServelensError)
    async def problem(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ServelensError)
        return JSONResponse({"detail": error.message, "field": error.field}, status_code=error.status)

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://console/api/relabel") as opened:
        yield opened


@pytest.fixture
async def client(database: Database, tmp_path: Path) -> Any:
    async with console(database, tmp_path) as opened:
        yield opened


async def test_a_schema_is_checked_put_and_read(client: httpx.AsyncClient) -> None:
    first = (await client.get("/schemas")).json()["schemas"]
    assert [(each["endpoint"], each["version"], each["source"]) for each in first] == [
        ("chat", 0, "default"),
        ("code", 0, "default"),
    ]
    checked = await client.post("/schemas/chat/check", json=SCHEMA)
    assert checked.json()["schema"]["fields"][0]["decides"] is True
    assert (await client.get("/schemas/chat")).json()["version"] == 0
    put = await client.put("/schemas/chat", json=SCHEMA)
    assert put.status_code == 200
    assert (put.json()["version"], put.json()["created_by"]) == (1, "console")
    assert put.json()["schema"] == checked.json()["schema"]
    assert (await client.get("/schemas/chat")).json() == put.json()
    assert (await client.put("/schemas/chat", json=put.json()["schema"])).json()["version"] == 1
    other = {**SCHEMA, "annotators": 3}
    assert (await client.put("/schemas/chat", json=other, headers={"if-match": "0"})).status_code == 409
    assert (await client.put("/schemas/chat", json=other, headers={"if-match": "1"})).json()["version"] == 2
    versions = (await client.get("/schemas/chat/versions")).json()["versions"]
    assert [each["version"] for each in versions] == [2, 1]
    assert (await client.get("/schemas/chat/versions/1")).json() == put.json()
    default = (await client.get("/schemas/chat/versions/0")).json()
    assert [field["name"] for field in default["schema"]["fields"]] == ["rating", "corrected_answer", "tags"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("GET", "/schemas/chatt", None, 404, "endpoint"),
        ("PUT", "/schemas/chatt", SCHEMA, 404, "endpoint"),
        ("POST", "/schemas/chatt/check", SCHEMA, 404, "endpoint"),
        ("GET", "/schemas/chat/versions/7", None, 404, "version"),
        ("PUT", "/schemas/chat", {"fields": [{"name": "x", "type": "choice"}]}, 422, "fields[0].options"),
        ("POST", "/schemas/chat/check", {"fields": [], "extra": 1}, 422, "fields"),
        ("PUT", "/schemas/chat", [1], 422, "schema"),
        ("PUT", "/schemas/chat", "text", 422, "schema"),
        ("GET", "/cases/9/suggestions", None, 404, "case_id"),
        ("POST", "/cases/9/alternatives", {"text": "x"}, 404, "case_id"),
        ("POST", "/cases/9/alternatives/refresh", None, 404, "case_id"),
        ("POST", "/cases/9/regenerate", None, 404, "case_id"),
        ("POST", "/cases/1/alternatives", {"text": " "}, 422, "text"),
        ("POST", "/cases/1/alternatives", {"text": "x", "annotator": "a\nb"}, 422, "annotator"),
    ],
)
async def test_errors_say_which_field(
    client: httpx.AsyncClient,
    database: Database,
    method: str,
    path: str,
    body: Any,
    status: int,
    field: str,
) -> None:
    add_cases(database, [flagged(1)])
    answer = await client.request(method, path, **({} if body is None else {"json": body}))
    assert (answer.status_code, answer.json()["field"]) == (status, field)


async def test_a_body_that_is_not_sent_as_json_is_told(client: httpx.AsyncClient) -> None:
    answer = await client.put("/schemas/chat", content=json.dumps(SCHEMA))
    assert (answer.status_code, answer.json()["detail"]) == (422, "it was not sent as JSON")


async def test_another_source_than_uploaded_is_refused(client: httpx.AsyncClient, database: Database) -> None:
    add_cases(database, [flagged(1)])
    for body in ({"text": "x", "source": "shadow"}, {"text": "x", "sorce": "uploaded"}, {}):
        assert (await client.post("/cases/1/alternatives", json=body)).status_code == 422


async def test_suggestions_are_those_of_the_scores(client: httpx.AsyncClient, database: Database) -> None:
    score = RecordedScore("toxicity", "response", 0.9, "toxic")
    add_cases(database, [replace(flagged(1), scores=(score,))])
    assert (await client.get("/cases/1/suggestions")).json() == {}
    await client.put("/schemas/chat", json=SCHEMA)
    suggested = (await client.get("/cases/1/suggestions", params={"annotator": "ann"})).json()
    expected = {"value": "bad", "evaluator": "toxicity", "target": "response", "score": 0.9}
    assert suggested == {"rating": [expected]}


async def test_answers_are_uploaded_and_shadows_looked_for(
    client: httpx.AsyncClient, database: Database, tmp_path: Path
) -> None:
    add_cases(database, [flagged(1)])
    body = {"source": "uploaded", "text": "<b>better</b>", "model": "human", "annotator": "ann"}
    uploaded = (await client.post("/cases/1/alternatives", json=body)).json()
    assert uploaded["added"] == 1
    [answer] = uploaded["alternatives"]
    assert (answer["source"], answer["text"], answer["model"]) == ("uploaded", "<b>better</b>", "human")
    assert (await client.post("/cases/1/alternatives/refresh")).json()["added"] == 0
    shadow = payload_row(
        1, databricks_request_id="s", is_shadow=True, shadow_of="request-000001", response_text="other"
    )
    shadow["response"] = json.dumps({"choices": [{"message": {"role": "assistant", "content": "other"}}]})
    append_rows(endpoint_tables(str(tmp_path / "tables")), [payload_row(1), shadow], [])
    refreshed = (await client.post("/cases/1/alternatives/refresh", json={"annotator": "ann"})).json()
    assert refreshed["added"] == 1
    assert [each["text"] for each in refreshed["alternatives"]] == ["<b>better</b>", "other"]


async def test_another_answer_is_asked_through_the_proxy(database: Database, tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    add_cases(database, [flagged(1, tools=tools)])
    async with OpenAIBackend(model="big") as champion, OpenAIBackend(model="new") as challenger:
        champion.behaviour = Behaviour(content="from the champion")
        challenger.behaviour = Behaviour(content="from the challenger")
        snapshot = split({"champion": champion.url, "challenger": challenger.url}, {"champion": 100})
        async with (
            running_proxy(tmp_path / "spool", snapshot) as proxy,
            console(database, tmp_path, proxy.url) as client,
        ):
            routed = (await client.post("/cases/1/regenerate")).json()
            named = await client.post("/cases/1/regenerate", json={"served_entity": "challenger"})
            again = await client.post("/cases/1/regenerate", json={"served_entity": "challenger"})
            nobody = await client.post("/cases/1/regenerate", json={"served_entity": "nobody"})
        records = proxy.records()
    assert routed["added"] == 1
    assert (named.json()["added"], again.json()["added"]) == (1, 0)
    first, second = named.json()["alternatives"]
    assert (first["text"], first["served_entity"], first["source"]) == (
        "from the champion",
        "champion",
        "regenerated",
    )
    assert (second["text"], second["served_entity"], second["model"]) == (
        "from the challenger",
        "challenger",
        "chat",  # what it was asked for: this backend answers with that
    )
    sent = challenger.received[0].json()
    assert sent["messages"] == [{"role": "user", "content": "question 1"}]
    assert sent["tools"] == tools
    assert nobody.status_code == 404
    assert "nobody" in nobody.json()["detail"]
    by_id = {record.request_id: record for record in records}
    assert by_id[first["databricks_request_id"]].tags == {"regenerated_for": "request-000001"}


@pytest.mark.parametrize(
    ("sent", "forwarded"),
    [
        ({}, None),
        ({"authorization": "Bearer sl-1"}, "Bearer sl-1"),
        ({"x-api-key": "sl-1"}, "Bearer sl-1"),
        ({"authorization": "Basic " + base64.b64encode(b"ann:sl-1").decode()}, "Bearer sl-1"),
        ({"authorization": "Basic !"}, None),
    ],
)
async def test_the_caller_s_own_key_goes_along(
    database: Database, tmp_path: Path, sent: dict[str, str], forwarded: str | None
) -> None:
    add_cases(database, [flagged(1)])
    async with OpenAIBackend() as proxy, console(database, tmp_path, proxy.url) as client:
        answer = await client.post("/cases/1/regenerate", headers=sent)
    assert answer.status_code == 200
    assert proxy.received[0].headers.get("authorization") == forwarded
    assert proxy.received[0].path == "/v1/chat/completions"
    assert "sl-1" not in answer.text


@pytest.mark.parametrize(
    ("behaviour", "status", "words"),
    [
        (Behaviour(status=503), 502, "the endpoint answered 503: scripted failure"),
        (Behaviour(status=429), 429, "the endpoint answered 429: scripted failure"),
        (Behaviour(status=400), 422, "the endpoint answered 400: scripted failure"),
        (Behaviour(status=403), 422, "the endpoint answered 403: scripted failure"),
        (Behaviour(status=302, body=b""), 502, "the endpoint answered 302: nothing"),
        (Behaviour(status=500, body=b'{"error": "kserve\\n words"}'), 502, "answered 500: kserve words"),
        (Behaviour(status=500, body=b"<html>\xff"), 502, "answered 500: <html>\ufffd"),
        (Behaviour(body=b'{"predictions": [1]}'), 502, "the endpoint's answer holds no chat message"),
        (Behaviour(body=b"[" * 100_000), 502, "the endpoint's answer holds no chat message"),
        (Behaviour(body=b"{" + b" " * 9_000_000), 502, "the answer is over 8388608 bytes"),
        (Behaviour(hang=True), 502, "there was no answer within 0.3 s"),
        (Behaviour(reset_before_answer=True), 502, "the proxy cannot be reached"),
        (Behaviour(raw=b"SSH-2.0\r\n\r\n"), 502, "the proxy cannot be reached"),
    ],
)
async def test_what_went_wrong_is_told_in_its_own_words(
    database: Database, tmp_path: Path, behaviour: Behaviour, status: int, words: str
) -> None:
    add_cases(database, [flagged(1)])
    timeout_s = 0.3 if behaviour.hang else 20.0
    async with OpenAIBackend(behaviour) as proxy, console(database, tmp_path, proxy.url, timeout_s) as client:
        answer = await client.post("/cases/1/regenerate", headers={"authorization": "Bearer sl-1"})
        assert (await client.post("/cases/1/alternatives/refresh")).json()["alternatives"] == []
    assert answer.status_code == status
    assert words in answer.json()["detail"]
    assert "sl-1" not in answer.text


async def test_a_proxy_that_is_not_there_is_told(client: httpx.AsyncClient, database: Database) -> None:
    add_cases(database, [flagged(1)])
    odd = await client.post(
        "/cases/1/regenerate",
        content='{"served_entity": "\\ud800"}',
        headers={"content-type": "application/json"},
    )
    assert (odd.status_code, odd.json()["field"]) == (422, "served_entity")
    answer = await client.post("/cases/1/regenerate")
    assert answer.status_code == 502
    assert answer.json()["detail"].startswith("the proxy cannot be reached: ")


async def test_a_key_that_no_header_can_carry_is_not_quoted(database: Database, tmp_path: Path) -> None:
    add_cases(database, [flagged(1)])
    secret = base64.b64encode(b"ann:sl-1\nx").decode()
    async with OpenAIBackend() as proxy, console(database, tmp_path, proxy.url) as client:
        answer = await client.post("/cases/1/regenerate", headers={"authorization": f"Basic {secret}"})
    assert (answer.status_code, answer.json()["field"]) == (422, "authorization")
    assert "sl-1" not in answer.text


async def test_only_so_many_are_generated_at_once(database: Database, tmp_path: Path) -> None:
    add_cases(database, [flagged(number) for number in range(1, AT_ONCE + 2)])
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(OpenAIBackend(Behaviour(hang=True)))
        async with console(database, tmp_path, proxy.url) as client:
            calls = [
                asyncio.create_task(client.post(f"/cases/{number}/regenerate"))
                for number in range(1, AT_ONCE + 1)
            ]
            await eventually(lambda: len(proxy.received) == AT_ONCE)
            refused = await client.post(f"/cases/{AT_ONCE + 1}/regenerate")
            await stack.aclose()  # which ends them
            answers = await asyncio.gather(*calls)
            after = await client.post(f"/cases/{AT_ONCE + 1}/regenerate")
    assert refused.status_code == 429
    assert {answer.status_code for answer in (*answers, after)} == {502}


def test_the_examples_of_the_page_are_schemas() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "label-schemas.md"
    blocks = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)]
    settings, fields, suggesting = blocks
    [block] = settings["relabel"]["schemas"]
    assert block.pop("endpoint") == "assistant"
    assert parse_schema(block).annotators == 3
    assert {field["type"] for field in fields} == set(FieldType)
    parse_schema({"fields": fields})
    assert parse_schema(suggesting).show_suggestions
