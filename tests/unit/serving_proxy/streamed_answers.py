"""Answers as the streams of each dialect, cut into given pieces, and read back as its clients read them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

Event = tuple[str | None, Any]


def wire(events: Sequence[Event], newline: str = "\n") -> bytes:
    text = ""
    for name, value in events:
        data = value if isinstance(value, str) else json.dumps(value)
        text += (f"event: {name}{newline}" if name else "") + f"data: {data}{newline}{newline}"
    return text.encode()


def read(stream: bytes) -> list[Any]:
    """The JSON of all events; every event is well-formed and named as its type says."""
    values: list[Any] = []
    for event in stream.decode().replace("\r\n", "\n").split("\n\n"):
        lines = event.split("\n")
        data = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
        if not data or data == ["[DONE]"]:
            continue
        (text,) = data
        values.append(json.loads(text))
        names = [line.removeprefix("event:").strip() for line in lines if line.startswith("event:")]
        assert names in ([], [values[-1].get("type")])
    return values


def chat(*texts: Sequence[str], tool: Sequence[str] = ()) -> list[Event]:
    """A chat stream with a choice for each of ``texts``, interleaved; ``tool`` are arguments of the first choice's call."""
    frame = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    events: list[Event] = []

    def add(index: int, delta: Any, finish: str | None = None) -> None:
        choice = {
            "index": index,
            "delta": delta,
            "finish_reason": finish,
            "logprobs": {"content": [{"token": "secret"}]},
        }
        events.append((None, {**frame, "choices": [choice]}))

    for index in range(len(texts)):
        add(index, {"role": "assistant", "content": ""})
    for row in zip_longest(*texts):
        for index, piece in enumerate(row):
            if piece is not None:
                add(index, {"content": piece})
    if tool:
        add(
            0,
            {
                "tool_calls": [
                    {"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}}
                ]
            },
        )
        for piece in tool:
            add(0, {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    for index in range(len(texts)):
        add(index, {}, "stop")
    events.append((None, {**frame, "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}))
    return [*events, (None, "[DONE]")]


def chat_texts(stream: bytes) -> dict[Any, str]:
    """By choice index the content, by ("tool", index) the arguments."""
    texts: dict[Any, str] = defaultdict(str)
    finished: set[int] = set()
    for event in read(stream):
        for choice in event["choices"]:
            assert choice["index"] not in finished
            assert not choice.get("logprobs")
            delta = choice["delta"]
            texts[choice["index"]] += delta.get("content") or ""
            for call in delta.get("tool_calls") or ():
                texts["tool", choice["index"]] += call["function"].get("arguments") or ""
            if choice["finish_reason"]:
                finished.add(choice["index"])
    return texts


def completion(*texts: Sequence[str]) -> list[Event]:
    events: list[Event] = []
    for row in zip_longest(*texts):
        for index, piece in enumerate(row):
            if piece is not None:
                choice = {"index": index, "text": piece, "finish_reason": None, "logprobs": None}
                events.append((None, {"id": "c", "object": "text_completion", "choices": [choice]}))
    for index in range(len(texts)):
        choice = {"index": index, "text": "", "finish_reason": "stop", "logprobs": None}
        events.append((None, {"id": "c", "object": "text_completion", "choices": [choice]}))
    return [*events, (None, "[DONE]")]


def completion_texts(stream: bytes) -> dict[Any, str]:
    texts: dict[Any, str] = defaultdict(str)
    for event in read(stream):
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
    return texts


def messages(text: Sequence[str], tool: Sequence[str] = ()) -> list[Event]:
    events: list[Any] = [
        {
            "type": "message_start",
            "message": {"id": "m", "type": "message", "role": "assistant", "content": []},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
    ]
    events += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
        for piece in text
    ]
    events.append({"type": "content_block_stop", "index": 0})
    if tool:
        block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
        events.append({"type": "content_block_start", "index": 1, "content_block": block})
        for piece in tool:
            delta = {"type": "input_json_delta", "partial_json": piece}
            events.append({"type": "content_block_delta", "index": 1, "delta": delta})
        events.append({"type": "content_block_stop", "index": 1})
    events += [
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]
    return [(event["type"], event) for event in events]


def message_texts(stream: bytes) -> dict[Any, str]:
    texts: dict[Any, str] = defaultdict(str)
    stopped: set[int] = set()
    for event in read(stream):
        if event["type"] == "content_block_delta":
            assert event["index"] not in stopped
            delta = event["delta"]
            key = 0 if delta["type"] == "text_delta" else ("tool", 0)
            texts[key] += delta.get("text", "") + delta.get("partial_json", "")
        elif event["type"] == "content_block_stop":
            stopped.add(event["index"])
    return texts


def responses(text: Sequence[str], tool: Sequence[str] = ()) -> list[Event]:
    whole, arguments = "".join(text), "".join(tool)
    place = {"item_id": "i", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": whole, "annotations": [], "logprobs": [{"token": "secret"}]}
    item = {"id": "i", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    call = {"id": "t", "type": "function_call", "call_id": "c", "name": "f", "arguments": arguments}
    output = [item, call] if tool else [item]
    events: list[Any] = [
        {"type": "response.created", "response": {"id": "r", "instructions": "Be kind", "output": []}},
        *({"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []} for piece in text),
        {"type": "response.output_text.done", **place, "text": whole, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
    ]
    if tool:
        at = {"item_id": "t", "output_index": 1}
        events += [{"type": "response.function_call_arguments.delta", **at, "delta": piece} for piece in tool]
        events.append({"type": "response.function_call_arguments.done", **at, "arguments": arguments})
        events.append({"type": "response.output_item.done", "output_index": 1, "item": call})
    events.append({"type": "response.completed", "response": {"id": "r", "output": output}})
    return [(event["type"], {**event, "sequence_number": number}) for number, event in enumerate(events)]


def response_texts(stream: bytes) -> dict[Any, str]:
    """The deltas; what the done events and the last one repeat has to be the same."""
    texts: dict[Any, str] = defaultdict(str)
    events = read(stream)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        match event["type"]:
            case "response.output_text.delta":
                texts[0] += event["delta"]
            case "response.function_call_arguments.delta":
                texts["tool", 0] += event["delta"]
            case "response.output_text.done":
                assert event["text"] == texts[0]
            case "response.content_part.done":
                assert event["part"]["text"] == texts[0]
                assert not event["part"]["logprobs"]
            case "response.function_call_arguments.done":
                assert event["arguments"] == texts["tool", 0]
            case "response.completed":
                first, *others = event["response"]["output"]
                assert first["content"][0]["text"] == texts[0]
                assert [other["arguments"] for other in others] in ([], [texts["tool", 0]])
    return texts
