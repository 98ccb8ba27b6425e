"""A real model server, ``transformers serve`` with SmolLM2, behind the proxy: OpenAI's and Anthropic's own clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anthropic
import openai
import pytest

from servelens.demo.backend import ModelServer
from tests.integration.recorded import by_id, recorded
from tests.integration.system import System, free_port

pytestmark = pytest.mark.models
_QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("system")
    model = ModelServer(models_dir / "SmolLM2-135M-Instruct", free_port(), folder / "model.log")
    entity = {
        "name": "smollm2",
        "backend": {"urls": [model.url], "model": model.model, "health": {"path": "/health"}},
    }
    endpoint = {"name": "assistant", "config": {"served_entities": [entity]}}
    with model, System(folder, [endpoint], wait_for=("proxy",)) as running:
        model.wait_until_ready()
        yield running


def test_openai_chats(system: System) -> None:
    with openai.OpenAI(base_url=f"{system.proxy_url}/v1", api_key="unused", max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="assistant", messages=[{"role": "user", "content": _QUESTION}], max_tokens=16
        )
    text = raw.parse().choices[0].message.content
    assert text
    record = recorded(system, "assistant", by_id(raw.headers["x-request-id"]))
    assert record["response_text"] == text
    assert record["prompt_text"] == _QUESTION
    assert record["model"] == "SmolLM2-135M-Instruct"
    assert record["output_tokens"] > 0


def test_openai_streams(system: System) -> None:
    with (
        openai.OpenAI(base_url=f"{system.proxy_url}/v1", api_key="unused", max_retries=0) as client,
        client.chat.completions.with_raw_response.create(
            model="assistant", messages=[{"role": "user", "content": _QUESTION}], max_tokens=16, stream=True
        ).parse() as stream,
    ):
        request_id = stream.response.headers["x-request-id"]
        pieces = [choice.delta.content or "" for chunk in stream for choice in chunk.choices]
    assert sum(bool(piece) for piece in pieces) > 1
    record = recorded(system, "assistant", by_id(request_id))
    assert record["response_text"] == "".join(pieces)
    assert record["time_to_first_token_ms"] > 0


def test_anthropic_is_translated(system: System) -> None:
    with anthropic.Anthropic(base_url=system.proxy_url, api_key="unused", max_retries=0) as client:
        raw = client.messages.with_raw_response.create(
            model="assistant", max_tokens=16, messages=[{"role": "user", "content": _QUESTION}]
        )
        message = raw.parse()
        with client.messages.stream(
            model="assistant", max_tokens=16, messages=[{"role": "user", "content": _QUESTION}]
        ) as stream:
            streamed = stream.get_final_text()
            stream_id = stream.response.headers["x-request-id"]
    assert message.content[0].type == "text"
    assert message.content[0].text
    record = recorded(system, "assistant", by_id(raw.headers["x-request-id"]))
    assert record["api"] == "messages"
    assert record["response_text"] == message.content[0].text
    assert streamed
    assert recorded(system, "assistant", by_id(stream_id))["response_text"] == streamed
