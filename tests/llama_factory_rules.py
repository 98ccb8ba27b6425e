"""What LLaMA-Factory documents of its Alpaca and ShareGPT files (``data/README.md``), written from the documentation.

Alpaca: ``instruction`` and ``output`` are required; ``history`` is pairs of strings. ShareGPT: ``human`` and ``observation``
stand at odd places and ``gpt`` and ``function_call`` at even ones, one of which is the last; ``tools`` is JSON.
"""

from __future__ import annotations

import json
from typing import Any


def read_alpaca_file(content: bytes) -> list[dict[str, Any]]:
    """The records; an ``AssertionError`` names the rule that one breaks."""
    records = [json.loads(line) for line in content.decode().splitlines()]
    for record in records:
        assert set(record) == {"instruction", "input", "output", "system", "history"}, record
        for key in ("instruction", "output"):
            assert isinstance(record[key], str), key
            assert record[key].strip(), key
        for key in ("input", "system"):
            assert isinstance(record[key], str), key
        for turn in record["history"]:
            assert len(turn) == 2, "a turn is a question and an answer"
            assert all(isinstance(text, str) for text in turn), "turns are text"
    return records


def read_sharegpt_file(content: bytes) -> list[dict[str, Any]]:
    """The records; an ``AssertionError`` names the rule that one breaks."""
    records = [json.loads(line) for line in content.decode().splitlines()]
    for record in records:
        assert set(record) == {"conversations", "system", "tools"}, record
        turns = record["conversations"]
        assert turns, "no turns"
        assert len(turns) % 2 == 0, "the last turn is not the model's"
        for place, turn in enumerate(turns):
            assert set(turn) == {"from", "value"}, turn
            allowed = ("gpt", "function_call") if place % 2 else ("human", "observation")
            assert turn["from"] in allowed, f"{turn['from']} at place {place + 1}"
            if turn["from"] == "function_call":
                calls = json.loads(turn["value"])
                for call in calls if isinstance(calls, list) else [calls]:
                    assert set(call) == {"name", "arguments"}, call
                    assert isinstance(call["arguments"], dict), call
        if record["tools"]:
            assert isinstance(json.loads(record["tools"]), list), "tools"
        assert isinstance(record["system"], str), "system"
    return records
