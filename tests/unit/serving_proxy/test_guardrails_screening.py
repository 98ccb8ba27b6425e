"""Guardrails on requests and whole answers of every dialect."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from servelens.errors import Invalid, Unavailable
from serving_proxy.endpoint import Guardrails
from serving_proxy.guardrails.blocked import Blocked
from serving_proxy.guardrails.output import output_filter
from serving_proxy.guardrails.screening import screen_input
from serving_proxy.target import Kind

MASK = Guardrails(pii="mask")
BLOCK = Guardrails(invalid_keywords=("banned",), pii="block")
WORDS = Guardrails(invalid_keywords=("banned",))
SECRET = "bob@example.com"
MARK = "<EMAIL_ADDRESS>"
TOOL_CALL = {
    "id": "t",
    "type": "function",
    "function": {"name": "f", "arguments": '{"url":"bob@example.com"}'},
}

REQUESTS: list[tuple[Kind, Any, str]] = [
    ("chat", {"messages": [{"role": "user", "content": SECRET}]}, "messages[0]"),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "text", "text": SECRET}]}]}, "messages[0]"),
    (
        "chat",
        {"messages": [{"role": "system", "content": "x"}, {"role": "tool", "content": SECRET}]},
        "messages[1]",
    ),
    (
        "chat",
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}]},
        "messages[0]",
    ),
    ("completions", {"prompt": SECRET}, "prompt"),
    ("completions", {"prompt": ["a", SECRET]}, "prompt[1]"),
    ("completions", {"prompt": "a", "suffix": SECRET}, "suffix"),
    ("embeddings", {"input": [SECRET]}, "input[0]"),
    ("responses", {"input": SECRET}, "input"),
    (
        "responses",
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": SECRET}]}]},
        "input[0]",
    ),
    ("responses", {"input": "a", "instructions": SECRET}, "instructions"),
    ("messages", {"system": [{"type": "text", "text": SECRET}], "messages": []}, "system[0]"),
    (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": SECRET}]}]},
        "messages[0]",
    ),
    (
        "messages",
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": {"name": SECRET}}]}]},
        "messages[0]",
    ),
    ("scoring", {"dataframe_records": [{"name": SECRET}]}, "dataframe_records[0]"),
    ("scoring", {"dataframe_split": {"columns": ["data"], "data": [[SECRET]]}}, "dataframe_split"),
    ("infer", {"inputs": [{"name": "x", "datatype": "BYTES", "data": [SECRET]}]}, "inputs[0]"),
]


@pytest.mark.parametrize(("kind", "body", "where"), REQUESTS)
def test_requests_are_masked(kind: Kind, body: Any, where: str) -> None:
    sent = screen_input(MASK, kind, json.dumps({"model": "m", **body}).encode())
    assert json.loads(sent) == json.loads(json.dumps({"model": "m", **body}).replace(SECRET, MARK))


@pytest.mark.parametrize(("kind", "body", "where"), REQUESTS)
def test_requests_are_blocked_by_field(kind: Kind, body: Any, where: str) -> None:
    with pytest.raises(Blocked) as caught:
        screen_input(BLOCK, kind, json.dumps(body).encode())
    assert caught.value.field == where
    assert SECRET not in str(caught.value)
    assert caught.value.masked is not None
    assert SECRET.encode() not in caught.value.masked
    with pytest.raises(Blocked) as caught:
        screen_input(WORDS, kind, json.dumps(body).replace(SECRET, "Banned").encode())
    assert caught.value.guardrail == "invalid_keywords"


@pytest.mark.parametrize(
    "content",
    [rb"\u0062ob\u0040example.com", rb"line\nbob@example.com", rb"bob@example\u002ecom"],
)
def test_escapes_hide_nothing(content: bytes) -> None:
    sent = screen_input(MASK, "chat", b'{"messages":[{"role":"user","content":"%b"}]}' % content)
    assert MARK.encode() in sent
    assert b"ob@ex" not in sent


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[{"content":"bob@example.com"}],"messages":[{"content":"hi"}]}',
        b'{"messages":[{"content":"bob@example.com","content":"hi"}]}',
    ],
)
def test_a_repeated_key_smuggles_nothing(body: bytes) -> None:
    assert b"bob" not in screen_input(BLOCK, "chat", body)


def test_what_is_no_text_passes_unchanged() -> None:
    body = {
        "model": "bob@example.com",
        "user": SECRET,
        "messages": [
            {
                "role": "user",
                "name": SECRET,
                "content": [{"type": "image_url", "image_url": {"url": "http://8.8.8.8/x.png"}}],
            },
            {"role": "tool", "tool_call_id": "4111111111111111", "content": "done"},
        ],
        "temperature": 0.5,
        "tools": [{"function": {"description": SECRET}}],
    }
    assert json.loads(screen_input(BLOCK, "chat", json.dumps(body).encode())) == body


def test_numbers_outside_of_the_texts_keep_their_spelling() -> None:
    body = b'{"model":"m","temperature":1.10,"seed":123456789012345678901234567890,"messages":[]}'
    assert screen_input(MASK, "chat", body) == body


@pytest.mark.parametrize("prompt", [[1, 2], [[1], [2]], ["a", [3]]])
def test_token_numbers_cannot_be_screened(prompt: Any) -> None:
    with pytest.raises(Invalid) as caught:
        screen_input(MASK, "completions", json.dumps({"prompt": prompt}).encode())
    assert caught.value.field == "prompt"


@pytest.mark.parametrize("body", [b"no json", b"[]", b'{"messages":[{"content":"\\ud800"}]}', b"[" * 100_000])
def test_what_cannot_be_read_is_not_sent(body: bytes) -> None:
    with pytest.raises(Invalid):
        screen_input(MASK, "chat", body)


ANSWERS: list[Any] = [
    {
        "choices": [
            {"message": {"content": SECRET}, "logprobs": {"content": [{"token": "bob"}]}},
            {"message": {"content": "a"}},
        ]
    },
    {"choices": [{"message": {"content": None, "tool_calls": [TOOL_CALL]}}]},
    {"choices": [{"text": SECRET, "index": 0}]},
    {"content": [{"type": "text", "text": SECRET}, {"type": "tool_use", "input": {"id": SECRET}}]},
    {"output": [{"type": "message", "content": [{"type": "output_text", "text": SECRET}]}]},
    {"predictions": [SECRET]},
    {"predictions": {"name": SECRET}},
    {"outputs": [{"name": "x", "data": []}], "text": SECRET},
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_are_masked_or_blocked(answer: Any) -> None:
    body = json.dumps(answer).encode()
    status, sent = output_filter(MASK, "chat").whole(200, body)
    expected = json.loads(body.replace(SECRET.encode(), MARK.encode()))
    for choice in expected.get("choices", ()):
        if "logprobs" in choice:
            choice["logprobs"] = None
    assert (status, json.loads(sent)) == (200, expected)
    with pytest.raises(Blocked) as caught:
        output_filter(BLOCK, "chat").whole(200, body)
    assert "output" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_clean_answer_is_the_same_object() -> None:
    body = b'{"choices":[{"message":{"content":"Hello, in 2024"},"logprobs":{"content":[]}}],"n":1.10}'
    assert output_filter(BLOCK, "chat").whole(200, body)[1] is body


def test_errors_and_vectors_pass() -> None:
    assert output_filter(BLOCK, "chat").whole(429, b"bob@example.com") == (429, b"bob@example.com")
    body = b'{"data":[{"embedding":[1.5]}]}'
    assert output_filter(BLOCK, "embeddings").whole(200, body) == (200, body)


def test_what_cannot_be_screened_is_not_sent() -> None:
    with pytest.raises(Unavailable):
        output_filter(MASK, "chat").whole(200, b"bob@example.com")
    used = output_filter(MASK, "chat")
    used.begin(200, [(b"Content-Encoding", b"gzip")], is_stream=False)
    with pytest.raises(Unavailable):
        used.whole(200, b"{}")


def test_a_word_that_blocks_does_not_unmask_the_record() -> None:
    body = json.dumps({"messages": [{"content": f"banned {SECRET}"}]}).encode()
    with pytest.raises(Blocked) as caught:
        screen_input(Guardrails(invalid_keywords=("banned",), pii="mask"), "chat", body)
    assert caught.value.masked is not None
    assert MARK.encode() in caught.value.masked
    with pytest.raises(Blocked) as caught:
        screen_input(WORDS, "chat", body)
    assert caught.value.masked is None


def test_libraries_are_loaded_only_where_they_are_needed() -> None:
    program = "import sys, serving_proxy.app; print(sorted({'phonenumbers', 'stdnum'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
