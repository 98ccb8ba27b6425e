"""OpenAI's documented rules for chat fine-tuning files, written from the documentation and not from our
exporter.

Sources: the "chat input" object of the fine-tuning API reference, the supervised fine-tuning guide, and the
format checks of the cookbook's "Data preparation and analysis for chat model fine-tuning".
"""

from __future__ import annotations

import json
from typing import Any

_ROLES = {"system", "user", "assistant", "tool", "function"}
_KEYS = {"role", "content", "name", "tool_calls", "tool_call_id", "function_call", "weight"}


def read_chat_file(content: bytes) -> list[dict[str, Any]]:
    """The examples of a file; an ``AssertionError`` names the line and the rule that it breaks."""
    text = content.decode("utf-8")
    assert not text or text.endswith("\n"), "the last line is not whole"
    lines = text.split("\n")[:-1]
    return [_checked(line, f"line {number}") for number, line in enumerate(lines, start=1)]


def _checked(line: str, where: str) -> dict[str, Any]:
    example = json.loads(line, parse_constant=lambda name: _refuse(f"{where}: {name} is not JSON"))
    assert isinstance(example, dict), f"{where}: not an object"
    assert set(example) <= {"messages", "tools", "parallel_tool_calls", "functions"}, f"{where}: unknown key"
    messages = example.get("messages")
    assert isinstance(messages, list), f"{where}: no messages"
    assert messages, f"{where}: no messages"
    called: set[str] = set()
    for number, message in enumerate(messages):
        _check_message(message, called, f"{where}, message {number}")
    assert messages[-1]["role"] == "assistant", f"{where}: the last message is not the assistant's"
    assert messages[-1].get("weight", 1) == 1, f"{where}: the last answer is not trained on"
    for tool in example.get("tools", []):
        assert tool["type"] == "function", where
        assert isinstance(tool["function"]["name"], str), where
    return example


def _check_message(message: Any, called: set[str], where: str) -> None:
    assert isinstance(message, dict), where
    role = message.get("role")
    assert role in _ROLES, f"{where}: unrecognized role {role!r}"
    assert set(message) <= _KEYS, f"{where}: unrecognized keys {set(message) - _KEYS}"
    calls = message.get("tool_calls")
    content = message.get("content")
    if not (role == "assistant" and (calls or message.get("function_call"))):
        assert content, f"{where}: missing content"
    if content is not None:
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        assert isinstance(parts, list), f"{where}: content is neither text nor parts"
        for part in parts:
            assert part["type"] in {"text", "image_url"}, f"{where}: part {part['type']!r}"
            assert part["type"] != "text" or part["text"].strip(), f"{where}: empty text"
    if "weight" in message:
        assert role == "assistant", f"{where}: a weight"
        assert message["weight"] in (0, 1), f"{where}: weight"
    for call in calls or []:
        assert role == "assistant", f"{where}: tool calls"
        assert set(call) == {"id", "type", "function"}, f"{where}: tool call keys"
        assert isinstance(call["function"]["name"], str), where
        assert isinstance(call["function"]["arguments"], str), where
        called.add(call["id"])
    if role == "tool":
        assert message.get("tool_call_id") in called, f"{where}: answers no tool call"


def _refuse(message: str) -> None:
    raise AssertionError(message)
