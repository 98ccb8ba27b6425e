"""What must not be kept is in no byte of the spool and of the tables, in the whole system as users start it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from tests.integration.backend_process import backend_process, endpoint
from tests.integration.system import System, wait_until

SECRET = "tOpSeCrEt"
MAIL = "bob@example.com"
KEY = "sk-tOpSeCrEtKeY"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    table = {"redact_paths": ["$.user", "$..ssn"], "redact_headers": ["x-servelens-tags"]}
    guardrails = {"input": {"invalid_keywords": ["banned"], "pii": {"behavior": "MASK"}}}
    guardrails["output"] = {"pii": {"behavior": "MASK"}}
    with backend_process() as url:
        endpoints = [
            endpoint("chat", url, ai_gateway={"inference_table_config": table}),
            endpoint("guarded", url, ai_gateway={"guardrails": guardrails}),
            endpoint("meta", url, ai_gateway={"inference_table_config": {"payload_logging": "metadata"}}),
            endpoint("off", url, ai_gateway={"inference_table_config": {"payload_logging": "off"}}),
        ]
        with System(tmp_path_factory.mktemp("privacy"), endpoints) as running:
            yield running


def ask(system: System, model: str, content: str = "hello", **fields: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": content}], **fields}
    headers = {
        "authorization": f"Bearer {KEY}",
        "cookie": f"session={KEY}",
        "x-api-key": KEY,
    }
    if model in ("chat", "nobody"):
        headers["x-servelens-tags"] = f"who={SECRET}"
    return httpx.post(f"{system.proxy_url}/v1/chat/completions", json=body, headers=headers)


def files_with(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def rows(system: System, name: str) -> pl.DataFrame:
    return system.tables(name).payload.scan().collect()


def test_nothing_secret_is_in_any_file(system: System) -> None:
    data = system.folder / "data"
    for stream in (False, True):
        assert ask(system, "chat", user=SECRET, metadata={"ssn": SECRET}, stream=stream).status_code == 200
        for name in ("meta", "off"):
            assert ask(system, name, SECRET, stream=stream).status_code == 200
        masked = ask(system, "guarded", f"I am {MAIL}", stream=stream)
        assert masked.status_code == 200
        assert MAIL not in masked.text
    assert ask(system, "guarded", f"banned {MAIL}").status_code == 400
    assert ask(system, "nobody", user=SECRET).status_code == 404

    wait_until(lambda: len(rows(system, "chat")) == 2, 60, "the records are in the table")
    wait_until(lambda: len(rows(system, "guarded")) == 3, 60, "the guarded calls are in the table")
    wait_until(lambda: len(rows(system, "meta")) == 2, 60, "the calls without bodies are in the table")
    chat = rows(system, "chat")
    assert [json.loads(request)["user"] for request in chat["request"]] == ["[REDACTED]"] * 2
    assert chat["unit"].str.starts_with("anon-").all()
    assert chat["unit"].n_unique() == 1
    guarded = rows(system, "guarded")
    assert sorted(error or "" for error in guarded["error_type"]) == ["", "", "blocked"]
    assert all("<EMAIL_ADDRESS>" in request for request in guarded["request"])
    assert rows(system, "meta")["request"].null_count() == 2
    assert files_with(data, "[REDACTED]"), "the search looks where records are"

    assert system.stop() == 0
    for secret in (SECRET, KEY, MAIL):
        assert files_with(data, secret) == []
    assert SECRET not in system.log.read_text()
