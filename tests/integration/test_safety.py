"""The safety guardrail in the whole system as users start it, with the offline toxicity model: a post is classified and
held back within one call.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import polars as pl
import psutil
import pytest

from tests.integration.backend_process import backend_process, endpoint
from tests.integration.system import System, free_port, wait_until

pytestmark = pytest.mark.models

GOOD = "Could you tell me how to bake bread at home?"
BAD = "You are a stupid fucking idiot and I hate you."
PATIENT = {"timeout_ms": 10_000}  # of a machine that runs other tests


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    port = free_port()
    with backend_process() as url:
        endpoints = [
            endpoint("guarded", url, ai_gateway={"guardrails": {"input": {"safety": PATIENT}}}),
            endpoint(
                "answers",
                url,
                ai_gateway={"guardrails": {"output": {"safety": {"action": "mask", **PATIENT}}}},
            ),
        ]
        settings = {"scorer": {"port": port}}
        with System(tmp_path_factory.mktemp("safety"), endpoints, settings) as running:
            scorer = f"http://127.0.0.1:{port}"
            wait_until(lambda: _is_ready(scorer), 120, "the scorer is ready")
            yield running


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def ask(system: System, model: str, content: str, **fields: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": content}], **fields}
    return httpx.post(f"{system.proxy_url}/v1/chat/completions", json=body, timeout=30)


def test_unsafe_texts_are_held_back_also_after_the_scorer_was_killed(system: System) -> None:
    assert ask(system, "guarded", GOOD).status_code == 200
    for stream in (False, True):
        blocked = ask(system, "guarded", BAD, stream=stream)
        assert blocked.status_code == 400
        assert "safety" in blocked.json()["error"]["message"]
    whole = ask(system, "answers", BAD)
    assert whole.json()["choices"][0]["message"]["content"] == "<UNSAFE>"
    streamed = ask(system, "answers", f"{GOOD} {BAD}", stream=True)
    assert streamed.status_code == 200
    deltas = [json.loads(line[6:]) for line in streamed.text.split("\n\n") if line.startswith("data: {")]
    text = "".join(delta["choices"][0]["delta"].get("content") or "" for delta in deltas if delta["choices"])
    assert text.replace("echo: ", "") == f"{GOOD} <UNSAFE>"

    def rows(name: str) -> pl.DataFrame:
        return system.tables(name).payload.scan().sort("request_time").collect()

    wait_until(
        lambda: len(rows("guarded")) == 3 and len(rows("answers")) == 2, 60, "the calls are in the tables"
    )
    guarded = rows("guarded")
    assert guarded["status_code"].to_list() == [200, 400, 400]
    assert guarded["error_type"].to_list() == [None, "blocked", "blocked"]
    assert guarded["served_entity"].to_list()[1:] == [None, None]
    tags = [dict(row) for row in guarded["tags"].to_list()]
    assert [each.get("safety.action") for each in tags] == [None, "blocked", "blocked"]
    assert float(tags[0]["safety.input"]) < 0.5 < float(tags[1]["safety.input"])

    _kill_the_scorer(system)


def _kill_the_scorer(system: System) -> None:
    """The endpoint is closed until it is back."""
    scorer = system.child("scorer")
    assert scorer is not None
    scorer.kill()
    psutil.wait_procs([scorer], 10)
    refused = ask(system, "guarded", f"{GOOD} Thank you.")
    assert refused.status_code == 503
    assert "could not be checked" in refused.json()["error"]["message"]
    wait_until(lambda: ask(system, "guarded", f"{GOOD} Please.").status_code == 200, 120, "it is back")
    assert ask(system, "guarded", BAD).status_code == 400
