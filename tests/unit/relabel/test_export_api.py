"""relabel.api.exports over HTTP: files, archives, looks at them, and what is wrong with a question."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import text

from collector.catalog import Catalog, TableName
from dashboard import problems
from relabel.api.exports import router
from servelens.clock import ManualClock
from servelens.database import Database
from tests.labeled_cases import BAD, GOOD, add_labeled, add_many, corrected
from tests.new_database import new_database
from tests.openai_preference_rules import read_preference_file
from tests.relabel_cases import START


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = new_database(tmp_path / "servelens.db")
    yield opened
    opened.dispose()


@pytest.fixture
def app(database: Database, tmp_path: Path) -> FastAPI:
    catalog = Catalog(str(tmp_path / "lake"), {"chat": TableName("main", "default", "chat")})
    made = FastAPI()
    problems.install(made)
    made.include_router(router(database, ManualClock(START), catalog))
    return made


@pytest.fixture
async def client(app: FastAPI) -> Any:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://console/api/relabel") as opened:
        yield opened


async def test_a_format_with_filters_and_its_manifest(client: httpx.AsyncClient, database: Database) -> None:
    add_labeled(database, 1, corrected("better"))
    add_labeled(database, 2, corrected("best"), columns={"variant": "treatment"})
    add_labeled(database, 3, GOOD)
    asked = {"format": "openai_preference", "variant": "treatment", "endpoint": ["chat", "other"]}
    answer = await client.get("/export", params=asked)
    [pair] = read_preference_file(answer.content)
    assert pair["preferred_output"][0]["content"] == "best"
    assert 'filename="openai-preference.jsonl"' in answer.headers["content-disposition"]
    [listed] = (await client.get("/exports")).json()
    assert listed["id"] == answer.headers["x-servelens-export"]
    manifest = (await client.get(f"/exports/{listed['id']}/manifest")).json()
    assert manifest["query"] == {
        "format": "openai_preference",
        "endpoints": ["chat", "other"],
        "variant": "treatment",
        "as_of": 3,
    }
    assert manifest["files"][0]["bytes"] == len(answer.content)
    assert manifest["created_by"] == "console"
    assert manifest["tables"]["chat"]["newest"] == {
        "payload": None,
        "scores": None,
        "feedback": None,
        "labels": None,
    }
    assert manifest["cases"]["ids"] == "2"
    assert "cases" not in listed
    assert manifest["label_schemas"]["chat"]["0"]["fields"][0]["name"] == "rating"


async def test_several_files_are_an_archive(client: httpx.AsyncClient, database: Database) -> None:
    add_many(database, 300)
    answer = await client.get("/export", params={"format": "trl_kto", "split": 0.3})
    assert answer.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    assert archive.namelist() == ["train.jsonl", "test.jsonl", "manifest.json"]
    lines = {name: archive.read(name).splitlines() for name in archive.namelist()[:2]}
    manifest = json.loads(archive.read("manifest.json"))
    counts = manifest["counts"]
    assert counts["by_split"] == {"test": len(lines["test.jsonl"]), "train": len(lines["train.jsonl"])}
    assert counts["written"] == 400
    assert 0 < counts["by_split"]["test"] < counts["by_split"]["train"]
    assert counts["split"]["groups"] > 1
    folder = await client.get("/export", params={"format": "huggingface"})
    names = zipfile.ZipFile(io.BytesIO(folder.content)).namelist()
    assert "data/preference/train-00000.parquet" in names
    assert names[-2:] == ["README.md", "manifest.json"]


async def test_the_preview_shows_the_first_examples(client: httpx.AsyncClient, database: Database) -> None:
    add_many(database, 30)
    preview = (await client.get("/export/preview", params={"format": "trl_kto", "limit": 3})).json()
    assert [each["value"]["label"] for each in preview["examples"]] == [True, True, False]
    assert preview["summary"]["written"] == 40
    assert preview["is_whole"]
    assert (await client.get("/exports")).json() == []


async def test_the_summary_counts_masked_and_repeated(client: httpx.AsyncClient, database: Database) -> None:
    for number in range(2):
        messages = [
            {
                "role": "user",
                "content": f"mail {'x' * number}@example.org" if number else "mail a@example.org",
            },
            {"role": "assistant", "content": "sent to b@example.org"},
        ]
        add_labeled(database, number, GOOD, messages=messages)
    add_labeled(database, 7, BAD)
    asked = {"mask": "all", "dedupe": "exact"}
    assert (await client.get("/export/summary", params=asked)).json() == {
        "written": 1,
        "left_out": {"bad_without_correction": 1, "duplicate": 1},
        "cases": 3,
        "by_split": None,
        "masked": {"EMAIL_ADDRESS": 4},
    }


async def test_a_wrong_word_is_named(client: httpx.AsyncClient) -> None:
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"format": "csv"}, "format"),
        ({"format": "labels_table"}, "format"),
        ({"rating": "fine"}, "rating"),
        ({"value": "topic"}, "value"),
        ({"value": "topic=billing"}, "value"),
        ({"since": "2026-03-01T00:00:00"}, "since"),
        ({"since": "yesterday"}, "since"),
        ({"min_agreement": 2}, "min_agreement"),
        ({"reason": "mood"}, "reason"),
        ({"split": 1}, "split"),
        ({"split": 0.5, "split_by": "moon"}, "split_by"),
        ({"dedupe": "x"}, "dedupe"),
        ({"mask": "NAME"}, "mask"),
        ({"as_of": "x"}, "as_of"),
    )
    for asked, field in wrong:
        for path in ("/export", "/export/summary", "/export/preview"):
            answer = await client.get(path, params=asked)
            assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_labels_go_to_the_table(client: httpx.AsyncClient, database: Database, tmp_path: Path) -> None:
    add_many(database, 3)
    made = (await client.post("/exports/labels-table", json={"endpoint": "chat"})).json()
    assert made["counts"] == {"written": 3}
    assert (tmp_path / "lake/main/default/chat_labels/_delta_log").is_dir()
    assert (await client.post("/exports/labels-table", json={"endpoint": "nope"})).status_code == 404
    assert (await client.get("/exports/nope/manifest")).status_code == 404
    assert (await client.get("/exports", params={"limit": 0})).json()["field"] == "limit"


def _break_case(database: Database, case_id: int) -> None:
    with database.session() as session:
        session.execute(text("UPDATE relabel_cases SET messages = '[{' WHERE id = :id"), {"id": case_id})


async def test_a_database_that_fails_before_the_first_byte_is_an_error(
    client: httpx.AsyncClient, database: Database
) -> None:
    add_many(database, 600)
    _break_case(database, 5)
    assert (await client.get("/export")).status_code == 502
    _break_case(database, 590)
    assert (await client.get("/export", params={"split": 0.5})).status_code == 502
    assert (await client.get("/exports")).json() == []


def test_a_database_that_fails_on_the_way_cuts_the_connection(app: FastAPI, database: Database) -> None:
    add_many(database, 600)
    _break_case(database, 590)
    started = threading.Event()

    class Told(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            started.set()

    server = Told(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert started.wait(30)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.stream("GET", f"http://127.0.0.1:{port}/api/relabel/export", timeout=30) as answer:
            assert answer.status_code == 200
            chunks = answer.iter_bytes()
            assert next(chunks).endswith(b"\n")
            with pytest.raises(httpx.RemoteProtocolError):
                b"".join(chunks)
        assert httpx.get(f"http://127.0.0.1:{port}/api/relabel/exports", timeout=30).json() == []
    finally:
        server.should_exit = True
        thread.join(30)
