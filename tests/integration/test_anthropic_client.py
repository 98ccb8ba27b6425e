"""The ``anthropic`` client, unmodified but for its ``base_url``, through the whole system and into the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.integration.providers import Providers, providers_behind

each = pytest.mark.parametrize("api", ["anthropic", "openai", "cohere", "ai21labs"])
TOOLS: list[Any] = [
    {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
]


@pytest.fixture(scope="module")
def providers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Providers]:
    with providers_behind(tmp_path_factory.mktemp("system")) as running:
        yield running


@pytest.fixture
def client(providers: Providers) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=providers.system.proxy_url, api_key="unused", max_retries=0) as running:
        yield running


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


@each
def test_a_message(providers: Providers, client: anthropic.Anthropic, api: str) -> None:
    raw = client.messages.with_raw_response.create(
        model=api, max_tokens=50, system="Be brief.", messages=user("hello"), metadata={"user_id": "ada"}
    )
    message = raw.parse()
    assert message.content[0].text == "echo: hello ✓ “ünïcode”"  # type: ignore[union-attr]
    assert message.stop_reason == "end_turn"
    assert providers.received(api)["model"] == "their-model"
    record = providers.row(api, raw.headers["x-request-id"])
    assert record["api"] == "messages"
    assert record["unit"] == "ada"
    assert record["prompt_text"] == "Be brief.\nhello"
    assert record["response_text"] == "echo: hello ✓ “ünïcode”"
    assert record["finish_reason"] == "end_turn"
    assert record["output_tokens"] == 7
    assert record["input_tokens"] == (16 if api == "anthropic" else 11)
    assert record["response"] == raw.text()


@each
def test_a_stream_is_one_record(providers: Providers, client: anthropic.Anthropic, api: str) -> None:
    with client.messages.stream(model=api, max_tokens=50, messages=user("a stream")) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
        request_id = stream.response.headers["x-request-id"]
    assert "".join(pieces) == "echo: a stream ✓ “ünïcode”"
    assert len(pieces) > 1
    assert message.usage.output_tokens == 7
    record = providers.row(api, request_id)
    assert record["is_stream"] is True
    assert record["response_text"] == "echo: a stream ✓ “ünïcode”"
    assert record["time_to_first_token_ms"] is not None
    assert record["output_tokens"] == 7
    assert record["finish_reason"] == "end_turn"


@each
@pytest.mark.parametrize("stream", [False, True])
def test_tools(providers: Providers, client: anthropic.Anthropic, api: str, stream: bool) -> None:
    arguments: Any = {"model": api, "max_tokens": 50, "tools": TOOLS}
    if stream:
        with client.messages.stream(messages=user("use tools"), **arguments) as running:
            message = running.get_final_message()
    else:
        message = client.messages.create(messages=user("use tools"), **arguments)
    assert message.stop_reason == "tool_use"
    use = message.content[-1]
    assert use.type == "tool_use"
    assert use.input == {"city": "Paris"}
    raw = client.messages.with_raw_response.create(
        messages=[
            *user("use tools"),
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}]},
        ],
        **arguments,
    )
    assert raw.parse().content[0].text == "The tool says: sunny"  # type: ignore[union-attr]
    record = providers.row(api, raw.headers["x-request-id"])
    assert record["prompt_text"].split("\n")[-1] == "sunny"


@each
def test_errors_are_anthropics(providers: Providers, client: anthropic.Anthropic, api: str) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(model=api, max_tokens=50, messages=user("status 400"))
    assert "scripted failure" in caught.value.message
    record = providers.row(api, caught.value.response.headers["x-request-id"])
    assert record["status_code"] == 400
    assert record["error_type"] == "upstream_status"


def test_an_unknown_model(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.create(model="nobody", max_tokens=50, messages=user("x"))
    assert "anthropic" in caught.value.message


def test_what_cannot_be_translated_is_named(providers: Providers, client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(
            model="openai",
            max_tokens=5000,
            messages=user("x"),
            thinking={"type": "enabled", "budget_tokens": 2000},
        )
    assert "thinking.budget_tokens" in caught.value.message
    record = providers.row("openai", caught.value.response.headers["x-request-id"])
    assert record["error_type"] == "invalid_request"
    assert record["attempts"] == 0
