"""From toxic traffic to a new challenger: scores → cases → labels → export → fine-tuning → a served entity that answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from servelens.demo.backend import ModelServer
from tests.integration.backend_process import backend_process, endpoint
from tests.integration.recorded import by_id, recorded
from tests.integration.system import System, free_port, wait_until

pytestmark = pytest.mark.models

RUDE = "You are a stupid idiot and I hate you."
KIND = "I am glad that you ask. The answer is below, and I am happy to explain more."
FLAGGED = 6


@pytest.fixture(scope="module")
def champion() -> Iterator[str]:
    with backend_process() as url:
        yield url


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, champion: str) -> Iterator[System]:
    settings = {
        "models_dir": str(models_dir),
        "evaluations": [{"endpoint": "assistant", "evaluator": "toxicity", "every_s": 1}],
        "relabel": {
            "every_s": 1,
            "rules": [{"endpoint": "assistant", "evaluator": "toxicity", "above": 0.5}],
        },
    }
    folder = tmp_path_factory.mktemp("flywheel")
    with System(folder, [endpoint("assistant", champion)], settings) as running:
        yield running


def servelens(system: System, *arguments: str) -> str:
    """What the command printed."""
    command = [sys.executable, "-m", "servelens", *arguments, "--config", str(system.config)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def console(system: System, method: str, path: str, **more: Any) -> Any:
    answer = httpx.request(method, f"{system.console_url}/api/relabel{path}", timeout=30, **more)
    answer.raise_for_status()
    return None if answer.status_code == 204 else answer.json()


def test_toxic_traffic_becomes_a_new_challenger(
    system: System, champion: str, models_dir: Path, tmp_path: Path
) -> None:
    for number in range(2 * FLAGGED):
        body = {
            "model": "assistant",
            "messages": [{"role": "user", "content": f"Question {number}: how do I do it?"}],
            "fault": {"content": RUDE if number % 2 else KIND},
        }
        httpx.post(f"{system.proxy_url}/v1/chat/completions", json=body).raise_for_status()
    wait_until(
        lambda: console(system, "GET", "/counts")["total"]["open"] == FLAGGED,
        90,
        "the rude answers are cases",
    )

    while case := console(system, "POST", "/claim", json={"annotator": "ada"}):
        assert case["response_text"] == RUDE
        label = {"annotator": "ada", "rating": "bad", "corrected_answer": KIND, "version": case["version"]}
        console(system, "POST", f"/cases/{case['id']}/label", json=label)

    data = tmp_path / "train.jsonl"
    servelens(system, "relabel", "export", "--format", "trl_prompt_completion", "--output", str(data))
    assert len(data.read_text().splitlines()) == FLAGGED
    assert KIND in data.read_text()
    assert RUDE not in data.read_text()

    base, tuned = models_dir / "SmolLM2-135M-Instruct", tmp_path / "assistant-8"
    command = [sys.executable, "-m", "tests.integration.fine_tune", str(data), str(base), str(tuned)]
    trained = subprocess.run(command, capture_output=True, text=True, check=False)
    assert trained.returncode == 0, trained.stderr[-4000:]
    losses = json.loads(trained.stdout.splitlines()[-1])
    assert losses["last_loss"] < losses["first_loss"]

    with ModelServer(tuned, free_port(), tmp_path / "model.log") as model:
        model.wait_until_ready()
        base_path = f"{system.proxy_url}/api/2.0/serving-endpoints/assistant"
        challenger = {
            "name": "challenger",
            "entity_version": "8",
            "backend": {"urls": [model.url], "model": model.model, "health": {"path": "/health"}},
        }
        served = httpx.get(base_path).json()["config"]
        config = {
            "served_entities": [{"name": "champion", "backend": {"urls": [champion]}}, challenger],
            "traffic_config": {
                "routes": [
                    {"served_entity_name": "champion", "traffic_percentage": 95},
                    {"served_entity_name": "challenger", "traffic_percentage": 5},
                ]
            },
        }
        assert [each["name"] for each in served["served_entities"]] == ["champion"]
        httpx.put(f"{base_path}/config", json=config).raise_for_status()
        wait_until(
            lambda: len(httpx.get(base_path).json()["config"]["served_entities"]) == 2, 30, "it is registered"
        )
        path = f"{system.proxy_url}/serving-endpoints/assistant/served-models/challenger/invocations"
        question = {"messages": [{"role": "user", "content": "How do I do it?"}], "max_tokens": 8}

        def answers() -> bool:
            return httpx.post(path, json=question, timeout=120).status_code == 200

        wait_until(answers, 60, "the challenger is live in the proxy")
        answer = httpx.post(path, json=question, timeout=120)
        assert answer.json()["choices"][0]["message"]["content"]
    record = recorded(system, "assistant", by_id(answer.headers["x-request-id"]))
    assert (record["served_entity"], record["entity_version"]) == ("challenger", "8")
    assert record["model"] == tuned.name
