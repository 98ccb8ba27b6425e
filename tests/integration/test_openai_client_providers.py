"""The ``openai`` client through the whole system: everything OpenAI has at an OpenAI-compatible backend, and chat and
embeddings at other providers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.integration.providers import Providers, providers_behind

each = pytest.mark.parametrize("api", ["openai", "anthropic", "cohere", "ai21labs"])
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
]


class Echo(BaseModel):
    echo: str


@pytest.fixture(scope="module")
def providers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Providers]:
    with providers_behind(tmp_path_factory.mktemp("system")) as running:
        yield running


@pytest.fixture
def client(providers: Providers) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{providers.system.proxy_url}/v1", api_key="unused", max_retries=0
    ) as running:
        yield running


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


@each
def test_chat(providers: Providers, client: openai.OpenAI, api: str) -> None:
    raw = client.chat.completions.with_raw_response.create(model=api, messages=user("hello"), max_tokens=9)
    assert raw.parse().choices[0].message.content == "echo: hello ✓ “ünïcode”"
    record = providers.row(api, raw.headers["x-request-id"])
    assert record["response_text"] == "echo: hello ✓ “ünïcode”"
    assert record["response"] == raw.text
    assert (record["input_tokens"], record["output_tokens"]) == (16 if api == "anthropic" else 11, 7)
    assert record["finish_reason"] == "stop"


@each
def test_a_streamed_tool_call(providers: Providers, client: openai.OpenAI, api: str) -> None:
    tools = TOOLS
    if api == "ai21labs":  # which cannot hold a call to its schema
        tools = [{"type": "function", "function": {**TOOLS[0]["function"], "strict": False}}]
    before = time.time()
    with client.chat.completions.stream(model=api, messages=user("use tools"), tools=tools) as stream:
        kinds = {event.type for event in stream}
        message = stream.get_final_completion().choices[0].message
    assert "tool_calls.function.arguments.delta" in kinds
    (call,) = message.tool_calls or []
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    record = providers.last_row(api, before)
    assert record["finish_reason"] == "tool_calls"
    assert record["response_text"] == 'Let me look.\nweather({"city": "Paris"})'
    after = client.chat.completions.create(
        model=api,
        messages=[*user("use tools"), message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}],
        tools=tools,
    )
    assert after.choices[0].message.content == "The tool says: sunny"


@pytest.mark.parametrize("api", ["openai", "anthropic", "cohere"])
def test_structured_output(client: openai.OpenAI, api: str) -> None:
    answer = client.chat.completions.parse(model=api, messages=user("as JSON"), response_format=Echo)
    assert answer.choices[0].message.parsed == Echo(echo="as JSON")


def test_several_choices_and_logprobs_pass(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="openai", messages=user("x"), n=2, logprobs=True)
    assert len(answer.choices) == 2
    assert answer.choices[1].logprobs is not None
    assert answer.choices[1].logprobs.content is not None
    assert answer.choices[1].logprobs.content[0].logprob == -0.25


@pytest.mark.parametrize("api", ["openai", "cohere"])
def test_embeddings(providers: Providers, client: openai.OpenAI, api: str) -> None:
    raw = client.embeddings.with_raw_response.create(model=api, input=["four", "eight ch"])
    vectors = [entry.embedding for entry in raw.parse().data]
    assert [vector[:2] for vector in vectors] == [[0.5, 0.5], [1.0, 0.5]]
    record = providers.row(api, raw.headers["x-request-id"])
    assert record["api"] == "embeddings"
    assert record["prompt_text"] == "four\neight ch"
    assert record["input_tokens"] == 3
    assert record["response_text"] is None


def test_responses(providers: Providers, client: openai.OpenAI) -> None:
    raw = client.responses.with_raw_response.create(model="openai", input="hello", instructions="Be brief.")
    assert raw.parse().output_text == "echo: hello ✓ “ünïcode”"
    record = providers.row("openai", raw.headers["x-request-id"])
    assert record["api"] == "responses"
    assert record["prompt_text"] == "Be brief.\nhello"
    assert record["response_text"] == "echo: hello ✓ “ünïcode”"
    assert (record["input_tokens"], record["output_tokens"]) == (11, 7)
    assert record["finish_reason"] == "completed"


def test_a_stream_of_responses(providers: Providers, client: openai.OpenAI) -> None:
    before = time.time()
    with client.responses.stream(model="openai", input="a stream") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == "echo: a stream ✓ “ünïcode”"
    assert len(deltas) > 1
    record = providers.last_row("openai", before)
    assert record["is_stream"] is True
    assert record["response_text"] == "echo: a stream ✓ “ünïcode”"
    assert json.loads(record["response"])["object"] == "response"
    assert record["time_to_first_token_ms"] is not None
    assert record["output_tokens"] == 7


@each
def test_errors(providers: Providers, client: openai.OpenAI, api: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=api, messages=user("status 400"))
    assert "scripted failure" in caught.value.message
    record = providers.row(api, caught.value.response.headers["x-request-id"])
    assert record["error_type"] == "upstream_status"


def test_what_cannot_be_translated_is_named(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="anthropic", messages=user("x"), seed=3)
    assert caught.value.param == "seed"
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="anthropic", input="x")
    assert "embeddings" in caught.value.message
