"""Guardrails on streams of every dialect: the cuts make no difference, and nothing of a match is ever sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servelens.errors import Unavailable
from serving_proxy.endpoint import Guardrails
from serving_proxy.guardrails.blocked import Blocked
from serving_proxy.guardrails.output import OutputFilter, output_filter
from serving_proxy.guardrails.screen import screen_of
from tests.unit.serving_proxy import streamed_answers as answers
from tests.unit.serving_proxy.streamed_answers import Event, wire

MASKING = Guardrails(pii="mask")
BLOCKING = Guardrails(invalid_keywords=("banned",), pii="block")
TEXT = "Write to bob@example.com or +1 415 555 2671, card 4111 1111 1111 1111, thanks"
MASKED = "Write to <EMAIL_ADDRESS> or <PHONE_NUMBER>, card <CREDIT_CARD>, thanks"
ARGUMENTS = json.dumps({"to": "bob@example.com", "note": "line\nbob@example.com", "n": 4111111111111111})
MASKED_ARGUMENTS = {"to": "<EMAIL_ADDRESS>", "note": "line\n<EMAIL_ADDRESS>", "n": "<CREDIT_CARD>"}

Build = Callable[..., list[Event]]
Read = Callable[[bytes], dict[Any, str]]
DIALECTS: list[tuple[Build, Read]] = [
    (answers.chat, answers.chat_texts),
    (answers.completion, answers.completion_texts),
    (answers.messages, answers.message_texts),
    (answers.responses, answers.response_texts),
]
WITH_TOOLS = [DIALECTS[0], *DIALECTS[2:]]
snippets = st.sampled_from(
    [
        *(
            "bob@example.com",
            "4111 1111 1111 1111",
            "+1 415 555 2671",
            "219-09-9998",
            "8.8.8.8",
            "in 2024",
            "é",
            "你好",
            '"',
        ),
        *(" ", " ", "\n", "."),
    ]
)
texts = st.lists(snippets, max_size=8).map("".join)


def cut(text: Any, cuts: set[int]) -> list[Any]:
    edges = [0, *sorted(position for position in cuts if position < len(text)), len(text)]
    return [text[start:stop] for start, stop in pairwise(edges)]


def filtered(stream: bytes, cuts: set[int], guardrails: Guardrails = MASKING) -> bytes:
    used = output_filter(guardrails, "chat")
    used.begin(200, [(b"content-type", b"text/event-stream")], is_stream=True)
    return b"".join(used.chunk(piece) for piece in cut(stream, cuts)) + used.end()


positions = st.sets(st.integers(1, 3000), max_size=30)


@pytest.mark.parametrize(("build", "read"), DIALECTS)
@settings(max_examples=120)
@given(
    text=texts,
    pieces=st.sets(st.integers(1, 120), max_size=40),
    cuts=positions,
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_masked_as_the_whole_is(
    build: Build, read: Read, text: str, pieces: set[int], cuts: set[int], newline: str
) -> None:
    sent = filtered(wire(build(cut(text, pieces)), newline), cuts)
    assert read(sent).get(0, "") == screen_of(MASKING, "output").text(text)


@pytest.mark.parametrize(("build", "read"), WITH_TOOLS)
@given(pieces=st.sets(st.integers(1, 120), max_size=40), cuts=positions)
def test_arguments_of_tools_are_masked_as_json(
    build: Build, read: Read, pieces: set[int], cuts: set[int]
) -> None:
    found = read(filtered(wire(build(cut(TEXT, pieces), tool=cut(ARGUMENTS, pieces))), cuts))
    assert found[0] == MASKED
    assert json.loads(found["tool", 0]) == MASKED_ARGUMENTS


@given(first=texts, second=texts, pieces=st.sets(st.integers(1, 120), max_size=40))
def test_choices_are_apart(first: str, second: str, pieces: set[int]) -> None:
    screen = screen_of(MASKING, "output")
    for build, read in DIALECTS[:2]:
        found = read(filtered(wire(build(cut(first, pieces), list(second))), set()))
        assert (found.get(0, ""), found.get(1, "")) == (screen.text(first), screen.text(second))


@pytest.mark.parametrize(("build", "read"), DIALECTS)
@pytest.mark.parametrize("secret", ["bob@example.com", "banned", "4111 1111 1111 1111"])
@given(pieces=st.sets(st.integers(1, 60), max_size=40))
def test_nothing_of_what_is_blocked_is_sent(build: Build, read: Read, secret: str, pieces: set[int]) -> None:
    used = OutputFilter(screen_of(BLOCKING, "output"))
    sent = b""
    stream = wire(build(cut(f"Well, it is {secret} and so on", pieces)))
    parts = iter(cut(stream, set(range(7, len(stream), 7))))

    def go_on() -> None:
        nonlocal sent
        for part in parts:
            sent += used.chunk(part)

    with pytest.raises(Blocked) as caught:
        go_on()
    assert secret not in str(caught.value)
    assert read(sent).get(0, "") in "Well, it is "


@pytest.mark.parametrize(("build", "read"), DIALECTS)
def test_a_stream_that_breaks_off_gives_its_rest(build: Build, read: Read) -> None:
    events = build(list("Hello bob@example.com"))
    stop = next(
        at
        for at, (_, event) in enumerate(events)
        if ".done" in json.dumps(event) or "stop" in json.dumps(event)
    )
    sent = filtered(wire(events[:stop]) + b'data: {"choi', set())
    assert read(sent)[0] == "Hello <EMAIL_ADDRESS>"


@pytest.mark.parametrize(("build", "read"), DIALECTS)
def test_a_word_goes_as_soon_as_the_next_begins(build: Build, read: Read) -> None:
    used = OutputFilter(screen_of(MASKING, "output"))
    sent = b""
    lengths = []
    for event in build(["Hel", "lo ", "big ", "world"]):
        sent += used.chunk(wire([event]))
        lengths.append(len(read(sent).get(0, "")))
    assert sorted(set(lengths)) == [0, 6, 10, 15]


def test_the_end_without_a_blank_line() -> None:
    used = OutputFilter(screen_of(MASKING, "output"))
    assert used.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"bye"}}]}\n\ndata: [DONE]') == b""
    assert answers.chat_texts(used.end())[0] == "bye"


def test_comments_and_other_events_pass() -> None:
    used = OutputFilter(screen_of(MASKING, "output"))
    assert used.chunk(b": keep-alive\n\n") == b": keep-alive\n\n"
    assert used.chunk(b'event: ping\ndata: {"type":"ping"}\n\n') == b'event: ping\ndata: {"type":"ping"}\n\n'
    error = b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n'
    assert json.loads(used.chunk(error)[5:]) == json.loads(error[5:])
    unknown = used.chunk(b'data: {"predictions":["bob@example.com"]}\n\n')
    assert json.loads(unknown[5:]) == {"predictions": ["<EMAIL_ADDRESS>"]}


def test_reasoning_and_refusals_are_texts_too() -> None:
    deltas: Sequence[Any] = [
        {"reasoning_content": "bob@exam"},
        {"reasoning_content": "ple.com"},
        {"refusal": "no 8.8.8.8"},
    ]
    events: list[Event] = [(None, {"choices": [{"index": 0, "delta": delta}]}) for delta in deltas]
    events += [
        (None, {"choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}]}),
        (None, "[DONE]"),
    ]
    sent = filtered(wire(events), set())
    joined: dict[str, str] = {}
    for event in answers.read(sent):
        for name, text in event["choices"][0]["delta"].items():
            joined[name] = joined.get(name, "") + text
    assert joined == {"reasoning_content": "<EMAIL_ADDRESS>", "refusal": "no <IP_ADDRESS>", "content": "ok"}


@pytest.mark.parametrize("data", [b"data: nonsense\n\n", b'data: {"choices": [\n\n', b"data: \xff\n\n"])
def test_what_cannot_be_read_is_not_sent(data: bytes) -> None:
    with pytest.raises(Unavailable):
        OutputFilter(screen_of(MASKING, "output")).chunk(data)


def feed(used: OutputFilter, data: bytes, times: int) -> None:
    for _ in range(times):
        used.chunk(data)


def test_an_endless_event_is_refused() -> None:
    with pytest.raises(Unavailable):
        feed(OutputFilter(screen_of(MASKING, "output")), b"x" * 10_000, 200)
    call = {"index": 0, "function": {"arguments": "x" * 10_000}}
    piece = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}
    with pytest.raises(Blocked):
        feed(OutputFilter(screen_of(MASKING, "output")), wire([(None, piece)]), 200)


def test_a_finish_without_a_delta() -> None:
    events: list[Event] = [(None, {"choices": [{"index": 0, "delta": {"content": "so long"}}]})]
    events.append((None, {"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}))
    first, second, last = answers.read(filtered(wire(events), set()))
    assert [event["choices"][0]["delta"] for event in (first, second)] == [
        {"content": "so "},
        {"content": "long"},
    ]
    assert last["choices"][0] == {"index": 0, "delta": None, "finish_reason": "stop"}
