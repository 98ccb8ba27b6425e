"""relabel.api.queue over HTTP: several annotators, disputes, gold cases, and what an overseer does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from dashboard import problems
from relabel.api.queue import router
from relabel.case import Reason, ReasonKind
from relabel.queue.case_queue import CaseQueue
from servelens.clock import ManualClock
from servelens.database import Database
from tests.label_schemas import Versions
from tests.new_database import new_database
from tests.relabel_cases import START, add_cases, flagged


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = new_database(tmp_path / "servelens.db")
    add_cases(opened, [flagged(number) for number in range(1, 4)])
    yield opened
    opened.dispose()


@pytest.fixture
async def client(database: Database) -> Any:
    app = FastAPI()
    problems.install(app)
    queue = CaseQueue(database, ManualClock(START), schemas=Versions(annotators=2))
    app.include_router(router(queue), prefix="/api/relabel")
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://console/api/relabel") as opened:
        yield opened


async def _post(client: httpx.AsyncClient, path: str, annotator: str = "ann", **body: Any) -> Any:
    response = await client.post(path, json={"annotator": annotator, **body})
    assert response.status_code in (200, 204), response.text
    return response.json() if response.content else None


async def test_a_dispute_is_decided(client: httpx.AsyncClient) -> None:
    for name, rating in (("ann", "good"), ("bob", "bad")):
        case = await _post(client, "/claim", name)
        assert (case["id"], case["state"], case["labels"]) == (1, "claimed", [])
        labeled = await _post(client, "/cases/1/label", name, values={"rating": rating}, comment=name)
        assert [label["annotator"] for label in labeled["labels"]] == [name]
    assert labeled["state"] == "disputed"
    assert await _post(client, "/disputes/claim", "ann") is None
    dispute = await _post(client, "/disputes/claim", "carl", endpoint="chat")
    assert [label["label"]["rating"] for label in dispute["labels"]] == ["good", "bad"]
    decided = await _post(
        client, "/cases/1/label", "carl", rating="bad", corrected_answer="x", version=dispute["version"]
    )
    assert (decided["state"], decided["resolution"], decided["wanted"]) == ("labeled", "adjudicated", 2)
    assert len((await client.get("/cases/1", params={"annotator": "eve"})).json()["labels"]) == 3


async def test_a_label_and_the_next_case_are_one_call(client: httpx.AsyncClient) -> None:
    await _post(client, "/claim")
    answer = await _post(client, "/cases/1/label?next=true", rating="good")
    assert (answer["case"]["id"], answer["case"]["labeled"], answer["next"]["id"]) == (1, 1, 2)
    answer = await _post(client, "/cases/2/skip?next=true&next_endpoint=other", reason="no")
    assert (answer["case"]["id"], answer["next"]) == (2, None)
    answer = await _post(client, "/claim")
    assert (await _post(client, "/cases/3/label?next=true", rating="good"))["next"] is None


async def test_an_overseer_reassigns_reopens_and_makes_gold(client: httpx.AsyncClient) -> None:
    await _post(client, "/claim")
    given = await _post(client, "/cases/1/reassign", "lead", from_annotator="ann", to_annotator="bob")
    assert given["annotator"] == "bob"
    await _post(client, "/cases/1/comments", "lead", text="<i>look</i>")
    assert (await _post(client, "/claim", "bob"))["comments"][0]["text"] == "<i>look</i>"
    await _post(client, "/cases/1/label", "bob", rating="good")
    assert (await _post(client, "/cases/1/withdraw", "bob"))["labels"] == []
    await _post(client, "/cases/1/skip", "bob", reason="no")
    await _post(client, "/claim", "ann")
    assert (await _post(client, "/cases/1/skip", "ann", reason="me neither"))["state"] == "skipped"
    assert (await _post(client, "/cases/1/reopen", "lead", reason="they must"))["state"] == "open"
    gold = await _post(client, "/cases/3/gold", "lead", values={"rating": "bad"})
    assert gold["state"] == "gold"
    assert (await client.get("/counts")).json()["total"]["gold"] == 1
    assert (await client.get("/cases/3", params={"annotator": "ann"})).json()["state"] == "open"
    assert (await _post(client, "/cases/3/gold", "lead", values=None))["state"] == "open"
    history = (await client.get("/cases/1/history")).json()
    assert [entry["event"] for entry in history][1:4] == ["claimed", "reassigned", "labeled"]


async def test_lists_know_who_had_a_case_and_why_it_is_one(
    client: httpx.AsyncClient, database: Database
) -> None:
    drawn = Reason(rule="sample", kind=ReasonKind.RANDOM, priority=-1)
    add_cases(database, [flagged(9, evaluator="perplexity"), replace(flagged(8), reasons=(drawn,))])
    await _post(client, "/claim")
    await _post(client, "/cases/1/label", rating="good")
    await _post(client, "/claim", "bob")

    async def ids(**asked: str) -> list[int]:
        return [case["id"] for case in (await client.get("/cases", params=asked)).json()["cases"]]

    assert await ids(annotator="ann") == await ids(annotator="bob") == [1]
    assert await ids(rule="perplexity response above") == [4]
    assert await ids(rule="perplexity response above", annotator="ann") == []
    assert await ids(kind="random") == [5]
    assert await ids(kind="score", rule="perplexity response above") == [4]
    assert await ids(kind="random", rule="perplexity response above") == []
    assert (await client.get("/cases", params={"kind": "whim"})).status_code == 422
    assert await ids(evaluator="toxicity", endpoint="chat", since="2026-03-01T12:00:02Z") == [2, 3]


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/cases/1/label", {"values": {"rating": "fine"}}, 422, "values.rating"),
        ("/cases/1/label", {"values": {"rating": "good"}, "rating": "good"}, 422, "rating"),
        ("/cases/1/label", {"rating": 7}, 422, "rating"),
        ("/cases/1/label", {}, 422, "values.rating"),
        ("/cases/1/label", {"values": {"topic": "x"}, "rating": "good"}, 422, "values.topic"),
        ("/cases/1/label", {"preferred": "answer", "rating": "good"}, 422, "preferred"),
        ("/cases/1/label", {"rating": "good", "version": 7}, 409, "version"),
        ("/cases/2/label", {"rating": "good"}, 409, "case_id"),
        ("/cases/9/label", {"rating": "good"}, 404, "case_id"),
        ("/cases/9/comments", {"text": "x"}, 404, "case_id"),
        ("/cases/1/comments", {"text": " "}, 422, "text"),
        ("/cases/1/withdraw", {}, 409, "annotator"),
        ("/cases/1/reopen", {"reason": "x"}, 409, "case_id"),
        ("/cases/1/reopen", {"reason": " "}, 422, "reason"),
        ("/cases/1/reassign", {"from_annotator": "ann", "to_annotator": " "}, 422, "to_annotator"),
        ("/cases/1/reassign", {"from_annotator": "ann", "to_annotator": "ann"}, 409, "to_annotator"),
        ("/cases/1/gold", {"values": {"rating": "good"}}, 409, "case_id"),
        ("/cases/2/gold", {"values": {}}, 422, "values.rating"),
        ("/cases/2/gold", {"values": None}, 409, "case_id"),
    ],
)
async def test_errors_say_which_field(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], status: int, field: str
) -> None:
    await _post(client, "/claim")
    response = await client.post(path, json={"annotator": "ann", **body})
    assert (response.status_code, response.json().get("field")) == (status, field), response.text
