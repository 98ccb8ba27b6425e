"""The safety guardrail on calls through a worker, with a real scorer service: what backend, client and record see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving_proxy.endpoint import Guardrails, Safety
from tests.backends import Behaviour
from tests.unit.serving_proxy import streamed_answers as answers
from tests.unit.serving_proxy.running_proxy import call, chat, connect, eventually, get, post
from tests.unit.serving_proxy.safety_calls import BAD, GOOD, MARK, STREAM_HEAD, safe, setting

PATHS = {
    "/v1/chat/completions": {},
    "/v1/messages": {"max_tokens": 9},
    "/serving-endpoints/chat/invocations": {},
}


def completion_body(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "chat", "prompt": text, **fields}


@pytest.mark.parametrize(
    ("path", "stream"),
    [
        *((path, False) for path in (*PATHS, "/v1/completions", "/v1/responses", "/v1/embeddings")),
        ("/v1/chat/completions", True),
    ],
)
async def test_an_unsafe_request_reaches_no_backend(tmp_path: Path, path: str, stream: bool) -> None:
    if path in PATHS:
        body = chat(BAD, stream=stream, **PATHS[path])
    elif path == "/v1/completions":
        body = completion_body(BAD, stream=stream)
    else:
        body = {"model": "chat", "input": [BAD] if path.endswith("embeddings") else BAD}
    async with setting(tmp_path, safe()) as it:
        answer = await call(it.proxy, body, path)
        record = await it.proxy.record()
    assert it.backend.received == []
    assert answer.status == 400
    assert "safety" in answer.body.decode()
    assert "hate" not in answer.body.decode()
    assert ("error" in answer.json()) or answer.json()["error_code"]
    assert (record.status_code, record.error_type) == (400, "blocked")
    assert record.response == answer.body
    assert record.tags == {"safety.input": "0.900", "safety.action": "blocked"}


@pytest.mark.parametrize(
    "content",
    [
        BAD.replace("hate", "HATE"),
        [{"type": "text", "text": GOOD}, {"type": "text", "text": BAD}],
        GOOD * 400 + BAD + GOOD * 400,
        "Добрый день, 你好 🎉 " + BAD,
    ],
)
async def test_an_unsafe_text_is_found_wherever_it_is(tmp_path: Path, content: Any) -> None:
    async with setting(tmp_path, safe()) as it:
        answer = await call(it.proxy, {"model": "chat", "messages": [{"role": "user", "content": content}]})
        record = await it.proxy.record()
    assert (answer.status, it.backend.received) == (400, [])
    assert "messages[0]" in answer.body.decode()
    assert record.error_type == "blocked"


async def test_a_masked_request(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": text}]} for text in (GOOD, BAD)]
    async with setting(tmp_path, safe("mask")) as it:
        answer = await call(it.proxy, {"model": "chat", "messages": messages, "temperature": 0.5})
        record = await it.proxy.record()
    assert answer.status == 200
    sent = it.backend.received[0].json()
    assert [message["content"][0]["text"] for message in sent["messages"]] == [GOOD, f"{MARK} "]
    assert sent["temperature"] == 0.5
    assert record.request is not None
    assert json.loads(record.request) == sent
    assert (record.error_type, record.tags["safety.action"]) == (None, "masked")


async def test_a_flagged_request(tmp_path: Path) -> None:
    async with setting(tmp_path, safe("flag")) as it:
        answer = await call(it.proxy, chat(BAD), x_servelens_tags="team=red,safety.action=passed,safety.x=1")
        record = await it.proxy.record()
    assert answer.status == 200
    assert it.backend.received[0].json() == chat(BAD)
    assert record.error_type is None
    assert record.tags == {"team": "red", "safety.input": "0.900", "safety.action": "flagged"}


async def test_nobody_can_say_that_it_was_looked_at_where_it_was_not(tmp_path: Path) -> None:
    async with setting(tmp_path) as it:
        await call(it.proxy, chat(BAD), x_servelens_tags="team=red,safety.action=blocked,safety.input=0.999")
        record = await it.proxy.record()
    assert record.tags == {"team": "red"}


async def test_what_the_scorer_found_is_kept_where_the_clients_tags_are_not(tmp_path: Path) -> None:
    hidden = ("x-servelens-tags",)
    async with setting(tmp_path, safe("flag"), redact_headers=hidden) as it:
        await call(it.proxy, chat(BAD), x_servelens_tags="team=red")
        record = await it.proxy.record()
    assert record.tags == {"safety.input": "0.900", "safety.action": "flagged"}


async def test_a_safe_conversation_and_its_history(tmp_path: Path) -> None:
    """The history is scored once: with the next turn only what is new is."""
    turns = [{"role": "user", "content": f"{GOOD} {number}"} for number in range(60)]
    async with setting(tmp_path, safe(), safe()) as it:
        for count in (59, 60):
            body = {"model": "chat", "messages": turns[:count]}
            assert (await call(it.proxy, body)).status == 200
        records = it.proxy.records()
        seen = list(it.rule.seen)
    assert len(records) == 2
    assert [seen.count(turn["content"]) for turn in turns] == [1] * 60
    assert records[1].tags == {"safety.input": "0.100", "safety.output": "0.100"}
    assert len(it.backend.received) == 2


async def test_a_text_without_letters_is_not_asked_about(tmp_path: Path) -> None:
    async with setting(tmp_path, safe()) as it:
        answer = await call(it.proxy, chat("1 + 2 = ?"))
        record = await it.proxy.record()
        assert it.rule.seen == []
    assert (answer.status, record.tags) == (200, {})


async def test_a_language_that_the_model_does_not_know_passes(tmp_path: Path) -> None:
    async with setting(tmp_path, safe()) as it:
        answer = await call(it.proxy, chat("Добрый день"))
        record = await it.proxy.record()
    assert (answer.status, record.tags) == (200, {})


async def test_the_other_guardrails_come_first(tmp_path: Path) -> None:
    both = Guardrails(invalid_keywords=("banned",), pii="mask", safety=Safety("block", timeout_s=5.0))
    async with setting(tmp_path, both) as it:
        blocked = await call(it.proxy, chat("This is banned."))
        passed = await call(it.proxy, chat("Write to bob@example.com now."))
        seen = list(it.rule.seen)
    assert (blocked.status, passed.status) == (400, 200)
    assert seen == ["Write to <EMAIL_ADDRESS> now."]


@pytest.mark.parametrize(
    ("path", "action", "status"),
    [
        ("/v1/chat/completions", "block", 400),
        ("/v1/chat/completions", "mask", 200),
        ("/v1/chat/completions", "flag", 200),
        ("/v1/messages", "block", 400),
        ("/v1/completions", "mask", 200),
    ],
)
async def test_an_unsafe_whole_answer(tmp_path: Path, path: str, action: str, status: int) -> None:
    body = completion_body("Hi there.") if path == "/v1/completions" else chat("Hi there.", max_tokens=9)
    async with setting(tmp_path, None, safe(action), Behaviour(content=GOOD + BAD)) as it:
        answer = await call(it.proxy, body, path)
        record = await it.proxy.record()
    text = answer.body.decode()
    assert (answer.status, answer.complete) == (status, True)
    assert (BAD.strip() in text) == (action == "flag")
    assert (MARK in text) == (action == "mask")
    assert record.response == answer.body
    assert record.error_type == ("blocked" if action == "block" else None)
    outcome = {"block": "blocked", "mask": "masked", "flag": "flagged"}[action]
    assert record.tags == {"safety.output": "0.900", "safety.action": outcome}


STREAMS: dict[str, tuple[Any, Any, Any]] = {
    "/v1/chat/completions": (answers.chat, answers.chat_texts, 0),
    "/v1/completions": (answers.completion, answers.completion_texts, 0),
    "/v1/responses": (answers.responses, answers.response_texts, 0),
}
LAST = "And that was all of it"


@pytest.mark.parametrize(
    ("path", "size", "action"),
    [
        *((path, 7, action) for path in STREAMS for action in ("block", "mask")),
        ("/v1/chat/completions", 7, "flag"),
        ("/v1/chat/completions", 1, "mask"),
        ("/v1/responses", 1000, "mask"),
    ],
)
async def test_a_stream_by_the_sentence(tmp_path: Path, path: str, size: int, action: str) -> None:
    build, read, key = STREAMS[path]
    whole = GOOD + BAD + GOOD + LAST
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
    behaviour = Behaviour(raw=STREAM_HEAD + answers.wire(build(pieces)))
    body = {**chat("hi", stream=True), "input": "hi", "prompt": "hi"}
    if path == "/v1/completions":
        del body["messages"]
    async with setting(tmp_path, None, safe(action), behaviour) as it:
        answer = await call(it.proxy, body, path)
        record = await it.proxy.record()
        seen = list(it.rule.seen)
    assert answer.complete
    assert record.response == answer.body
    assert {GOOD, BAD} <= set(seen)
    if action == "block":
        assert b"hate" not in answer.body
        assert b"blocked" in answer.body
        assert record.error_type == "blocked"
        assert record.tags["safety.action"] == "blocked"
        return
    expected = whole if action == "flag" else whole.replace(BAD, f"{MARK} ")
    assert read(answer.body)[key] == expected
    assert record.error_type is None
    assert record.tags["safety.action"] == ("masked" if action == "mask" else "flagged")
    assert record.tags["safety.output"] == "0.900"


@pytest.mark.parametrize("action", ["block", "mask"])
async def test_a_stream_of_anthropics(tmp_path: Path, action: str) -> None:
    behaviour = Behaviour(content=GOOD + BAD + GOOD, chunks=20)
    async with setting(tmp_path, None, safe(action), behaviour) as it:
        answer = await call(it.proxy, chat("hi", stream=True, max_tokens=9), "/v1/messages")
        record = await it.proxy.record()
    assert (answer.status, answer.complete, record.response) == (200, True, answer.body)
    assert b"hate" not in answer.body
    if action == "block":
        assert b"event: error" in answer.body
        assert record.error_type == "blocked"
    else:
        assert answers.message_texts(answer.body)[0] == f"{GOOD}{MARK} {GOOD}"
        assert b"message_stop" in answer.body


@pytest.mark.parametrize("build", [answers.chat, answers.messages, answers.responses])
async def test_arguments_of_tools_are_masked_as_json(tmp_path: Path, build: Any) -> None:
    arguments = json.dumps({"text": f'{GOOD}\n"{BAD.strip()}" she said', "to": "ada"})
    path = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}.get(build.__name__, "/v1/responses")
    read = {"chat": answers.chat_texts, "messages": answers.message_texts}.get(
        build.__name__, answers.response_texts
    )
    stream = STREAM_HEAD + answers.wire(build(["Well"], list(arguments) if build is not answers.chat else ()))
    if build is answers.chat:
        stream = STREAM_HEAD + answers.wire(answers.chat(["Well"], tool=list(arguments)))
    api = "anthropic" if build is answers.messages else "openai"
    async with setting(tmp_path, None, safe("mask"), Behaviour(raw=stream), api=api) as it:
        answer = await call(it.proxy, {**chat("hi", stream=True, max_tokens=9), "input": "hi"}, path)
        await it.proxy.record()
    assert b"hate" not in answer.body
    assert json.loads(read(answer.body)["tool", 0]) == {"text": f"{GOOD}\n{MARK} she said", "to": "ada"}


async def test_a_stream_that_is_looked_at_afterwards(tmp_path: Path) -> None:
    whole = GOOD + BAD
    stream = answers.wire(answers.chat(list(whole)))
    after = safe("block", streams="after")
    async with setting(tmp_path, None, after, Behaviour(raw=STREAM_HEAD + stream)) as it:
        answer = await call(it.proxy, chat("hi", stream=True))
        record = await it.proxy.record()
        seen = list(it.rule.seen)
    assert (answer.status, answer.complete) == (200, True)
    assert answer.body == stream
    assert seen == [whole]
    assert record.error_type is None
    assert record.tags == {"safety.output": "0.900", "safety.action": "flagged"}


async def test_a_stream_passes_before_it_is_looked_at_afterwards(tmp_path: Path) -> None:
    after = safe("block", streams="after")
    behaviour = Behaviour(content=GOOD + BAD, chunks=4)
    async with setting(tmp_path, None, after, behaviour) as it:
        it.rule.gate.clear()
        async with connect(it.proxy) as client:
            await client.send(post(chat("hi", stream=True)))
            await client.head()
            got = b""
            while b"people" not in got:
                got += await client.chunk()
            assert b"[DONE]" not in got
            assert it.proxy.records() == []
            it.rule.gate.set()
            while piece := await client.chunk():
                got += piece
        record = await it.proxy.record()
    assert got.endswith(b"data: [DONE]\n\n")
    assert record.tags["safety.action"] == "flagged"


async def test_what_cannot_be_read_afterwards_is_noted(tmp_path: Path) -> None:
    stream = b"data: no json\n\ndata: [DONE]\n\n"
    after = safe("block", streams="after")
    async with setting(tmp_path, None, after, Behaviour(raw=STREAM_HEAD + stream)) as it:
        answer = await call(it.proxy, chat("hi", stream=True))
        record = await it.proxy.record()
    assert (answer.complete, answer.body) == (True, stream)
    assert record.tags == {"safety.unchecked": "output: unreadable", "safety.action": "unchecked"}


async def test_metrics(tmp_path: Path) -> None:
    async with setting(tmp_path, safe(), safe("flag"), Behaviour(content=BAD)) as it:
        assert (await call(it.proxy, chat(BAD))).status == 400
        assert (await call(it.proxy, chat(GOOD))).status == 200
        assert (await call(it.proxy, chat(GOOD, stream=True))).status == 200
        await eventually(lambda: len(it.proxy.records()) == 3)
        text = (await get(it.proxy, "/metrics")).body.decode()
    for line in (
        'servelens_safety_checks_total{endpoint="chat",outcome="blocked",side="input",worker="proxy-0"} 1.0',
        'servelens_safety_checks_total{endpoint="chat",outcome="passed",side="input",worker="proxy-0"} 2.0',
        'servelens_safety_checks_total{endpoint="chat",outcome="flagged",side="output",worker="proxy-0"} 2.0',
        'servelens_safety_duration_seconds_count{side="input",worker="proxy-0"} 2.0',
    ):
        assert line in text.splitlines(), text
