"""The whole loop over real processes and models: answer → record → score → case → label → export, also past a SIGKILL."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from tests.integration.backend_process import backend_process, endpoint
from tests.integration.system import System, wait_until

RUDE = "You are a stupid idiot and I hate you."
KIND = "The sky is blue because air scatters blue light more than red light."
SCORES_PER_RECORD = 3


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("loop")
    settings = {
        "models_dir": str(models_dir),
        "evaluations": [
            {"endpoint": "chat", "evaluator": "toxicity", "every_s": 1},
            {"endpoint": "chat", "evaluator": "toxicity", "every_s": 1, "options": {"target": "request"}},
            {"endpoint": "chat", "evaluator": "perplexity", "every_s": 1},
        ],
        "experiments": [
            {
                "name": "same",
                "endpoint": "chat",
                "control": {"served_entity": "champion", "weight": 50},
                "treatments": [{"served_entity": "challenger", "weight": 50}],
                "primary_metric": "score:perplexity",
            }
        ],
        "experiments_every_s": 1,
        "relabel": {
            "every_s": 1,
            "rules": [{"endpoint": "chat", "evaluator": "toxicity", "target": "response", "above": 0.5}],
        },
    }
    with backend_process() as url:
        endpoints = [endpoint("chat", url, {"champion": 100, "challenger": 0})]
        with System(folder, endpoints, settings) as running:
            yield running


def ask(system: System, content: str, answer: str, user: str) -> str:
    body = {
        "model": "chat",
        "messages": [{"role": "user", "content": content}],
        "user": user,
        "fault": {"content": answer},
    }
    response = httpx.post(f"{system.proxy_url}/v1/chat/completions", json=body)
    assert response.status_code == 200
    return response.headers["x-request-id"]


def scores(system: System) -> pl.DataFrame:
    return system.tables("chat").scores.scan().collect()


def console(system: System, method: str, path: str, **more: Any) -> Any:
    answer = httpx.request(method, f"{system.console_url}{path}", timeout=30, **more)
    answer.raise_for_status()
    return answer.json()


def test_the_loop(system: System, tmp_path: Path) -> None:
    sent = [
        ask(
            system,
            f"Question {number}: why is the sky blue?",
            RUDE if number % 4 == 0 else KIND,
            f"u{number}",
        )
        for number in range(16)
    ]
    wait_until(lambda: len(scores(system)) == len(sent) * SCORES_PER_RECORD, 90, "every record is scored")
    wait_until(
        lambda: console(system, "GET", "/api/relabel/counts")["total"]["open"] >= 1, 30, "a case is queued"
    )
    toxicity = scores(system).filter((pl.col("evaluator") == "toxicity") & (pl.col("target") == "response"))
    flagged = set(toxicity.filter(pl.col("score") > 0.5)["databricks_request_id"])
    assert flagged == {request_id for number, request_id in enumerate(sent) if number % 4 == 0}

    # The four rude answers were given to four different questions, so they are four cases.
    wait_until(lambda: console(system, "GET", "/api/relabel/counts")["total"]["open"] == 4, 30, "four cases")
    case = console(system, "POST", "/api/relabel/claim", json={"annotator": "ada"})
    assert case["reasons"][0]["evaluator"] == "toxicity"
    label = {"annotator": "ada", "rating": "bad", "corrected_answer": KIND}
    console(system, "POST", f"/api/relabel/cases/{case['id']}/label", json=label)
    output = tmp_path / "train.jsonl"
    command = [
        sys.executable,
        "-m",
        "servelens",
        "export",
        "--config",
        str(system.config),
        "--output",
        str(output),
    ]
    exported = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1 conversations" in exported.stdout
    (line,) = output.read_text().splitlines()
    messages = json.loads(line)["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert messages[1]["content"] == KIND
    assert httpx.get(f"{system.console_url}/api/relabel/export").text == output.read_text()

    command = [
        sys.executable,
        "-m",
        "servelens",
        "experiment",
        "report",
        "same",
        "--config",
        str(system.config),
    ]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert sum(report["exposures"].values()) == len(sent)
    assert report["metrics"][0]["name"] == "score:perplexity"

    scheduler = system.child("scheduler")
    assert scheduler is not None
    before = len(sent)
    sent += [ask(system, f"More of question {number}", KIND, f"u{number}") for number in range(8)]
    scheduler.kill()
    sent += [ask(system, f"Still more of question {number}", KIND, f"u{number}") for number in range(8)]
    wait_until(
        lambda: len(scores(system)) >= len(sent) * SCORES_PER_RECORD,
        120,
        "scored after the scheduler's death",
    )
    per_record = scores(system).group_by("databricks_request_id", "evaluator", "target").len()
    assert per_record["len"].max() == 1, "a record was scored twice"
    assert len(per_record) == len(sent) * SCORES_PER_RECORD
    assert len(sent) == before + 16


def test_the_console_serves_its_pages(system: System) -> None:
    for path in ("/", "/requests", "/experiments", "/quality", "/relabel"):
        answer = httpx.get(f"{system.console_url}{path}")
        assert answer.status_code == 200
        assert "servelens" in answer.text
    missing = httpx.get(f"{system.console_url}/api/experiments/nobody")
    assert missing.status_code == 404
    assert missing.headers["content-type"].startswith("application/problem+json")
