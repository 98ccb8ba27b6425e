"""The ``openai`` client, unmodified but for its ``base_url``, through the whole system and into the table."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.integration.backend_process import backend_process, endpoint
from tests.integration.recorded import by_id, recorded
from tests.integration.system import System, wait_until


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("system")
    with (
        backend_process() as url,
        System(folder, [endpoint("chat", url)], wait_for=("proxy", "collector")) as running,
    ):
        yield running


@pytest.fixture
def client(system: System) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{system.proxy_url}/v1", api_key="unused", max_retries=0) as running:
        yield running


def row(system: System, request_id: str) -> dict[str, object]:
    """The record of one request, once it is readable; fails after the five seconds that are promised."""
    return recorded(system, "chat", by_id(request_id), within_s=5)


def test_chat(system: System, client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="chat", messages=[{"role": "user", "content": "hello there"}], user="ada"
    )
    assert answer.parse().choices[0].message.content == "echo: hello there"
    record = row(system, answer.headers["x-request-id"])
    assert answer.headers["databricks-request-id"] == answer.headers["x-request-id"]
    assert record["status_code"] == 200
    assert record["endpoint"] == "chat"
    assert record["served_entity"] == "champion"
    assert record["unit"] == "ada"
    assert record["prompt_text"] == "hello there"
    assert record["response_text"] == "echo: hello there"
    assert record["output_tokens"] == 3
    assert record["finish_reason"] == "stop"
    assert record["is_stream"] is False


def test_stream_arrives_in_pieces_and_is_one_record(system: System, client: openai.OpenAI) -> None:
    with client.chat.completions.with_raw_response.create(
        model="chat",
        messages=[{"role": "user", "content": "a stream, please"}],
        stream=True,
        stream_options={"include_usage": True},
    ).parse() as stream:
        request_id = stream.response.headers["x-request-id"]
        pieces = [choice.delta.content or "" for chunk in stream for choice in chunk.choices]
    assert "".join(pieces) == "echo: a stream, please"
    assert sum(bool(piece) for piece in pieces) > 1
    record = row(system, request_id)
    assert record["is_stream"] is True
    assert record["response_text"] == "echo: a stream, please"
    assert record["time_to_first_token_ms"] is not None
    assert record["output_tokens"] == 8


def test_completions(system: System, client: openai.OpenAI) -> None:
    answer = client.completions.with_raw_response.create(model="chat", prompt="once upon a time")
    assert answer.parse().choices[0].text == "echo: once upon a time"
    record = row(system, answer.headers["x-request-id"])
    assert record["prompt_text"] == "once upon a time"
    assert record["api"] != "chat"


def test_models_lists_the_endpoints(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["chat"]


def test_an_unknown_model_is_the_clients_own_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "x"}])
    assert "chat" in caught.value.message
    assert caught.value.code == "model_not_found"


def test_databricks_invocations(system: System) -> None:
    answer = httpx.post(
        f"{system.proxy_url}/serving-endpoints/chat/invocations",
        json={"messages": [{"role": "user", "content": "by path"}]},
    )
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "echo: by path"
    assert row(system, answer.headers["databricks-request-id"])["prompt_text"] == "by path"


def test_a_record_is_readable_within_five_seconds(system: System, client: openai.OpenAI) -> None:
    slowest = 0.0
    for number in range(5):
        answer = client.chat.completions.with_raw_response.create(
            model="chat", messages=[{"role": "user", "content": f"fresh {number}"}]
        )
        answered = time.monotonic()
        row(system, answer.headers["x-request-id"])
        slowest = max(slowest, time.monotonic() - answered)
    assert slowest < 5


def test_the_books_balance(system: System, client: openai.OpenAI) -> None:
    client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "one more"}])

    def value(url: str, name: str) -> float:
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    accepted = value(system.proxy_url, "servelens_records_accepted_total")
    assert accepted >= 1
    wait_until(
        lambda: (
            value(system.collector_url, "servelens_records_settled_total")
            + value(system.collector_url, "servelens_records_dropped_total")
            == accepted
        ),
        5,
        "accepted = settled + dropped",
    )
    assert httpx.get(f"{system.collector_url}/health/ready").json()["status"] == "ok"
