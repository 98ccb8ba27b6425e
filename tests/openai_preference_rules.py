"""OpenAI's documented rules for preference (DPO) fine-tuning files, written from the documentation and not from our
exporter.

Sources: the "preference input" object of the fine-tuning API reference (``FineTunePreferenceRequestInput``: ``input`` with
``messages``, ``tools`` and ``parallel_tool_calls``; outputs of one assistant message each) and the direct preference
optimization guide (text only; the outputs are the last assistant message).
"""

from __future__ import annotations

import json
from typing import Any

_ROLES = {"system", "user", "assistant", "tool"}
_KEYS = {
    "system": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {"role", "content", "name", "tool_calls", "refusal"},
    "tool": {"role", "content", "tool_call_id"},
}


def read_preference_file(content: bytes) -> list[dict[str, Any]]:
    """The examples of a file; an ``AssertionError`` names the line and the rule that it breaks."""
    text = content.decode("utf-8")
    assert not text or text.endswith("\n"), "the last line is not whole"
    return [_checked(line, f"line {number}") for number, line in enumerate(text.split("\n")[:-1], start=1)]


def _checked(line: str, where: str) -> dict[str, Any]:
    example = json.loads(line)
    assert set(example) == {"input", "preferred_output", "non_preferred_output"}, f"{where}: keys"
    asked = example["input"]
    assert set(asked) <= {"messages", "tools", "parallel_tool_calls"}, f"{where}: keys of input"
    assert asked["messages"], f"{where}: no messages"
    called: set[str] = set()
    for message in asked["messages"]:
        _check_message(message, called, where)
    assert isinstance(asked.get("parallel_tool_calls", True), bool), where
    for tool in asked.get("tools", []):
        assert tool["type"] == "function", where
        assert isinstance(tool["function"]["name"], str), where
    for key in ("preferred_output", "non_preferred_output"):
        output = example[key]
        assert isinstance(output, list), f"{where}: {key} is no list"
        assert len(output) == 1, f"{where}: {key} has {len(output)} messages"
        assert output[0]["role"] == "assistant", f"{where}: {key} is not the assistant's"
        _check_message(output[0], called, where)
    assert example["preferred_output"] != example["non_preferred_output"], f"{where}: no preference"
    return example


def _check_message(message: dict[str, Any], called: set[str], where: str) -> None:
    role = message["role"]
    assert role in _ROLES, f"{where}: role {role!r}"
    assert set(message) <= _KEYS[role], f"{where}: keys {set(message) - _KEYS[role]}"
    content = message.get("content")
    calls = message.get("tool_calls")
    if calls:
        for call in calls:
            assert set(call) == {"id", "type", "function"}, f"{where}: tool call keys"
            assert isinstance(call["function"]["arguments"], str), f"{where}: arguments"
            called.add(call["id"])
        assert content is None or content, f"{where}: empty content"
    else:
        assert isinstance(content, str), f"{where}: content is not text"
        assert content.strip(), f"{where}: empty content"
    if role == "tool":
        assert message.get("tool_call_id") in called, f"{where}: answers no tool call"
