"""The ``openai`` client, unmodified, in front of Anthropic, Cohere and AI21: whole answers, streams, tools, errors."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, TypeVar

import openai
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from serving_proxy.endpoint import BackendApi, Overrides
from tests.providers.anthropic_provider import SIGNATURE
from tests.providers.provider import Given
from tests.unit.serving_proxy.running_proxy import eventually
from tests.unit.serving_proxy.translated_call import Through, through

ALL: list[BackendApi] = ["anthropic", "cohere", "ai21labs"]
each = pytest.mark.parametrize("api", ALL)
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Looks it up.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    for name in ("weather", "time")
]
COUNTS = {"anthropic": (16, 3), "cohere": (11, 4), "ai21labs": (11, None)}
"""Input tokens (Anthropic's with what its cache took and gave), and those from a cache."""


M = TypeVar("M", bound=BaseModel)


def strictly(model: type[M], value: M) -> M:
    """The same through the SDK's model with validation, which the SDK itself leaves out."""
    return model.model_validate(value.model_dump(exclude_unset=True, warnings="error"), strict=True)


async def collect(stream: Any, texts: list[str]) -> None:
    async for chunk in stream:
        texts.append(chunk.choices[0].delta.content or "")


def user(text: str) -> Any:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


async def streamed(client: Through, **arguments: Any) -> tuple[ChatCompletion, list[ChatCompletionChunk]]:
    """The stream's chunks, each valid, and what the SDK makes of them."""
    state: ChatCompletionStreamState[Any] = ChatCompletionStreamState()
    chunks = []
    async for chunk in await client.openai.chat.completions.create(model="chat", stream=True, **arguments):
        chunks.append(strictly(ChatCompletionChunk, chunk))
        state.handle_chunk(chunk)
    return state.get_final_completion(), chunks


@each
async def test_a_whole_answer(tmp_path: Path, api: BackendApi) -> None:
    async with through(tmp_path, api) as client:
        raw = await client.openai.chat.completions.with_raw_response.create(
            model="chat", messages=user("hello"), max_tokens=50, temperature=0.5, stop=["END"], user="ada"
        )
        answer = strictly(ChatCompletion, raw.parse())
        assert answer.choices[0].message.content == "echo: hello ✓ “ünïcode”"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.model == "chat"
        assert answer.object == "chat.completion"
        assert abs(answer.created - time.time()) < 60
        assert answer.usage is not None
        prompt, cached = COUNTS[api]
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (prompt, 7)
        assert answer.usage.total_tokens == prompt + 7
        if cached is not None:
            assert answer.usage.prompt_tokens_details is not None
            assert answer.usage.prompt_tokens_details.cached_tokens == cached
        sent = client.provider.received[0].json()
        assert sent["model"] == "their-model"
        assert sent["max_tokens"] == 50
        record = await client.proxy.record()
        assert record.status_code == 200
        assert record.response == raw.content
        assert record.model == "their-model"


@each
async def test_a_stream(tmp_path: Path, api: BackendApi) -> None:
    async with through(tmp_path, api) as client:
        answer, chunks = await streamed(
            client, messages=user("hello"), stream_options={"include_usage": True}, max_completion_tokens=9
        )
        assert answer.choices[0].message.content == "echo: hello ✓ “ünïcode”"
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 7
        assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) >= 4
        assert chunks[-1].choices == []
        assert all(chunk.usage is None for chunk in chunks[:-1])
        assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
        await eventually(lambda: bool(client.proxy.records()))
        record = await client.proxy.record()
        assert record.is_stream
        assert record.response is not None
        assert record.response.endswith(b"data: [DONE]\n\n")
        assert record.error_type is None


@each
async def test_usage_is_not_sent_unasked(tmp_path: Path, api: BackendApi) -> None:
    async with through(tmp_path, api) as client:
        _, chunks = await streamed(client, messages=user("hello"))
        assert all(chunk.usage is None and chunk.choices for chunk in chunks)


@each
@pytest.mark.parametrize("stream", [False, True])
async def test_tools_are_called_and_their_results_told(tmp_path: Path, api: BackendApi, stream: bool) -> None:
    async with through(tmp_path, api) as client:
        messages = user("use tools")
        if stream:
            answer, _ = await streamed(client, messages=messages, tools=TOOLS)
        else:
            answer = await client.openai.chat.completions.create(model="chat", messages=messages, tools=TOOLS)
            strictly(ChatCompletion, answer)
        choice = answer.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content == "Let me look."
        calls: Any = choice.message.tool_calls or []
        assert [call.function.name for call in calls] == ["weather", "time"]
        assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Paris"}] * 2
        again = [
            *messages,
            choice.message,
            *({"role": "tool", "tool_call_id": call.id, "content": "22 °C"} for call in calls),
        ]
        after = await client.openai.chat.completions.create(model="chat", messages=again, tools=TOOLS)
        assert after.choices[0].message.content == "The tool says: 22 °C"
        assert client.provider.refused == []


@each
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_without_arguments_is_an_empty_object(
    tmp_path: Path, api: BackendApi, stream: bool
) -> None:
    async with through(tmp_path, api) as client:
        arguments: Any = {"messages": user("call with nothing"), "tools": TOOLS}
        if stream:
            answer, _ = await streamed(client, **arguments)
        else:
            answer = await client.openai.chat.completions.create(model="chat", **arguments)
        (call,) = answer.choices[0].message.tool_calls or []
        assert json.loads(call.function.arguments) == {}  # type: ignore[union-attr]


@each
async def test_an_answer_that_is_cut_off(tmp_path: Path, api: BackendApi) -> None:
    async with through(tmp_path, api) as client:
        answer = await client.openai.chat.completions.create(model="chat", messages=user("too long"))
        assert answer.choices[0].finish_reason == "length"
        stream = await client.openai.chat.completions.create(
            model="chat", messages=user("too long"), stream=True
        )
        assert [chunk async for chunk in stream][-1].choices[0].finish_reason == "length"


ERRORS: list[tuple[int, int, type[openai.APIStatusError]]] = [
    (400, 400, openai.BadRequestError),
    (401, 401, openai.AuthenticationError),
    (403, 403, openai.PermissionDeniedError),
    (404, 404, openai.NotFoundError),
    (422, 400, openai.BadRequestError),
    (500, 500, openai.InternalServerError),
]


@each
@pytest.mark.parametrize("stream", [False, True])
async def test_a_providers_errors(tmp_path: Path, api: BackendApi, stream: bool) -> None:
    async with through(tmp_path, api) as client:
        for status, expected, kind in ERRORS:
            with pytest.raises(kind) as caught:
                await client.openai.chat.completions.create(
                    model="chat", messages=user(f"status {status}"), stream=stream
                )
            assert caught.value.status_code == expected
            assert f"scripted failure {status}" in caught.value.message
            assert isinstance(caught.value.body, dict)
            assert set(caught.value.body) == {"message", "type", "param", "code"}
        await eventually(lambda: len(client.proxy.records()) == len(ERRORS))
        assert {record.error_type for record in client.proxy.records()} == {"upstream_status"}


@each
async def test_a_provider_that_is_overloaded(tmp_path: Path, api: BackendApi) -> None:
    async with through(tmp_path, api) as client:
        client.provider.script += [Given(b"<html>busy</html>", 529)] * 8
        with pytest.raises(openai.InternalServerError) as caught:
            await client.openai.chat.completions.create(model="chat", messages=user("x"))
        assert caught.value.status_code == 503
        assert isinstance(caught.value.body, dict)
        assert caught.value.body["message"] == "The provider answered 529."


@each
async def test_a_failure_inside_a_stream(tmp_path: Path, api: BackendApi) -> None:
    async with through(tmp_path, api) as client:
        stream = await client.openai.chat.completions.create(
            model="chat", messages=user("break"), stream=True
        )
        texts: list[str] = []
        with pytest.raises(openai.APIError) as caught:
            await collect(stream, texts)
        assert "".join(texts) == "half an answer"
        assert caught.value.message in (
            "Overloaded",
            "the model broke",
            "The provider failed while it generated the answer.",
        )


async def test_a_generation_that_cohere_calls_an_error(tmp_path: Path) -> None:
    async with through(tmp_path, "cohere") as client:
        with pytest.raises(openai.InternalServerError):
            await client.openai.chat.completions.create(model="chat", messages=user("break"))


@each
async def test_a_stream_that_stops_in_the_middle(tmp_path: Path, api: BackendApi) -> None:
    async with through(tmp_path, api) as client:
        whole = await client.openai.chat.completions.create(model="chat", messages=user("x"), stream=True)
        async for _ in whole:
            pass
        client.provider.script.append(Given(b"data: {}\n\n", stream=True))
        stream = await client.openai.chat.completions.create(model="chat", messages=user("x"), stream=True)
        with pytest.raises(openai.APIError, match=r"its stream|stream ended|an event"):
            _ = [chunk async for chunk in stream]
        await eventually(lambda: len(client.proxy.records()) == 2)
        assert client.proxy.records()[1].error_type is not None


@pytest.mark.parametrize("stream", [False, True])
async def test_thoughts_come_back_with_the_tools_results(tmp_path: Path, stream: bool) -> None:
    async with through(tmp_path, "anthropic") as client:
        messages = user("think")
        extra: Any = {"extra_body": {"thinking": {"type": "enabled", "budget_tokens": 2000}}}
        if stream:
            answer, _ = await streamed(client, messages=messages, **extra)
        else:
            answer = await client.openai.chat.completions.create(model="chat", messages=messages, **extra)
        message: Any = answer.choices[0].message
        assert message.content == "thought about it"
        assert message.reasoning_content == "hmm, let me see"
        (thought,) = message.thinking_blocks
        assert (thought["thinking"], thought["signature"]) == ("hmm, let me see", SIGNATURE)
        again = [*messages, message, {"role": "user", "content": "go on"}]
        await client.openai.chat.completions.create(model="chat", messages=again, **extra)
        sent = client.provider.received[-1].json()["messages"][1]["content"]
        assert sent[0] == {"type": "thinking", "thinking": "hmm, let me see", "signature": SIGNATURE}


@pytest.mark.parametrize("api", ["anthropic", "cohere"])
async def test_structured_output_is_parsed_by_the_sdk(tmp_path: Path, api: BackendApi) -> None:
    class Echo(BaseModel):
        echo: str

    async with through(tmp_path, api) as client:
        answer = await client.openai.chat.completions.parse(
            model="chat", messages=user("as JSON"), response_format=Echo
        )
        assert answer.choices[0].message.parsed == Echo(echo="as JSON")


async def test_several_answers_where_the_provider_gives_them(tmp_path: Path) -> None:
    async with through(tmp_path, "ai21labs") as client:
        answer = await client.openai.chat.completions.create(model="chat", messages=user("x"), n=3)
        assert [choice.index for choice in answer.choices] == [0, 1, 2]


@each
async def test_what_cannot_be_translated_is_named(tmp_path: Path, api: BackendApi) -> None:
    async with through(tmp_path, api) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.openai.chat.completions.create(model="chat", messages=user("x"), logprobs=True)
        assert caught.value.param == "logprobs"
        assert client.provider.received == client.provider.refused == []
        record = await client.proxy.record()
        assert record.error_type == "invalid_request"


async def test_an_entitys_overrides_come_before_the_translation(tmp_path: Path) -> None:
    overrides = Overrides(body={"max_tokens": 5}, system_prompt="Rhyme.")
    async with through(tmp_path, "anthropic", overrides=overrides) as client:
        await client.openai.chat.completions.create(model="chat", messages=user("x"))
        sent = client.provider.received[0].json()
        assert sent["system"] == "Rhyme."
        assert sent["max_tokens"] == 5


@pytest.mark.parametrize("encoding", ["float", "base64", None])
async def test_embeddings_by_cohere(tmp_path: Path, encoding: Any) -> None:
    async with through(tmp_path, "cohere") as client:
        chosen: Any = {} if encoding is None else {"encoding_format": encoding}
        answer = await client.openai.embeddings.create(
            model="chat", input=["four", "eight ch"], dimensions=3, **chosen
        )
        vectors: list[Any] = [entry.embedding for entry in answer.data]
        if encoding == "base64":
            assert all(isinstance(vector, str) for vector in vectors)
        else:
            assert vectors == [[0.5, 0.5, 0.5], [1.0, 0.5, 0.5]]
        assert answer.usage.prompt_tokens == 3
        assert answer.model == "chat"
        assert client.provider.received[0].json()["input_type"] == "search_document"
