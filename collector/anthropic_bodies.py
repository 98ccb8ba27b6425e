"""What Anthropic's Messages API says in its own shapes: blocks of content, a message, a stream of events.

Sources: https://platform.claude.com/docs/en/api/messages/create and
https://platform.claude.com/docs/en/build-with-claude/streaming. The input tokens of an answer are all that the model
read: those from a cache and those written to it are counted apart there, and added here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from collector.json_text import NOT_JSON, parse, write

_EVENTS: Final = frozenset(
    (
        *("message_start", "message_delta", "message_stop"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
    )
)
_INPUT_COUNTS: Final = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_JOINED: Final = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "input"}


def is_event(event: dict[str, Any]) -> bool:
    """Whether this is an event of a Messages stream: a known type, or an error in Anthropic's shape."""
    kind = event.get("type")
    return kind in _EVENTS or (kind == "error" and isinstance(event.get("error"), dict))


def is_message(response: dict[str, Any]) -> bool:
    return response.get("type") == "message" and isinstance(response.get("content"), list)


def block_texts(blocks: Any) -> Iterator[str]:
    """The texts in content blocks: what is said, tools as ``name(input)``, and their results. Not what the model
    thought.
    """
    for block in blocks if isinstance(blocks, list) else [blocks]:
        if isinstance(block, str):
            yield block
        elif isinstance(block, dict):
            kind = block.get("type")
            if kind == "tool_use" and block.get("name"):
                given = block.get("input")
                yield f"{block['name']}({'' if given is None else _written(given)})"
            elif kind == "tool_result":
                yield from block_texts(block.get("content"))
            elif isinstance(text := block.get("text"), str):
                yield text


def said(message: dict[str, Any]) -> str | None:
    """The text of an answer. Blocks of text belong together; each tool call stands on its own line."""
    texts, calls = [], []
    for block in message["content"]:
        if isinstance(block, dict) and block.get("type") == "tool_use":
            calls += list(block_texts(block))
        else:
            texts += list(block_texts(block))
    pieces = ["".join(texts), *calls]
    return "\n".join(piece for piece in pieces if piece) or None


def input_tokens(usage: dict[str, Any]) -> int | None:
    """All the tokens that the model read, or ``None`` when they were not counted."""
    counts = [
        count
        for name in _INPUT_COUNTS
        if isinstance(count := usage.get(name), int) and not isinstance(count, bool) and count >= 0
    ]
    return sum(counts) if "input_tokens" in usage and counts else None


def message_of(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The message that a call without ``stream`` would have given, of the events that came.

    A cut stream gives what came until then, with a null ``stop_reason``; an error in it is kept as ``error``; a
    tool's input that is no JSON stays the text it was.
    """
    message: dict[str, Any] = {"type": "message", "role": "assistant", "content": [], "stop_reason": None}
    blocks: dict[int, dict[str, Any]] = {}
    error: Any = None
    for event in events:
        kind = event.get("type")
        if kind == "message_start" and isinstance(event.get("message"), dict):
            message |= {name: value for name, value in event["message"].items() if name != "content"}
        elif kind == "content_block_start" and isinstance(event.get("content_block"), dict):
            blocks[_place(event)] = dict(event["content_block"])
        elif kind == "content_block_delta" and isinstance(event.get("delta"), dict):
            _continue(blocks.setdefault(_place(event), {}), event["delta"])
        elif kind == "message_delta":
            if isinstance(event.get("delta"), dict):
                message |= event["delta"]
            if isinstance(event.get("usage"), dict):
                have = message.get("usage")
                message["usage"] = {**(have if isinstance(have, dict) else {}), **event["usage"]}
        elif kind == "error":
            error = event.get("error")
    message["content"] = [_finished(blocks[place]) for place in sorted(blocks)]
    if error is not None:
        if not blocks and "id" not in message:
            return {"type": "error", "error": error}
        message["error"] = error
    return message


def _continue(block: dict[str, Any], delta: dict[str, Any]) -> None:
    kind = delta.get("type")
    name = _JOINED.get(kind) if isinstance(kind, str) else None
    if name == "input":
        piece = delta.get("partial_json")
        if isinstance(piece, str):
            begun = block.get("input")
            block["input"] = (begun if isinstance(begun, str) else "") + piece
    elif name is not None:
        block.setdefault("type", name)
        have, piece = block.get(name), delta.get(name)
        if isinstance(piece, str):
            block[name] = (have if isinstance(have, str) else "") + piece
    elif kind == "citations_delta":
        have = block.get("citations")
        block["citations"] = [*(have if isinstance(have, list) else []), delta.get("citation")]
    else:
        block |= {name: value for name, value in delta.items() if name != "type"}


def _finished(block: dict[str, Any]) -> dict[str, Any]:
    given = block.get("input")
    if isinstance(given, str):
        value = parse(given) if given.strip() else {}
        if value is not NOT_JSON:
            block["input"] = value
    return block


def _place(event: dict[str, Any]) -> int:
    index = event.get("index")
    return index if isinstance(index, int) else 0


def _written(value: Any) -> str:
    return value if isinstance(value, str) else write(value)
