"""Guardrails on calls through a worker: what backend, client and record see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from servelens.errors import InvalidSettings
from serving_proxy.endpoint import Backend, Endpoint, Gateway, Guardrails, Route, ServedEntity
from serving_proxy.routing import Snapshot
from tests.backends import Behaviour, OpenAIBackend
from tests.unit.serving_proxy import streamed_answers as answers
from tests.unit.serving_proxy.running_proxy import Answer, RunningProxy, call, chat, running_proxy

SECRET = "bob@example.com"
MARK = "<EMAIL_ADDRESS>"
MASK = Guardrails(pii="mask")
BLOCK = Guardrails(invalid_keywords=("banned",), pii="block")
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


def snapshot(url: str, before: Guardrails | None = None, after: Guardrails | None = None) -> Snapshot:
    gateway = Gateway(input_guardrails=before, output_guardrails=after)
    entity = ServedEntity("only", Backend((url,)))
    return Snapshot.of([Endpoint("chat", (entity,), (Route("only", 100),), gateway=gateway)])


def spooled(proxy: RunningProxy) -> bytes:
    return b"".join(path.read_bytes() for path in proxy.directory.rglob("*") if path.is_file())


async def test_a_masked_request_is_masked_for_backend_and_record(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, snapshot(backend.url, MASK)) as proxy:
        answer = await call(proxy, chat(f"I am {SECRET}", temperature=0.5))
        record = await proxy.record()
        assert SECRET.encode() not in spooled(proxy)
    assert answer.json()["choices"][0]["message"]["content"] == f"echo: I am {MARK}"
    assert backend.received[0].json() == chat(f"I am {MARK}", temperature=0.5)
    assert record.request is not None
    assert json.loads(record.request) == backend.received[0].json()
    assert record.error_type is None


@pytest.mark.parametrize(
    ("text", "path", "guardrail"),
    [
        (f"I am {SECRET}", "/v1/chat/completions", "pii"),
        ("This is BANNED.", "/v1/chat/completions", "invalid_keywords"),
        (f"I am {SECRET}", "/v1/messages", "pii"),
        (f"I am {SECRET}", "/serving-endpoints/chat/invocations", "pii"),
    ],
)
async def test_a_blocked_request_reaches_no_backend(
    tmp_path: Path, text: str, path: str, guardrail: str
) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, snapshot(backend.url, BLOCK)) as proxy:
        answer = await call(proxy, chat(text, max_tokens=5, stream=True), path)
        record = await proxy.record()
        assert SECRET.encode() not in spooled(proxy)
    assert backend.received == []
    assert answer.status == 400
    assert guardrail in answer.body.decode()
    assert "messages[0]" in answer.body.decode()
    assert SECRET not in answer.body.decode()
    assert (record.status_code, record.error_type, record.endpoint) == (400, "blocked", "chat")
    assert record.response == answer.body
    assert record.request is not None
    assert (MARK.encode() in record.request) == (guardrail == "pii")


async def test_other_prompts_are_not_held_up(tmp_path: Path) -> None:
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, snapshot(backend.url, BLOCK, BLOCK)) as proxy,
    ):
        for stream in (False, True):
            answer = await call(proxy, chat("Banners of 2024, version 1.2.3.4", stream=stream))
            assert (answer.status, answer.complete) == (200, True)
    assert len(backend.received) == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chunks", [1, 8, 40])
async def test_a_masked_answer(tmp_path: Path, stream: bool, chunks: int) -> None:
    behaviour = Behaviour(content=f"Write to {SECRET}, please.", chunks=chunks)
    async with (
        OpenAIBackend(behaviour) as backend,
        running_proxy(tmp_path, snapshot(backend.url, None, MASK)) as proxy,
    ):
        answer = await call(proxy, chat(stream=stream, stream_options={"include_usage": True}))
        record = await proxy.record()
        assert SECRET.encode() not in spooled(proxy)
    assert answer.complete
    assert record.response == answer.body
    assert text_of(answer, stream) == f"Write to {MARK}, please."
    if stream:
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert answer.body.count(b"[DONE]") == 1


def text_of(answer: Answer, stream: bool) -> str:
    if stream:
        return answers.chat_texts(answer.body)[0]
    text = answer.json()["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("secret", [SECRET, "banned"])
async def test_a_blocked_answer(tmp_path: Path, secret: str) -> None:
    behaviour = Behaviour(content=f"It is {secret}, you know.")
    async with (
        OpenAIBackend(behaviour) as backend,
        running_proxy(tmp_path, snapshot(backend.url, None, BLOCK)) as proxy,
    ):
        answer = await call(proxy, chat())
        record = await proxy.record()
        assert secret.encode() not in spooled(proxy)
    assert (answer.status, answer.complete) == (400, True)
    assert answer.json()["error"]["code"]
    assert secret not in answer.body.decode()
    assert (record.status_code, record.error_type, record.response) == (400, "blocked", answer.body)


@pytest.mark.parametrize("secret", [SECRET, "banned"])
async def test_a_stream_blocked_in_the_middle(tmp_path: Path, secret: str) -> None:
    behaviour = Behaviour(content=f"Well, it is {secret}, you know.", chunks=20)
    async with (
        OpenAIBackend(behaviour) as backend,
        running_proxy(tmp_path, snapshot(backend.url, None, BLOCK)) as proxy,
    ):
        answer = await call(proxy, chat(stream=True))
        record = await proxy.record()
    *events, last = answers.read(answer.body)
    assert answer.complete
    assert "blocked" in json.dumps(last["error"])
    sent = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert sent in "Well, it is "
    assert secret not in answer.body.decode()
    assert (record.error_type, record.response, record.is_stream) == ("blocked", answer.body, True)


@pytest.mark.parametrize(
    ("path", "build", "read"),
    [
        ("/v1/responses", answers.responses, answers.response_texts),
        ("/v1/chat/completions", answers.chat, answers.chat_texts),
    ],
)
@pytest.mark.parametrize("stop", [False, True])
async def test_streams_of_other_dialects(
    tmp_path: Path, path: str, build: Any, read: Any, stop: bool
) -> None:
    text = list(f"Ask {SECRET} about it" if not stop else f"Ask {SECRET}")
    behaviour = Behaviour(raw=STREAM_HEAD + answers.wire(build(text)))
    body: dict[str, Any] = {**chat(stream=True), "input": "hi"}
    async with (
        OpenAIBackend(behaviour) as backend,
        running_proxy(tmp_path, snapshot(backend.url, None, MASK)) as proxy,
    ):
        answer = await call(proxy, body, path)
        record = await proxy.record()
        assert SECRET.encode() not in spooled(proxy)
    assert answer.complete
    assert read(answer.body)[0] == "".join(text).replace(SECRET, MARK)
    assert record.response == answer.body
    assert record.error_type is None


async def test_an_anthropic_client_before_an_openai_backend(tmp_path: Path) -> None:
    behaviour = Behaviour(content=f"Ask {SECRET} about it", chunks=9)
    async with (
        OpenAIBackend(behaviour) as backend,
        running_proxy(tmp_path, snapshot(backend.url, MASK, MASK)) as proxy,
    ):
        answer = await call(proxy, chat(f"from {SECRET}", stream=True, max_tokens=9), "/v1/messages")
        record = await proxy.record()
        assert SECRET.encode() not in spooled(proxy)
    assert backend.received[0].json()["messages"][-1]["content"] in (
        f"from {MARK}",
        [{"type": "text", "text": f"from {MARK}"}],
    )
    assert answers.message_texts(answer.body)[0] == f"Ask {MARK} about it"
    assert (record.error_type, record.response) == (None, answer.body)


async def test_a_stream_whose_backend_breaks_off_shows_nothing_unscreened(tmp_path: Path) -> None:
    behaviour = Behaviour(content=f"Ask {SECRET} about it", chunks=10, reset_after_chunks=4)
    async with (
        OpenAIBackend(behaviour) as backend,
        running_proxy(tmp_path, snapshot(backend.url, None, MASK)) as proxy,
    ):
        answer = await call(proxy, chat(stream=True))
        record = await proxy.record()
    assert not answer.complete
    assert b"bob" not in answer.body
    assert record.error_type == "upstream_reset"


async def test_an_answer_that_cannot_be_screened_is_an_error(tmp_path: Path) -> None:
    raw = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n") + b"\x1f\x8bbob@example.com"
    async with (
        OpenAIBackend(Behaviour(raw=raw)) as backend,
        running_proxy(tmp_path, snapshot(backend.url, None, MASK)) as proxy,
    ):
        answer = await call(proxy, chat(stream=True))
        await proxy.record()
    assert b"bob" not in answer.body
    assert b"cannot be screened" in answer.body


def test_unusable_keywords_are_refused_with_the_configuration() -> None:
    with pytest.raises(InvalidSettings, match="keyword"):
        snapshot("http://127.0.0.1:9", Guardrails(invalid_keywords=("ok", "")))
