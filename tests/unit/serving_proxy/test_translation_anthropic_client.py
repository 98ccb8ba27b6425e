"""The ``anthropic`` client, unmodified: at its own API, at an OpenAI-compatible backend, at Cohere and AI21."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types import Message

from serving_proxy.endpoint import BackendApi
from tests.providers.provider import Given
from tests.unit.serving_proxy.running_proxy import RunningProxy, eventually, one_entity, running_proxy
from tests.unit.serving_proxy.translated_call import through

each = pytest.mark.parametrize("api", ["anthropic", "cohere", "ai21labs"])
TOOLS: list[Any] = [
    {
        "name": name,
        "description": "Looks it up.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    for name in ("weather", "time")
]


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def collect(client: anthropic.AsyncAnthropic, texts: list[str], asked: str) -> None:
    async with client.messages.stream(model="chat", max_tokens=100, messages=user(asked)) as stream:
        async for text in stream.text_stream:
            texts.append(text)


def strictly(message: Message) -> Message:
    """The same with validation, which the SDK itself leaves out."""
    return Message.model_validate(message.model_dump(exclude_unset=True), strict=True)


@each
async def test_a_whole_answer(tmp_path: Path, api: BackendApi) -> None:
    async with through(tmp_path, api) as client:
        message = strictly(
            await client.anthropic.messages.create(
                model="chat",
                max_tokens=100,
                system="Be brief.",
                messages=user("hello"),
                stop_sequences=["END"],
                metadata={"user_id": "ada"},
            )
        )
        assert [block.type for block in message.content] == ["text"]
        assert message.content[0].text == "echo: hello ✓ “ünïcode”"  # type: ignore[union-attr]
        assert message.stop_reason == "end_turn"
        assert message.usage.output_tokens == 7
        counted = message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)
        assert counted == (14 if api == "anthropic" else 11)
        assert message.model == ("their-model" if api == "anthropic" else "chat")
        sent = client.provider.received[0].json()
        assert sent["model"] == "their-model"
        assert sent["max_tokens"] == 100
        record = await client.proxy.record()
        assert (record.status_code, record.api, record.unit) == (200, "messages", "ada")


@each
@pytest.mark.parametrize("piece_bytes", [1, 100_000])
async def test_a_stream(tmp_path: Path, api: BackendApi, piece_bytes: int) -> None:
    async with through(tmp_path, api, piece_bytes=piece_bytes) as client:
        async with client.anthropic.messages.stream(
            model="chat", max_tokens=100, messages=user("hello")
        ) as stream:
            pieces = [text async for text in stream.text_stream]
            message = strictly(await stream.get_final_message())
        assert "".join(pieces) == "echo: hello ✓ “ünïcode”"
        assert len(pieces) >= 4
        assert message.stop_reason == "end_turn"
        assert message.usage.output_tokens == 7
        await eventually(lambda: bool(client.proxy.records()))
        record = await client.proxy.record()
        assert record.is_stream
        assert record.error_type is None
        assert record.response is not None
        assert record.response.rstrip().endswith(b'{"type":"message_stop"}') or api == "anthropic"


@each
@pytest.mark.parametrize("stream", [False, True])
async def test_tools_are_called_and_their_results_told(tmp_path: Path, api: BackendApi, stream: bool) -> None:
    async with through(tmp_path, api) as client:
        arguments: Any = {"model": "chat", "max_tokens": 100, "tools": TOOLS}
        if stream:
            async with client.anthropic.messages.stream(messages=user("use tools"), **arguments) as running:
                message = await running.get_final_message()
        else:
            message = await client.anthropic.messages.create(messages=user("use tools"), **arguments)
        strictly(message)
        assert message.stop_reason == "tool_use"
        assert [block.type for block in message.content] == ["text", "tool_use", "tool_use"]
        uses: list[Any] = [block for block in message.content if block.type == "tool_use"]
        assert [(use.name, use.input) for use in uses] == [
            ("weather", {"city": "Paris"}),
            ("time", {"city": "Paris"}),
        ]
        results = [{"type": "tool_result", "tool_use_id": use.id, "content": "22 °C"} for use in uses]
        after = await client.anthropic.messages.create(
            messages=[
                *user("use tools"),
                {"role": "assistant", "content": message.content},
                {"role": "user", "content": results},
            ],
            **arguments,
        )
        assert after.content[0].text == "The tool says: 22 °C"  # type: ignore[union-attr]
        assert client.provider.refused == []


ERRORS: list[tuple[int, type[anthropic.APIStatusError]]] = [
    (400, anthropic.BadRequestError),
    (401, anthropic.AuthenticationError),
    (403, anthropic.PermissionDeniedError),
    (404, anthropic.NotFoundError),
    (500, anthropic.InternalServerError),
]


@each
async def test_a_providers_errors(tmp_path: Path, api: BackendApi) -> None:
    async with through(tmp_path, api) as client:
        for status, kind in ERRORS:
            with pytest.raises(kind) as caught:
                await client.anthropic.messages.create(
                    model="chat", max_tokens=9, messages=user(f"status {status}")
                )
            assert f"scripted failure {status}" in caught.value.message
            assert isinstance(caught.value.body, dict)
            assert caught.value.body["type"] == "error"


@each
async def test_a_failure_inside_a_stream(tmp_path: Path, api: BackendApi) -> None:
    async with through(tmp_path, api) as client:
        texts: list[str] = []
        with pytest.raises(anthropic.APIStatusError) as caught:
            await collect(client.anthropic, texts, "break")
        assert "".join(texts) == "half an answer"
        assert isinstance(caught.value.body, dict)
        assert caught.value.body["type"] == "error"


async def test_its_own_api_passes_bytes_unchanged(tmp_path: Path) -> None:
    async with through(tmp_path, "anthropic") as client:
        odd = b'{"id": "msg_1",  "type":"message","unknown": [1.00, 1e2], "content":[], "usage":{}}'
        client.provider.script.append(Given(odd))
        raw = await client.anthropic.messages.with_raw_response.create(
            model="chat", max_tokens=9, messages=user("x"), extra_body={"brand_new": {"field": 1.0}}
        )
        assert await raw.read() == odd
        assert raw.headers["request-id"] == "req_provider"


async def test_the_proxys_own_errors_are_anthropics(tmp_path: Path) -> None:
    async with through(tmp_path, "cohere") as client:
        with pytest.raises(anthropic.NotFoundError) as missing:
            await client.anthropic.messages.create(model="nobody", max_tokens=9, messages=user("x"))
        assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
        with pytest.raises(anthropic.BadRequestError) as untranslated:
            await client.anthropic.messages.create(
                model="chat", max_tokens=9, messages=user("x"), output_config={"effort": "high"}
            )
        assert "output_config.effort" in untranslated.value.message


# At an OpenAI-compatible backend, as own GPU pools have it.
@asynccontextmanager
async def at_openai(
    root: Path, given: Given
) -> AsyncIterator[tuple[anthropic.AsyncAnthropic, RunningProxy, Any]]:
    from tests.backends import Behaviour, OpenAIBackend

    async with OpenAIBackend() as backend:
        head = f"HTTP/1.1 {given.status} X\r\ncontent-type: "
        head += "text/event-stream" if given.stream else "application/json"
        raw = f"{head}\r\ncontent-length: {len(given.body)}\r\n\r\n".encode() + given.body
        backend.behaviour = Behaviour(raw=raw)
        async with (
            running_proxy(root, one_entity(backend.url, model="their-model")) as proxy,
            anthropic.AsyncAnthropic(base_url=proxy.url, api_key="ours", max_retries=0) as client,
        ):
            yield client, proxy, backend


CHUNKS = [
    b'{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}',
    b'{"id":"c","choices":[{"index":0,"delta":{"reasoning_content":"well"}}]}',
    b'{"id":"c","choices":[{"index":0,"delta":{"content":"Let me "}}]}',
    b'{"id":"c","choices":[{"index":0,"delta":{"content":"look."}}]}',
    b'{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","type":"function",'
    b'"function":{"name":"weather","arguments":""}}]}}]}',
    b'{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"city\\":"}}]}}]}',
    b'{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":" \\"Rom\\"}"}}]}}]}',
    b'{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"b","type":"function",'
    b'"function":{"name":"time","arguments":"{}"}}]}}]}',
    b'{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}',
    b'{"id":"c","choices":[],"usage":{"prompt_tokens":30,"completion_tokens":5,"total_tokens":35,'
    b'"prompt_tokens_details":{"cached_tokens":10}}}',
    b"[DONE]",
]


@pytest.mark.parametrize("thinks", [False, True])
async def test_a_stream_of_an_openai_compatible_backend(tmp_path: Path, thinks: bool) -> None:
    body = b"".join(b"data: %b\n\n" % chunk for chunk in CHUNKS)
    async with at_openai(tmp_path, Given(body, stream=True)) as (client, _, backend):
        asked: Any = {"thinking": {"type": "adaptive"}} if thinks else {}
        async with client.messages.stream(
            model="chat", max_tokens=50, messages=user("x"), tools=TOOLS, **asked
        ) as stream:
            kinds = [event.type async for event in stream]
            message = strictly(await stream.get_final_message())
        assert kinds[0] == "message_start"
        assert kinds[-1] == "message_stop"
        assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 3 + thinks
        assert [block.type for block in message.content if block.type != "thinking"] == [
            "text",
            "tool_use",
            "tool_use",
        ]
        assert [block.input for block in message.content if block.type == "tool_use"] == [{"city": "Rom"}, {}]
        assert message.stop_reason == "tool_use"
        assert (message.usage.input_tokens, message.usage.output_tokens) == (20, 5)
        assert message.usage.cache_read_input_tokens == 10
        sent = backend.received[0].json()
        assert sent["stream_options"] == {"include_usage": True}
        assert sent["max_completion_tokens"] == 50
        assert sent["model"] == "their-model"


async def test_a_backend_that_stops_in_the_middle(tmp_path: Path) -> None:
    body = b"".join(b"data: %b\n\n" % chunk for chunk in CHUNKS[:4])
    async with at_openai(tmp_path, Given(body, stream=True)) as (client, proxy, _):
        with pytest.raises(anthropic.APIStatusError, match="ended before"):
            await collect(client, [], "x")
        await eventually(lambda: bool(proxy.records()))
        assert (await proxy.record()).error_type is not None


async def test_an_overloaded_backend_is_anthropics_529(tmp_path: Path) -> None:
    async with at_openai(tmp_path, Given(b'{"error":{"message":"busy"}}', 503)) as (client, _, _backend):
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.messages.create(model="chat", max_tokens=50, messages=user("x"))
        assert caught.value.status_code == 529
        assert caught.value.body["error"] == {"type": "overloaded_error", "message": "busy"}  # type: ignore[index]
